"""Segmenters on disk and at work: ``save``, ``load``, ``Finder``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emclean.errors import DataError
from emclean.models.files import whole
from emclean.models.segmenters.spec import SegmenterSpec
from emclean.models.segmenters.unet import UNet

_FORMAT = "emclean-segmenter-1"
TILE, MARGIN = 768, 64
"""Side in px of what is predicted at a time, and how much of it on each side only gives context."""

Map = NDArray[np.float32]
Read = Callable[[slice, slice], NDArray[np.uint8]]
"""Gives the grey pixels of some rows and columns of a picture."""


def save(path: Path, spec: SegmenterSpec, state: Mapping[str, Tensor]) -> None:
    """Write a network's state under its final name only when it is whole."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole(path) as draft:
        save_file(tensors, draft, {"spec": spec.to_json(), "format": _FORMAT})


def load(path: str | Path) -> UNet:
    """The segmenter stored in a file of weights, ready to predict."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            facts = dict(stream.metadata() or {})
            state = {name: stream.get_tensor(name) for name in stream.keys()}
        if facts.get("format") != _FORMAT:
            raise ValueError(f"its format is {facts.get('format')!r}")
        network = UNet(SegmenterSpec.from_json(facts["spec"]))
        network.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        advice = "Give a .safetensors file that emclean wrote for a segmenter."
        raise DataError(f"not usable as segmenter weights ({error})", str(path), advice) from error
    return network.eval()


@dataclass(frozen=True, eq=False)
class Finder:
    """A network at work: probability of lying in a particle and depth there, both ``[H,W]`` in 0-1.

    It sees a picture in tiles that overlap, so that they leave no seam. The tiles lie where the picture has
    them, not where a part of it begins: its norms see whole tiles, and so a particle comes out the same
    whichever part was asked for.
    """

    network: UNet

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[Map, Map]:
        """The maps of a whole picture of grey ``pixels [H,W]``."""
        rows, cols = (slice(0, length) for length in pixels.shape)
        return self.part(lambda y, x: pixels[y, x], rows, cols, (pixels.shape[0], pixels.shape[1]))

    def part(self, read: Read, rows: slice, cols: slice, shape: tuple[int, int]) -> tuple[Map, Map]:
        """The maps of a part of a picture of this ``shape``; ``read`` is also asked for what lies around."""
        out = np.empty((2, rows.stop - rows.start, cols.stop - cols.start), np.float32)
        step = TILE - 2 * MARGIN
        for top in range(rows.start // step * step, rows.stop, step):
            for left in range(cols.start // step * step, cols.stop, step):
                y1, y2 = max(top, rows.start), min(top + step, rows.stop)
                x1, x2 = max(left, cols.start), min(left + step, cols.stop)
                (y, x), tile = self._tile(read, top, left, shape)
                inner = tile[:, y1 - y : y2 - y, x1 - x : x2 - x]
                out[:, y1 - rows.start : y2 - rows.start, x1 - cols.start : x2 - cols.start] = inner
        return out[0], out[1]

    @torch.no_grad()
    def _tile(self, read: Read, top: int, left: int, shape: tuple[int, int]) -> tuple[tuple[int, int], Map]:
        """Where a tile with its margin begins, and its maps ``[2,h,w]``."""
        y, x = max(top - MARGIN, 0), max(left - MARGIN, 0)
        ends = (min(first + TILE - MARGIN, n) for first, n in zip((top, left), shape, strict=True))
        pixels = read(*(slice(first, last) for first, last in zip((y, x), ends, strict=True)))
        device = next(self.network.parameters()).device
        image = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)[None, None].float() / 255
        found = self.network(_padded(image, self.network.spec.multiple))[0].sigmoid().cpu().numpy()
        return (y, x), found


def _padded(image: Tensor, multiple: int) -> Tensor:
    """The picture with its last rows and columns repeated up to a multiple."""
    height, width = image.shape[-2:]
    return functional.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
