"""JoCoR (Wei et al. 2020, arXiv 2003.02752, equations 1 to 4)."""

import torch
from torch import Tensor
from torch.nn import functional

from emclean.models.robust.base import Batch, Method, Run, logits_of, mean_over, settings
from emclean.models.robust.small_loss import RAMP_EPOCHS, RAMP_SHARE, kept_share, note, smallest


class JoCoR(Method):
    """Two networks with one loss, which also asks them to agree; both learn from its smallest values.

    Per picture (1 - ``agree``) (CE1 + CE2) + ``agree`` (KL(p1||p2) + KL(p2||p1)). Both answer together.
    """

    name = "jocor"
    networks = 2
    needs_rate = True
    options = settings(ramp_epochs=RAMP_EPOCHS, ramp_share=RAMP_SHARE, agree=0.5)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Mean of the joint loss over the pictures where it is smallest."""
        logs = [logits_of(network, batch.images).log_softmax(1) for network in run.networks]
        given = torch.stack([functional.nll_loss(some, batch.labels, reduction="none") for some in logs]).sum(
            0
        )
        apart = ((logs[0].exp() - logs[1].exp()) * (logs[0] - logs[1])).sum(1)  # both divergences at once
        joint = (1 - run.options["agree"]) * given + run.options["agree"] * apart
        picked = smallest(joint, kept_share(run), batch.trusted)
        note(run, batch.index, picked)
        return mean_over(joint, picked)

    def kept(self, run: Run) -> Tensor | None:
        """Whether a picture was picked when it was last seen."""
        return run.memory["kept"]
