"""Co-teaching+ (Yu et al. 2019, arXiv 1901.04215, algorithm 1)."""

import torch
from torch import Tensor

from emclean.models.robust.base import Batch, Run, settings
from emclean.models.robust.co_teaching import CoTeaching
from emclean.models.robust.small_loss import RAMP_EPOCHS, RAMP_SHARE, kept_share, smallest


class CoTeachingPlus(CoTeaching):
    """Co-teaching among the pictures that the networks disagree about, which keeps the two apart.

    For the share ``warm`` of the training, and where they agree on the whole batch, all pictures compete.
    """

    name = "co_teaching_plus"
    options = settings(ramp_epochs=RAMP_EPOCHS, ramp_share=RAMP_SHARE, warm=0.3)

    def pick(self, run: Run, batch: Batch, losses: Tensor, logits: list[Tensor]) -> Tensor:
        """The smallest losses among the pictures in dispute."""
        disputed = logits[0].argmax(1) != logits[1].argmax(1)
        if run.done < run.options["warm"] or not bool(disputed.any()):
            return super().pick(run, batch, losses, logits)
        places = disputed.nonzero()[:, 0]
        mask = torch.zeros_like(disputed)
        mask[places] = smallest(losses[places], kept_share(run), batch.trusted[places])
        return mask
