"""How well a population's left share is told, from pixels to interval: the tables of docs/results.md.

    python benchmarks/population.py --cache workspace/population

Micrographs are simulated with each true left share and each share of unusable poses, and go through what an
analysis does with a picture: segmentation, pose, filter, handedness, counts. ``--images`` of them are a
sample; no picture is in two samples. The classifiers are trained once, with the job's defaults, on particles
of other simulated micrographs. Every sample has clean labels of its own, of as many further micrographs,
whose share of unusable poses is the sample's or not, so that what is not known of the mistakes differs from
sample to sample as it should. A lower ``--usable-from`` makes a filter that lets more unusable poses pass.
``--cache`` keeps what each picture gave: a run that was stopped goes on; ``--tables`` prints what is there
and runs nothing.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emclean.config import load_analysis
from emclean.imaging import simulate
from emclean.loop.analysis import particles
from emclean.loop.analysis.judges import Judges, Wanted, judges
from emclean.loop.analysis.looking import Eyes
from emclean.loop.analysis.opening import settings_of, wanted_of
from emclean.loop.analysis.particles import InMemory, Particles
from emclean.loop.analysis.picture import Analyst, Found, Way, analysed
from emclean.science.population import Confusion, Share, left_share

TRUE = (0.0, 0.02, 0.1, 0.3, 0.5)
HIDDEN = (0.1, 0.3)
"""Shares of unusable poses, in samples and among clean labels."""

KINDS = ("left", "right", "unusable, left", "unusable, right", "no particle")
"""What may lie below what is found; the simulator knows the hand of unusable poses, too."""

RECIPE = 1
"""Goes up when pictures on file would come out differently."""

CONFIG = load_analysis(None, [])


@dataclass(frozen=True)
class Plan:
    """What decides every picture: ``samples`` for each share, of ``images`` of ``size`` px a side."""

    samples: int
    images: int
    size: int
    trained: int
    usable_from: float
    seed: int

    def home(self, cache: Path) -> Path:
        """The folder of these pictures; more samples join those on file."""
        facts = [self.images, self.size, self.trained, self.seed, RECIPE, particles.VERSION]
        facts += [asdict(simulate.Recipe(zoom=ZOOM)), asdict(settings_of(CONFIG)), asdict(self.wanted)]
        return cache / hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def wanted(self) -> Wanted:
        """The classifiers, by the job's defaults."""
        return replace(wanted_of(CONFIG), usable_from=self.usable_from)

    @property
    def way(self) -> Way:
        """The settings of an analysis, by the job's defaults."""
        window = CONFIG.segmentation.window
        return Way(settings_of(CONFIG), self.usable_from, window, None, None, None, CONFIG.confidence)


ZOOM = 0.5
"""Magnification: particles are 45 to 60 px long."""


def main() -> None:
    """Parse, work through what is not on file, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--images", type=int, default=6, help="in a sample, and for its clean labels")
    parser.add_argument("--size", type=int, default=640, help="side of a picture in px")
    parser.add_argument("--trained", type=int, default=600, help="clean particles for the classifiers")
    parser.add_argument("--unusable", type=float, nargs="+", default=HIDDEN, help="shares of the samples")
    parser.add_argument("--usable-from", type=float, default=CONFIG.classifier.usable_from)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    given = parser.parse_args()
    plan = Plan(given.samples, given.images, given.size, given.trained, given.usable_from, given.seed)
    home = plan.home(given.cache)
    if not given.tables:
        torch.set_num_threads(1)
        work(plan, given.unusable, home)
    told(plan, given.unusable, home)


def work(plan: Plan, unusable: Sequence[float], home: Path) -> None:
    """Simulate and judge every picture that is not on file; one line of a file for each."""
    since = time.monotonic()
    used = judges(
        plan.wanted, taken(plan, (3,), range(10**6), 0.3, plan.trained), home, lambda done, total: None
    )
    print(f"classifiers: {json.dumps(used.facts)}; {time.monotonic() - since:.0f} s", flush=True)
    analyst = Analyst(Eyes.of(used.hand, used.usable, None), plan.way)
    n = plan.samples
    for hidden in HIDDEN:
        kept(clean_file(home, hidden), n, lambda k, h=hidden: labelled(plan, k, h, used, home))
    for hidden in unusable:
        for left in TRUE:
            file = sample_file(home, left, hidden)
            kept(file, n * plan.images, lambda i, at=(left, hidden): searched(plan, i, *at, analyst))
            print(f"{left:g} left, {hidden:g} unusable; {time.monotonic() - since:.0f} s", flush=True)


def kept(file: Path, n: int, make: Any) -> None:
    """Add the lines that are missing to a file of ``n`` lines, each made from its number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = lines(file)
    text = "".join(f"{json.dumps(line)}\n" for line in done)
    if file.exists() and file.read_text() != text:
        file.write_text(text)  # a run that was killed may have left half a line
    with file.open("a") as out:
        for number in range(len(done), n):
            print(json.dumps(make(number)), file=out, flush=True)


def lines(file: Path) -> list[Any]:
    """The whole lines of a file."""
    text = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def sample_file(home: Path, left: float, hidden: float) -> Path:
    """The pictures of samples with these shares."""
    return home / f"left-{left:g}-unusable-{hidden:g}.jsonl"


def clean_file(home: Path, hidden: float) -> Path:
    """The sets of clean labels with this share of unusable ones."""
    return home / f"clean-unusable-{hidden:g}.jsonl"


def drawn(plan: Plan, seed: Sequence[int], left: float, hidden: float) -> simulate.Scene:
    """A micrograph with these true shares."""
    recipe = simulate.Recipe(left=left, usable=1 - hidden, zoom=ZOOM)
    return simulate.scene((plan.seed, *seed), (plan.size, plan.size), recipe)


def taken(plan: Plan, seed: Sequence[int], numbers: Sequence[int], hidden: float, most: int) -> Particles:
    """Clean particles of the micrographs with these numbers, at most so many; half are left-handed."""
    found: list[tuple[Any, int, int]] = []
    for number in numbers:
        made = drawn(plan, (*seed, number), 0.5, hidden)
        found += [(*one, number) for one in particles.found_in(made, settings_of(CONFIG))]
        if len(found) >= most:
            break
    pictures, labels, groups = (np.array(column) for column in zip(*found[:most], strict=True))
    return Particles(pictures, labels, groups, particles.SIMULATED)


def labelled(plan: Plan, number: int, hidden: float, used: Judges, home: Path) -> dict[str, Any]:
    """What becomes of the clean labels of one sample."""
    own = range(number * plan.images, (number + 1) * plan.images)
    clean = taken(plan, (2, round(1000 * hidden)), own, hidden, 10**6)
    given = replace(plan.wanted, weights=used.hand, usable_weights=used.usable)
    confusion = judges(given, clean, home, lambda done, total: None).confusion
    assert confusion is not None  # these are labels of such pictures
    return asdict(confusion)


def searched(plan: Plan, number: int, left: float, hidden: float, analyst: Analyst) -> dict[str, Any]:
    """What is found in one picture of a sample: its ``outcomes [3]``, and by what lies there ``[5,3]``."""
    made = drawn(plan, (1, round(1000 * left), round(1000 * hidden), number), left, hidden)
    pixels, ids = made.whole()
    found = analysed(InMemory(pixels, made.recipe.nm_per_px), analyst)
    row = found.row
    outcomes = [row["left"], row["particles"] - row["left"], row["unusable"]]
    return {"outcomes": outcomes, "by_kind": by_kind(made, ids, found).tolist()}


def by_kind(made: simulate.Scene, ids: Any, found: Found) -> Any:
    """Counts ``[5,3]``: what lies at the middle of each object that is judged, and what it is called."""
    table = np.zeros((len(KINDS), 3), int)
    aside, hand = found.columns["set_aside"], found.columns["hand"]
    for x, y, reason, called in zip(found.columns["x"], found.columns["y"], aside, hand, strict=True):
        if reason in ("", "unusable"):
            below = int(ids[min(int(y), ids.shape[0] - 1), min(int(x), ids.shape[1] - 1)])
            outcome = 2 if reason else ("left", "right").index(called)
            table[_kind(made, below), outcome] += 1
    return table


def _kind(made: simulate.Scene, below: int) -> int:
    if below == 0:
        return len(KINDS) - 1
    particle = made.particles[below - 1]
    return (0 if particle.usable else 2) + int(particle.place.hand == "right")


def samples(plan: Plan, home: Path, left: float, hidden: float, labels: float) -> Iterator[dict[str, Share]]:
    """The shares of each sample whose pictures and labels are on file, by how much is corrected."""
    pictures = lines(sample_file(home, left, hidden))
    for k, counts in enumerate(lines(clean_file(home, labels))[: plan.samples]):
        own = [one["outcomes"] for one in pictures[k * plan.images : (k + 1) * plan.images]]
        if len(own) < plan.images:
            return
        confusion = Confusion(**counts)
        whole, hands = left_share(own, confusion), left_share(own, replace(confusion, unusable=None))
        assert whole is not None
        assert hands is not None
        yield {"whole": whole, "hands": hands}


def told(plan: Plan, unusable: Sequence[float], home: Path) -> None:
    """Print the tables."""
    head = ("unusable: sample", "labels", "true left", "counted off", "held", "hands alone off", "held")
    head += ("corrected off", "held", "wide", "refused", "samples")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for hidden in unusable:
        for labels in HIDDEN:
            for left in TRUE:
                found = list(samples(plan, home, left, hidden, labels))
                if found:
                    print(row(hidden, labels, left, found))
    print()
    rates(unusable, home)


def row(hidden: float, labels: float, true: float, found: Sequence[Mapping[str, Share]]) -> str:
    """One line: mean absolute errors, how often each interval holds the truth, its mean width."""
    whole, hands = [one["whole"] for one in found], [one["hands"] for one in found]
    kept = [share for share in whole if share.corrected is not None]
    cells = [
        percent(hidden, 0),
        percent(labels, 0),
        percent(true, 0),
        percent(np.mean([abs(s.naive - true) for s in whole])),
        percent(np.mean([s.naive_low <= true <= s.naive_high for s in whole]), 0),
        percent(np.mean([abs(s.corrected - true) for s in hands if s.corrected is not None])),
        percent(np.mean([s.low <= true <= s.high for s in hands]), 0),
        percent(np.mean([abs((s.corrected or 0.0) - true) for s in kept])),
        percent(np.mean([s.low <= true <= s.high for s in kept]), 0),
        percent(np.mean([s.high - s.low for s in kept])),
        str(len(whole) - len(kept)),
        str(len(whole)),
    ]
    return "| " + " | ".join(cells) + " |"


def rates(unusable: Sequence[float], home: Path) -> None:
    """Print what becomes of each kind of object, among clean labels and in samples."""
    print("| | n | called left | called right | set aside |\n|---|---|---|---|---|")
    nothing = np.zeros((1, len(KINDS), 3), int)
    for hidden in HIDDEN:
        counts = [Confusion(**one) for one in lines(clean_file(home, hidden))]
        for kind in ("left", "right", "unusable"):
            of_kind = np.array([(0, 0, 0), *(getattr(one, kind) or (0, 0, 0) for one in counts)])
            print(rate(f"clean labels ({percent(hidden, 0)} unusable): {kind}", of_kind.sum(0)))
    for hidden in unusable:
        every = [one["by_kind"] for left in TRUE for one in lines(sample_file(home, left, hidden))]
        for kind, table in zip(KINDS, np.array([*nothing, *every]).sum(0), strict=True):
            print(rate(f"samples ({percent(hidden, 0)} unusable): {kind}", table))


def rate(name: str, counts: Any) -> str:
    """One line: how many, and the share of each outcome."""
    cells = [percent(count / max(counts.sum(), 1)) for count in counts]
    return f"| {name} | {int(counts.sum())} | {' | '.join(cells)} |"


def percent(value: Any, digits: int = 1) -> str:
    """A share in per cent."""
    return f"{100 * float(value):.{digits}f} %"


if __name__ == "__main__":
    main()
