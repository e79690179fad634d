"""The files of an audit, read picture by picture: labels, predictions, and the truth where there is one."""

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from emclean.audit.tables import open_text, temporary, writer
from emclean.errors import DataError
from emclean.science.grading import Evidence
from emclean.stores.formats.coco import Key, Sink
from emclean.stores.formats.coco_stream import LabelStream, ResultStream
from emclean.stores.formats.rows import ImageEntry
from emclean.types import Labels, SetAside

SHOWN = 200
"""So many things set aside are listed in the page; the file has them all."""


class Aside:
    """What is set aside: written to a file as it comes, counted, and the first of it kept for the page.

    Until :meth:`write_to` names the file, it is a temporary one.
    """

    def __init__(self) -> None:
        self._file: TextIO = temporary()
        self._rows = writer(self._file)
        self._rows(("kind", "item", "reason"))
        self.first: list[SetAside] = []
        self.counts: Counter[str] = Counter()

    def write_to(self, path: Path) -> None:
        """Write what there is, and from now on all that comes, to a file."""
        before, self._file = self._file, open_text(path)
        with before:
            before.seek(0)
            shutil.copyfileobj(before, self._file)
        self._rows = writer(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

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
            self._require_predictions(predictions)
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

    def _require_predictions(self, path: str) -> None:
        """Refuse a file without any usable prediction: by it, every label would be wrong."""
        told = [item for item in self._aside.first if item.item.startswith(self.predictions.place)][:1]

        def keep_first(item: SetAside) -> None:
            if not told:
                told.append(item)

        if not any(len(self.predictions.read(key, keep_first)) for key in self.entries):
            first = "".join(f" The first fault: {item.item}, {item.reason}." for item in told)
            fix = "Give a detector's results: a JSON list with image_id, category_id, bbox and score."
            raise DataError(f"holds no prediction that can be used.{first}", str(path), fix)

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
        evidence = Evidence(
            given.labels, None, None, seen, width, height, confident, names=self.labels.listing.names
        )
        return Case(key, entry, given.rows, evidence, self.predictions.has_rows(key))

    def true_labels(self, key: Key, first: bool = False) -> Labels:
        """What the truth file says of one image; its bad rows are told only the ``first`` time."""
        assert self.truth is not None
        return self.truth.read(self.truths[key], self._aside if first else _silent).labels


def _silent(_: SetAside) -> None:
    """Tell nothing."""
