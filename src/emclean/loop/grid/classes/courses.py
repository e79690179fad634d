"""Network and training of each method: one for all (``fair``), or as published (``faithful``)."""

from emclean.config import ClassGrid
from emclean.loop.grid.classes.bench import Course
from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe


def course(config: ClassGrid, method: str, n_classes: int) -> Course:
    """The course of a method."""
    channels = 3 if config.data.colour else 1
    return _fair(config, n_classes, channels)


def _fair(config: ClassGrid, n_classes: int, channels: int) -> Course:
    wanted = config.classifier
    return Course(
        ClassifierSpec(wanted.family, n_classes, wanted.size, channels, wanted.mirror_head),
        ClassRecipe(
            steps=wanted.steps,
            batch=wanted.batch,
            lr=wanted.lr,
            rotate=wanted.rotate,
            zoom=wanted.zoom,
            half_turns=wanted.half_turns,
            flip=wanted.flip,
            shift=wanted.shift,
            eval_every=min(wanted.eval_every, wanted.steps),
        ),
    )
