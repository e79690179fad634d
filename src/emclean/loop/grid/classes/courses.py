"""Network and training of each method: one for all (``fair``), or after the source (``faithful``)."""

from emclean.config import ClassGrid
from emclean.loop.grid.classes.bench import Course
from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe

SOURCE_SIZE = 128
"""The side in pixels of the source's pictures (Groschner et al. 2022)."""

SOURCE_LR = 1e-3
"""Ours: in the source the learning rates of the methods differ a thousandfold."""


def course(config: ClassGrid, n_classes: int) -> Course:
    """The course of every method of the grid."""
    channels = 3 if config.data.colour else 1
    make = _faithful if config.preset == "faithful" else _fair
    return make(config, n_classes, channels)


def _fair(config: ClassGrid, n_classes: int, channels: int) -> Course:
    """One network, optimiser and budget for all."""
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


def _faithful(config: ClassGrid, n_classes: int, channels: int) -> Course:
    """The source's network and variation (5 degrees, zoom 0.7 to 1.3, half turns); the last weights."""
    wanted = config.classifier
    size = wanted.size if "size" in wanted.model_fields_set else SOURCE_SIZE
    return Course(
        ClassifierSpec("basic", n_classes, size, channels),
        ClassRecipe(
            steps=wanted.steps,
            batch=wanted.batch,
            lr=SOURCE_LR,
            weight_decay=0.0,
            schedule="constant",
            eval_every=min(wanted.eval_every, wanted.steps),
            keep="last",
        ),
    )
