"""What recurs at one place of many pictures with no label there: dust on the camera, a scale bar, a burn.

To a detector such a thing looks like an object, in one picture after the other, and models that did not learn
from the picture agree on it. One picture cannot tell it from an object that the crowd overlooked; the pool
can: specimens are placed at random, so that an overlooked object has labelled ones at its place in other
pictures as often as any, and what belongs to the camera has none. Where the same object stays at its place,
as in a series of sections, others will have labelled it, and nothing is said against it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from emclean.boxes import area, centre, iou
from emclean.science.grading.evidence import Evidence
from emclean.types import Bools, Floats, Ints

Key = TypeVar("Key")

_FEWEST = 5
"""Pictures of one size below which their places are not compared."""
_PRIOR = 0.01
"""How probable it is, before anything is compared, that a place shows what belongs to the camera."""
_OBJECTS = 0.1
"""The share of objects among the predictions at such a place: specimens come to lie there, too."""
_CELLS = 3.0
"""Cells per typical side of a category's predictions: a place is the three by three cells around a centre."""


class _Found(NamedTuple):
    """The confident predictions (N) of pictures of one size."""

    image: Ints
    row: Ints  # among the picture's predictions
    category: Ints
    centre: Floats  # [N,2]
    side: Floats
    labelled: Bools


def with_places(evidence: Mapping[Key, Evidence]) -> dict[Key, Evidence]:
    """A pool's evidence with what other pictures of the same size show at the place of each prediction.

    Unchanged where no size is shared by at least ``_FEWEST`` pictures: there are no places to compare.
    """
    sizes: dict[tuple[float, float], list[Key]] = {}
    for key, one in evidence.items():
        sizes.setdefault((one.width, one.height), []).append(key)
    shared = [keys for keys in sizes.values() if len(keys) >= _FEWEST]
    if not shared:
        return dict(evidence)
    known = {key: np.zeros(len(one.reference)) for key, one in evidence.items()}
    for keys in shared:
        found = _found([evidence[key] for key in keys])
        values = _no_object(found)
        starts = np.searchsorted(found.image, np.arange(len(keys) + 1))  # picture after picture
        for key, mine in zip(keys, map(slice, starts[:-1], starts[1:]), strict=True):
            known[key][found.row[mine]] = values[mine]
    return {key: replace(one, places=known[key]) for key, one in evidence.items()}


def _found(evidences: list[Evidence]) -> _Found:
    parts = []
    for image, one in enumerate(evidences):
        row = one.confident_rows
        sure = one.reference.take(row)
        labelled = iou(sure.boxes, one.labels.boxes).max(axis=1, initial=0.0) >= 0.5
        place = centre(sure.boxes), np.sqrt(area(sure.boxes))
        parts.append(_Found(np.full(len(row), image), row, sure.categories, *place, labelled))
    return _Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _no_object(found: _Found) -> Floats:
    """The probability ``[N]`` that what is predicted at each one's place in other pictures is no object.

    By Bayes' rule from how many predictions of other pictures there are and how many of them have a label:
    binomial with the usual share of the category, or with a tenth of it.
    """
    values = np.zeros(len(found.image))
    for category in np.unique(found.category):  # few
        mine = found.category == category
        labelled = found.labelled[mine]
        usual = (labelled.sum() + 1) / (len(labelled) + 2)
        cells = np.floor(found.centre[mine] * _CELLS / np.median(found.side[mine])).astype(np.int64)
        seen, with_label = _of_others(cells, found.image[mine], labelled)
        few = _OBJECTS * usual
        against = with_label * np.log(few / usual) + (seen - with_label) * np.log((1 - few) / (1 - usual))
        values[mine] = 1 / (1 + np.exp(np.clip(np.log(1 / _PRIOR - 1) - against, -50, 50)))
    return values


def _of_others(cells: Ints, image: Ints, labelled: Bools) -> tuple[Floats, Floats]:
    """How many predictions of other pictures lie around the cell ``[N,2]`` of each, how many with a label."""
    cells = cells - cells.min(axis=0, initial=0)  # a centre may lie outside of the picture
    span = int(cells.max(initial=0)) + 3  # neighbours never run over into the next row
    place = (cells[:, 1] + 1) * span + cells[:, 0] + 1
    own = image * span * span + place  # a place within its picture
    each = np.ones(len(place))
    seen = np.asarray(_around(place, span, each) - _around(own, span, each))
    return seen, np.asarray(_around(place, span, labelled) - _around(own, span, labelled))


def _around(place: Ints, span: int, counted: Floats | Bools) -> Floats:
    """The sum of what is ``counted`` [N] over the three by three cells around each place ``[N]``."""
    cells, row = np.unique(place, return_inverse=True)
    total = np.append(np.bincount(row, counted, minlength=len(cells)), 0.0)
    around = np.zeros(len(place))
    for step in (y * span + x for y in (-1, 0, 1) for x in (-1, 0, 1)):
        at = np.searchsorted(cells, place + step)
        there = cells[np.minimum(at, len(cells) - 1)] == place + step if len(cells) else np.zeros(0, np.bool_)
        around += total[np.where(there, at, len(cells))]
    return around
