"""Whether a method reaches what the handedness grid is to show, from its finished cells.

Three aims, each for a single method that is not told the rate of wrong labels: (1) on no set and at no rate
is one of the source's methods better by more than the standard error; (2) on every set where each of the
source's methods keeps less than 95 % of its accuracy without errors at 40 % wrong labels, it keeps at least
that; (3) with 20 trusted particles it is above chance at 50 % by more than the standard error.

Methods are compared seed by seed, for a seed draws the same parts and errors for all: the standard error is
that of the mean difference, which leaves out what a seed does to every method alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emclean.config_classes import FAITHFUL
from emclean.report.grid_data import CellRow, standard_error

NOISY, KEEPS, HALF, CHANCE = 0.4, 0.95, 0.5, 0.5

Accuracies = Mapping[int, float]
"""Accuracy by seed."""


@dataclass(frozen=True)
class Loss:
    """A source method that is better at a rate: by how much, with the standard error of the difference."""

    rival: str
    rate: float
    by: float
    error: float

    def __str__(self) -> str:
        return f"{100 * self.rate:g} % ({self.rival} by {100 * self.by:.1f} ± {100 * self.error:.1f})"


@dataclass(frozen=True)
class Standing:
    """How one method stands on one set; None where the set's cells do not tell.

    ``binding``: the second aim asks something of this set. ``half`` is accuracy at 50 % wrong labels with
    trusted particles, and its standard error.
    """

    method: str
    losses: tuple[Loss, ...] | None
    kept: float | None
    binding: bool
    half: tuple[float, float] | None

    @property
    def verdicts(self) -> tuple[bool | None, bool | None, bool | None]:
        """Whether each of the three aims is reached; None where this set does not tell."""
        above = None if self.half is None else self.half[0] - self.half[1] > CHANCE
        keeps = self.kept >= KEEPS if self.binding and self.kept is not None else None
        return None if self.losses is None else not self.losses, keeps, above


def standings(cells: Sequence[CellRow]) -> list[Standing]:
    """How every method stands on a set, in the order of its cells."""
    known = _by_place(cells)
    methods = dict.fromkeys(method for method, _, _ in known)
    shares = {method: _kept(method, known) for method in methods}
    sources = [shares.get(name) for name in FAITHFUL]
    binding = all(share is not None and share < KEEPS for share in sources)
    trusted = bool(cells) and all(cell.trusted for cell in cells)
    return [
        Standing(
            method,
            _losses(method, known),
            shares[method],
            binding,
            _half(method, known) if trusted else None,
        )
        for method in methods
    ]


def _by_place(cells: Sequence[CellRow]) -> dict[tuple[str, str, float], dict[int, float]]:
    """Accuracies by seed, of every method, noise and rate."""
    found: dict[tuple[str, str, float], dict[int, float]] = {}
    for cell in cells:
        if cell.accuracy is not None:
            found.setdefault((cell.method, cell.noise, cell.rate), {})[cell.seed] = cell.accuracy
    return found


def _kept(method: str, known: Mapping[tuple[str, str, float], Accuracies]) -> float | None:
    """The share of the accuracy without errors that is left at 40 %, over the seeds that have both."""
    clean, noisy = (known.get((method, "pair", rate), {}) for rate in (0.0, NOISY))
    seeds = sorted(clean.keys() & noisy.keys())
    return sum(noisy[s] for s in seeds) / sum(clean[s] for s in seeds) if seeds else None


def _losses(method: str, known: Mapping[tuple[str, str, float], Accuracies]) -> tuple[Loss, ...] | None:
    """Where a source method is better by more than the standard error; None where no seeds tell."""
    found, compared = [], False
    for (name, noise, rate), mine in known.items():
        if name != method:
            continue
        for rival in FAITHFUL:
            others = known.get((rival, noise, rate), {})
            gaps = [others[seed] - mine[seed] for seed in sorted(mine.keys() & others.keys())]
            error = standard_error(gaps)
            if rival == method or error is None:
                continue
            compared, by = True, float(np.mean(gaps))
            if by > error:
                found.append(Loss(rival, rate, by, error))
    return tuple(found) if compared else None


def _half(method: str, known: Mapping[tuple[str, str, float], Accuracies]) -> tuple[float, float] | None:
    values = list(known.get((method, "pair", HALF), {}).values())
    error = standard_error(values)
    return None if error is None else (float(np.mean(values)), error)


def of_set(cells: Sequence[CellRow]) -> list[str]:
    """Lines of Markdown: how every method stands on one set."""
    lines = [
        "| method | below a source method at | kept at 40 % | at 50 % with trusted |",
        "| --- " * 4 + "|",
    ]
    for found in standings(cells):
        lines.append(f"| {found.method} | {_lost(found)} | {_share(found)} | {_beyond(found)} |")
    return lines


def _lost(found: Standing) -> str:
    if found.losses is None:
        return "one seed: open"
    return ", ".join(map(str, found.losses)) or "no rate"


def _share(found: Standing) -> str:
    if found.kept is None:
        return "–"
    asked = "" if found.binding else " (not asked: a source method keeps as much)"
    return f"{100 * found.kept:.1f} %{asked}"


def _beyond(found: Standing) -> str:
    if found.half is None:
        return "–"
    mean, error = found.half
    return f"{100 * mean:.1f} ± {100 * error:.1f} %, {'above' if found.verdicts[2] else 'not above'} chance"


def over_sets(sets: Mapping[str, Sequence[CellRow]]) -> list[str]:
    """Lines of Markdown: which aims each method reaches on all sets that ask for them, and which does best.

    Best is the method with the fewest aims missed, and among those the one with the highest mean accuracy.
    """
    table = {name: {found.method: found for found in standings(cells)} for name, cells in sets.items()}
    methods = dict.fromkeys(method for found in table.values() for method in found)
    lines = ["| method | never below | keeps 95 % | above chance at 50 % |", "| --- " * 4 + "|"]
    missed: dict[str, int] = {}
    for method in methods:
        verdicts = {name: found[method].verdicts for name, found in table.items() if method in found}
        columns = [_column(verdicts, aim) for aim in range(3)]
        missed[method] = sum(list(v).count(False) for v in verdicts.values())
        lines.append(f"| {method} | {' | '.join(columns)} |")
    if not methods:
        return []
    means = {method: _mean(method, sets) for method in methods}
    best = min(methods, key=lambda method: (missed[method], -means[method]))
    end = f"misses {missed[best]} of the aims" if missed[best] else "misses no aim that these sets can tell"
    return [*lines, "", f"The best single method: {best}, {end}. Differences and errors are paired by seed."]


def _column(verdicts: Mapping[str, tuple[bool | None, ...]], aim: int) -> str:
    asked = {name: v[aim] for name, v in verdicts.items() if v[aim] is not None}
    if not asked:
        return "–"
    lost = [name for name, reached in asked.items() if not reached]
    return f"no: {', '.join(lost)}" if lost else f"yes, on {len(asked)}"


def _mean(method: str, sets: Mapping[str, Sequence[CellRow]]) -> float:
    values = [c.accuracy for cells in sets.values() for c in cells if c.method == method]
    return float(np.mean([value for value in values if value is not None] or [0.0]))
