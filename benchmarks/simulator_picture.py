"""Draw docs/simulator.png: simulated fields with their boxes on the left, a real capillary wall on the right.

    EMCLEAN_DATA=DIR python benchmarks/simulator_picture.py

The real picture is A1--0024.jpg of danielsnider/TEM-glomerular-basement-segmentation (MIT), read from
$EMCLEAN_DATA/glomerulus and scaled to the simulator's 8 nm a pixel.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from emclean.imaging import readers, simulate

REAL = "glomerulus/A1--0024.jpg"
REDUCTION = 2.6
"""The real picture's pixels are about 3.2 nm wide (its 2 µm bar is 615 px long)."""
SIDE, GAP = 256, 6
GREYS = 64
"""Grey levels of the picture, to keep the file small; the next palette entry is the boxes' red."""
CROPS = ((210, 10), (1050, 450), (40, 0), (860, 350))
"""Left and top of the shown parts of the reduced real picture."""


def main() -> None:
    """Parse, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/simulator.png"))
    parser.add_argument("--seed", type=int, default=16)
    options = parser.parse_args()
    folder = os.environ.get("EMCLEAN_DATA")
    if not folder:
        parser.error("EMCLEAN_DATA is not set: name the folder with glomerulus")
    sheet = np.full((2 * SIDE + GAP, 4 * SIDE + 5 * GAP), GREYS - 1, np.uint8)
    for i, tile in enumerate([*simulated(options.seed), *real(Path(folder) / REAL)]):
        half, place = divmod(i, 4)
        left = (place % 2) * (SIDE + GAP) + half * (2 * SIDE + 4 * GAP)
        top = (place // 2) * (SIDE + GAP)
        sheet[top : top + SIDE, left : left + SIDE] = tile
    picture = Image.fromarray(sheet)
    picture.putpalette(
        [level for grey in range(GREYS) for level in [grey * 255 // (GREYS - 1)] * 3] + [235, 50, 35]
    )
    picture.save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB")


def simulated(seed: int) -> list[NDArray[np.uint8]]:
    """Four fields as palette entries, their boxes in red."""
    return [_drawn(simulate.field(np.random.default_rng([seed, i]))) for i in range(4)]


def _drawn(field: simulate.Field) -> NDArray[np.uint8]:
    tile = Image.fromarray(field.pixels // (256 // GREYS))
    pen = ImageDraw.Draw(tile)
    for x1, y1, x2, y2 in field.labels.boxes:
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=GREYS)
    return np.asarray(tile)


def real(path: Path) -> list[NDArray[np.uint8]]:
    """Four parts of the real picture at the simulator's scale, as palette entries."""
    grey = Image.fromarray(readers.to_grey8(readers.read(str(path)).pixels))
    small = grey.resize((int(grey.width / REDUCTION), int(grey.height / REDUCTION)), Image.Resampling.LANCZOS)
    parts = [np.asarray(small.crop((x, y, x + SIDE, y + SIDE))) for x, y in CROPS]
    return [part // (256 // GREYS) for part in parts]


if __name__ == "__main__":
    main()
