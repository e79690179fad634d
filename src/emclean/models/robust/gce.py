"""Generalised cross-entropy (Zhang and Sabuncu 2018, arXiv 1805.07836, equation 6)."""

from torch import Tensor

from emclean.models.robust.base import Batch, Method, Run, logits_of, settings


class GeneralisedCrossEntropy(Method):
    """(1 - p^q) / q of the given label's probability p.

    Between cross-entropy (q to 0) and the mean absolute error (q = 1), which no even error can mislead but
    which learns slowly. The truncated variant of the paper is left out.
    """

    name = "gce"
    options = settings(q=0.7)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Mean of (1 - p^q) / q."""
        q = run.options["q"]
        logs = logits_of(run.networks[0], batch.images).log_softmax(1).gather(1, batch.labels[:, None])
        return (-(q * logs).expm1() / q).mean()
