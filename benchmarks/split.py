"""Split a COCO data set into a pool and a test set, for data that comes without one.

    python benchmarks/split.py $EMCLEAN_DATA/bccd workspace/bccd-split --share 0.35 --seed 0

Reads ``crowd.coco.json`` and ``truth.coco.json`` of the folder and writes ``pool.crowd.json``,
``pool.truth.json`` and ``test.truth.json``. Images of one ``group`` stay together; an image without a
group is one of its own.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


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


def main() -> None:
    """Read, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.35, help="share of the test set (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    crowd, truth = (
        json.loads((given.source / f"{name}.coco.json").read_text()) for name in ("crowd", "truth")
    )
    pool, test = parts(truth["images"], given.share, given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("pool.crowd", only(crowd, pool)),
        ("pool.truth", only(truth, pool)),
        ("test.truth", only(truth, test)),
    ):
        (given.out / f"{name}.json").write_text(json.dumps(content))
    print(f"{len(pool)} pool images, {len(test)} test images in {given.out}")


if __name__ == "__main__":
    main()
