"""What the methods share that train on the pictures of smallest loss."""

import torch
from torch import Tensor

from emclean.models.robust.base import Run

RAMP_EPOCHS = 10.0  # T_k of co-teaching
RAMP_SHARE = 0.5


def kept_share(run: Run) -> float:
    """R(T) = 1 - tau min(T / T_k, 1) (Han et al. 2018, algorithm 1), tau being the rate of wrong labels.

    T counts epochs. T_k is ``ramp_epochs``, but never more than the share ``ramp_share`` of the training, so
    that short ones also come to discard.
    """
    total = run.epoch / run.done if run.done else float("inf")
    ramp = min(run.options["ramp_epochs"], run.options["ramp_share"] * total)
    return 1.0 - run.rate * min(run.epoch / ramp, 1.0)


def smallest(losses: Tensor, share: float, trusted: Tensor) -> Tensor:
    """Mask ``[B]`` of all trusted labels and of that share of the others whose ``losses`` are smallest."""
    known = int(trusted.sum())
    number = max(1, known + round(share * (len(losses) - known)))
    ranked = losses.detach().masked_fill(trusted, -torch.inf).argsort(stable=True)
    mask = torch.zeros_like(trusted)
    mask[ranked[:number]] = True
    return mask


def note(run: Run, index: Tensor, *masks: Tensor) -> None:
    """Remember which pictures were kept when they were last seen, as a share of the networks."""
    share = torch.stack([mask.float() for mask in masks]).mean(0)
    if "kept" not in run.memory:
        run.memory["kept"] = torch.ones(len(run.labels), device=run.device)
    run.memory["kept"][index] = share
