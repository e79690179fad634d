"""Pure decisions of the loop: where to go next, when to stop. No files, network or clock."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emclean.loop.states import Phase

LINE = (Phase.PLAN, Phase.PUSH, Phase.WAIT, Phase.CLEAN, Phase.TRAIN, Phase.EVALUATE, Phase.PUBLISH)


@dataclass(frozen=True)
class Spending:
    """Expert minutes: the whole ``budget``, what is ``spent``, and the ``rounds_left`` after the seed."""

    budget: float
    spent: float
    rounds_left: int

    def next_round(self) -> float:
        """Minutes for the next round: what is left, shared evenly by the rounds to come."""
        return max(self.budget - self.spent, 0.0) / max(self.rounds_left, 1)


@dataclass(frozen=True)
class Stop:
    """Whether to stop asking, and why."""

    now: bool
    reason: str = ""


def after(phase: Phase, baselines: bool) -> Phase:
    """The phase that follows within a round, or after the last one."""
    if phase in LINE and phase is not Phase.PUBLISH:
        return LINE[LINE.index(phase) + 1]
    order = {
        Phase.INGEST: Phase.CROWD,
        Phase.CROWD: Phase.PLAN,
        Phase.PUBLISH: Phase.BASELINES if baselines else Phase.FINISH,
        Phase.BASELINES: Phase.FINISH,
        Phase.FINISH: Phase.DONE,
    }
    return order[phase]


def stop(
    spending: Spending, candidates: int, cheapest_minutes: float, gain_per_minute: float | None, least: float
) -> Stop:
    """Stop when the rounds, the budget or the pool are used up, or when a minute no longer gains enough.

    ``gain_per_minute`` is the expected gain in label errors fixed per expert minute, None when unknown.
    """
    if spending.rounds_left <= 0:
        return Stop(True, "all rounds are done")
    if candidates == 0:
        return Stop(True, "every image has an expert's answer")
    if spending.budget - spending.spent < cheapest_minutes:
        return Stop(True, "the budget is spent")
    if gain_per_minute is not None and gain_per_minute < least:
        return Stop(True, f"the expected gain of {gain_per_minute:.3f} per minute is under {least:.3f}")
    return Stop(False)


def folds(names: list[str], k: int, rng: np.random.Generator) -> dict[str, int]:
    """A fold 0..k-1 for every name, as even as it can be; the same for every order of ``names``."""
    order = sorted(names)
    shuffled = rng.permutation(len(order))
    return {order[int(where)]: position % k for position, where in enumerate(shuffled)}


def grouped_folds(group: Mapping[str, str], k: int, rng: np.random.Generator) -> dict[str, int]:
    """The fold of each image, whole groups at a time (an empty name is a group of its own).

    With fewer groups than folds they are split.
    """
    of = {i: name or i for i, name in group.items()}
    if len(set(of.values())) < k:
        of = {i: i for i in group}
    by_group = folds(sorted(set(of.values())), k, rng)
    return {i: by_group[name] for i, name in of.items()}


def validation_part(drawn_at_random: list[str], every: int = 5) -> set[str]:
    """The images kept out of every training, for early stopping, score calibration and the gate.

    They come from those drawn at random, in the order of drawing, so that what is measured on them is
    unbiased; whether an image belongs depends on its place alone, so that no later draw moves it: the second,
    the fourth, and from then on one in ``every``.
    """
    places = {1, 3, *range(6, len(drawn_at_random), every)}
    return {name for place, name in enumerate(drawn_at_random) if place in places}
