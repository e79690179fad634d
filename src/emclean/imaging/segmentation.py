"""Particles in SEM micrographs: a threshold for the whole picture, watershed for those that touch.

What a picture as a whole decides (grey levels, threshold, the usual size of a particle) is measured once,
from parts spread over it; then every window is segmented alone, so that pictures of any size can be worked
through.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import threshold_otsu

from emclean.errors import ImageError
from emclean.imaging.parting import mapped, solidity_of, split
from emclean.imaging.pose import Form, form_of
from emclean.imaging.windows import Window, Windows
from emclean.types import Bools, Ints

Reason = Literal["", "border", "debris", "cluster"]
Plane = NDArray[np.float32]
Placed = tuple[Bools, tuple[int, int]]
MapsOf = Callable[[NDArray[np.uint8]], tuple[Plane, Plane]]
"""Gives of grey pixels the probability of lying in a particle, and the depth there (0-1), both ``[H,W]``."""

LEAST_AREA = 8
"""Px below which an object is noise."""

SAMPLES = 5
"""Parts along each side of a picture from which it is measured."""

MOST_MEASURED = 64_000_000
"""Pixels of a picture that are measured at most, however few particles lie in them."""

LEAST = 4
"""So many whole particles have to lie in the measured parts; else larger parts are taken."""

USUAL, REDUCED = 64.0, 8
"""Px that count as a particle's length where none is stated, and how far its surroundings are reduced."""

NEAR = 16.0
"""Px on either side of a window's edge within which a particle may be seen, and owned, from both sides."""


@dataclass(frozen=True)
class Settings:
    """How particles are found.

    ``method`` ``otsu`` takes what is brighter than the ground, ``laplacian`` what is brighter than its
    surroundings (uneven ground). ``bright`` is False for dark particles. ``length`` is a particle's usual
    length in px, None to measure it. Areas below ``debris`` times the usual one are debris; above
    ``cluster`` times, or filling less than ``solidity`` of their convex hull, they are clusters that could
    not be parted. Two parts are one particle where the neck between them is at least ``neck`` times as wide
    as the thinner of them.
    """

    method: Literal["otsu", "laplacian"] = "otsu"
    bright: bool = True
    smooth: float = 1.5
    length: float | None = None
    debris: float = 0.3
    cluster: float = 2.2
    solidity: float = 0.8
    neck: float = 0.75


@dataclass(frozen=True)
class Levels:
    """What was measured of a picture: grey levels that become 0 and 255, the threshold between ground and
    particle (of what :func:`_response` gives), the usual length in px and area in square px, and the scale in
    px at which the surroundings of uneven ground are taken."""

    low: float
    high: float
    threshold: float
    length: float
    area: float
    surroundings: float = USUAL

    @property
    def margin(self) -> int:
        """Px round a window's core in which a particle of twice the usual length is seen whole."""
        return int(2.0 * self.length) + 8


@dataclass(frozen=True, eq=False)
class Instance:
    """One object: ``box`` (rows and columns in the picture), its ``mask`` there, form, and grey.

    ``reason`` says why it is set aside, if it is; ``owned`` is False where a neighbouring window may own it.
    """

    box: tuple[int, int, int, int]
    mask: Bools
    form: Form
    solidity: float
    grey: float
    reason: Reason
    owned: bool = True

    @property
    def area(self) -> int:
        """Its pixels."""
        return int(self.mask.sum())


def stretched(pixels: NDArray[Any], levels: Levels, bright: bool = True) -> NDArray[np.uint8]:
    """Grey of 8 bits with the picture's own levels, dark particles turned bright."""
    if pixels.dtype == np.uint8 and (levels.low, levels.high) == (0.0, 255.0):
        return np.asarray(pixels if bright else 255 - pixels, dtype=np.uint8)
    scaled = (pixels.astype(np.float32) - levels.low) * (255.0 / max(levels.high - levels.low, 1e-9))
    grey = np.clip(np.nan_to_num(scaled) + 0.5, 0, 255).astype(np.uint8)
    return grey if bright else 255 - grey


def measure(source: Windows, settings: Settings, maps_of: MapsOf | None = None) -> Levels:
    """Measure a picture from parts spread evenly over it; ``maps_of`` as for :func:`segment`."""
    side = 512 if settings.length is None else max(512, int(6 * settings.length))
    while True:
        parts = _spread_parts(source, side)
        low, high = _bounds(parts)
        levels = Levels(low, high, 0.0, 0.0, 0.0, settings.length or USUAL)
        greys = [stretched(part, levels, settings.bright) for part in parts]
        responses = [_response(grey, levels, settings) for grey in greys]
        values = np.concatenate([response[::2, ::2].ravel() for response in responses])
        levels = replace(levels, threshold=_split(values))
        found: list[NDArray[Any]] = [_foreground(one, levels) for one in responses]
        if maps_of is not None:
            found = [mapped(*maps_of(grey)) for grey in greys]
        forms = [form for labels in found for form in _whole_forms(labels)]
        enough = len(forms) >= LEAST or side >= max(source.shape)
        if enough or 4 * sum(part.size for part in parts) > MOST_MEASURED:
            return _sized(levels, forms, settings)
        side *= 2


def _spread_parts(source: Windows, side: int) -> list[NDArray[Any]]:
    """Up to 25 parts of ``side`` px; a small picture is taken as one."""
    height, width = source.shape
    n = [max(min(SAMPLES, length // side), 1) for length in (height, width)]
    if n == [1, 1] and max(height, width) <= 2 * side:
        return [source.read(slice(0, height), slice(0, width))]
    tops = np.linspace(0, max(height - side, 0), n[0]).astype(int)
    lefts = np.linspace(0, max(width - side, 0), n[1]).astype(int)
    return [
        source.read(slice(y, min(y + side, height)), slice(x, min(x + side, width)))
        for y in tops.tolist()
        for x in lefts.tolist()
    ]


def _bounds(parts: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """8-bit pixels stay as they are, deeper ones are stretched between two percentiles."""
    if parts[0].dtype == np.uint8:
        return 0.0, 255.0
    values = np.concatenate([part[::3, ::3].ravel() for part in parts])
    values = values[np.isfinite(values)]
    if not values.size:
        raise ImageError("no pixel is a finite number.", "", "Export it again.")
    low, high = (float(edge) for edge in np.percentile(values, (0.2, 99.8)))
    return (low, high) if high > low else (low, low + 1.0)


def _response(grey: NDArray[np.uint8], levels: Levels, settings: Settings) -> NDArray[np.float32]:
    """What is compared with the threshold: the smoothed grey; of uneven ground, how far it stands out.

    The latter is a difference of two Gaussians, which approximates the Laplacian of a Gaussian at the scale
    of a particle (Marr and Hildreth 1980); the broad one is taken on a picture reduced 8 times.
    """
    fine = ndimage.gaussian_filter(grey.astype(np.float32), settings.smooth)
    if settings.method == "otsu":
        return np.asarray(fine)
    height, width = fine.shape
    padded = np.pad(fine, ((0, -height % REDUCED), (0, -width % REDUCED)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // REDUCED, REDUCED, -1, REDUCED).mean(axis=(1, 3))
    broad = ndimage.gaussian_filter(blocks, levels.surroundings / REDUCED, mode="nearest")
    ground = ndimage.zoom(broad, REDUCED, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine - ground[:height, :width])


def _split(values: NDArray[np.float32]) -> float:
    """The threshold: Otsu's parts ground and particles, then it is moved towards the ground.

    Where particles are few, Otsu's threshold lies too high and cuts off dark facets. It is set 0.35 of the
    way from the ground to the particles, but no nearer than four standard deviations of the ground (ours).
    Of a picture of nothing but ground it is infinite.
    """
    if values.size < 2 or float(values.max()) <= float(values.min()):
        return float(values.max()) if values.size else 0.0
    between = float(threshold_otsu(values))
    below, above = values[values <= between], values[values > between]
    ground = float(np.median(below))
    spread = 1.4826 * float(np.median(np.abs(below - ground)))
    contrast = float(np.median(above)) - ground
    if contrast < 4 * spread:  # two halves of one hill: 2.7 of pure noise
        return float("inf")
    return min(between, ground + max(0.35 * contrast, 4 * spread))


def _foreground(response: NDArray[np.float32], levels: Levels) -> NDArray[np.int32]:
    """Connected objects ``[H,W]``, numbered from 1."""
    labels, _ = ndimage.label(response > levels.threshold)
    return np.asarray(labels)


def _whole_forms(labels: NDArray[Any]) -> list[tuple[Form, int]]:
    """Form and area of the objects that do not touch the part's edge; specks are left out."""
    found = []
    for mask, (y, x) in _objects(labels):
        ends = (slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1]))
        if mask.sum() >= 30 and not _touches(ends, labels.shape):
            found.append((form_of(mask), int(mask.sum())))
    return found


def _touches(place: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(part.start == 0 or part.stop == length for part, length in zip(place, shape, strict=True))


def _sized(levels: Levels, forms: Sequence[tuple[Form, int]], settings: Settings) -> Levels:
    """The usual length and area: medians by area, so that specks do not count."""
    if not forms:
        length = settings.length or 60.0
        return replace(levels, length=length, area=0.5 * length**2)
    areas = np.array([area for _, area in forms], dtype=np.float64)
    lengths = np.array([form.length for form, _ in forms])
    if settings.length is not None:
        shape = _median(areas / lengths**2, areas)
        return replace(levels, length=settings.length, area=shape * settings.length**2)
    return replace(levels, length=_median(lengths, areas), area=_median(areas, areas))


def _median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, 0.5)])


def segment(
    pixels: NDArray[np.uint8],
    levels: Levels,
    settings: Settings,
    window: Window,
    shape: tuple[int, int],
    maps_of: MapsOf | None = None,
) -> list[Instance]:
    """The objects of a window: ``pixels`` are its outer part, ``shape`` that of the whole picture.

    Returned are those whose centre lies in the core, or so close to it that another window may think so.
    ``maps_of`` is a network that finds particles in place of threshold and watershed.
    """
    labels = _labels(pixels, levels, settings, maps_of)
    masks = (placed for one in _objects(labels) for placed in _parted(*one, levels, settings))
    found: list[Instance] = []
    for mask, (y, x) in masks:
        if mask.sum() < LEAST_AREA:
            continue
        view = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
        corner = y + window.corner[0], x + window.corner[1]
        made = _instance(mask, corner, pixels[view], levels, settings)
        if window.holds(made.form.y, made.form.x, NEAR):
            owned = window.holds(made.form.y, made.form.x)
            found.append(replace(made, owned=owned, reason=_reason(made, window, shape)))
    return found


def _labels(
    pixels: NDArray[np.uint8], levels: Levels, settings: Settings, maps_of: MapsOf | None
) -> NDArray[Any]:
    """Objects ``[H,W]``, numbered from 1: what a network finds, or what lies above the threshold."""
    if maps_of is None:
        return _foreground(_response(pixels, levels, settings), levels)
    return mapped(*maps_of(pixels))


def _objects(labels: NDArray[Any]) -> Iterator[Placed]:
    """Every label as a mask without holes, with its first row and column."""
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None:
            corner = place[0].start, place[1].start
            yield ndimage.binary_fill_holes(labels[place] == number), corner


def _parted(mask: Bools, corner: tuple[int, int], levels: Levels, settings: Settings) -> list[Placed]:
    """The particles of one connected object, each as a mask with its first row and column."""
    area = int(mask.sum())
    if area < LEAST_AREA or (area < 1.15 * levels.area and solidity_of(mask) > 0.9):
        return [(mask, corner)]
    labels = split(mask, settings.neck, levels.length)
    parts = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None:
            parts.append((labels[place] == number, (corner[0] + place[0].start, corner[1] + place[1].start)))
    return parts


def _instance(
    mask: Bools, corner: tuple[int, int], pixels: NDArray[np.uint8], levels: Levels, settings: Settings
) -> Instance:
    form = form_of(mask)
    form = replace(form, y=form.y + corner[0], x=form.x + corner[1])
    box = (corner[0], corner[1], corner[0] + mask.shape[0], corner[1] + mask.shape[1])
    solidity = solidity_of(mask)
    area = int(mask.sum())
    reason: Reason = ""
    if area < settings.debris * levels.area:
        reason = "debris"
    elif area > settings.cluster * levels.area or solidity < settings.solidity:
        reason = "cluster"
    return Instance(box, mask, form, solidity, float(pixels[mask].mean()), reason)


def _reason(made: Instance, window: Window, shape: tuple[int, int]) -> Reason:
    """Why an object is set aside: at the picture's edge first; one larger than the window is a cluster."""
    y1, x1, y2, x2 = made.box
    rows, cols = window.outer
    if y1 == 0 or x1 == 0 or y2 == shape[0] or x2 == shape[1]:
        return "border" if made.reason != "debris" else "debris"
    cut = y1 == rows.start or x1 == cols.start or y2 == rows.stop or x2 == cols.stop
    return "cluster" if cut else made.reason


def once(boxes: Ints, centres: NDArray[np.float64], owned: Bools, windows: Ints) -> Ints:
    """Which objects of all windows remain, so that each counts exactly once: their indices, in order.

    ``boxes [N,4]`` (y1, x1, y2, x2), ``centres [N,2]``, ``owned [N]``, ``windows [N]``. Two windows may see
    the same object: then the owner's word holds, of two owners the first one's; of an object that each
    takes for the other's, the first window's.
    """
    keep = np.ones(len(boxes), np.bool_)
    if not len(boxes):
        return np.zeros(0, np.int64)
    pairs = cKDTree(centres).query_pairs(2 * NEAR, output_type="ndarray")
    pairs = pairs[windows[pairs[:, 0]] != windows[pairs[:, 1]]]
    alike = pairs[_overlap(boxes[pairs[:, 0]], boxes[pairs[:, 1]]) > 0.5]
    rank = np.lexsort((np.arange(len(boxes)), windows, ~owned))
    order = np.empty(len(boxes), np.int64)
    order[rank] = np.arange(len(boxes))
    first, second = order[alike].min(axis=1), order[alike].max(axis=1)
    for better, worse in sorted(zip(first.tolist(), second.tolist(), strict=True)):
        if keep[rank[better]]:
            keep[rank[worse]] = False
    return np.flatnonzero(keep).astype(np.int64)


def _overlap(a: Ints, b: Ints) -> NDArray[np.float64]:
    """Intersection over union ``[P]`` of pairs of boxes ``[P,4]`` (y1, x1, y2, x2)."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1))
