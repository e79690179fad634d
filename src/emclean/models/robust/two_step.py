"""Two-step training: first on a few labels that are right, then on all (Groschner et al. 2022)."""

from torch import Tensor

from emclean.models.classifiers.spec import ClassRecipe
from emclean.models.robust.base import Method, Options, Run, Stage, settings


class TwoStep(Method):
    """Plain cross-entropy, on trusted labels for a ``share`` of the steps, then on all labels.

    ``first``, where it is not 0, is the number of steps on trusted labels instead.
    The second step goes on from the first one's weights, at ``second_lr`` times the learning rate.
    """

    name = "two_step"
    needs_trusted = True
    options = settings(share=0.25, second_lr=1.0, first=0)

    def stages(self, recipe: ClassRecipe, options: Options) -> list[Stage]:
        """The few, then all."""
        wanted = round(options["first"] or options["share"] * recipe.steps)
        first = max(1, min(recipe.steps - 1, wanted))
        rest = max(1, recipe.steps - first)
        return [Stage("trusted", first), Stage("noisy", rest, fresh=False, lr=options["second_lr"])]

    def chosen(self, run: Run, stage: Stage) -> Tensor:
        """The trusted, or all."""
        return run.trusted if stage.name == "trusted" else super().chosen(run, stage)
