"""How long `emclean audit` takes: per image at 10, 50 and 200 boxes, and in all for few and many images.

    python benchmarks/audit_speed.py                     # under two minutes on one core
    python benchmarks/audit_speed.py --images 10000 --boxes 200

Writes random label and result files (one and a half predictions a label, errors like a crowd's), audits them
in a process of its own each, and prints seconds, milliseconds an image, and the most memory that was held.
The last lines compare the larger set of ``--images`` with a tenth of it: a time ratio near 10 and a memory
ratio near 1 say that time grows with the boxes and memory does not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emclean.boxes import to_xywh
from emclean.science.noise import PRESETS, plant
from emclean.types import Floats, Labels

SIDE = 2048
SCENES = 20
"""Different images; more are repeats of these, as what is in them does not matter for the time."""

_AUDIT = """
import resource, sys, time
from pathlib import Path
from emclean.audit import audit
since = time.perf_counter(), time.process_time()
audit(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
took = time.perf_counter() - since[0], time.process_time() - since[1]
print(*took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


class Took(NamedTuple):
    """Seconds by the clock and of the processor, and the largest resident memory in MiB."""

    wall: float
    cpu: float
    mib: float


def scene(n: int, rng: np.random.Generator) -> tuple[Labels, Floats]:
    """One image: ``n`` crowd labels or so, and predictions ``[P,5]`` (box, score)."""
    across = int(np.ceil(np.sqrt(n)))
    step = SIDE / across
    cells = np.stack(np.meshgrid(np.arange(across), np.arange(across)), axis=-1).reshape(-1, 2)[:n]
    low = (cells + rng.uniform(0, 0.3, (n, 2))) * step
    boxes = np.concatenate([low, low + rng.uniform(0.4, 0.65, (n, 2)) * step], axis=1)
    labels = plant(Labels(boxes, np.zeros(n, np.int64)), SIDE, SIDE, PRESETS["crowd"], 1, rng).labels
    seen = boxes + rng.normal(0, 0.04 * step, boxes.shape)
    corner = rng.uniform(0, SIDE - step, (n // 2, 2))
    bogus = np.concatenate([corner, corner + rng.uniform(0.3, 0.6, corner.shape) * step], axis=1)
    scores = np.concatenate([rng.beta(5, 2, n), rng.beta(1.5, 5, n // 2)])
    return labels, np.concatenate([np.concatenate([seen, bogus]), scores[:, None]], axis=1)


def write(folder: Path, images: int, boxes: int) -> tuple[Path, Path]:
    """Label and result files of so many images."""
    rng = np.random.default_rng(0)
    scenes = [scene(boxes, rng) for _ in range(min(SCENES, images))]
    labels, results = folder / "labels.json", folder / "results.json"
    listed = [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(images)]
    with labels.open("w") as out, results.open("w") as found:
        out.write(f'{{"images": {json.dumps(listed)}, "categories": [{{"id": 1, "name": "object"}}], ')
        out.write('"annotations": [')
        found.write("[")
        number = 0
        for i in range(images):
            given, seen = scenes[i % len(scenes)]
            rows = []
            for box in np.round(to_xywh(given.boxes), 2).tolist():
                number += 1
                rows.append({"id": number, "image_id": i, "category_id": 1, "bbox": box})
            scored = zip(np.round(to_xywh(seen[:, :4]), 2).tolist(), seen[:, 4].tolist(), strict=True)
            answers = [{"image_id": i, "category_id": 1, "bbox": b, "score": round(s, 4)} for b, s in scored]
            comma = "," if i else ""
            out.write(comma + json.dumps(rows)[1:-1])
            found.write(comma + json.dumps(answers)[1:-1])
        out.write("]}")
        found.write("]")
    return labels, results


def measure(images: int, boxes: int) -> Took:
    """Audit so many images of so many boxes in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        labels, results = write(Path(name), images, boxes)
        command = [sys.executable, "-c", _AUDIT, str(labels), str(results), str(Path(name) / "out")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Took(*(float(figure) for figure in done.stdout.split()))


def show(images: int, boxes: int, took: Took) -> None:
    """One row of the table."""
    each = 1000 * took.cpu / images
    print(f"{images:7d} {boxes:6d} {took.wall:8.1f} {took.cpu:8.1f} {each:9.2f} {took.mib:8.0f}", flush=True)


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="images of the larger set (%(default)s)")
    parser.add_argument("--boxes", type=int, default=20, help="boxes an image in that set (%(default)s)")
    given = parser.parse_args()
    print(f"{'images':>7s} {'boxes':>6s} {'wall s':>8s} {'cpu s':>8s} {'ms/image':>9s} {'MiB':>8s}")
    for boxes in (10, 50, 200):
        show(200, boxes, measure(200, boxes))
    few, many = (measure(n, given.boxes) for n in (given.images // 10, given.images))
    show(given.images // 10, given.boxes, few)
    show(given.images, given.boxes, many)
    print(f"ten times the images: {many.cpu / few.cpu:.1f} x the time, {many.mib / few.mib:.2f} x the memory")
    return 0


if __name__ == "__main__":
    sys.exit(main())
