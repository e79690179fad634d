"""TEM fields of a glomerular capillary wall with electron dense deposits, at about 8 nm a pixel."""

import numpy as np

from emclean.imaging.simulate import deposits, organelles, tissue
from emclean.imaging.simulate.canvas import Field, Size, expose
from emclean.imaging.simulate.membrane import grow
from emclean.types import Labels


def field(rng: np.random.Generator, size: Size = (256, 256), difficulty: float = 0.5) -> Field:
    """One field ``(height, width)``; ``difficulty`` 0 to 1 adds faint deposits and look-alikes.

    Holds 0 to 12 deposits, about 4 on average; boxes are exact at half of each deposit's density.
    """
    line = grow(rng, size)
    grain = tissue.Grain.draw(rng, size)
    plane, cells = tissue.build(rng, size, line, grain)
    organelles.scatter(rng, plane, cells, difficulty)
    organelles.smudges(rng, plane, line, difficulty)
    if rng.random() < 0.15:
        organelles.fibres(rng, plane)
    found = deposits.place(rng, plane, line, grain, difficulty)
    if rng.random() < 0.25:
        organelles.dirt(rng, plane)
    if rng.random() < 0.06:
        organelles.wrinkle(rng, plane)
    return Field(expose(rng, plane), Labels(found, np.zeros(len(found), np.int64)))
