"""Confident learning (Northcutt et al. 2021): what is probably wrong is left out, then one trains."""

from torch import Tensor

from emclean.models.robust.base import Method, Run, Stage


class Confident(Method):
    """Plain cross-entropy on the labels that the judge does not hold for wrong.

    The judge sees out-of-sample probabilities, given or from a cross-fit. Weights start afresh.
    """

    name = "confident"
    needs_suspects = True

    def begin(self, run: Run, stage: Stage) -> None:
        """Ask the judge once."""
        run.memory["suspects"] = run.suspects()

    def chosen(self, run: Run, stage: Stage) -> Tensor:
        """All but the suspects."""
        return ~run.memory["suspects"]

    def kept(self, run: Run) -> Tensor | None:
        """1 where the label was trained on."""
        return (~run.memory["suspects"]).float()
