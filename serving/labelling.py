"""Label Studio's ML-backend protocol: which picture a task means, boxes and classes in its form."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.errors import DataError, LabelError
from emclean.stores.label_studio.choices import CLASSES, result
from emclean.stores.label_studio.page import BOXES, PICTURE
from emclean.types import Predictions

IMAGE_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Names:
    """How a labelling page calls its rectangle control, its picture, and the categories it offers."""

    control: str = BOXES
    picture: str = PICTURE
    offered: frozenset[str] | None = None


def names_of(label_config: str | None) -> Names:
    """The names in a labelling page's XML; without one, our own page's."""
    return _names(label_config, "RectangleLabels", "boxes") if label_config else Names()


def choice_names_of(label_config: str | None) -> Names:
    """The same of a page of classes: its choice for the whole picture."""
    return _names(label_config, "Choices", "classes") if label_config else Names(CLASSES)


def _names(label_config: str, control_tag: str, made_for: str) -> Names:
    if "<!" in label_config.replace("<!--", ""):
        raise LabelError("label_config may not declare entities.", "label_config", "Send the page's own XML.")
    try:
        root = ElementTree.fromstring(label_config)
    except ElementTree.ParseError as error:
        raise LabelError(
            f"label_config is not XML ({error}).", "label_config", "Send the page's own XML."
        ) from error
    control = root.find(f".//{control_tag}")
    if control is None:
        fix = f"Use a labelling page made for {made_for}."
        raise LabelError(f"label_config has no {control_tag}.", "label_config", fix)
    offered = frozenset(str(item.get("value")) for item in control if item.get("value") is not None)
    return Names(control.get("name", ""), control.get("toName", PICTURE), offered)


def find_picture(workspace: Path, data: dict[str, Any]) -> NDArray[np.uint8]:
    """The grey pixels ``[H, W]`` of a task's picture, by its image id; no address is followed."""
    image_id = str(data.get("image_id", ""))
    file = workspace / "pixels" / f"{image_id}.npy"
    if not IMAGE_ID.fullmatch(image_id) or not file.is_file():
        fix = "Tasks need data.image_id of a picture that emclean has taken in."
        raise DataError(f"image id {image_id[:40]!r} is not in this workspace.", "task", fix)
    pixels: NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    return pixels


def prediction(
    found: Predictions, size: tuple[int, int], categories: tuple[str, ...], names: Names, version: str
) -> dict[str, Any]:
    """One task's predictions: rectangles in percent of the picture of ``size`` (width, height)."""
    width, height = size
    scale = 100.0 / np.array([width, height, width, height], dtype=np.float64)
    percent = np.clip(found.boxes * scale, 0.0, 100.0)  # [N,4]
    results = []
    for (x1, y1, x2, y2), category, score in zip(percent, found.categories, found.scores, strict=True):
        name = categories[int(category)]
        if names.offered is not None and name not in names.offered:
            continue
        value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}
        results.append(_rectangle(names, size, {**value, "rectanglelabels": [name]}, float(score)))
    score = float(found.scores.mean()) if len(found) else 0.0
    return {"model_version": version, "score": score, "result": results}


def chosen(
    found: NDArray[np.float64], categories: tuple[str, ...], names: Names, version: str
) -> dict[str, Any]:
    """One task's prediction: the likeliest class ``found [K]``, where the page offers it."""
    best = int(np.argmax(found))
    score, name = float(found[best]), categories[best]
    offered = names.offered is None or name in names.offered
    items = [{**result(name, names.control, names.picture), "score": score}] if offered else []
    return {"model_version": version, "score": score, "result": items}


def _rectangle(names: Names, size: tuple[int, int], value: dict[str, Any], score: float) -> dict[str, Any]:
    return {
        "from_name": names.control,
        "to_name": names.picture,
        "type": "rectanglelabels",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": {key: float(v) if not isinstance(v, list) else v for key, v in value.items()},
        "score": score,
    }
