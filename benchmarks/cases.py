"""Labels to judge, with the truth and with what detectors see: the cases of several benchmarks.

``emps``: train truth with planted noise, and the predictions of the shipped detector, which never saw a label
of it. ``bccd``: its real errors against the re-annotation, and the predictions of two detectors, each
trained on the original labels of one half and asked about the other. Everything computed is kept in a cache.
"""

import hashlib
import json
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import emclean.science
from benchmarks.kept import digest_of_facts
from emclean.boxes import from_xywh
from emclean.models.engine import DetectorSpec, FitJob, LocalHooks, Schedule, fit, load
from emclean.models.predict import predict
from emclean.models.spec import SHIPPED
from emclean.science.finding import Faults, planted_faults, true_faults
from emclean.science.grading import Evidence
from emclean.science.noise import PRESETS, NoiseRates, Planted, plant
from emclean.types import Floats, Labels, Predictions, Target

EXPERT = (5, 20)
NOISE = {
    **PRESETS,
    "mixed": NoiseRates(missed=0.2, shifted=0.25, shift_sigma=0.25, merged=0.2, spurious=0.15, duplicate=0.1),
}


@dataclass(frozen=True)
class Part:
    """Pictures of one set, the groups they belong to, the labels to be judged (or spoilt), and the truth."""

    name: str
    pictures: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    labels: tuple[Labels, ...]
    truths: tuple[Labels, ...]
    groups: tuple[str, ...]

    def only(self, names: Set[str]) -> "Part":
        """The pictures with these file names."""
        rows = [i for i, path in enumerate(self.pictures) if path.name in names]
        columns = (self.pictures, self.sizes, self.labels, self.truths, self.groups)
        return Part(self.name, *(tuple(column[i] for i in rows) for column in columns))


def read(home: Path, labels: str, truth: str) -> Part:
    """A COCO file of labels and one of the truth of the same pictures, matched by file name."""
    of = {name: boxes(home / f"{name}.coco.json") for name in (labels, truth)}
    images = json.loads((home / f"{truth}.coco.json").read_text())["images"]
    names = [image["file_name"] for image in images]
    return Part(
        home.name,
        tuple(home / "images" / name for name in names),
        tuple((image["width"], image["height"]) for image in images),
        tuple(of[labels].get(name, Labels.empty()) for name in names),
        tuple(of[truth].get(name, Labels.empty()) for name in names),
        tuple(image.get("group") or image["file_name"] for image in images),
    )


def boxes(path: Path, categories: Sequence[str] = ()) -> dict[str, Labels]:
    """The labels of every picture of a COCO file, by file name; ``categories`` in order, if not by name."""
    coco = json.loads(path.read_text())
    names = list(categories) or sorted(c["name"] for c in coco["categories"])
    order = {c["id"]: names.index(c["name"]) for c in coco["categories"]}
    rows: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for row in coco["annotations"]:
        rows[row["image_id"]].append(row)
    return {
        image["file_name"]: Labels(
            from_xywh([r["bbox"] for r in rows[image["id"]]]),
            np.array([order[r["category_id"]] for r in rows[image["id"]]], dtype=np.int64),
        )
        for image in coco["images"]
    }


@dataclass(frozen=True)
class Cache:
    """Results as JSON files named by a digest of everything they follow from."""

    folder: Path

    def get(self, key: object, make: Callable[[], Any]) -> Any:
        """What is stored under ``key``, or what ``make`` makes of it now."""
        path = self.folder / f"{digest_of_facts(key)}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(make()))
            draft.replace(path)
        return json.loads(path.read_text())


def arguments(what: str | None, noise: str, seeds: str) -> ArgumentParser:
    """The options of every benchmark of these cases, with its defaults; ``what`` is its module's text."""
    parser = ArgumentParser(description=what, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is computed already")
    parser.add_argument("--noise", default=noise, help=f"planted into emps, some of {', '.join(NOISE)}")
    parser.add_argument("--seeds", default=seeds, help="of the planted noise and the expert's images")
    parser.add_argument("--steps", type=int, default=300, help="training steps for bccd (0: leave it out)")
    return parser


def data_folder() -> Path:
    """The folder of the data sets, which ``EMCLEAN_DATA`` names; without it the program ends with 3."""
    named = os.environ.get("EMCLEAN_DATA")
    if not named:
        print("EMCLEAN_DATA is not set: name the folder with emps and bccd", file=sys.stderr)
        raise SystemExit(3)
    return Path(named)


def spread(values: Sequence[float] | Floats) -> str:
    """Mean, and standard deviation where there are several."""
    deviation = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def digest_of(*paths: Path) -> str:
    """A digest of the contents of files."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(path.read_bytes())
    return sha.hexdigest()[:24]


def science_digest() -> str:
    """A digest of the code that every result depends on."""
    package = Path(emclean.science.__file__).parent
    return digest_of(*sorted(package.rglob("*.py")), package.parent / "boxes.py")


def digest_of_arrays(*values: Any) -> str:
    """A digest of labels or predictions."""
    sha = hashlib.sha256()
    for value in values:
        for name in ("boxes", "categories", "scores"):
            sha.update(np.ascontiguousarray(getattr(value, name, np.zeros(0))).tobytes())
        sha.update(b"|")
    return sha.hexdigest()[:24]


def grey(path: Path) -> Any:
    """A picture as grey levels."""
    return np.asarray(Image.open(path).convert("L"))


def to_rows(found: Predictions) -> list[Any]:
    """Predictions as lists."""
    return [found.boxes.tolist(), found.categories.tolist(), found.scores.tolist()]


def from_rows(rows: Sequence[Any]) -> Predictions:
    """Predictions from lists."""
    return Predictions(np.array(rows[0]).reshape(-1, 4), np.array(rows[1], np.int64), np.array(rows[2]))


def shipped(part: Part, scales: tuple[float, ...]) -> list[Any]:
    """What the shipped detector finds in each picture."""
    return [to_rows(p) for p in predict(load("pretrained"), map(grey, part.pictures), scales, flips=True)]


def crossfit(part: Part, steps: int, scale: float, folder: Path) -> list[Any]:
    """What two detectors find, each trained on the labels of half the pictures and asked about the other."""
    fold = np.random.default_rng(0).permutation(np.arange(len(part.pictures)) % 2)
    arrays = [folder / f"{part.name}-{path.stem}.npy" for path in part.pictures]
    for path, array in zip(part.pictures, arrays, strict=True):
        np.save(array, grey(path))
    n = 1 + max(int(x.categories.max(initial=0)) for x in part.labels)
    found: dict[int, list[Any]] = {}
    for k in (0, 1):
        train, rest = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        out = folder / f"{part.name}-fold-{k}"
        job = FitJob(
            DetectorSpec("compact", n, scales=(scale,)),
            tuple(str(arrays[i]) for i in train),
            tuple(Target.of(part.labels[i]) for i in train),
            schedule=Schedule(steps, crop=128, eval_every=steps),
            seed=k,
            out=str(out),
        )
        detector = load(fit(job, LocalHooks(out)).weights)
        answers = predict(detector, (grey(part.pictures[i]) for i in rest), flips=True)
        found.update(zip(rest.tolist(), map(to_rows, answers), strict=True))
    return [found[i] for i in range(len(part.pictures))]


@dataclass(frozen=True)
class Case:
    """One set with labels to judge: evidence, what is wrong, and the truth, of every image; the seed."""

    evidences: tuple[Evidence, ...]
    faults: tuple[Faults, ...]
    truths: tuple[Labels, ...]
    seed: int

    def drawn(self, n: int) -> list[int]:
        """The first ``n`` images of a random order, which the seed gives."""
        return [int(i) for i in np.random.default_rng([self.seed, 99]).permutation(len(self.truths))[:n]]

    def expert(self) -> list[int]:
        """The images whose truth is known, at most 20 and at most a third."""
        return self.drawn(min(max(EXPERT), len(self.truths) // 3))

    def judged(self) -> list[int]:
        """All others, by which every method is measured."""
        return sorted(set(range(len(self.truths))) - set(self.expert()))


def evidence_of(part: Part, found: Sequence[Predictions], labels: Sequence[Labels]) -> tuple[Evidence, ...]:
    """Labels and predictions of every picture; one model stands for all three."""
    rows = zip(labels, found, part.sizes, part.pictures, strict=True)
    return tuple(
        Evidence(x, None, None, p, width, height, picture=partial(grey, file))
        for x, p, (width, height), file in rows
    )


def spoilt(part: Part, found: Sequence[Predictions], rates: NoiseRates, seed: int) -> Case:
    """The truth with planted errors."""
    rng = np.random.default_rng(seed)
    sizes = zip(part.truths, part.sizes, strict=True)
    noisy = [plant(truth, width, height, rates, 1, rng) for truth, (width, height) in sizes]
    return noisy_case(part, found, noisy, seed)


def noisy_case(part: Part, found: Sequence[Predictions], noisy: Sequence[Planted], seed: int) -> Case:
    """The labels of every picture as they were planted, with what their ledgers say is wrong."""
    faults = tuple(planted_faults(n, t) for n, t in zip(noisy, part.truths, strict=True))
    return Case(evidence_of(part, found, [n.labels for n in noisy]), faults, part.truths, seed)


def spoilt_by(
    part: Part, found: Sequence[Predictions], rates: Sequence[NoiseRates], seed: int, named: bool
) -> Case:
    """The truth with errors of several annotators, each of whom labelled a share of the images, drawn anew.

    ``named``: their names stand at the labels, so that the grader can tell them apart.
    """
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.arange(len(part.truths)) % len(rates))
    rows = zip(part.truths, part.sizes, who, strict=True)
    noisy = [plant(truth, width, height, rates[k], 1, rng) for truth, (width, height), k in rows]
    if named:
        noisy = [signed(n, f"annotator {k}") for n, k in zip(noisy, who, strict=True)]
    return noisy_case(part, found, noisy, seed)


def signed(planted: Planted, name: str) -> Planted:
    """The same with an annotator's name at every label."""
    labels = replace(planted.labels, annotators=(name,) * len(planted.labels))
    return replace(planted, labels=labels)


def real(part: Part, found: Sequence[Predictions], seed: int) -> Case:
    """The labels as they are; the seed draws the expert's images."""
    faults = tuple(true_faults(x, t) for x, t in zip(part.labels, part.truths, strict=True))
    return Case(evidence_of(part, found, part.labels), faults, part.truths, seed)


def emps_seen(data: Path, cache: Cache) -> tuple[Part, list[Predictions]]:
    """The ``emps`` train part, and what the shipped detector finds in it."""
    emps = read(data / "emps", "train.truth", "train.truth")
    key = ["shipped, flips", digest_of(SHIPPED, *emps.pictures)]
    return emps, [from_rows(r) for r in cache.get(key, partial(shipped, emps, (0.5, 1.0)))]


def emps_cases(data: Path, cache: Cache, noise: str, seeds: Sequence[int]) -> list[Case]:
    """The ``emps`` train part with errors planted, seen by the shipped detector."""
    emps, found = emps_seen(data, cache)
    return [spoilt(emps, found, NOISE[noise], seed) for seed in seeds]


def bccd_cases(data: Path, cache: Cache, steps: int, seeds: Sequence[int]) -> list[Case]:
    """All of ``bccd`` with its own errors, seen by detectors of ``steps`` training steps."""
    bccd = read(data / "bccd", "crowd", "truth")
    key = ["crossfit, flips", digest_of(SHIPPED, *bccd.pictures), digest_of_arrays(*bccd.labels), steps]
    cache.folder.mkdir(parents=True, exist_ok=True)
    answers = [from_rows(r) for r in cache.get(key, partial(crossfit, bccd, steps, 0.25, cache.folder))]
    return [real(bccd, answers, seed) for seed in seeds]
