"""Several annotators of the same images: consensus boxes, reliability and bias of each, agreement."""

from emclean.science.annotators.agreement import Agreement, agreement, krippendorff_alpha
from emclean.science.annotators.estimate import Annotator, Estimate, estimate, measured
from emclean.science.annotators.model import Priors

__all__ = [
    "Agreement",
    "Annotator",
    "Estimate",
    "Priors",
    "agreement",
    "estimate",
    "krippendorff_alpha",
    "measured",
]
