"""Two Gaussians over one number per picture."""

import math

import torch
from torch import Tensor

_ROUNDS = 30
_LEAST = 1e-3  # variance, of values brought to 0-1


def small_component(values: Tensor) -> Tensor:
    """Probability ``[n]`` that a value is of the component with the smaller mean; 0.5 where it is NaN.

    Expectation maximisation for two Gaussians (variance at least 0.001) on values brought to 0-1, begun at
    their quartiles; all 0.5 where there are not two different values.
    """
    known = ~values.isnan()
    result = torch.full_like(values, 0.5)
    x = values[known].double()
    if len(x) < 2 or float(x.max() - x.min()) < 1e-9:
        return result
    x = (x - x.min()) / (x.max() - x.min())
    mean = torch.quantile(x, x.new_tensor([0.25, 0.75]))
    spread = x.var(unbiased=False).clamp(min=_LEAST).expand(2)
    weight = x.new_tensor([0.5, 0.5])
    for _ in range(_ROUNDS):
        share = _shares(x, mean, spread, weight)  # [n,2]
        total = share.sum(0).clamp(min=1e-9)
        mean = (share * x[:, None]).sum(0) / total
        spread = ((share * (x[:, None] - mean) ** 2).sum(0) / total).clamp(min=_LEAST)
        weight = total / len(x)
    result[known] = _shares(x, mean, spread, weight)[:, int(mean.argmin())].to(result.dtype)
    return result


def _shares(x: Tensor, mean: Tensor, spread: Tensor, weight: Tensor) -> Tensor:
    """Each component's share ``[n,2]`` in each value."""
    logs = weight.log() - 0.5 * (2 * math.pi * spread).log() - (x[:, None] - mean) ** 2 / (2 * spread)
    return logs.softmax(1)
