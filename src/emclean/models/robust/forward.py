"""Forward correction (Patrini et al. 2017, arXiv 1609.03683, theorem 2)."""

from torch import Tensor
from torch.nn import functional

from emclean.models.robust.base import Batch, Method, Run, logits_of

_TINY = 1e-7


class ForwardCorrection(Method):
    """-log of the probability of the GIVEN label, which is p(true) T for the transition T of labels.

    T is spread evenly from a rate that is given, or estimated from out-of-sample predictions. Trusted labels
    are taken as they are.
    """

    name = "forward"
    needs_rate = True

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Cross-entropy of the given labels with the prediction passed through the transition."""
        true = logits_of(run.networks[0], batch.images).softmax(1)
        given = true.where(batch.trusted[:, None], true @ run.transition)  # [B,K]
        return functional.nll_loss(given.clamp(min=_TINY).log(), batch.labels)
