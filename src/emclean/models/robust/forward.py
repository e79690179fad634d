"""Forward correction (Patrini et al. 2017, arXiv 1609.03683, theorem 2)."""

import torch
from torch import Tensor
from torch.nn import functional

from emclean.models.robust.base import Batch, Method, Run, logits_of

_TINY = 1e-7
_LEAD = 0.1


class ForwardCorrection(Method):
    """-log of the probability of the GIVEN label, which is p(true) T for the transition T of labels.

    T is spread evenly from a rate that is given, or estimated from out-of-sample predictions. Trusted labels
    are taken as they are. Ours: a T by which another class's label were nearly as likely as the right one is
    drawn towards no error, as it would turn an estimate's slip into classes exchanged.
    """

    name = "forward"
    needs_rate = True

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Cross-entropy of the given labels with the prediction passed through the transition."""
        true = logits_of(run.networks[0], batch.images).softmax(1)
        given = true.where(batch.trusted[:, None], true @ told_apart(run.transition))  # [B,K]
        return functional.nll_loss(given.clamp(min=_TINY).log(), batch.labels)


def told_apart(transition: Tensor) -> Tensor:
    """The transition ``[K,K]``, mixed with the identity until each right label leads by at least 0.1."""
    right = transition.diagonal()
    others = transition - torch.diag(right)
    lead = float((right - others.max(1).values).min())
    if lead >= _LEAD:
        return transition
    share = (_LEAD - lead) / (1 - lead)
    return (1 - share) * transition + share * torch.eye(len(right), device=transition.device)
