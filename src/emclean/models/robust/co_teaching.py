"""Co-teaching (Han et al. 2018, arXiv 1804.06872, algorithm 1)."""

from torch import Tensor
from torch.nn import functional

from emclean.models.robust.base import Batch, Method, Run, logits_of, mean_over, settings
from emclean.models.robust.small_loss import RAMP_EPOCHS, RAMP_SHARE, kept_share, note, smallest


class CoTeaching(Method):
    """Two networks; each picks the share R(T) of smallest loss, and its PEER learns from those.

    Both answer together: the mean of their probabilities.
    """

    name = "co_teaching"
    networks = 2
    needs_rate = True
    options = settings(ramp_epochs=RAMP_EPOCHS, ramp_share=RAMP_SHARE)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Sum of both networks' mean losses on what the other picked."""
        logits = [logits_of(network, batch.images) for network in run.networks]
        losses = [functional.cross_entropy(some, batch.labels, reduction="none") for some in logits]
        picks = [self.pick(run, batch, some, logits) for some in losses]
        note(run, batch.index, *picks)
        return mean_over(losses[0], picks[1]) + mean_over(losses[1], picks[0])

    def pick(self, run: Run, batch: Batch, losses: Tensor, logits: list[Tensor]) -> Tensor:
        """Mask ``[B]`` of what one network, of these ``losses [B]``, hands to its peer."""
        return smallest(losses, kept_share(run), batch.trusted)

    def kept(self, run: Run) -> Tensor | None:
        """Share of the networks that picked a picture when it was last seen."""
        return run.memory["kept"]
