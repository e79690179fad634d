"""A small anchor-free detector for processors without a GPU: one heat map of object centres at stride 4.

The picture is folded by four (pixel-unshuffle) into channels, run through a U-shaped network down to
stride 32 and back, and read out at stride 4: a heat map per category, and the distances from each place to
the four sides of the box that it belongs to. Ideas from CenterNet (arXiv 1904.07850: centres as peaks,
penalty-reduced focal loss) and TTFNet (arXiv 1909.00700: elliptic Gaussians, box regression around centres).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from emclean import boxes as geometry
from emclean.models.detectors.base import Detector, as_predictions, ignored, tensors
from emclean.models.spec import DetectorSpec
from emclean.types import Predictions, Target

STRIDE = 4
_COARSEST = 32
_GREY_MEAN, _GREY_SPREAD = 0.5, 0.25
_SIGMA = 0.09  # standard deviation of a centre's Gaussian per side of its box; TTFNet: 0.54 / 6
_SMALLEST_SIGMA = 0.35  # cells; keeps the peak of a small object one cell wide
_REGRESSED = 0.2  # height of the Gaussian above which a place learns the box
_TYPICAL = 16.0  # pixels from centre to side that an output of 0 stands for
_RARE = -4.6  # logit of 0.01: before training nearly no place is a centre
_BOX_WEIGHT = 2.0
_RAREST = 20


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


def _conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(layer, _norm(outputs), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(x + self.norm(self.second(self.first(x))))


class _Up(nn.Module):
    """Adds what the coarser level ``[B, C, H/2, W/2]`` saw to the finer one."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.across = nn.Conv2d(coarse, fine, 1, bias=False)
        self.mix = _conv(fine, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        lifted = functional.interpolate(self.across(coarse), scale_factor=2.0, mode="nearest")
        mixed: Tensor = self.mix(fine + lifted)
        return mixed


class _Network(nn.Module):
    """``[B, 1, H, W]``, sides multiples of 32, to features ``[B, width, H/4, W/4]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w4, w8, w16, w32 = width, 2 * width, 5 * width // 2 // 8 * 8, 3 * width
        self.stem = nn.Sequential(nn.PixelUnshuffle(STRIDE), _conv(STRIDE**2, w4), _Residual(w4))
        self.to8 = nn.Sequential(_conv(w4, w8, stride=2), _Residual(w8))
        self.to16 = nn.Sequential(_conv(w8, w16, stride=2), _Residual(w16))
        self.to32 = nn.Sequential(_conv(w16, w32, stride=2), _Residual(w32, dilation=2))
        self.up16, self.up8, self.up4 = _Up(w32, w16), _Up(w16, w8), _Up(w8, w4)

    def forward(self, images: Tensor) -> Tensor:
        at4 = self.stem(images)
        at8 = self.to8(at4)
        at16 = self.to16(at8)
        at32 = self.to32(at16)
        features: Tensor = self.up4(self.up8(self.up16(at32, at16), at8), at4)
        return features


@dataclass(frozen=True)
class _Wanted:
    """What one image's maps (P = H/4 * W/4 places) should say."""

    heat: Tensor  # [C,P] 1 at centres, falling off as a Gaussian
    centre: Tensor  # [C,P] weight of the centre there, 0 elsewhere
    background: Tensor  # [C,P] weight of the loss for not being a centre
    boxes: Tensor  # [P,4] of the object that each place belongs to
    share: Tensor  # [P] weight of the box loss, 0 where no box is learnt
    categories: Tensor  # [N] of the objects


class Compact(Detector):
    """The compact centre-point detector; see the module's text."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__(spec)
        width, hidden = spec.width, 2 * spec.width
        self.network = _Network(width)
        self.head = _conv(width, hidden)
        self.heat = nn.Conv2d(hidden, spec.n_categories, 1)
        self.sides = nn.Conv2d(hidden, 4, 1)
        nn.init.constant_(self.heat.bias, _RARE)  # type: ignore[arg-type]
        nn.init.normal_(self.heat.weight, std=0.01)
        nn.init.normal_(self.sides.weight, std=0.01)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the heat map ``[B, C, h, w]`` and boxes ``[B, 4, h, w]`` in pixels, at stride 4."""
        height, width = images.shape[-2:]
        pad = (0, -width % _COARSEST, 0, -height % _COARSEST)
        padded = functional.pad((images - _GREY_MEAN) / _GREY_SPREAD, pad, mode="replicate")
        features = self.head(self.network(padded.contiguous(memory_format=torch.channels_last)))
        h, w = -(-height // STRIDE), -(-width // STRIDE)
        logits = self.heat(features)[..., :h, :w].float()
        sides = self.sides(features)[..., :h, :w].float()
        distances = _TYPICAL * torch.exp(sides.clamp(-5.0, 5.0))  # [B,4,h,w] left, top, right, bottom
        x, y = _places(h, w, images.device)
        low = torch.stack([x, y]) - distances[:, :2]
        return logits, torch.cat([low, torch.stack([x, y]) + distances[:, 2:]], dim=1)

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Penalty-reduced focal loss of the heat map, and GIoU loss of the boxes near the centres."""
        logits, boxes = self.maps(images)
        h, w = logits.shape[-2:]
        rows = [_wanted(tensors(t, images.device), self.spec.n_categories, h, w) for t in targets]
        heat = torch.stack([row.heat for row in rows])
        centre = torch.stack([row.centre for row in rows])
        background = torch.stack([row.background for row in rows])
        share = torch.stack([row.share for row in rows])
        counts = torch.bincount(torch.cat([row.categories for row in rows]), minlength=logits.shape[1])
        centres = (_focal(logits.flatten(2), heat, centre, background) / balanced(counts)).sum()
        at = share > 0  # [B,P]
        giou = _giou(boxes.flatten(2).transpose(1, 2)[at], torch.stack([row.boxes for row in rows])[at])
        placed = ((1 - giou) * share[at]).sum() / share.sum().clamp(min=1.0)
        return {"centre": centres, "box": _BOX_WEIGHT * placed + 0.0 * boxes.mean()}

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Predictions]:
        """Peaks of the heat map and the boxes found there, best first."""
        logits, boxes = self.maps(images)
        heat = logits.sigmoid()
        peaks = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat)
        height, width = images.shape[-2:]
        return [
            self._read(p.flatten(1), b.flatten(1), width, height) for p, b in zip(peaks, boxes, strict=True)
        ]

    def _read(self, peaks: Tensor, boxes: Tensor, width: int, height: int) -> Predictions:
        """One image's peaks ``[C, P]`` and boxes ``[4, P]`` as predictions."""
        scores, places = peaks.flatten().topk(min(2 * self.spec.limit, peaks.numel()))
        scores, places = scores[scores > self.spec.score], places[scores > self.spec.score]
        categories = places // peaks.shape[1]
        found = as_predictions(boxes[:, places % peaks.shape[1]].T, categories, scores, width, height)
        kept = geometry.nms(found.boxes, found.scores, self.spec.overlap, found.categories)
        return found.take(kept[: self.spec.limit])


def _places(h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pixel coordinates ``[h, w]`` of the middles of the cells."""
    y = (torch.arange(h, device=device) + 0.5) * STRIDE
    x = (torch.arange(w, device=device) + 0.5) * STRIDE
    return x.expand(h, w), y[:, None].expand(h, w)


def _bumps(boxes: Tensor, h: int, w: int) -> Tensor:
    """Elliptic Gaussians ``[N, P]`` over the cells, exactly 1 in the cell that holds the box's centre."""
    limit = boxes.new_tensor([w - 1, h - 1])
    cell = ((boxes[:, :2] + boxes[:, 2:]) / (2 * STRIDE)).floor().clamp(min=0).minimum(limit)  # [N,2]
    sigma = (_SIGMA * (boxes[:, 2:] - boxes[:, :2]) / STRIDE).clamp(min=_SMALLEST_SIGMA)
    x = torch.arange(w, device=boxes.device) - cell[:, :1]  # [N,w]
    y = torch.arange(h, device=boxes.device) - cell[:, 1:]  # [N,h]
    across, down = torch.exp(-0.5 * (x / sigma[:, :1]) ** 2), torch.exp(-0.5 * (y / sigma[:, 1:]) ** 2)
    return (down[:, :, None] * across[:, None, :]).flatten(1)


def _wanted(target: dict[str, Tensor], n_categories: int, h: int, w: int) -> _Wanted:
    """Render one image's target.

    An instance's weight scales the centre loss at its centre and on the flank of its Gaussian. In an area to
    ignore the background loss of the category concerned is 0.
    """
    boxes, labels, weights = target["boxes"], target["labels"], target["weights"]
    heat = boxes.new_zeros(n_categories, h * w)
    centre, background = torch.zeros_like(heat), torch.ones_like(heat)
    places = torch.stack(_places(h, w, boxes.device), dim=-1).reshape(-1, 2)
    background[ignored(places, target, n_categories).T] = 0.0
    if not len(boxes):
        return _Wanted(heat, centre, background, boxes.new_zeros(h * w, 4), boxes.new_zeros(h * w), labels)
    bumps = _bumps(boxes, h, w)  # [N,P]
    for category in range(n_categories):
        mine = labels == category
        if not mine.any():
            continue
        heat[category], owner = bumps[mine].max(dim=0)
        weight = weights[mine][owner]
        peak = heat[category] == 1.0
        centre[category] = torch.where(peak, weight, 0.0)
        background[category] *= torch.where(peak, 0.0, torch.where(heat[category] > 0.01, weight, 1.0))
    height, owner = bumps.max(dim=0)
    learnt = (height > _REGRESSED) & target["regress"][owner]
    share = torch.where(learnt, height, 0.0)
    return _Wanted(heat, centre, background, boxes[owner], share, labels)


def _focal(logits: Tensor, heat: Tensor, centre: Tensor, background: Tensor) -> Tensor:
    """CenterNet's penalty-reduced focal loss (exponents 2 and 4) of each category ``[C]``."""
    p = logits.sigmoid()
    hit = (1 - p) ** 2 * functional.logsigmoid(logits) * centre
    miss = p**2 * functional.logsigmoid(-logits) * (1 - heat) ** 4 * background
    return -(hit + miss).sum(dim=(0, 2))


def balanced(counts: Tensor) -> Tensor:
    """What the loss of each category ``[C]`` is divided by, from the ``counts [C]`` of objects in the batch.

    The geometric mean of all objects and those of the category: divided by all alone, a rare category would
    learn the less the more objects there are of others; divided by its own alone, the chance of a batch would
    rule it. A category counts as at least one in :data:`_RAREST` of all.
    """
    n = counts.sum().clamp(min=1).float()
    return torch.sqrt(n * torch.maximum(counts.float(), n / _RAREST)).clamp(min=1)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU ``[N]`` of paired boxes ``[N, 4]`` (arXiv 1902.09630)."""
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - shared
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
