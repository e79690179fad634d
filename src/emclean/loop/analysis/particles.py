"""Particles with clean labels, to train and to test classifiers: the user's own, or simulated ones.

Simulated particles are found in simulated micrographs just as real ones are in real micrographs, by the same
segmentation and turned by the same code; the simulator's truth labels them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emclean.errors import DataError
from emclean.imaging import pose, segmentation, simulate
from emclean.imaging.windows import plan
from emclean.types import Bools, Ints

LEFT, RIGHT, UNUSABLE = 0, 1, 2
NAMES = ("left", "right", "unusable")
"""What a clean label says of a particle; the place in the list is its number."""

CHOSEN = "chosen-"
"""What the file name of a cut-out begins with that was not drawn at random: its label only trains."""

EXPERT = "expert"
"""The ``source`` of a label that counts as clean, where a label file tells who said it."""

SIMULATED = "simulated micrographs"
"""What :attr:`Particles.source` says of simulated ones."""

VERSION = 2
"""Goes up when the same particles would be simulated differently."""

PATIENCE = 5
"""After so many simulated micrographs with fewer particles than micrographs the search is given up."""

FIELD = 1024
"""Side in px of the simulated micrographs that particles are taken from."""


@dataclass(frozen=True, eq=False)
class Particles:
    """Cut-outs ``pictures [N,S,S]`` uint8 with clean ``labels [N]`` (:data:`NAMES`), ``groups [N]``.

    ``source`` says in words where they are from; ``foreign`` ones are of another kind of picture than those
    that are analysed, so that mistakes made on them say nothing of the mistakes made there. ``drawn [N]``
    are a random sample, and the others may only train; None: all are.
    """

    pictures: NDArray[np.uint8]
    labels: Ints
    groups: Ints
    source: str
    foreign: bool = False
    drawn: Bools | None = None

    @property
    def random(self) -> Ints:
        """The positions of those that may count mistakes."""
        everyone: Ints = np.arange(len(self.labels), dtype=np.int64)
        return everyone if self.drawn is None else everyone[self.drawn]


class InMemory:
    """A picture in memory, read like one on disk."""

    def __init__(self, pixels: NDArray[np.uint8], pixel_size_nm: float | None = None) -> None:
        self.pixels, self.pixel_size_nm = pixels, pixel_size_nm
        self.shape: tuple[int, int] = (pixels.shape[0], pixels.shape[1])

    def read(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """The pixels of a part."""
        return self.pixels[rows, cols]


def simulated(
    n: int,
    seed: int,
    settings: segmentation.Settings,
    maps_of: segmentation.MapsOf | None = None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> Particles:
    """``n`` particles of simulated practical micrographs, half of them left-handed.

    They are found as those of the micrographs to be analysed are: with ``settings``, or by ``maps_of``. Those
    of one micrograph are a group: they share its microscope.
    """
    pictures: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    groups: list[int] = []
    number = 0
    recipe = simulate.Recipe(left=0.5, usable=0.7)
    while len(pictures) < n:
        made = simulate.scene((seed, 77, number), (FIELD, FIELD), recipe)
        for picture, label in found_in(made, settings, maps_of):
            pictures.append(picture)
            labels.append(label)
            groups.append(number)
        number += 1
        progress(min(len(pictures), n), n)
        if number >= PATIENCE and len(pictures) < number:
            what = f"segmentation found {len(pictures)} particles in {number} simulated micrographs."
            raise DataError(
                what, "segmentation", "Set its keys so that it finds particles, or give data.labels."
            )
    of, scenes = (np.array(column[:n], np.int64) for column in (labels, groups))
    return Particles(np.stack(pictures[:n]), of, scenes, SIMULATED)


def found_in(
    made: simulate.Scene, settings: segmentation.Settings, maps_of: segmentation.MapsOf | None = None
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """The cut-outs that are found in a simulated micrograph, each with the label of what lies there."""
    pixels, ids = made.whole()
    pixels = pixels if settings.bright else 255 - pixels
    source = InMemory(pixels)
    levels = segmentation.measure(source, settings, maps_of)
    window = plan(source.shape, max(source.shape), levels.margin)[0]
    grey = segmentation.stretched(pixels, levels, settings.bright)
    for one in segmentation.segment(grey, levels, settings, window, source.shape, maps_of):
        y1, x1, y2, x2 = one.box
        below = np.bincount(ids[y1:y2, x1:x2][one.mask])
        best = int(below.argmax())
        if one.reason or not best or below[best] < 0.7 * one.area:
            continue
        particle = made.particles[best - 1]
        label = (LEFT if particle.place.hand == "left" else RIGHT) if particle.usable else UNUSABLE
        yield pose.cutout(grey[y1:y2, x1:x2], one.mask), label
