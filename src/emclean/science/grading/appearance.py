"""What instances show, from the picture alone: how they stand out from what is around them."""

import numpy as np
from numpy.typing import NDArray

from emclean.boxes import clip
from emclean.types import Floats, Ints

LABEL_LOOKS = ("contrast", "texture", "unlike", "contrast_gain")
"""The columns of ``looks`` of labels."""
CANDIDATE_LOOKS = LABEL_LOOKS[:3]
"""The columns of ``looks`` of candidates."""

_AROUND = 1.6
"""The surroundings are the box scaled by this about its centre, less the box."""
_LEAST = 0.05
"""A share of the picture's spread that is added to spreads, so that flat surroundings do not blow up."""
_LARGEST = 2_000_000
"""Pixels; of larger pictures every second (third, ...) row and column is looked at."""

Picture = NDArray[np.uint8]


class Sums:
    """Summed-area tables of a picture ``[H,W]``: mean and spread of any box take four look-ups each."""

    def __init__(self, picture: Picture) -> None:
        self.step = max(1, int(np.ceil(np.sqrt(picture.size / _LARGEST))))
        grey = np.asarray(picture[:: self.step, :: self.step], dtype=np.int64)
        self.limits = np.array([grey.shape[1], grey.shape[0]])
        self.spread = float(grey.std())
        self._first, self._second = _table(grey), _table(grey**2)

    def whole(self, boxes: Floats) -> Ints:
        """Boxes ``[N,4]`` on whole rows and columns that are looked at, at least one of each."""
        inside = clip(boxes / self.step, *self.limits)
        low = np.minimum(np.floor(inside[:, :2]), self.limits - 1)
        high = np.maximum(np.ceil(inside[:, 2:]), low + 1)
        return np.asarray(np.concatenate([low, high], axis=1), dtype=np.int64)

    def moments(self, boxes: Ints) -> Floats:
        """Number, sum and sum of squares ``[3,N]`` of the pixels of whole boxes ``[N,4]``."""
        x1, y1, x2, y2 = boxes.T
        sums = [t[y2, x2] - t[y1, x2] - t[y2, x1] + t[y1, x1] for t in (self._first, self._second)]
        return np.stack([(x2 - x1) * (y2 - y1), *sums]).astype(np.float64)


def _table(values: NDArray[np.int64]) -> NDArray[np.int64]:
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int64)
    np.cumsum(values, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    return table


def _mean_and_spread(moments: Floats) -> tuple[Floats, Floats]:
    count = np.maximum(moments[0], 1.0)
    mean = moments[1] / count
    return mean, np.sqrt(np.maximum(moments[2] / count - mean**2, 0.0))


def appearance(sums: Sums, boxes: Floats) -> Floats:
    """Contrast and texture ``[N,2]`` of boxes ``[N,4]``.

    Contrast is the mean grey level inside less that around, over the spread around (negative: darker);
    texture the logarithm of the spread inside over that of the whole picture.
    """
    if not len(boxes):
        return np.zeros((0, 2))
    middle, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * _AROUND
    inside = sums.moments(sums.whole(boxes))
    wide = sums.moments(sums.whole(np.concatenate([middle - reach, middle + reach], axis=1)))
    ring = np.maximum(wide - inside, 0.0)
    (mean, spread), (around, spread_around) = _mean_and_spread(inside), _mean_and_spread(ring)
    least = _LEAST * sums.spread + 1e-6
    contrast = np.where(ring[0] > 0, (mean - around) / (spread_around + least), 0.0)
    return np.stack([contrast, np.log((spread + least) / (sums.spread + least))], axis=1)


def looks(
    picture: Picture | None, labels: Floats, moved: Floats, candidates: Floats
) -> tuple[Floats, Floats]:
    """How labels ``[N,4]`` and candidates ``[M,4]`` look: ``[N,4]`` and ``[M,3]``, columns as named above.

    ``unlike`` is the distance from the image's typical label; ``contrast_gain`` what a label's contrast gains
    where the models place it (``moved [N,4]``). Zeros without a picture.
    """
    if picture is None:
        return np.zeros((len(labels), len(LABEL_LOOKS))), np.zeros((len(candidates), len(CANDIDATE_LOOKS)))
    sums = Sums(picture)
    given, better, other = (appearance(sums, boxes) for boxes in (labels, moved, candidates))
    typical = np.median(given, axis=0) if len(given) else np.zeros(2)
    gain = np.abs(better[:, :1]) - np.abs(given[:, :1])
    unlike, unlike_too = (np.abs(x - typical).sum(axis=1, keepdims=True) for x in (given, other))
    return np.concatenate([given, unlike, gain], axis=1), np.concatenate([other, unlike_too], axis=1)
