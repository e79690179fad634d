"""The audit's pictures: labels, model and proposed fixes drawn over the worst images and instances."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from emclean.audit.findings import LIKELY, Finding
from emclean.audit.judging import CROWDED, touching
from emclean.audit.settings import Settings
from emclean.audit.sources import Case, Sources
from emclean.audit.summary import Summary
from emclean.boxes import centre, enclosing
from emclean.errors import ImageError
from emclean.imaging.folders import Folder
from emclean.report import overlays
from emclean.report.data import Figure
from emclean.stores.formats.coco import Key
from emclean.types import GRADES, Floats, Ints, SetAside, Verdicts

Judged = Callable[[Case], tuple[Verdicts, list[Finding]]]
"""Judges an image again: nothing of it was kept."""

READABLE = 14
"""More fixes than this in one picture hide each other."""

SIZE, CUTOUT = 640, 480
"""Pixels of the longer side of an image's picture, and of one instance's."""


class Painter:
    """Draws the worst images and instances of an audit; pictures that cannot be used are set aside."""

    def __init__(
        self, sources: Sources, folder: Folder, summary: Summary, settings: Settings, judged: Judged
    ) -> None:
        self._sources, self._folder, self._summary, self._settings = sources, folder, summary, settings
        self._judged = judged
        self._absent: set[Key] = set()

    def images(self) -> list[Figure]:
        """The images with most expected errors, with every fix that is likely."""
        rows = [row for row in self._summary.ranking if row.judged and row.expected > 0]
        figures: list[Figure] = []
        for row in rows:
            if len(figures) == self._settings.pictures:
                break
            pixels = self._pixels(row.key)
            if pixels is not None:
                case = self._sources.again(row.key, self._settings.confident)
                _, found = self._judged(case)
                picture, cut = _picture(pixels, case, [f for f in found if f.error >= LIKELY])
                caption = f"{row.expected:.1f} errors expected, {row.likely} likely, {row.labels} labels"
                figures.append(Figure(row.image, picture, caption + cut))
        return figures

    def instances(self) -> list[Figure]:
        """The likely errors, the kinds in turn, each cut out with its surroundings."""
        figures: list[Figure] = []
        turns = [(turn, f) for found in self._summary.worst.values() for turn, f in enumerate(found)]
        for _, finding in sorted(turns, key=lambda pair: (pair[0], -pair[1].error)):
            if len(figures) == self._settings.pictures:
                break
            pixels = self._pixels(finding.key)
            if pixels is not None:
                case = self._sources.again(finding.key, self._settings.confident)
                picture = _cutout(pixels, case, finding)
                title = f"{finding.grade}, {finding.fix}: {finding.error:.2f}"
                figures.append(Figure(title, picture, f"{finding.image}: {finding.reason}"))
        return figures

    def _pixels(self, key: Key) -> NDArray[np.uint8] | None:
        entry = self._sources.entries[key]
        if key in self._absent:
            return None
        try:
            return self._folder.read(entry.file_name, (entry.width, entry.height))
        except ImageError as cause:
            self._absent.add(key)
            reason = f"not drawn: {cause.what.rstrip('.')}"
            self._summary.set_aside(SetAside("image", entry.file_name, reason))
            return None


def _picture(pixels: NDArray[np.uint8], case: Case, likely: list[Finding]) -> tuple[bytes, str]:
    """An image with its labels, confident predictions and likely fixes, and words for the caption.

    Of a crowded image the part with most of them is shown, large enough for their words to be read.
    """
    height, width = pixels.shape
    crop = np.array([0, 0, width, height], dtype=np.float64)
    if len(likely) > READABLE:
        share = np.sqrt(READABLE / len(likely))
        crop = _densest(np.array([f.box for f in likely]), width, height, max(share, 96 / max(width, height)))
    boxes = np.array([f.box for f in likely]).reshape(-1, 4)
    shown = [f for f, near in zip(likely, touching(boxes, crop), strict=True) if near]
    drawn = overlays.overlay(pixels, _layers(case, shown, crop), SIZE, crop)
    return drawn, f"; the part with most, {len(shown)} of them" if len(shown) < len(likely) else ""


def _densest(boxes: Floats, width: int, height: int, share: float) -> Floats:
    """The window ``[4]`` of this share of each side that holds most box centres."""
    side = np.array([width, height]) * min(share, 1.0)
    middles = centre(boxes)[:CROWDED]  # [N,2]
    near = np.ones((len(middles), len(middles)), dtype=np.bool_)
    for axis in (0, 1):
        near &= np.abs(middles[:, axis, None] - middles[:, axis]) <= side[axis] / 2
    return _window(middles[int(near.sum(axis=1).argmax())], side, width, height)


def _layers(case: Case, shown: Sequence[Finding], crop: Floats) -> overlays.Layers:
    """What is drawn of a part of an image: labels, confident predictions, and what is said of them."""
    seen = case.evidence.crowd.above(case.evidence.confident)
    near = np.flatnonzero(touching(case.labels.boxes, crop))
    return overlays.Layers(
        crowd=case.labels.take(near),
        model=seen.take(touching(seen.boxes, crop)),
        verdicts=_to_check([f for f in shown if f.fix == "check"], near),
        changes=[change for finding in shown for change in _changes(finding)],
    )


def _to_check(found: Sequence[Finding], drawn: Ints) -> Verdicts:
    """Words beside the labels that are doubtful and have no fix to draw; ``drawn`` indices of all labels."""
    place = {label: i for i, label in enumerate(drawn.tolist())}
    return Verdicts(
        label=np.array([place.get(f.label, -1) for f in found]),
        prediction=np.full(len(found), -1),
        grade=np.array([GRADES.index(f.grade) for f in found]),
        probability=np.array([f.error for f in found]),
        box=np.array([f.box for f in found]),
        category=np.array([f.category for f in found]),
        reason=tuple(f.reason for f in found),
    )


def _changes(finding: Finding) -> list[overlays.Change]:
    """The drawing of one fix, none where there is none; its grade stands at its first box."""
    word = f"{finding.grade} {finding.error:.2f}"
    own = np.array(finding.box)
    if finding.fix in ("add", "relabel"):
        return [overlays.Change(None, own, word)]
    if finding.fix == "move":
        return [overlays.Change(own, np.array(finding.new_box), word)]
    if finding.fix == "split":
        parts = [overlays.Change(None, np.array(part)) for part in finding.parts]
        return [overlays.Change(own, None, word), *parts]
    return [overlays.Change(own, None, word)] if finding.fix == "delete" else []


def _cutout(pixels: NDArray[np.uint8], case: Case, finding: Finding) -> bytes:
    """One finding with what is around it."""
    boxes = [finding.box, *([finding.new_box] if finding.new_box is not None else []), *finding.parts]
    x1, y1, x2, y2 = enclosing(np.array(boxes, dtype=np.float64))
    side = max(1.8 * max(x2 - x1, y2 - y1), 64.0)
    height, width = pixels.shape
    crop = _window(np.array([x1 + x2, y1 + y2]) / 2, np.array([side, side]), width, height)
    return overlays.overlay(pixels, _layers(case, [finding], crop), CUTOUT, crop)


def _window(middle: Floats, side: Floats, width: int, height: int) -> Floats:
    """The window ``[4]`` of these sides around a point, moved into the picture where that is large enough."""
    whole = np.array([width, height], dtype=np.float64)
    sides = np.minimum(side, whole)
    low = np.clip(middle - sides / 2, 0, whole - sides)
    return np.concatenate([low, low + sides])
