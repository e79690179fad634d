"""Compare the detector families on the emps pictures: AP50 per minute of training, and converged.

    EMCLEAN_DATA=... python benchmarks/detectors.py                    all rows of the decision page
    EMCLEAN_DATA=... python benchmarks/detectors.py --only compact     one row

Trains on train.truth less a quarter of its articles, the validation part, which chooses the weights that are
kept; val.truth only reports. One thread; minutes are processor time, which other work on the machine does not
stretch. Each time in --minutes gets a schedule of its own, as long as a short trial of the machine's speed
says; --converge trains until the validation AP50 has stopped to rise. What is trained is kept in --cache: a
stopped run goes on where it was, with the minutes that it had used.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from emclean.boxes import from_xywh
from emclean.models.ap import ap50
from emclean.models.engine import DetectorSpec, FitJob, LocalHooks, Schedule, fit, load
from emclean.models.predict import predict
from emclean.models.spec import PRETRAINED
from emclean.types import Labels, Target

SCALES = (0.5, 1.0)


@dataclass(frozen=True)
class Part:
    """Pictures as files, their labels, and the article each is from."""

    pictures: tuple[str, ...]
    labels: tuple[Labels, ...]
    groups: tuple[str, ...]

    def take(self, rows: list[int]) -> "Part":
        """Some of the pictures."""
        columns = (self.pictures, self.labels, self.groups)
        return Part(*(tuple(column[i] for i in rows) for column in columns))


@dataclass(frozen=True)
class Candidate:
    """One row of the table."""

    name: str
    family: str
    init: str | None
    lr: float
    batch: int = 8


CANDIDATES = (
    Candidate("compact, shipped weights", "compact", PRETRAINED, 2e-3),
    Candidate("compact, from scratch", "compact", None, 2e-3),
    Candidate("ssdlite", "ssdlite", None, 1e-3),
    Candidate("fcos_resnet18", "fcos_resnet18", None, 3e-4, 4),
    Candidate("retinanet_resnet18", "retinanet_resnet18", None, 3e-4, 4),
    Candidate("fasterrcnn_resnet18", "fasterrcnn_resnet18", None, 3e-4, 4),
)


def main() -> None:
    """Read the pictures, train every candidate for each time, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of the candidates' names")
    parser.add_argument("--minutes", default="1,2", help="training times, comma-separated")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument(
        "--converge", type=int, default=0, help="at most so many steps to convergence (0: none)"
    )
    parser.add_argument("--cache", type=Path, default=Path("workspace/detectors"), help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| detector | seed | steps | minutes | AP50 validation part | AP50 val.truth |")
    print("|---|---|---|---|---|---|")
    options.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench.open(Path(os.environ["EMCLEAN_DATA"]) / "emps", options.cache.absolute())
    for candidate in (c for c in CANDIDATES if options.only in c.name):
        for seed in (int(text) for text in options.seeds.split(",")):
            for text in options.minutes.split(",") if options.minutes else []:
                steps = bench.steps_in(candidate, 60 * float(text))
                bench.row(candidate, seed, Schedule(max_steps=steps, eval_every=steps))
            if options.converge:
                bench.row(candidate, seed, Schedule(options.converge, eval_every=250, patience=5))


@dataclass(frozen=True)
class Bench:
    """The three parts, and the folder that training writes to."""

    train: Part
    held: Part
    test: Part
    folder: Path

    @staticmethod
    def open(data: Path, folder: Path) -> "Bench":
        """Read both files of labels, and hold out a quarter of the training articles."""
        every = read(data, "train.truth", folder)
        groups = sorted(set(every.groups))
        held = set(np.random.default_rng(5).permutation(groups)[: len(groups) // 4])
        rows = range(len(every.pictures))
        inside, outside = ([i for i in rows if (every.groups[i] in held) is flag] for flag in (True, False))
        return Bench(every.take(outside), every.take(inside), read(data, "val.truth", folder), folder)

    def steps_in(self, candidate: Candidate, seconds: float) -> int:
        """How many steps fit into ``seconds``, by what ten more cost once the libraries are warm."""
        times = []
        for steps in (2, 2, 12):
            short = Schedule(steps, candidate.batch, lr=candidate.lr, eval_every=steps)
            began = time.process_time()
            with tempfile.TemporaryDirectory() as out:
                fit(self.job(candidate, 0, short, Path(out), validate=False), LocalHooks(Path(out)))
            times.append(time.process_time() - began)
        return max(1, round(10 * seconds / (times[2] - times[1])))

    def job(
        self, candidate: Candidate, seed: int, schedule: Schedule, out: Path, validate: bool = True
    ) -> FitJob:
        """The candidate's training on the training part."""
        return FitJob(
            spec=DetectorSpec(candidate.family, 1, scales=SCALES),
            pictures=self.train.pictures,
            targets=tuple(Target.of(labels) for labels in self.train.labels),
            validation_pictures=self.held.pictures if validate else (),
            validation_labels=self.held.labels if validate else (),
            schedule=replace(schedule, batch=candidate.batch, lr=candidate.lr),
            seed=seed,
            out=str(out),
            init=candidate.init,
        )

    def row(self, candidate: Candidate, seed: int, schedule: Schedule) -> None:
        """Train, and print one line of the table."""
        job = self.job(candidate, seed, schedule, self.folder / "fit")
        out = self.folder / job.digest()
        job, clock = replace(job, out=str(out)), Clock.of(out)
        result = fit(job, LocalHooks(out, checkpoint_every=50, watch=lambda progress: clock.keep()))
        minutes = clock.minutes()
        found = list(predict(load(result.weights), (np.load(path) for path in self.test.pictures)))
        print(
            f"| {candidate.name} | {seed} | {result.steps} | {minutes:.1f} | {result.ap50:.3f} "
            f"| {ap50(self.test.labels, found):.3f} |",
            flush=True,
        )


@dataclass(frozen=True)
class Clock:
    """The processor time of a training, added up over the times that it was stopped and went on."""

    file: Path
    before: float
    since: float

    @staticmethod
    def of(folder: Path) -> "Clock":
        """Going on from what is kept in the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "seconds.txt"
        return Clock(file, float(file.read_text()) if file.exists() else 0.0, time.process_time())

    def keep(self) -> None:
        """Write down what was used until now."""
        self.file.write_text(str(self.before + time.process_time() - self.since))

    def minutes(self) -> float:
        """What was used until the training's last report."""
        return float(self.file.read_text()) / 60


def read(data: Path, name: str, folder: Path) -> Part:
    """A COCO file and its pictures, stored as grey ``.npy`` files in ``folder``."""
    coco = json.loads((data / f"{name}.coco.json").read_text())
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in coco["images"]}
    for row in coco["annotations"]:
        boxes[row["image_id"]].append(row["bbox"])
    pictures, labels, groups = [], [], []
    for image in coco["images"]:
        path = folder / f"{name}-{image['id']}.npy"
        np.save(path, np.asarray(Image.open(data / "images" / image["file_name"]).convert("L")))
        pictures.append(str(path))
        labels.append(Labels(from_xywh(boxes[image["id"]]), np.zeros(len(boxes[image["id"]]), np.int64)))
        groups.append(image["group"])
    return Part(tuple(pictures), tuple(labels), tuple(groups))


if __name__ == "__main__":
    main()
