"""The files of an audit, read picture by picture: labels, predictions, and the truth where there is one."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

from emclean.audit.tables import writer
from emclean.science.grading import Evidence
from emclean.stores.formats.coco import Key, Sink
from emclean.stores.formats.coco_stream import LabelStream, ResultStream
from emclean.stores.formats.rows import ImageEntry
from emclean.types import Labels, SetAside

SHOWN = 200
"""So many things set aside are listed in the page; the file has them all."""


class Aside:
    """What is set aside: written to a file as it comes, counted, and the first of it kept for the page."""

    def __init__(self, file: TextIO) -> None:
        self._rows = writer(file)
        self._rows(("kind", "item", "reason"))
        self.first: list[SetAside] = []
        self.counts: Counter[str] = Counter()

    def __call__(self, item: SetAside) -> None:
        """Set one thing aside."""
        self._rows((item.kind, item.item, item.reason))
        self.counts[item.kind] += 1
        if len(self.first) < SHOWN:
            self.first.append(item)

    @property
    def total(self) -> int:
        """How many things were set aside."""
        return self.counts.total()


@dataclass(frozen=True, eq=False)
class Case:
    """One image: what the label file says of it, its labels with their rows in the file, and the evidence."""

    key: Key
    entry: ImageEntry
    rows: list[dict[str, Any]]
    evidence: Evidence
    predicted: bool

    @property
    def labels(self) -> Labels:
        """The labels that are judged."""
        return self.evidence.labels


class Sources:
    """The files, open; a context. ``truths`` maps the labelled images to their ids in the truth file."""

    def __init__(self, labels: str, predictions: str, truth: str | None, aside: Aside) -> None:
        self._aside = aside
        with ExitStack() as stack:
            self.labels: LabelStream = stack.enter_context(LabelStream(labels, aside))
            listing = self.labels.listing
            self.predictions: ResultStream = stack.enter_context(ResultStream(predictions, listing, aside))
            self.truth: LabelStream | None = None
            if truth is not None:
                self.truth = stack.enter_context(LabelStream(truth, aside, listing.names))
            self._open = stack.pop_all()
        self.truths = self._pair(aside) if self.truth is not None else {}

    def __enter__(self) -> "Sources":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def entries(self) -> Mapping[Key, ImageEntry]:
        """The images that the label file lists."""
        return self.labels.listing.entries

    def _pair(self, aside: Sink) -> dict[Key, Key]:
        """The truth file's id of each labelled image, by file name."""
        assert self.truth is not None
        ours = {entry.file_name: key for key, entry in self.entries.items()}
        pairs = {}
        for key, entry in self.truth.listing.entries.items():
            if entry.file_name in ours:
                pairs[ours[entry.file_name]] = key
            else:
                aside(SetAside("image", entry.file_name, "in the truth file, not in the label file"))
        return pairs

    def cases(self, confident: float) -> Iterator[Case]:
        """Every image in the label file's order; bad rows are set aside on the way."""
        for key in self.entries:
            yield self._case(key, confident, self._aside)

    def again(self, key: Key, confident: float) -> Case:
        """One image once more; what is bad in it was told the first time."""
        return self._case(key, confident, _silent)

    def _case(self, key: Key, confident: float, aside: Sink) -> Case:
        entry = self.entries[key]
        given, seen = self.labels.read(key, aside), self.predictions.read(key, aside)
        width = math.inf if entry.width is None else entry.width
        height = math.inf if entry.height is None else entry.height
        evidence = Evidence(given.labels, None, None, seen, width, height, confident)
        return Case(key, entry, given.rows, evidence, self.predictions.has_rows(key))

    def true_labels(self, key: Key, first: bool = False) -> Labels:
        """What the truth file says of one image; its bad rows are told only the ``first`` time."""
        assert self.truth is not None
        return self.truth.read(self.truths[key], self._aside if first else _silent).labels


def _silent(_: SetAside) -> None:
    """Tell nothing."""
