"""The seam that every detector family fills: a loss for training and an answer for pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emclean import boxes as geometry
from emclean.models.spec import DetectorSpec
from emclean.types import Floats, Ints, Predictions, Target


class Detector(nn.Module):
    """A detector: ``images`` are ``[B, 1, H, W]`` float grey levels in 0-1, boxes pixels of those images.

    ``fixed_size`` is the only input side that the family takes, or None. Calling the module is ``loss``, so
    that wrappers for distributed training see it.
    """

    fixed_size: int | None = None

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The same as ``loss``."""
        return self.loss(images, targets)

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named scalar losses, to be added up."""
        raise NotImplementedError

    def detect(self, images: Tensor) -> list[Predictions]:
        """What is seen in each image, best first, overlapping boxes already thinned out."""
        raise NotImplementedError


def as_predictions(boxes: Tensor, categories: Tensor, scores: Tensor, width: int, height: int) -> Predictions:
    """One image's tensors as a checked value: boxes ``[N,4]`` cut at the border, empty ones dropped."""
    corners: Floats = geometry.clip(boxes.detach().double().cpu().numpy(), width, height)
    keep = (corners[:, 2:] - corners[:, :2] > 1e-3).all(axis=1) & np.isfinite(corners).all(axis=1)
    kinds: Ints = categories.cpu().numpy().astype(np.int64)
    values: Floats = np.clip(scores.detach().double().cpu().numpy(), 0, 1)
    return Predictions(corners[keep], kinds[keep], values[keep])


def tensors(target: Target, device: torch.device) -> dict[str, Tensor]:
    """A target's arrays on ``device``: float32, categories int64, regress bool."""

    def put(values: Any, dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return {
        "boxes": put(target.boxes, torch.float32),
        "labels": put(target.categories, torch.int64),
        "weights": put(target.weights, torch.float32),
        "regress": put(target.regress, torch.bool),
        "ignore": put(target.ignore, torch.float32),
        "ignore_categories": put(target.ignore_categories, torch.int64),
    }


def ignored(points: Tensor, target: dict[str, Tensor], n_categories: int) -> Tensor:
    """Where ``points [P, 2]`` (x, y) lie in an area that the target ignores for a category: ``[P, C]``."""
    x, y = points[:, :1], points[:, 1:]  # [P,1]
    areas, of = target["ignore"], target["ignore_categories"][:, None]  # [M,4], [M,1]
    within = (x >= areas[:, 0]) & (x <= areas[:, 2]) & (y >= areas[:, 1]) & (y <= areas[:, 3])  # [P,M]
    concerns = (of < 0) | (of == torch.arange(n_categories, device=of.device))  # [M,C]
    return (within.to(points.dtype) @ concerns.to(points.dtype)) > 0
