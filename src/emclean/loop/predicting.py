"""What a detector finds in a folder of pictures, written as COCO results: what ``emclean audit`` reads."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emclean.boxes import to_xywh
from emclean.errors import DataError, ImageError
from emclean.imaging.folders import Folder
from emclean.loop import states
from emclean.loop.console import Console
from emclean.models import engine
from emclean.models.detectors import Detector
from emclean.models.files import whole
from emclean.models.spec import PRETRAINED
from emclean.report.text import plural
from emclean.stores.formats.coco import Key
from emclean.stores.formats.coco_stream import LabelStream, Listing
from emclean.types import Predictions


@dataclass(frozen=True)
class Written:
    """How many pictures were searched, how many objects were found, and which pictures could not be read."""

    pictures: int
    found: int
    unread: tuple[str, ...]


def predict_folder(
    labels: str, images: str, model: str, out: Path, console: Console, flips: bool = True
) -> Written:
    """Search every picture that a COCO label file lists; write COCO results with the file's own ids.

    ``model`` is a file of weights, or ``"pretrained"`` for the shipped detector of particles; its categories
    are those of the label file, in their order. ``flips`` also searches each picture mirrored. Pictures that
    cannot be read have no results and are named in what is returned. One picture is held at a time.
    """
    folder, detector = Folder(images), engine.load(model)
    with closing(LabelStream(labels, lambda aside: None)) as stream:
        listing = stream.listing
    ids = _category_ids(listing, detector, labels)
    unread: list[str] = []
    found = 0
    name = f"searching {plural(len(listing.entries), 'picture')}"
    with whole(out) as draft, draft.open("w", encoding="utf-8") as file, console.stage(name) as progress:
        file.write("[")
        for done, (image, entry) in enumerate(listing.entries.items(), start=1):
            try:
                pixels = folder.read(entry.file_name, (entry.width, entry.height))
            except ImageError as error:
                unread.append(str(error))
                continue
            for row in _rows(image, next(engine.predict(detector, [pixels], flips=flips)), ids):
                file.write(f"{',' if found else ''}\n{json.dumps(row)}")
                found += 1
            progress(done, len(listing.entries))
        file.write("\n]\n")
    return Written(len(listing.entries) - len(unread), found, tuple(unread))


def weights_of(model: str, workspace: Path) -> str:
    """The file of weights that ``model`` names: a file, the newest model of a run, or ``"pretrained"``."""
    if model == PRETRAINED or Path(model).is_file():
        return model
    state = states.load(workspace / "runs" / model / "state.json", model)
    finals = [state.models[role]["weights"] for role in sorted(state.models, key=_round) if _round(role) >= 0]
    if not finals or not Path(finals[-1]).is_file():
        known = "Give a file of weights, the name of a run that has trained a model, or pretrained."
        raise DataError("is no model.", model, known)
    return str(finals[-1])


def _round(role: str) -> int:
    """The round of a model that is measured; -1 of every other."""
    name, _, number = role.partition("-")
    return int(number) if name == "final" and number.isdigit() else -1


def _category_ids(listing: Listing, detector: Detector, labels: str) -> list[Key]:
    """The label file's id of each category that the detector tells apart."""
    first = {name: key for key, name in reversed(list(listing.categories.items()))}
    ids = [first[name] for name in listing.names]
    if len(ids) != detector.spec.n_categories:
        what = f"lists {len(ids)} categories, the detector tells {detector.spec.n_categories} apart."
        raise DataError(what, labels, "Give a detector of these categories (--model FILE).")
    return ids


def _rows(image: Key, found: Predictions, ids: Sequence[Key]) -> Iterator[dict[str, Any]]:
    """COCO's rows of one picture, corners to a hundredth of a pixel."""
    boxes = to_xywh(found.boxes).round(2).tolist()
    for box, category, score in zip(boxes, found.categories, found.scores, strict=True):
        yield {
            "image_id": image,
            "category_id": ids[int(category)],
            "bbox": box,
            "score": round(float(score), 5),
        }
