"""Cut-outs for people to label: what ``data.particles`` and ``data.labels`` of a further run read.

First a random sample of all particles that were judged: only such labels may count mistakes. Then those that
the classifiers are least sure of, from which training learns most; by their files' names they never count
mistakes. Nobody's call stands beside an empty label, for it would sway the labeller.
"""

import csv
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.errors import LabelError
from emclean.imaging import pose, windows
from emclean.imaging.segmentation import Levels, stretched
from emclean.loop.analysis.looking import masked, png
from emclean.loop.analysis.particles import CHOSEN, Particles
from emclean.loop.analysis.pieces import Measured, Micrograph
from emclean.stores.formats import classes as class_files

RANDOM = "random-"
"""What the file names of the random sample begin with; those of the others with ``particles.CHOSEN``."""

SORTS = (RANDOM, CHOSEN)

LABELS, CALLED, PICTURES = "labels.csv", "called.csv", "particles"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A particle that may be cut out: ``box`` (y1, x1, y2, x2) and ``mask`` as in a window's table."""

    picture: Micrograph
    levels: Levels
    number: int
    box: tuple[int, int, int, int]
    mask: bytes
    call: str


@dataclass(eq=False)
class Drawing:
    """Chooses the particles to label while pictures go by, whatever their order.

    Of ``n`` the share ``random`` is drawn by lot; ``known`` are the digests of those that are labelled
    already, by sort. One that is known as a doubtful one may still be drawn by lot: a sample without them
    would be of easy particles. ``bright``: as for segmentation; ``home`` is the analysis' folder, where
    decoded pictures lie.
    """

    n: int
    random: float
    seed: int
    bright: bool = True
    known: Mapping[str, frozenset[str]] = field(default_factory=lambda: dict.fromkeys(SORTS, frozenset()))
    home: Path | None = None
    _kept: dict[str, list[tuple[float, Candidate]]] = field(
        default_factory=lambda: {how: [] for how in SORTS}
    )

    def wanted(self) -> dict[str, int]:
        """How many of each sort."""
        lots = round(self.random * self.n)
        return {RANDOM: lots, CHOSEN: self.n - lots}

    def offer(
        self,
        picture: Micrograph,
        measured: Measured,
        columns: Mapping[str, Any],
        found: Mapping[str, NDArray[Any]],
    ) -> None:
        """Particles of a picture, which may come in parts: ``columns`` as in ``particles.parquet``, ``found``
        as in windows."""
        judged = np.flatnonzero(np.array([mask is not None for mask in found["mask"]], np.bool_))
        place = [int(picture.image_id, 16), *np.asarray(columns["particle"])[:1].tolist()]
        lots = np.random.default_rng([self.seed, 9, *place]).random(len(judged))
        margins = margin(found["p_usable"][judged], found["p_left"][judged])
        # more than wanted: some may be labelled already, and some of the chosen be among the random
        wanted = {**self.wanted(), CHOSEN: self.n}
        most = {how: wanted[how] + len(self.known[how]) for how in SORTS}
        for how, keys in ((RANDOM, lots), (CHOSEN, margins)):
            kept = self._kept[how]
            for k in np.argsort(keys, kind="stable")[: most[how]].tolist():
                kept.append((float(keys[k]), _candidate(picture, measured, columns, found, int(judged[k]))))
            kept.sort(key=lambda entry: entry[0])
            del kept[most[how] :]

    def drawn(self) -> Iterator[tuple[str, Candidate, NDArray[np.uint8]]]:
        """The particles to label, in order: how each was chosen, what it is, and its cut-out."""
        wanted, seen = self.wanted(), set[str]()
        for how, kept in self._kept.items():
            seen |= self.known[how]
            candidates = [one for _, one in kept]
            for one, pixels in zip(candidates, _cutouts(candidates, self.bright, self.home), strict=True):
                name = digest(pixels)
                if wanted[how] and name not in seen:
                    seen.add(name)
                    wanted[how] -= 1
                    yield how, one, pixels


def margin(p_usable: NDArray[Any], p_left: NDArray[Any]) -> NDArray[np.float64]:
    """By how much the likeliest of left, right and unusable is likelier than the next ``[n]``."""
    each = np.stack([p_usable * p_left, p_usable * (1 - p_left), 1 - p_usable], axis=1)
    order = np.sort(each, axis=1)
    return np.asarray(order[:, 2] - order[:, 1])


def _candidate(
    picture: Micrograph,
    measured: Measured,
    columns: Mapping[str, Any],
    found: Mapping[str, NDArray[Any]],
    k: int,
) -> Candidate:
    y1, x1, y2, x2 = (int(found[name][k]) for name in ("y1", "x1", "y2", "x2"))
    call = columns["set_aside"][k] or columns["hand"][k]
    number = int(columns["particle"][k])
    return Candidate(picture, measured.levels, number, (y1, x1, y2, x2), found["mask"][k], call)


def _cutouts(candidates: Sequence[Candidate], bright: bool, home: Path | None) -> list[NDArray[np.uint8]]:
    """The particles as the classifiers saw them, each picture opened once."""
    made: dict[int, NDArray[np.uint8]] = {}
    for picture in {one.picture.uri: one.picture for one in candidates}.values():
        with windows.opened(picture.uri, picture.decoded_in(home) if home else None) as source:
            for one in candidates:
                if one.picture.uri == picture.uri:
                    y1, x1, y2, x2 = one.box
                    grey = stretched(source.read(slice(y1, y2), slice(x1, x2)), one.levels, bright)
                    made[id(one)] = pose.cutout(grey, masked(one.mask, y2 - y1, x2 - x1))
    return [made[id(one)] for one in candidates]


def digest(pixels: NDArray[np.uint8]) -> str:
    """By what a cut-out is known again."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def labelled_already(clean: Particles | None) -> dict[str, frozenset[str]]:
    """The digests of cut-outs that have a clean label: of the random ones, and of all."""
    if clean is None:
        return dict.fromkeys(SORTS, frozenset())
    every = np.array([digest(pixels) for pixels in clean.pictures], dtype=object)
    return {RANDOM: frozenset(every[clean.random]), CHOSEN: frozenset(every)}


def write(drawing: Drawing, folder: Path) -> dict[str, Any] | None:
    """Write the cut-outs, a label file to fill in, and one with the classifiers' calls; what there is then.

    Labels that somebody has begun to fill in are never written over: then nothing is written. None where no
    cut-outs are wanted.
    """
    if not drawing.n:
        return None
    if not _begun(folder / LABELS):
        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        _fill(drawing, draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    names = [file.name for file in (folder / PICTURES).glob("*.png")]
    counts = {how: sum(name.startswith(how) for name in names) for how in SORTS}
    return {"folder": str(folder), "random": counts[RANDOM], "chosen": counts[CHOSEN]}


def _begun(file: Path) -> bool:
    """Whether a label file holds a label."""
    if not file.exists():
        return False
    try:
        return bool(class_files.read(str(file)).rows)
    except LabelError:  # no row has a label yet
        return False


def _fill(drawing: Drawing, folder: Path) -> None:
    (folder / PICTURES).mkdir(parents=True)
    rows: list[tuple[str, Candidate]] = []
    for how, one, pixels in drawing.drawn():
        name = f"{how}{len(rows) + 1:04d}-{digest(pixels)[:8]}.png"
        (folder / PICTURES / name).write_bytes(png(pixels))
        rows.append((name, one))
    header = ("image", "label", "sample", "micrograph", "particle")
    lines = [(name, "", one.picture.sample, one.picture.name, one.number) for name, one in rows]
    _write_csv(folder / LABELS, [header, *lines])
    _write_csv(folder / CALLED, [header[:2], *((name, one.call) for name, one in rows)])


def _write_csv(file: Path, lines: Sequence[Sequence[Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)
