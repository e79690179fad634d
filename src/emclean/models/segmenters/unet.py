"""The network: a U-Net (Ronneberger et al. 2015) at half resolution, with two maps as its answer.

The first map is the logit of lying in a particle, the second that of the depth within it: 0 at its outline, 1
some px further in, so that touching particles have a valley between them (a distance map, as in Naylor et al.
2019, here cut off where a small network cannot see the outline any more).
"""

from itertools import pairwise

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from emclean.models.segmenters.spec import SegmenterSpec


def _block(inputs: int, outputs: int) -> nn.Sequential:
    groups = max(outputs // 8, 1)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(groups, outputs),
        nn.SiLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(groups, outputs),
        nn.SiLU(inplace=True),
    )


class UNet(nn.Module):
    """Pictures ``[B,1,H,W]`` in 0-1 to logits ``[B,2,H,W]``; both sides multiples of ``spec.multiple``."""

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = [spec.width * 2**level for level in range(spec.levels + 1)]
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, spec.width, 3, padding=1))
        self.down = nn.ModuleList(_block(widths[max(i - 1, 0)], w) for i, w in enumerate(widths))
        pairs = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(_block(fine + coarse, fine) for fine, coarse in pairs)
        self.head = nn.Sequential(nn.Conv2d(spec.width, 8, 1), nn.PixelShuffle(2))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of lying in a particle, and of the depth there."""
        x = self.stem(images * 4 - 2)
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for fine, block in zip(kept[-2::-1], self.up, strict=True):
            x = block(torch.cat([fine, functional.interpolate(x, scale_factor=2.0)], dim=1))
        out: Tensor = self.head(x)
        return out
