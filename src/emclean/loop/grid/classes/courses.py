"""Network, training and settings of each method of a grid: those of the preset, save where keys say else."""

from dataclasses import replace
from typing import Any

from emclean.config import ClassGrid
from emclean.models.classifiers.spec import ClassRecipe
from emclean.models.robust.presets import Preset, preset

RECIPE_KEYS = ("batch", "trusted_share", "rotate", "zoom", "shift", "half_turns", "flip")
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
    """The preset's recipe with the given values; ``steps`` and ``lr`` are those of plain training, and every
    other method keeps its preset's ratio to these."""
    wanted, own = config.classifier, found.recipe
    plain = preset(config.preset, "cross_entropy").recipe
    given: dict[str, Any] = {name: getattr(wanted, name) for name in RECIPE_KEYS}
    if wanted.lr is not None:
        given["lr"] = wanted.lr * own.lr / plain.lr
    steps = max(1, round(wanted.steps * own.steps / plain.steps)) if wanted.steps else own.steps
    given["steps"] = steps
    every = wanted.eval_every or max(1, round(own.eval_every * steps / own.steps))
    known = {name: value for name, value in given.items() if value is not None}
    return replace(own, **known, eval_every=min(every, steps))
