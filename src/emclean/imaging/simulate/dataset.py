"""A folder of simulated pictures with their truth, as COCO files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emclean import boxes
from emclean.imaging.simulate.canvas import Field
from emclean.imaging.simulate.glomerulus import field

CATEGORY = "deposit"
CASE_SIZE = 5
"""How many pictures share one ``group``, as sections of one case would."""


@dataclass(frozen=True)
class Written:
    """Where a simulated dataset lies."""

    pool_images: Path
    pool_truth: Path
    test_images: Path
    test_truth: Path


def write_dataset(folder: Path, n_pool: int, n_test: int, size: int = 256, seed: int = 0) -> Written:
    """Write ``pool/`` and ``test/`` (PNG) and ``{pool,test}.truth.json``; same seed, same bytes."""
    parts = [
        _write_part(folder, name, n, size, (seed, i))
        for i, (name, n) in enumerate((("pool", n_pool), ("test", n_test)))
    ]
    return Written(*parts[0], *parts[1])


def _write_part(folder: Path, part: str, n: int, size: int, seed: tuple[int, int]) -> tuple[Path, Path]:
    images, truth = folder / part, folder / f"{part}.truth.json"
    images.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for i in range(n):
        made = field(np.random.default_rng([*seed, i]), (size, size))
        name = f"{part}-{i:04d}.png"
        Image.fromarray(made.pixels).save(images / name, compress_level=1)
        group = f"{part}-case-{i // CASE_SIZE:03d}"
        entries.append({"id": i + 1, "file_name": name, "width": size, "height": size, "group": group})
        rows += _annotations(made, i + 1, len(rows))
    content = {
        "info": {"description": f"emclean simulator, seed {seed[0]}"},
        "images": entries,
        "categories": [{"id": 1, "name": CATEGORY}],
        "annotations": rows,
    }
    truth.write_text(json.dumps(content), encoding="utf-8")
    return images, truth


def _annotations(made: Field, image: int, used: int) -> list[dict[str, Any]]:
    sides = boxes.to_xywh(made.labels.boxes)
    return [
        {
            "id": used + k + 1,
            "image_id": image,
            "category_id": 1,
            "bbox": [float(side) for side in box],
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for k, box in enumerate(sides)
    ]
