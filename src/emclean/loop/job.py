"""What the steps of a run are given: the settings, the parts, the data, and where to write."""

import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emclean.config import ActiveClean, ActiveKeys
from emclean.loop.compute import Compute
from emclean.loop.console import Console
from emclean.loop.ingest import Ingested
from emclean.loop.kind import Kind
from emclean.science.cost import CostModel
from emclean.seams import LabelService, Registry, Tracker
from emclean.stores.tables import Tables
from emclean.types import ImageRecord, Labels

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Parts:
    """The neighbours of a run, each behind its seam.

    ``swap`` serves a model version and returns its address, None where nothing is served;
    ``expert_program`` runs the simulated expert beside a real label service and yields a check that it lives;
    ``addresses`` are shown to people; ``now`` is the clock.
    """

    tables: Tables
    service: LabelService
    tracker: Tracker
    registry: Registry
    compute: Compute
    console: Console
    swap: Callable[[str, Path, Mapping[str, Any]], str] | None
    expert_program: Callable[[], AbstractContextManager[Callable[[], None]]] | None
    addresses: Mapping[str, str | None]
    now: Callable[[], datetime]


@dataclass(frozen=True)
class RunData:
    """The pictures and labels of a run.

    ``pool`` with its crowd labels, ``test`` with trusted ones (None without a test set), and ``truth`` of
    the pool where a truth file exists (it feeds the simulated expert and the reported label quality, never a
    model other than the full-expert ceiling).
    """

    pool: Ingested
    test: Ingested | None
    truth: Mapping[str, Labels] | None

    @property
    def categories(self) -> tuple[str, ...]:
        """The category names; an index in any array means a place in this tuple."""
        return self.pool.categories

    def record(self, image_id: str) -> ImageRecord:
        """The pool's record of an image."""
        return self._records[image_id]

    def ids(self) -> list[str]:
        """The image ids of the pool, sorted."""
        return sorted(self._records)

    @cached_property
    def _records(self) -> dict[str, ImageRecord]:
        return {record.image_id: record for record in self.pool.records}


def _boxes() -> Kind:
    from emclean.loop.box_kind import BoxKind  # it is made of what takes a job

    return BoxKind()


@dataclass(frozen=True)
class Job:
    """One run: its settings, parts, data and folder ``<workspace>/runs/<run>``, and what kind of label it is
    about.

    ``memory`` keeps what is dear to compute for the steps that follow; it may be emptied at any time.
    """

    settings: ActiveKeys
    run: str
    workspace: Path
    parts: Parts
    data: RunData
    kind: Kind = field(default_factory=_boxes, repr=False)
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """Where this run keeps its state, plans, predictions and report."""
        return self.workspace / "runs" / self.run

    @property
    def cost_model(self) -> CostModel:
        """The stated cost model in seconds."""
        return self.kind.costs(self.settings.cost.model_dump())

    @property
    def boxes(self) -> ActiveClean:
        """The settings of a job over boxes."""
        assert isinstance(self.settings, ActiveClean)
        return self.settings

    def remembered(self, name: str, key: object, make: Callable[[], Kept]) -> Kept:
        """What ``make`` returns, made once for as long as ``key`` stays the same; only the newest is kept."""
        if name not in self.memory or self.memory[name][0] != key:
            self.memory.pop(name, None)  # the old one must not stand beside the new one
            self.memory[name] = key, make()
        kept: Kept = self.memory[name][1]
        return kept

    def rng(self, purpose: str, round_: int = 0) -> np.random.Generator:
        """A generator for one purpose and round: no draw depends on how many were made before it."""
        return np.random.default_rng([self.settings.seed, zlib.crc32(purpose.encode()), round_])

    def seed(self, purpose: str, round_: int = 0) -> int:
        """A seed for one purpose and round."""
        return int(self.rng(purpose, round_).integers(2**31))

    def picture(self, image_id: str) -> str:
        """The path of an image's grey pixels, as prepared by ingest."""
        return str(self.workspace / "pixels" / f"{image_id}.npy")

    def pixels(self, image_id: str) -> NDArray[np.uint8]:
        """An image's grey pixels ``[H,W]``."""
        return np.asarray(np.load(self.picture(image_id)))

    def pictures(self, ids: list[str]) -> list[str]:
        """The paths of the images' grey pixels."""
        return [self.picture(image_id) for image_id in ids]
