"""Bring a data set into the form of every benchmark: a pool with crowd labels and truth, and a test set.

    python benchmarks/sets.py vnc --out workspace/sets

``emps``: as given. ``bccd``: a third of the pictures is the test set. ``vnc``: tiles of 256 px; the first
nine sections are the pool, one is left out because neighbouring sections show the same objects, the last
three are the test set; crowd errors are planted. ``deposits``: the simulator's fields with planted errors.
``EMCLEAN_DATA`` names the folder of the real ones. What lies in ``--out`` already is used again.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emclean.imaging import simulate
from emclean.loop.sources import planted
from emclean.science.noise import PRESETS

TILE = 256
SEEN = 0.4
"""A tile lists an object when at least this share of its box lies in the tile."""
BCCD_TEST = 0.35
"""The share of the pictures that is the test set."""
POOL_SECTIONS, TEST_SECTIONS = range(9), range(10, 13)


def emps(data: Path, out: Path) -> dict[str, str]:
    """The pictures and labels as they are; part and noise come with the data."""
    home = data / "emps"
    return settings(home / "images", home / "train.crowd.coco.json", home / "train.truth.coco.json", None) | {
        "data.test.images": str(home / "images"),
        "data.test.truth": str(home / "val.truth.coco.json"),
    }


def bccd(data: Path, out: Path) -> dict[str, str]:
    """Two thirds are the pool, with the original labels as the crowd's; one third is the test set."""
    home = data / "bccd"
    crowd, truth = (json.loads((home / f"{n}.coco.json").read_text()) for n in ("crowd", "truth"))
    pool, test = parts(truth["images"], BCCD_TEST, 0)
    write(out / "pool.crowd.json", only(crowd, pool))
    write(out / "pool.truth.json", only(truth, pool))
    write(out / "test.truth.json", only(truth, test))
    return settings(home / "images", out / "pool.crowd.json", out / "pool.truth.json", out) | {
        "data.test.images": str(home / "images")
    }


def vnc(data: Path, out: Path) -> dict[str, str]:
    """Tiles of the sections, with planted crowd errors."""
    home = data / "vnc"
    truth = json.loads((home / "truth.coco.json").read_text())
    for part, sections in (("pool", POOL_SECTIONS), ("test", TEST_SECTIONS)):
        images = [image for image in truth["images"] if int(image["group"][1:]) in sections]
        write(out / f"{part}.truth.json", tiled(home / "images", {**truth, "images": images}, out / part))
    return with_crowd(out)


def deposits(data: Path, out: Path) -> dict[str, str]:
    """Simulated fields with electron dense deposits, with planted crowd errors."""
    simulate.write_dataset(out, 120, 60, TILE, seed=100)
    return with_crowd(out)


def with_crowd(out: Path) -> dict[str, str]:
    """Plant the crowd's errors into the pool's truth."""
    truth = json.loads((out / "pool.truth.json").read_text())
    crowd, ledger = planted(truth, PRESETS["crowd"], np.random.default_rng(7))
    write(out / "pool.crowd.json", crowd)
    write(out / "pool.ledger.json", ledger)
    found = settings(out / "pool", out / "pool.crowd.json", out / "pool.truth.json", out)
    return found | {"data.test.images": str(out / "test")}


def settings(images: Path, crowd: Path, truth: Path, out: Path | None) -> dict[str, str]:
    """The job's settings that name these files."""
    found = {"data.pool.images": str(images), "data.pool.crowd": str(crowd), "expert.truth": str(truth)}
    return found if out is None else found | {"data.test.truth": str(out / "test.truth.json")}


def parts(images: list[Mapping[str, Any]], share: float, seed: int) -> tuple[set[str], set[str]]:
    """File names of the pool and of the test set, whole groups at a time."""
    group = {image["file_name"]: image.get("group") or image["file_name"] for image in images}
    names = sorted(set(group.values()))
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    held = set(order[: round(share * len(order))])
    return {n for n, g in group.items() if g not in held}, {n for n, g in group.items() if g in held}


def only(content: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """The part of a COCO file about these images."""
    images = [image for image in content["images"] if image["file_name"] in names]
    ids = {image["id"] for image in images}
    annotations = [a for a in content["annotations"] if a["image_id"] in ids]
    return {**content, "images": images, "annotations": annotations}


def json_of(file: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(file.read_text())


def write(file: Path, content: Any) -> None:
    """Write JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def tiled(images: Path, content: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Cut pictures and boxes into tiles; a tile's group is its picture's."""
    out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for image in content["images"]:
        pixels = np.asarray(Image.open(images / image["file_name"]).convert("L"))
        mine = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        for top in range(0, image["height"] - TILE + 1, TILE):
            for left in range(0, image["width"] - TILE + 1, TILE):
                name = f"{Path(image['file_name']).stem}-{top}-{left}.png"
                Image.fromarray(pixels[top : top + TILE, left : left + TILE]).save(out / name)
                number = len(entries) + 1
                place = {"id": number, "file_name": name, "width": TILE, "height": TILE}
                entries.append({**place, "group": image["group"]})
                for row in inside(mine, left, top):
                    rows.append({**row, "id": len(rows) + 1, "image_id": number})
    return {**content, "images": entries, "annotations": rows}


def inside(annotations: list[Mapping[str, Any]], left: int, top: int) -> list[dict[str, Any]]:
    """The annotations of one tile in its own pixels, cut at its border."""
    found = []
    for a in annotations:
        x, y, w, h = a["bbox"]
        x1, y1 = max(x - left, 0.0), max(y - top, 0.0)
        x2, y2 = min(x + w - left, float(TILE)), min(y + h - top, float(TILE))
        area = max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
        if area >= SEEN * w * h:
            box = [x1, y1, x2 - x1, y2 - y1]
            found.append({"category_id": a["category_id"], "bbox": box, "area": area, "iscrowd": 0})
    return found


SETS: Mapping[str, Callable[[Path, Path], dict[str, str]]] = {
    "emps": emps,
    "bccd": bccd,
    "vnc": vnc,
    "deposits": deposits,
}


def prepared(name: str, out: Path) -> dict[str, str]:
    """The settings of the main job for a set, prepared below ``out`` once."""
    home = (out / name).absolute()
    done = home / "settings.json"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        write(done, SETS[name](Path(os.environ.get("EMCLEAN_DATA", ".")).absolute(), home))
    return dict(json.loads(done.read_text()))


def main() -> None:
    """Prepare and print the settings, ready for ``emclean submit``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=sorted(SETS))
    parser.add_argument("--out", type=Path, default=Path("workspace/sets"))
    given = parser.parse_args()
    print(" ".join(f"{key}={value}" for key, value in prepared(given.name, given.out).items()))


if __name__ == "__main__":
    main()
