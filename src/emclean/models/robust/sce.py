"""Symmetric cross-entropy (Wang et al. 2019, arXiv 1908.06112, equations 5 to 7)."""

from torch import Tensor
from torch.nn import functional

from emclean.models.robust.base import Batch, Method, Run, logits_of, settings

_LOG_ZERO = -4.0  # what stands for log 0 in the reverse term, as in the paper


class SymmetricCrossEntropy(Method):
    """``alpha`` CE + ``beta`` RCE.

    RCE, cross-entropy with prediction and label exchanged, comes to 4 (1 - p) for the given label's
    probability p when log 0 is put at -4: it is bounded, and so tolerates errors.
    """

    name = "sce"
    options = settings(alpha=0.1, beta=1.0)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """The weighted sum."""
        logits = logits_of(run.networks[0], batch.images)
        given = logits.softmax(1).gather(1, batch.labels[:, None])
        reverse = -_LOG_ZERO * (1 - given).mean()
        straight = functional.cross_entropy(logits, batch.labels)
        return run.options["alpha"] * straight + run.options["beta"] * reverse
