"""How well particles are found: instance AP50 and count error on simulated micrographs, and on EMPS.

    EMCLEAN_DATA=DIR python -m benchmarks.segmentation --cache workspace/segmentation --steps 800

AP50 is COCO's for masks, with an object's solidity as its score (threshold and watershed give none). EMPS are
pictures of many kinds of particles from articles: dark or bright is told to the threshold, nothing else. With
``--steps`` two U-Nets are trained and kept in ``--cache``: one on simulated micrographs of other seeds, as an
analysis trains its own, and one on EMPS' training pictures; each is measured on pictures that it never saw.
Without ``EMCLEAN_DATA`` there are the simulated micrographs alone.
"""

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from emclean.imaging import readers, simulate
from emclean.imaging.segmentation import Instance, MapsOf, Settings, measure, segment, stretched
from emclean.imaging.windows import plan
from emclean.loop.analysis.particles import InMemory
from emclean.models.segmenters import engine, training
from emclean.models.segmenters.spec import SegmentJob, SegmentSchedule

Pair = tuple[NDArray[np.uint8], NDArray[np.uint32]]
SCENES, FIELD = 8, 768
"""Simulated micrographs that a U-Net is trained on, and their side in px: as many as in an analysis."""

LEAST = 150
"""Px of a particle that counts: what is cut off by the border to less is not asked for."""


def main() -> None:
    """Parse, find, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--micrographs", type=int, default=12, help="of each population")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--pictures", type=int, default=0, help="of EMPS' validation part; 0: all")
    parser.add_argument("--steps", type=int, default=0, help="of the U-Nets; 0: none")
    parser.add_argument("--cache", type=Path, default=Path("workspace/segmentation"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("pictures               method        particles  found  AP50   count error")
    on_simulated(options)
    if "EMCLEAN_DATA" in os.environ:
        on_emps(Path(os.environ["EMCLEAN_DATA"]) / "emps", options)


def on_simulated(options: argparse.Namespace) -> None:
    """The lines of the simulated micrographs."""
    network = None
    if options.steps:
        recipe = simulate.Recipe(touching=0.4, left=0.5)
        scenes = (simulate.scene((0, 88, i), (FIELD, FIELD), recipe).whole() for i in range(SCENES))
        network = engine.Finder(engine.load(trained(scenes, options.cache / "simulated", options.steps)))
    for population in ("ideal", "practical"):
        recipe = simulate.Recipe(population=population)  # type: ignore[arg-type]
        size = (options.size, options.size)
        pairs = [simulate.scene((5, i), size, recipe).whole() for i in range(options.micrographs)]
        rows(f"simulated, {population}", pairs, [True] * len(pairs), network, options.steps)


def on_emps(folder: Path, options: argparse.Namespace) -> None:
    """The lines of EMPS."""
    network = None
    if options.steps:
        weights = trained(emps(folder, "train"), options.cache / "emps", options.steps)
        network = engine.Finder(engine.load(weights))
    pairs = list(emps(folder, "val"))[: options.pictures or None]
    bright = [float(pixels[ids > 0].mean()) > float(pixels[ids == 0].mean()) for pixels, ids in pairs]
    rows("EMPS, val", pairs, bright, network, options.steps)


def rows(
    name: str, pairs: Sequence[Pair], bright: Sequence[bool], network: engine.Finder | None, steps: int
) -> None:
    """A line for each method."""
    for method in ("otsu", "laplacian"):
        print(row(name, method, pairs, bright), flush=True)
    if network is not None:
        print(row(name, f"U-Net, {steps}", pairs, bright, network), flush=True)


def trained(pairs: Iterable[Pair], folder: Path, steps: int) -> str:
    """The weights of a U-Net trained on these pictures; kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, maps = [], []
    for number, (pixels, ids) in enumerate(pairs):
        pictures.append(str(folder / f"{number}.npy"))
        maps.append(str(folder / f"{number}.ids.npy"))
        np.save(pictures[-1], pixels)
        np.save(maps[-1], ids)
    job = SegmentJob(tuple(pictures), tuple(maps), "-", schedule=SegmentSchedule(max_steps=steps))
    out = str(folder / f"unet-{job.digest()}")
    return training.fit(replace(job, out=out)).weights


def emps(folder: Path, part: str) -> Iterator[Pair]:
    """The pictures of a part with their instance maps."""
    listed = json.loads((folder / f"{part}.truth.coco.json").read_text(encoding="utf-8"))["images"]
    for image in listed:
        name = image["file_name"]
        pixels = readers.to_grey8(readers.read(str(folder / "images" / name)).pixels)
        ids = readers.read(str(folder / "segmaps" / Path(name).with_suffix(".png"))).pixels
        yield pixels, ids.astype(np.uint32)


def found_in(pixels: NDArray[np.uint8], settings: Settings, maps_of: MapsOf | None) -> list[Instance]:
    """The objects of a whole picture that are not debris."""
    source = InMemory(pixels)
    levels = measure(source, settings, maps_of)
    window = plan(source.shape, max(source.shape), levels.margin)[0]
    grey = stretched(pixels, levels, settings.bright)
    found = segment(grey, levels, settings, window, source.shape, maps_of)
    return [one for one in found if one.reason != "debris"]


def row(
    name: str, method: str, pairs: Sequence[Pair], bright: Sequence[bool], maps_of: MapsOf | None = None
) -> str:
    """One line of the table."""
    scores: list[float] = []
    hits: list[bool | None] = []
    there, wrong = 0, []
    for (pixels, ids), is_bright in zip(pairs, bright, strict=True):
        settings = Settings(bright=True) if maps_of else Settings(method, is_bright)  # type: ignore[arg-type]
        found = found_in(pixels, settings, maps_of)
        n = sum(int(count) >= LEAST for count in np.bincount(ids.ravel())[1:])
        counted = [(one, hit) for one, hit in zip(found, matched(found, ids), strict=True) if hit is not None]
        scores += [one.solidity for one, _ in counted]
        hits += [hit for _, hit in counted]
        there += n
        wrong.append(abs(len(counted) - n) / max(n, 1))
    ap = average_precision(np.array(scores), np.array(hits, np.bool_), there)
    return f"{name:22s} {method:12s} {there:10d} {len(hits):6d}  {ap:.3f} {100 * np.mean(wrong):10.1f} %"


def matched(found: Sequence[Instance], ids: NDArray[np.uint32]) -> list[bool | None]:
    """Whether each object is a particle, by IoU of at least 0.5, that no better one has taken.

    None: it is one that is too small to count.
    """
    areas = np.bincount(ids.ravel())
    taken: set[int] = set()
    hits: list[tuple[int, bool | None]] = []
    for one in sorted(range(len(found)), key=lambda k: -found[k].solidity):
        y1, x1, y2, x2 = found[one].box
        below = np.bincount(ids[y1:y2, x1:x2][found[one].mask], minlength=2)
        best = int(below[1:].argmax()) + 1
        union = found[one].area + (areas[best] if best < len(areas) else 0) - below[best]
        hit = below[best] >= 0.5 * union and best not in taken
        if hit:
            taken.add(best)
        small = hit and areas[best] < LEAST
        hits.append((one, None if small else bool(hit)))
    return [hit for _, hit in sorted(hits, key=lambda entry: entry[0])]


def average_precision(scores: NDArray[np.float64], hits: NDArray[np.bool_], there: int) -> float:
    """COCO's: the mean over 101 recalls of the best precision at that recall or beyond."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    recall = right / max(there, 1)
    at = np.searchsorted(recall, np.linspace(0, 1, 101))
    return float(np.append(best, 0.0)[np.minimum(at, len(best))].mean())


if __name__ == "__main__":
    main()
