"""The tables of a workspace: documented pyarrow schemas, their keys and how they are parted into folders.

Every field's metadata holds its meaning under ``doc``; ``docs/tables.md`` is written from here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

TEXT, FLAG, REAL, WHOLE, ROUND = pa.string(), pa.bool_(), pa.float64(), pa.int64(), pa.int32()
TIME = pa.timestamp("us", tz="UTC")
REALS, TEXTS = pa.list_(pa.field("element", REAL)), pa.list_(pa.field("element", TEXT))

CORNERS = [
    ("x1", REAL),
    ("y1", REAL),
    ("x2", REAL),
    ("y2", REAL),
    ("category", TEXT),
    ("suggestion_id", TEXT),
]
ANSWERED_BOX = pa.struct(CORNERS)
SUGGESTION = pa.struct([*CORNERS, ("score", REAL), ("grade", TEXT), ("reason", TEXT)])

Column = tuple[str, Any, str]


@dataclass(frozen=True)
class TableSpec:
    """One table: what a row is, its schema, the columns that make a row unique, and its folders."""

    name: str
    doc: str
    schema: pa.Schema
    key: tuple[str, ...]
    partition: tuple[str, ...] = ("run",)


def _schema(*columns: Column) -> pa.Schema:
    """A schema of ``(name, type, doc)``; a name that ends in ``?`` may be null."""
    return pa.schema(
        pa.field(name.rstrip("?"), kind, nullable=name.endswith("?"), metadata={"doc": doc})
        for name, kind, doc in columns
    )


RUN: Column = ("run", TEXT, "The run that wrote the row.")
ROUND_OF: Column = ("round", ROUND, "The round that wrote the row; 0 is the seed.")
IMAGE: Column = ("image_id", TEXT, "Content address of the image (first 16 hex digits of its SHA-256).")
AT: Column = ("at", TIME, "When it happened, UTC.")
SEQ: Column = ("seq", WHOLE, "Order of the rows over the whole table, given on append.")


def _corners(mark: str = "", why: str = "") -> tuple[Column, ...]:
    sides = (("x1", "Left"), ("y1", "Top"), ("x2", "Right"), ("y2", "Bottom"))
    return tuple(
        (n + mark, REAL, f"{side} of the box in pixels of the full image{why}.") for n, side in sides
    )


IMAGES = TableSpec(
    "images",
    "One row per image of the pool or the test set.",
    _schema(
        IMAGE,
        RUN,
        ("part", TEXT, "What the image serves for: `pool` or `test`."),
        ("uri", TEXT, "Absolute path or fsspec URI of the file."),
        ("name", TEXT, "Name of the image in the annotation file."),
        ("width", WHOLE, "Width in pixels."),
        ("height", WHOLE, "Height in pixels."),
        ("bit_depth", WHOLE, "Bits of a pixel: 8, 16 or 32."),
        ("pixel_size_nm?", REAL, "Side of a pixel in nanometres, where the file tells it."),
        ("group", TEXT, "Section or article that must not be split between parts; may be empty."),
        AT,
    ),
    key=("run", "image_id"),
)

LABELS = TableSpec(
    "labels",
    "One row per label event, append-only; the last event of an instance is how it stands. A row with an "
    "empty `instance_id` says that an expert answered for the image as a whole, one with `*` that an expert "
    "decided on some of its instances.",
    _schema(
        ("event_id", TEXT, "Deterministic name of the event; a second event of this name is left out."),
        SEQ,
        IMAGE,
        (
            "instance_id",
            TEXT,
            "The labelled object within its image; empty for the image as a whole, `*` for a review.",
        ),
        ("event", TEXT, "`added`, `moved`, `relabelled`, `deleted` or `verified`."),
        ("source", TEXT, "Who said so: `crowd`, `auto` or `expert`."),
        ("annotator", TEXT, "Name of the person or rule; empty where not known."),
        AT,
        ROUND_OF,
        ("reason", TEXT, "Why, in a few words; may be empty."),
        ("parent_id?", TEXT, "The instance that this one came from, for instance a merged box."),
        ("category?", TEXT, "Category after the event; null for the image as a whole."),
        *_corners("?", " after the event"),
        ("task_key?", TEXT, "The task whose answer this is."),
        ("annotation_id?", WHOLE, "The label service's id of the answer."),
        RUN,
    ),
    key=("run", "event_id"),
)

PREDICTIONS = TableSpec(
    "predictions",
    "One row per image and model: what a detector found there, as lists of equal length.",
    _schema(
        RUN,
        ROUND_OF,
        (
            "model",
            TEXT,
            "Which model of the round: `cleaning`, ...; `likelier`: labels it was trained on, by weight.",
        ),
        IMAGE,
        *((n, REALS, f"The boxes' {n} in pixels of the full image.") for n in ("x1", "y1", "x2", "y2")),
        ("category", TEXTS, "The boxes' categories."),
        ("score", REALS, "The boxes' scores, 0 to 1."),
    ),
    key=("run", "round", "model", "image_id"),
)

VERDICTS = TableSpec(
    "verdicts",
    "One row per judged instance of an image: its grade and the proposed correction.",
    _schema(
        RUN,
        ROUND_OF,
        IMAGE,
        ("item", ROUND, "Place of the instance among the judged ones of its image."),
        ("instance_id?", TEXT, "The judged label; null for a missed object."),
        ("grade", TEXT, "`clean`, `missed`, `shifted`, `merged`, `spurious`, `mislabelled` or `duplicate`."),
        ("probability", REAL, "Probability of the grade."),
        ("calibrated", FLAG, "Whether the probability was calibrated on experts' answers."),
        *_corners("", " as proposed"),
        ("category", TEXT, "The proposed category."),
        ("parts", REALS, "Corners of the boxes that a merged one is split into, four numbers each."),
        ("reason", TEXT, "Why, in a few words for the expert."),
    ),
    key=("run", "round", "image_id", "item"),
)

TASKS = TableSpec(
    "tasks",
    "The journal of questions to the expert: one row per task and state; the last row of a task is how it "
    "stands.",
    _schema(
        ("key", TEXT, "External key `{run}/{image_id}/{round}`."),
        SEQ,
        RUN,
        ROUND_OF,
        IMAGE,
        ("kind", TEXT, "`image` or `review`."),
        ("blind", FLAG, "Whether the expert sees no suggestion."),
        ("value", REAL, "Expected worth; the largest is asked first."),
        ("state", TEXT, "`planned`, `pushed`, `answered`, `skipped` or `deleted`."),
        ("revision", TEXT, "The answer's `updated_at` for `answered` and `skipped`, else empty."),
        ("task_id?", WHOLE, "The label service's id, once pushed."),
        ("suggestions", pa.list_(pa.field("element", SUGGESTION)), "The boxes shown to the expert."),
        AT,
    ),
    key=("run", "key", "state", "revision"),
)

ANSWERS = TableSpec(
    "answers",
    "One row per version of an annotation pulled from the label service, used or not.",
    _schema(
        ("key", TEXT, "External key of the task."),
        RUN,
        ROUND_OF,
        IMAGE,
        ("task_id", WHOLE, "The label service's id of the task."),
        ("annotation_id", WHOLE, "The label service's id of the annotation."),
        ("updated_at", TEXT, "ISO 8601 time of this version, by the label service's clock."),
        ("annotator", TEXT, "Who answered; empty where not known."),
        ("skipped", FLAG, "Whether the expert skipped the task, which is no label."),
        ("lead_time_s?", REAL, "Seconds that the expert spent, as measured by the label service."),
        ("boxes", pa.list_(pa.field("element", ANSWERED_BOX)), "The answer's boxes; none means no objects."),
        AT,
    ),
    key=("run", "key", "annotation_id", "updated_at"),
)

_COUNTS = {
    "images": "Images opened",
    "added": "Boxes drawn",
    "moved": "Boxes moved or renamed",
    "deleted": "Boxes deleted",
    "verified": "Boxes confirmed",
}
_FIGURES = {
    "share_of_full": "Expert time so far as a share of labelling the whole pool from nothing.",
    "precision": "Precision of the labels against truth at IoU 0.5.",
    "recall": "Recall of the labels against truth at IoU 0.5.",
    "f1": "F1 of the labels against truth at IoU 0.5.",
    "mean_iou": "Mean IoU of the labels that match truth.",
    "ap50": "The model's AP at IoU 0.5 on the test set.",
    "ap": "The model's COCO AP on the test set.",
}

ROUNDS = TableSpec(
    "rounds",
    "One row per finished round: what was spent, and how labels and model stand; null where not known.",
    _schema(
        RUN,
        ROUND_OF,
        *((n, WHOLE, f"{what} by the expert so far.") for n, what in _COUNTS.items()),
        ("minutes", REAL, "Expert minutes so far."),
        *((f"{n}?", REAL, doc) for n, doc in _FIGURES.items()),
        ("model_version?", TEXT, "Version in the model registry."),
        ("label_version?", WHOLE, "Version of the table `labels` that the model was trained on."),
        ("record", TEXT, "Everything else about the round, as JSON."),
        AT,
    ),
    key=("run", "round"),
)

RUNS = TableSpec(
    "runs",
    "One row per run: what its labels and models speak of.",
    _schema(
        RUN,
        ("categories", TEXTS, "The category names, in the order of their indices in models and exports."),
        ("settings", TEXT, "The settings that decide the result, as JSON."),
        AT,
    ),
    key=("run",),
)

SET_ASIDE = TableSpec(
    "set_aside",
    "One row per image or label that was not used.",
    _schema(
        RUN,
        ("kind", TEXT, "`image` or `label`."),
        ("item", TEXT, "The file, field or row."),
        ("reason", TEXT, "Why it was not used."),
        AT,
    ),
    key=("run", "kind", "item", "reason"),
)

SPECS: Mapping[str, TableSpec] = MappingProxyType(
    {s.name: s for s in (RUNS, IMAGES, LABELS, PREDICTIONS, VERDICTS, TASKS, ANSWERS, ROUNDS, SET_ASIDE)}
)
"""Every table of a workspace by its name."""


def document() -> str:
    """The text of ``docs/tables.md``."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Tables\n"
    yield "The workspace's Delta tables. Written from `emclean.stores.schemas` by"
    yield "`python -m emclean.stores.schemas > docs/tables.md`; a test checks that the two agree.\n"
    yield "A job only ever adds rows; a row whose key exists is left out, so repeating is harmless."
    yield "`emclean remove` takes out those of a whole run. Any past version can be read."
    for spec in SPECS.values():
        yield f"\n## {spec.name}\n\n{spec.doc}\n"
        yield f"Key: {_marked(spec.key)}. Folders by: {_marked(spec.partition)}.\n"
        yield "| column | type | may be null | meaning |\n|---|---|---|---|"
        for column in spec.schema:
            null = "yes" if column.nullable else "no"
            yield f"| `{column.name}` | {_kind(column.type)} | {null} | {column.metadata[b'doc'].decode()} |"


def _marked(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _kind(kind: Any) -> str:
    if pa.types.is_list(kind):
        return f"list of {_kind(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(field.name for field in kind) + "}"
    return str(kind)


if __name__ == "__main__":
    print(document(), end="")
