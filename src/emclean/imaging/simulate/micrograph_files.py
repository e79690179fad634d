"""Simulated micrographs on disk: tiled TIFF written strip by strip, and their truth as CSV."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from emclean.imaging.simulate.canvas import Size
from emclean.imaging.simulate.micrographs import Recipe, Scene, scene, truth_rows

TILE = 256
"""Side of a tile of the written files, in px."""

BIG = 3_500_000_000
"""Bytes of pixels from which on a file needs 64-bit offsets (BigTIFF)."""


@dataclass(frozen=True)
class WrittenMicrographs:
    """Where micrographs lie: ``images/<sample>/*.tif``, instance maps alike below ``maps``, ``truth.csv``."""

    images: Path
    maps: Path
    truth: Path


def write_micrographs(
    folder: Path,
    n: int,
    size: int = 1024,
    seed: int = 0,
    recipe: Recipe | None = None,
    lefts: Sequence[float] = (0.3,),
) -> WrittenMicrographs:
    """Write ``n`` micrographs of ``size`` px a side for each share in ``lefts``: each is a sample of its own.

    ``truth.csv`` has a row for each particle; ``id`` is its value in the instance map.
    """
    written = WrittenMicrographs(folder / "images", folder / "maps", folder / "truth.csv")
    rows: list[dict[str, Any]] = []
    for number, left in enumerate(lefts):
        sample = f"sample-{number:02d}"
        for i in range(n):
            made = scene((seed, number, i), (size, size), replace(recipe or Recipe(), left=left))
            name = f"{sample}-{i:03d}.tif"
            truth = write_scene(made, written.images / sample / name, written.maps / sample / name)
            rows += [{"image": f"{sample}/{name}", "sample": sample, **row} for row in truth]
    with written.truth.open("w", newline="", encoding="utf-8") as file:
        names = list(rows[0]) if rows else ["image", "sample", "id"]
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    return written


def write_scene(made: Scene, pixels: Path, ids: Path | None = None) -> list[dict[str, Any]]:
    """Write the pixels of a scene, and its instance map where wanted; return its truth, row by row."""
    _write(pixels, made.size, np.uint8, made.recipe.nm_per_px, (part for part, _ in made.strips()))
    covered = np.zeros(len(made.particles) + 1, np.int64)
    maps = _counted((part for _, part in made.strips()), covered)
    if ids is None:
        for _ in maps:
            pass
    else:
        _write(ids, made.size, np.uint32, made.recipe.nm_per_px, maps)
    return truth_rows(made, covered)


def _counted(
    strips: Iterator[NDArray[np.uint32]], covered: NDArray[np.int64]
) -> Iterator[NDArray[np.uint32]]:
    """The strips as they come, while the px of every id are counted."""
    for strip in strips:
        covered += np.bincount(strip.ravel(), minlength=len(covered))
        yield strip


def _write(
    file: Path, size: Size, dtype: type[np.generic], nm: float, strips: Iterator[NDArray[Any]]
) -> None:
    """A tiled TIFF with its pixel size, from strips of whole rows of tiles."""
    file.parent.mkdir(parents=True, exist_ok=True)
    per_cm = 1e7 / nm
    tifffile.imwrite(
        file,
        _tiles(strips),
        shape=size,
        dtype=dtype,
        tile=(TILE, TILE),
        compression="zlib" if dtype is np.uint32 else None,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        photometric="minisblack",
        metadata=None,
        bigtiff=size[0] * size[1] * np.dtype(dtype).itemsize > BIG,
    )


def _tiles(strips: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Tiles in their order, those at the edges filled up with zeros."""
    for strip in strips:
        for top in range(0, len(strip), TILE):
            for left in range(0, strip.shape[1], TILE):
                part = strip[top : top + TILE, left : left + TILE]
                missing = ((0, TILE - part.shape[0]), (0, TILE - part.shape[1]))
                yield np.pad(part, missing) if part.shape != (TILE, TILE) else np.ascontiguousarray(part)
