"""Where a run's pictures and labels come from: the user's files, or simulated fields with planted noise."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emclean.boxes import from_xywh, to_xywh
from emclean.config import ActiveClean
from emclean.errors import ConfigError, DataError
from emclean.imaging import simulate
from emclean.loop.console import Console
from emclean.loop.ingest import Ingested, ingest, ingest_truth
from emclean.loop.job import RunData
from emclean.loop.states import write_atomically
from emclean.science import noise
from emclean.stores.formats.rows import first_reasons
from emclean.types import Labels, SetAside


def simulated(config: ActiveClean, folder: Path, console: Console) -> ActiveClean:
    """The configuration with its data simulated into ``folder``; unchanged when it names its own pictures."""
    if config.data.pool.images is not None:
        return config
    wanted = config.data.simulate
    home = folder / f"seed-{config.seed}-{wanted.pool}-{wanted.test}-{wanted.size}-{wanted.noise}"
    done = home / "complete"
    if not done.exists():
        with console.stage(f"simulating {wanted.pool} + {wanted.test} TEM fields with deposits"):
            simulate.write_dataset(home, wanted.pool, wanted.test, wanted.size, config.seed)
            _plant(home, wanted.noise, config.seed)
        write_atomically(done, "")
    pool = {"images": str(home / "pool"), "crowd": str(home / "pool.crowd.json")}
    test = {"images": str(home / "test"), "truth": str(home / "test.truth.json")}
    values = config.model_dump()
    values["data"].update(pool=pool, test=test)
    values["expert"]["truth"] = str(home / "pool.truth.json")
    return ActiveClean.model_validate(values)


def _plant(home: Path, preset: str, seed: int) -> None:
    """Crowd labels: the truth with planted noise, and beside them the ledger of what was planted."""
    truth = json.loads((home / "pool.truth.json").read_text(encoding="utf-8"))
    crowd, ledger = planted(truth, noise.PRESETS[preset], np.random.default_rng([seed, 1]))
    crowd["info"] = {"description": f"planted noise: {preset}"}
    (home / "pool.crowd.json").write_text(json.dumps(crowd), encoding="utf-8")
    (home / "pool.ledger.json").write_text(json.dumps(ledger), encoding="utf-8")


def planted(
    truth: Mapping[str, Any], rates: noise.NoiseRates, rng: np.random.Generator
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO file's content with crowd errors planted into it, and the ledger: image, kinds, noisy labels."""
    order = {category["id"]: k for k, category in enumerate(truth["categories"])}
    by_image: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    annotations: list[dict[str, Any]] = []
    ledger: list[dict[str, Any]] = []
    for image in truth["images"]:
        mine = by_image[image["id"]]
        categories = np.array([order[a["category_id"]] for a in mine], dtype=np.int64)
        labels = Labels(from_xywh(np.array([a["bbox"] for a in mine]).reshape(-1, 4)), categories)
        made = noise.plant(labels, image["width"], image["height"], rates, len(order), rng)
        first = len(annotations) + 1
        for box, category in zip(to_xywh(made.labels.boxes), made.labels.categories, strict=True):
            place = {"bbox": [round(float(side), 2) for side in box], "image_id": image["id"]}
            name = truth["categories"][int(category)]["id"]
            annotations.append({"id": len(annotations) + 1, "category_id": name, **place})
        noisy = [first + int(k) if k >= 0 else None for k in made.ledger.noisy]
        ledger.append({"image": image["file_name"], "kind": made.ledger.kind.tolist(), "label": noisy})
    return {**truth, "annotations": annotations}, ledger


def load(config: ActiveClean, workspace: Path, console: Console) -> RunData:
    """Read the pictures and labels that the configuration names; grey copies go to ``pixels``."""
    cache = workspace / "pixels"
    data = config.data
    if data.pool.images is None or data.pool.crowd is None:
        raise ConfigError(["data.pool.images and data.pool.crowd: needed"])
    with console.stage("reading the pool") as progress:
        pool = ingest(data.pool.images, data.pool.crowd, cache, progress=progress)
    test = None
    if data.test.images and data.test.truth:
        with console.stage("reading the test set") as progress:
            test = ingest_truth(data.test.images, data.test.truth, cache, pool.categories, progress)
        pool = without_test_images(pool, test)
    truth = None
    if config.expert.truth:
        _enough(pool, data.pool.images)
        names = {record.name for record in pool.records}
        known = ingest_truth(data.pool.images, config.expert.truth, cache, pool.categories, among=names)
        pool, truth = with_truth(pool, known), known.labels
    _enough(pool, data.pool.images)
    return RunData(pool, test, truth)


def _enough(pool: Ingested, place: str) -> None:
    """Refuse a pool that is too small or has nothing to look for, with what made it so."""
    if len(pool.records) < LEAST_POOL:
        what = f"{len(pool.records)} pictures of the pool can be used, at least {LEAST_POOL} are needed."
        what += first_reasons(pool.set_aside)
        raise DataError(what, place, "Add pictures, or mend what was set aside.")
    check_categories(pool, place)


def check_categories(part: Ingested, place: str) -> None:
    """Refuse pictures of which no label names a category: there is nothing to learn."""
    if not part.categories:
        what = f"no label of these pictures names a category.{first_reasons(part.set_aside, 'label')}"
        raise DataError(what, place, "Give label files with at least one usable label.")


LEAST_POOL = 4
"""Two for each of the two models that judge each other's pictures."""


def with_truth(pool: Ingested, known: Ingested) -> Ingested:
    """The pool less every picture whose truth is not known, and what was wrong in the truth file."""
    faults = {item.item: f"{item.reason} (truth)" for item in known.set_aside if item.kind == "image"}
    unknown = {
        r.image_id: faults.get(r.name, "the truth file does not list it")
        for r in pool.records
        if r.image_id not in known.labels
    }
    left = _without(pool, unknown)
    wrong = [replace(item, item=f"{item.item} (truth)") for item in known.set_aside if item.kind == "label"]
    return replace(left, set_aside=(*left.set_aside, *wrong))


def without_test_images(pool: Ingested, test: Ingested) -> Ingested:
    """The pool less every picture that is also a test picture: nothing is trained on what is reported."""
    return _without(pool, {r.image_id: "the same picture is in the test set" for r in test.records})


def _without(pool: Ingested, gone: Mapping[str, str]) -> Ingested:
    """The pool less the pictures with these ids, each with its reason."""
    aside = [SetAside("image", r.name, gone[r.image_id]) for r in pool.records if r.image_id in gone]
    labels: Mapping[str, Labels] = {i: found for i, found in pool.labels.items() if i not in gone}
    records = tuple(r for r in pool.records if r.image_id not in gone)
    unlabelled = tuple(i for i in pool.unlabelled if i not in gone)
    return replace(
        pool, records=records, labels=labels, set_aside=(*pool.set_aside, *aside), unlabelled=unlabelled
    )
