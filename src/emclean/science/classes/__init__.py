"""Label error of classes: planting it, estimating it, finding it, and what several labellers say."""

from emclean.science.classes.estimate import ConfidentJudge, RateEstimate, errors, estimate
from emclean.science.classes.noise import plant
from emclean.science.classes.votes import agreement, consensus

__all__ = ["ConfidentJudge", "RateEstimate", "agreement", "consensus", "errors", "estimate", "plant"]
