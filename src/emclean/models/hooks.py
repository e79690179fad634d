"""How training meets its surroundings: where it runs, who watches it, and where it goes on after a stop."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import nn

T = TypeVar("T")

Save = Callable[[Path], None]
"""Writes the training's whole state to one file; the file appears only when it is whole."""


@dataclass(frozen=True)
class Progress:
    """Where training stands; ``ap50`` is the newest on the validation part, None where there is none.

    Of a classifier it is the accuracy.
    """

    step: int
    total: int
    loss: float
    ap50: float | None
    seconds_left: float


class Hooks(Protocol):
    """What training asks of its surroundings; every worker makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This worker's number; 0 validates and writes."""

    @property
    def world_size(self) -> int:
        """How many workers train together."""

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that the workers' gradients are averaged."""

    def report(self, progress: Progress, save: Save | None) -> None:
        """Take note of progress, and keep a checkpoint if wanted; ``save`` is None except on rank 0."""

    def resume(self) -> Path | None:
        """The file that ``save`` wrote in an earlier, interrupted run, or None."""

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""


class LocalHooks:
    """One process on the GPU if any; ``state.pt`` in ``out`` is written every ``checkpoint_every`` steps.

    ``device`` is a name that torch knows; ``watch`` is called with the progress at every report.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        out: str | Path,
        checkpoint_every: int = 100,
        watch: Callable[[Progress], None] | None = None,
        device: str | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._state = Path(out) / "state.pt"
        self._every, self._kept, self._watch = checkpoint_every, 0, watch

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model as it is."""
        return model

    def report(self, progress: Progress, save: Save | None) -> None:
        """Keep a checkpoint if it is time, then tell the watcher."""
        if save is not None and progress.step - self._kept >= self._every:
            save(self._state)
            self._kept = progress.step
        if self._watch is not None:
            self._watch(progress)

    def resume(self) -> Path | None:
        """The checkpoint of an interrupted run in the same folder."""
        return self._state if self._state.exists() else None

    def broadcast(self, value: T) -> T:
        """The value itself."""
        return value
