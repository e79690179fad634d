"""What to ask experts who slip about class labels of which many are wrong: strategies at one label budget.

    EMCLEAN_DATA=DIR python -m benchmarks.experts_classes --cache workspace/experts --seeds 0,1,2

Photographs of right hands (mirror images are left hands), a share ``--error`` of the pool's labels wrong,
three simulated experts who name a wrong hand in 10, 12 and 15 % of the pictures, and a fixed number of
answers (``budget.labels``). What an expert says at the first look at a picture, and at the second, is the
same in every cell of a seed, so that no strategy has the luckier experts. Every cell is a run of the main job
in this process, with label service and tracking in memory; cells of one seed share pictures and whatever
training is the same. A finished cell is never run again; one that was stopped begins anew and finds its
trainings. Printed: means and standard deviations over the seeds at the end of each run, and paired
differences of label accuracy and test accuracy.
"""

import argparse
import csv
import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cases, class_sets
from emclean.config import load_classes
from emclean.loop import asking, controller
from emclean.loop.classes import opening
from emclean.loop.classes.kind import ClassKind
from emclean.loop.classes.labels import answered, classes_of
from emclean.loop.compute import InlineCompute
from emclean.loop.console import Console
from emclean.loop.job import Job, Parts
from emclean.stores.fakes import FolderRegistry, InMemoryLabelService, InMemoryTracker
from emclean.stores.labels import image_of
from emclean.stores.tables import Tables
from emclean.types import AnsweredBox, TaskSpec

MISSES = (0.10, 0.12, 0.15)

STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "random": ("strategy=random",),
    "uncertainty": ("strategy=uncertainty",),
    "cross_entropy": ("strategy=cross_entropy",),
    "activelab, one look": ("strategy=activelab", "budget.second_looks=false"),
    "activelab, second looks": ("strategy=activelab",),
}
"""What each contestant sets; everything else is the same for all."""

CLASSIFIER = "{size: 32, steps: 150, final_steps: 200, batch: 48, eval_every: 50}"


class SameExperts(ClassKind):
    """Classes named by experts who slip at the same pictures whatever a run is called."""

    def simulate(self, job: Job, task: TaskSpec) -> list[AnsweredBox]:
        """What is said at this look at the picture."""
        return super().simulate(job, _same(task))

    def answerer(self, job: Job, task: TaskSpec) -> str:
        """Who takes this look at the picture."""
        return super().answerer(job, _same(task))


def _same(task: TaskSpec) -> TaskSpec:
    return replace(task, key=f"{task.image.image_id}/{len(task.seen_by)}")


def settings(home: Path, seed: int, name: str, given: argparse.Namespace) -> list[str]:
    """The settings of a cell."""
    sheet = cases.data_folder() / "right_hands" / "sheet.jpg"
    parts = (("pool", "crowd"), ("test", "test"))
    data = [f"data.{part}.images={sheet}" for part, _ in parts] + [f"data.{p}.tile=100" for p, _ in parts]
    data += [f"data.{part}.labels={home / 'sets' / file}.csv" for part, file in parts]
    return [
        "task=classes", *data, f"expert.truth={home / 'sets' / 'truth.csv'}", "mirror=true",
        "data.pool.classes=[left, right]", f"workspace={home}", f"run={run_of(name)}", f"seed={seed}",
        "label_service=in_process", "compute=inline", "serve=false", f"classifier={CLASSIFIER}",
        f"expert.count={len(MISSES)}", f"expert.misses={list(MISSES)}", f"budget.labels={given.labels}",
        f"budget.rounds={given.rounds}", *STRATEGIES[name],
    ]  # fmt: skip


def run_of(name: str) -> str:
    """The name of the cell's run."""
    return name.replace(", ", "-").replace(" ", "-")


def measured(home: Path, seed: int, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of one cell, from its file or by running it."""
    folder = home / "runs" / run_of(name)
    if not (folder / "cell.json").exists():
        since = time.process_time()
        job, summary = ran(home, settings(home, seed, name, given))
        seconds = time.process_time() - since
        (folder / "cell.json").write_text(json.dumps(figures(job, summary) | {"cpu_seconds": seconds}))
        print(f"seed {seed}, {name}: {seconds:.0f} s", flush=True)
    return dict(json.loads((folder / "cell.json").read_text()))


def ran(home: Path, given: Sequence[str]) -> tuple[Job, dict[str, Any]]:
    """A run to its end, with all neighbours in memory."""
    config = load_classes(None, given)
    console = Console(io.StringIO())
    shutil.rmtree(home / "runs" / config.run_name(), ignore_errors=True)
    data, kind = opening.opened(config, home, console)
    (home / "models").mkdir(exist_ok=True)
    folder = home / "runs" / config.run_name()
    parts = Parts(
        Tables(str(folder / "tables")), InMemoryLabelService(), InMemoryTracker(),
        FolderRegistry(folder / "registry"), InlineCompute(), console, None, None, {},
        lambda: datetime.now(UTC),
    )  # fmt: skip
    experts = SameExperts(kind.settings, kind.pool, kind.test)
    job = Job(config, config.run_name(), home, parts, data, experts)
    return job, json.loads(controller.run(job).summary.read_text())


def figures(job: Job, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows of a run."""
    last, truth = summary["rounds"][-1], classes_of(job.data.truth or {})
    experts, known = last["estimate"]["experts"], answered(job)
    said: dict[str, list[bool]] = {}
    for answer in asking.annotations_so_far(job):
        image = image_of(answer.key)
        right = answer.boxes[0].category == job.data.categories[truth[image]]
        said.setdefault(answer.annotator, []).append(right)
    return {
        "answers": last["answers"],
        "pictures": last["cost"]["images"],
        "disputed": experts["disputed"],
        "answered right": float(np.mean([truth[i] == k for i, k in known.items()])),
        "labels right": last["labels"]["accuracy"],
        "test accuracy": last["accuracy"],
        "experts off by": float(
            np.mean([abs(e["accuracy"] - np.mean(said[e["name"]])) for e in experts["each"]])
        ),
    }


COLUMNS = (
    "answers",
    "pictures",
    "disputed",
    "answered right",
    "labels right",
    "test accuracy",
    "experts off by",
)


def table(cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Means over the seeds, with standard deviations of the shares."""
    lines = [f"| strategy | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, rows in cells.items():
        values = [[row[column] for row in rows] for column in COLUMNS]
        words = [
            f"{np.mean(v):.0f}" if k < 3 else f"{np.mean(v):.3f} ({np.std(v):.3f})"
            for k, v in enumerate(values)
        ]
        lines.append(f"| `{name}` | {' | '.join(words)} |")
    return "\n".join(lines)


def differences(cells: Mapping[str, Sequence[Mapping[str, Any]]], base: str) -> str:
    """The base less every other strategy, paired by seed: mean, standard error, and each seed's own."""
    lines = [f"| `{base}` less | labels right | test accuracy |", "|---|---|---|"]
    for name in [name for name in cells if name != base]:
        words = [_paired(cells[base], cells[name], column) for column in ("labels right", "test accuracy")]
        lines.append(f"| `{name}` | {' | '.join(words)} |")
    return "\n".join(lines)


def _paired(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], column: str) -> str:
    found = np.array([a[column] - b[column] for a, b in zip(ours, theirs, strict=True)])
    each = ", ".join(f"{value:+.3f}" for value in found)
    if len(found) < 2:
        return each
    return f"{found.mean():+.3f} ({found.std(ddof=1) / np.sqrt(len(found)):.3f}): {each}"


def main() -> None:
    """Run what is not there yet, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pool", type=int, default=400)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--error", type=float, default=0.28)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with (cases.data_folder() / "right_hands" / "index.csv").open() as file:
        photographs = sum(1 for _ in csv.DictReader(file))
    seeds = [int(seed) for seed in given.seeds.split(",")]
    facts = f"{given.pool}-{given.test}-{given.error:g}-{given.labels}-{given.rounds}"
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in STRATEGIES}
    for seed in seeds:
        home = given.cache.absolute() / f"{facts}-seed-{seed}"
        class_sets.write(home / "sets", photographs, given.pool, given.test, given.error, seed)
        for name in STRATEGIES:
            cells[name].append(measured(home, seed, name, given))
    print(table(cells), differences(cells, "activelab, second looks"), sep="\n\n")


if __name__ == "__main__":
    main()
