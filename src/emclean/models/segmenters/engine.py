"""Segmenters on disk and at work: ``save``, ``load``, ``predict``."""

from collections.abc import Mapping
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


@torch.no_grad()
def predict(network: UNet, pixels: NDArray[np.uint8]) -> tuple[Map, Map]:
    """Probability of lying in a particle and depth there, both ``[H,W]`` in 0-1, of grey ``pixels [H,W]``.

    Large pictures are predicted in tiles that overlap, so that the tiles leave no seam.
    """
    out = np.empty((2, *pixels.shape), np.float32)
    step = TILE - 2 * MARGIN
    device = next(network.parameters()).device
    for top in range(0, pixels.shape[0], step):
        for left in range(0, pixels.shape[1], step):
            y, x = max(top - MARGIN, 0), max(left - MARGIN, 0)
            part = pixels[y : top + step + MARGIN, x : left + step + MARGIN]
            image = torch.from_numpy(np.ascontiguousarray(part)).to(device)[None, None].float() / 255
            found = network(_padded(image, network.spec.multiple))[0].sigmoid().cpu().numpy()
            height, width = min(step, pixels.shape[0] - top), min(step, pixels.shape[1] - left)
            inner = found[:, top - y : top - y + height, left - x : left - x + width]
            out[:, top : top + height, left : left + width] = inner
    return out[0], out[1]


def _padded(image: Tensor, multiple: int) -> Tensor:
    """The picture with its last rows and columns repeated up to a multiple."""
    height, width = image.shape[-2:]
    return functional.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
