"""Out-of-sample probabilities of all training pictures, by cross-fitting over folds of groups."""

from torch import Tensor

from emclean.models.classifiers.spec import ClassRecipe
from emclean.models.robust.base import Method, Options, Run, Stage

FOLDS = 2


class CrossFit(Method):
    """Per fold, a network is trained on the pictures outside of it and predicts those inside.

    A picture and its mirror image, and all pictures of a group, are in the same fold. The weights best on the
    validation part are kept; each fold takes half of the recipe's steps, so that all folds together cost one
    training.
    """

    name = "crossfit"

    def stages(self, recipe: ClassRecipe, options: Options) -> list[Stage]:
        """One stage per fold."""
        steps = max(1, round(recipe.steps / FOLDS))
        return [Stage(f"fold {number}", steps) for number in range(FOLDS)]

    def keep(self, recipe: ClassRecipe) -> str:
        """The best weights."""
        return "best"

    def chosen(self, run: Run, stage: Stage) -> Tensor:
        """All pictures outside of the stage's fold."""
        return ~run.fold(_number(stage))

    def end(self, run: Run, stage: Stage) -> None:
        """Predict the fold."""
        inside = run.fold(_number(stage)).nonzero()[:, 0]
        if "probabilities" not in run.memory:
            run.memory["probabilities"] = run.labels.new_zeros((len(run.labels), run.n_classes)).double()
        run.memory["probabilities"][inside] = run.predict(inside).double()


def _number(stage: Stage) -> int:
    return int(stage.name.split()[-1])
