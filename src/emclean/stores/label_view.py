"""How labels stand after their events: the view of every image, what experts decided, and lineage."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emclean.errors import LabelError
from emclean.stores.labels import CORNERS, SAYINGS, SOME_INSTANCES, WHOLE_IMAGE, Row
from emclean.types import Ints, Labels, Settled


def standing(table: pa.Table) -> pa.Table:
    """The last event of every instance that is not deleted, in order of first appearance.

    Give the events of one run: two runs may label the same images.
    """
    objects = _of_instances(table)
    if not objects.num_rows:
        return objects
    objects = objects.take(pc.sort_indices(objects["seq"])).combine_chunks()
    image, instance = _codes(objects["image_id"]), _codes(objects["instance_id"])
    code = image * (instance.max() + 1) + instance  # [rows], one number per instance of an image
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    last = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(last, inverse, np.arange(len(code)))
    order = np.lexsort((first, image[first]))
    kept = last[order]
    alive = np.asarray(pc.not_equal(objects["event"], "deleted"))[kept]
    return objects.take(pa.array(kept[alive]))


def current(table: pa.Table, categories: Sequence[str]) -> dict[str, Labels]:
    """How the labels of each image stand; images whose labels are all gone are there, empty.

    ``annotators`` names who drew or last confirmed each box. Give the events of one run.
    """
    view = {image: Labels.empty() for image in pc.unique(table["image_id"]).to_pylist()}
    alive = standing(table)
    if not alive.num_rows:
        return view
    image = alive["image_id"].combine_chunks().dictionary_encode()
    starts = np.append(np.flatnonzero(np.diff(np.asarray(image.indices), prepend=-1)), alive.num_rows)
    boxes = np.stack([np.asarray(alive[corner]) for corner in CORNERS], axis=1)  # [N,4]
    indices = _indices(alive["category"], categories)
    ids, who = tuple(alive["instance_id"].to_pylist()), tuple(alive["annotator"].to_pylist())
    for name, a, b in zip(image.dictionary.to_pylist(), starts[:-1], starts[1:], strict=True):
        view[name] = Labels(boxes[a:b], indices[a:b], ids[a:b], who[a:b])
    return view


def expert_images(table: pa.Table) -> set[str]:
    """The images for which an expert answered, also where the answer was: no objects."""
    whole = pc.equal(table["instance_id"], WHOLE_IMAGE)
    expert = pc.equal(table["source"], "expert")
    return set(table.filter(pc.and_(whole, expert))["image_id"].to_pylist())


def instance_ids(table: pa.Table, image_id: str) -> set[str]:
    """Every instance that the image ever had, also the deleted ones."""
    of_image = _of_instances(table.filter(pc.equal(table["image_id"], image_id)))
    return set(of_image["instance_id"].to_pylist())


def settled(table: pa.Table, categories: Sequence[str]) -> dict[str, Settled]:
    """What experts decided in the images that they reviewed in part and did not answer as a whole."""
    marked = pc.equal(table["instance_id"], SOME_INSTANCES)
    images = set(table.filter(marked)["image_id"].to_pylist()) - expert_images(table)
    if not images:
        return {}
    about = table.filter(pc.is_in(table["image_id"], value_set=pa.array(sorted(images))))
    view = current(about, categories)
    said: dict[str, dict[str, Row]] = {image: {} for image in images}
    by_experts = _of_instances(about.filter(pc.equal(about["source"], "expert")))
    for row in by_experts.sort_by("seq").to_pylist():
        said[row["image_id"]][row["instance_id"]] = row
    return {image: _settled(view[image], rows) for image, rows in said.items()}


def _settled(labels: Labels, said: Mapping[str, Row]) -> Settled:
    kept = labels.take([place for place, name in enumerate(labels.ids) if name in said])
    gone = [[row[corner] for corner in CORNERS] for row in said.values() if row["event"] == "deleted"]
    return Settled(kept, frozenset(said), np.array(gone, dtype=np.float64).reshape(-1, 4))


def lineage(table: pa.Table, instance_id: str, image_id: str | None = None) -> list[Row]:
    """Every event of an instance and of the instances it came from, oldest first."""
    if image_id is not None:
        table = table.filter(pc.equal(table["image_id"], image_id))
    wanted, done = {instance_id}, set[str]()
    events: list[Row] = []
    while wanted - done:
        name = min(wanted - done)
        done.add(name)
        found = table.filter(pc.equal(table["instance_id"], name)).to_pylist()
        events += found
        wanted |= {row["parent_id"] for row in found if row["parent_id"]}
    return sorted(events, key=lambda row: int(row["seq"]))


def _of_instances(table: pa.Table) -> pa.Table:
    """The events that speak of an instance, not of an image."""
    return table.filter(pc.invert(pc.is_in(table["instance_id"], value_set=SAYINGS)))


def _codes(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.combine_chunks().dictionary_encode().indices, dtype=np.int64)


def _indices(column: pa.ChunkedArray, categories: Sequence[str]) -> Ints:
    found = pc.index_in(column, value_set=pa.array(list(categories), pa.string()))
    if found.null_count:
        odd = pc.unique(column.filter(pc.is_null(found))).to_pylist()
        raise LabelError(
            f"unknown category {', '.join(map(repr, odd))}",
            "table 'labels'",
            f"Known: {', '.join(categories)}.",
        )
    return np.asarray(found, dtype=np.int64)
