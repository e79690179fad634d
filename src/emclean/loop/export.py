"""The labels of a run as they stand, written to a file that other programs read."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from emclean.errors import DataError
from emclean.loop import likelier
from emclean.stores import label_view
from emclean.stores.formats import coco
from emclean.stores.tables import Tables
from emclean.types import ImageRecord, Labels, Predictions

Naming = Callable[[str, str], str]


def export_run(tables: Tables, run: str, file: Path, likely: bool = False) -> Path:
    """Write a run's labels from its tables alone; return the file's path.

    Boxes become COCO JSON with the run's categories, in their order; classes CSV. With ``likely`` boxes in
    images that no expert answered are written in their likelier version.
    """
    rows = tables.read("images", where={"run": run, "part": "pool"}).to_pylist()
    about = tables.read("runs", where={"run": run}).to_pylist()
    if not rows or not about:
        fix = "Check the run's name and the workspace (see emclean status); tables elsewhere need --tables."
        raise DataError(f"no images of a run '{run}' are in these tables.", tables.root, fix)
    records = [_record(row) for row in rows]
    if json.loads(about[0]["settings"]).get("task") == "classes":
        if likely:
            raise DataError("classes have no likelier version.", f"run '{run}'", "Export without --likely.")
        return write_classes(tables, run, records, file)
    return write_coco(tables, run, records, about[0]["categories"], file, likely)


CLASS_COLUMNS = ("image", "label", "group", "source", "annotator", "at", "reason")


def write_classes(tables: Tables, run: str, records: Sequence[ImageRecord], file: Path) -> Path:
    """Write the class of each picture as it stands, as CSV with who said it, when and why."""
    table = tables.read("labels", where={"run": run})
    said = {row["image_id"]: row for row in label_view.standing(table).to_pylist()}
    lines = [
        (
            record.name,
            row["category"],
            record.group,
            row["source"],
            row["annotator"],
            row["at"].isoformat(timespec="seconds"),
            row["reason"],
        )
        for record in sorted(records, key=lambda record: record.name)
        if (row := said.get(record.image_id)) is not None
    ]
    with _writing(file), file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([CLASS_COLUMNS, *lines])
    return file


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """The folder of a file is made; what goes wrong in writing is told as a fault of the data."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"the file cannot be written: {error.strerror}.", str(file), "Check path and rights."
        ) from error


def write_coco(
    tables: Tables,
    run: str,
    records: Sequence[ImageRecord],
    categories: Sequence[str],
    file: Path,
    likely: bool = False,
) -> Path:
    """Write the labels of these images as they stand, as COCO JSON with lineage; return the file's path.

    ``info.label_revision`` is the version of the table ``labels``: read at that version, it gives the same
    file again. A label's id is its instance's, after the image's id where several images use that one. With
    ``likely`` images that no expert answered have the likelier version of their labels, by which the newest
    model was trained; what weight each had there is its ``reason``.
    """
    version = tables.version("labels")
    table = tables.read("labels", version=version, where={"run": run})
    name = _naming(table)
    labels = {i: _named(i, own, name) for i, own in label_view.current(table, categories).items()}
    lineage = _lineage(table, name)
    for image, found in (_unanswered(tables, run, categories, table) if likely else {}).items():
        ids = tuple(f"{image}/likelier-{k}" for k in range(len(found)))
        labels[image] = Labels(found.boxes, found.categories, ids, ("",) * len(ids))
        lineage |= dict(zip(ids, map(_weighed, found.scores), strict=True))
    export = coco.Export(
        images=sorted(records, key=lambda record: record.name),
        labels=labels,
        categories=categories,
        lineage=lineage,
        label_revision=str(version),
    )
    with _writing(file):
        coco.write(file, export)
    return file


def _unanswered(
    tables: Tables, run: str, categories: Sequence[str], events: pa.Table
) -> dict[str, Predictions]:
    """The likelier labels of the images that no expert has answered as a whole."""
    found = likelier.read(tables, run, categories, label_view.expert_images(events))
    if found is None:
        fix = "Round 0 writes the first ones, when experts have answered; or export without --likely."
        raise DataError(f"the run '{run}' has no likelier labels.", tables.root, fix)
    return found


def _weighed(weight: float) -> coco.Lineage:
    return coco.Lineage(source="auto", reason=f"likelier version, weight {weight:.2f}")


def _record(row: dict[str, Any]) -> ImageRecord:
    return ImageRecord(**{name: row[name] for name in ImageRecord.__dataclass_fields__})


def _naming(table: pa.Table) -> Naming:
    """How instances are called in the file, where every id may stand once only."""
    pairs = set(zip(table["image_id"].to_pylist(), table["instance_id"].to_pylist(), strict=True))
    uses = Counter(instance for _, instance in pairs)
    return lambda image, instance: f"{image}/{instance}" if uses[instance] > 1 else instance


def _named(image: str, labels: Labels, name: Naming) -> Labels:
    ids = tuple(name(image, instance) for instance in labels.ids)
    return Labels(labels.boxes, labels.categories, ids, labels.annotators)


def _lineage(table: pa.Table, name: Naming) -> dict[str, coco.Lineage]:
    """The last word on each standing label: who said it, when and why, and from which label it came."""
    return {
        name(row["image_id"], row["instance_id"]): coco.Lineage(
            source=row["source"],
            annotator=row["annotator"],
            at=row["at"].isoformat(timespec="seconds"),
            reason=row["reason"],
            parent=name(row["image_id"], row["parent_id"]) if row["parent_id"] else "",
        )
        for row in label_view.standing(table).to_pylist()
    }
