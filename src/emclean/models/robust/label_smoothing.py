"""Label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7; on noisy labels Lukasik et al. 2020)."""

from torch import Tensor
from torch.nn import functional

from emclean.models.robust.base import Batch, Method, Run, logits_of, settings


class LabelSmoothing(Method):
    """Cross-entropy to (1 - s) of the given label and s spread evenly over all classes; s = ``smoothing``."""

    name = "label_smoothing"
    options = settings(smoothing=0.2)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Cross-entropy to the smoothed label."""
        logits = logits_of(run.networks[0], batch.images)
        return functional.cross_entropy(logits, batch.labels, label_smoothing=run.options["smoothing"])
