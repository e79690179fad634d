"""What a simulated expert knows: the right labels by file name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from emclean.errors import LabelServiceError
from emclean.stores.formats import classes as class_files
from emclean.stores.formats import read_labels
from emclean.stores.formats.rows import plain
from emclean.types import Ints, Labels


@dataclass(frozen=True)
class Truth:
    """What the simulated expert knows: labels by file name, indexed into ``categories``."""

    labels: Mapping[str, Labels]
    categories: tuple[str, ...]

    @staticmethod
    def load(path: str | Path) -> "Truth":
        """Read a truth file (COCO JSON or CSV; a path or URI)."""
        file = read_labels(str(path))
        return Truth(file.labels, tuple(file.categories))

    @staticmethod
    def of_classes(path: str | Path, column: str) -> "Truth":
        """Read a label file of classes (CSV ``image,COLUMN``): each is a label round the whole picture."""
        rows = class_files.read(str(path), class_files.Columns(column)).rows
        names = tuple(sorted({row.label for row in rows}))
        whole = np.array([[0.0, 0.0, 1.0, 1.0]])
        return Truth({row.image: Labels(whole, np.array([names.index(row.label)])) for row in rows}, names)

    def of(self, name: str) -> Labels | None:
        """The labels of a picture by its file name (else by the name's last part); None if unknown.

        Names are compared as ingest does, so that whatever it lets into the pool has an answer here.
        """
        if name in self.labels:
            return self.labels[name]
        same = [(plain(known), labels) for known, labels in self.labels.items()]
        alike = [labels for known, labels in same if known == name]
        last = PurePosixPath(name).name
        alike += [labels for known, labels in same if PurePosixPath(known).name == last]
        return alike[0] if alike else None

    def in_order(self, categories: Sequence[str], where: str) -> "Truth":
        """The same with indices into ``categories``, less the boxes of any other category, as ingest does."""
        order = np.array([_place(name, categories) for name in self.categories], dtype=np.int64)
        if self.categories and (order < 0).all():
            what = f"the project has none of the truth file's categories ({', '.join(self.categories)})"
            raise LabelServiceError(what, where, "Name the categories alike in both.")
        return Truth({name: _moved(own, order) for name, own in self.labels.items()}, tuple(categories))

    def left_out(self, categories: Sequence[str]) -> dict[str, int]:
        """By name, how many boxes there are of each category that is not in ``categories``."""
        counts = np.zeros(len(self.categories), dtype=np.int64)
        for own in self.labels.values():
            counts += np.bincount(own.categories, minlength=len(counts))
        rows = zip(self.categories, counts.tolist(), strict=True)
        return {name: count for name, count in rows if count and name not in categories}


def _place(name: str, categories: Sequence[str]) -> int:
    return list(categories).index(name) if name in categories else -1


def _moved(labels: Labels, order: Ints) -> Labels:
    """Labels with their categories at the places in ``order [C]``, less those that have none (-1)."""
    kept = labels.take(order[labels.categories] >= 0)
    return Labels(kept.boxes, order[kept.categories], kept.ids, kept.annotators)
