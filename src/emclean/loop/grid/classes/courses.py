"""Network, training and settings of each method of a grid: those of the preset, save where keys say else."""

from dataclasses import replace
from typing import Any

from emclean.config import ClassGrid
from emclean.models.classifiers.spec import ClassRecipe
from emclean.models.robust.presets import Preset, preset

RECIPE_KEYS = ("steps", "batch", "trusted_share", "rotate", "zoom", "shift", "half_turns", "flip")
"""The keys of ``classifier`` that take the place of the recipe's values as they are."""


def course(config: ClassGrid, method: str, n_classes: int) -> Preset:
    """What a method is trained with in every cell."""
    wanted, found = config.classifier, preset(config.preset, method)
    given = {name: getattr(wanted, name) for name in ("family", "size")}
    spec = replace(
        found.spec,
        n_classes=n_classes,
        channels=3 if config.data.colour else 1,
        mirror=wanted.mirror_head,
        **{name: value for name, value in given.items() if value is not None},
    )
    return replace(found, spec=spec, recipe=_recipe(config, found))


def _recipe(config: ClassGrid, found: Preset) -> ClassRecipe:
    """The preset's recipe with the given values; a control keeps its learning rate's ratio to the others'."""
    wanted, own = config.classifier, found.recipe
    given: dict[str, Any] = {name: getattr(wanted, name) for name in RECIPE_KEYS}
    if wanted.lr is not None:
        given["lr"] = wanted.lr * own.lr / preset(config.preset, "cross_entropy").recipe.lr
    steps = wanted.steps or own.steps
    every = wanted.eval_every or max(1, round(own.eval_every * steps / own.steps))
    known = {name: value for name, value in given.items() if value is not None}
    return replace(own, **known, eval_every=min(every, steps))
