"""Particles of unknown class and what a classifier makes of them: the likelihood of a left share, by EM.

A particle is left, right or unusable (its pose shows no hand); it is called left, called right or set aside.
``rows [3,3]`` say how often each class meets each outcome. Clean labels tell them, the sample's own outcomes
tell the shares of the classes. For a given left share among the particles that have a hand, the share of
unusable ones and the rows that suit sample and clean labels best are found by EM (Dempster et al. 1977, J. R.
Stat. Soc. B 39:1-38; the class of each particle of the sample is what is missing), which SQUAREM speeds up
(Varadhan and Roland 2008, Scand. J. Stat. 35:335-353, scheme S3).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import xlogy

from emclean.types import Bools, Floats

LEFT, RIGHT, UNUSABLE = 0, 1, 2
"""Classes; as outcomes: called left, called right, set aside."""

CYCLES, TOLERANCE = 400, 1e-5
"""Most cycles of SQUAREM, and the gain in log likelihood at which it ends."""

INSIDE = 0.01
"""Starts keep so far from 0 and 1, where EM would stay for ever."""

HIDDEN = (0.05, 0.35, 0.9)
"""Shares of unusable particles at which searches begin."""

MIRRORED = [RIGHT, LEFT, UNUSABLE]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Counts: the ``sample``'s outcomes ``[3]``, and ``clean [3,3]`` labels (rows: classes) by outcome.

    ``symmetric``: the row of right hands mirrors that of left hands, and unusable ones are called left as
    often as right. ``told``: clean labels tell what becomes of unusable ones; otherwise none of them passes.
    """

    sample: Floats
    clean: Floats
    symmetric: bool = False
    told: bool = True

    def rates(self, counts: Floats) -> Floats:
        """The likeliest rows ``[...,3,3]`` for counts of known classes ``[...,3,3]``."""
        if self.symmetric:
            hands = counts[..., LEFT, :] + counts[..., RIGHT, MIRRORED]
            hidden = (counts[..., UNUSABLE, :] + counts[..., UNUSABLE, MIRRORED]) / 2
            counts = np.stack([hands, hands[..., MIRRORED], hidden], axis=-2)
        rows: Floats = counts / np.maximum(counts.sum(-1, keepdims=True), 1e-300)
        if not self.told:
            rows[..., UNUSABLE, :] = (0.0, 0.0, 1.0)
        return rows


@dataclass(frozen=True, eq=False)
class State:
    """What explains the evidence, for ``G`` left shares at once: ``left [G]``, ``hidden [G]``, ``rows``.

    ``left`` is the left share among those that have a hand, ``hidden`` the share of unusable ones among all,
    ``rows [G,3,3]`` what becomes of each class.
    """

    left: Floats
    hidden: Floats
    rows: Floats

    @property
    def shares(self) -> Floats:
        """The shares of the classes ``[G,3]``."""
        handed = 1 - self.hidden
        return np.stack([handed * self.left, handed * (1 - self.left), self.hidden], axis=1)

    def where(self, chosen: Bools, other: "State") -> "State":
        """This state where ``chosen [G]``, the other one elsewhere."""
        return State(
            np.where(chosen, self.left, other.left),
            np.where(chosen, self.hidden, other.hidden),
            np.where(chosen[:, None, None], self.rows, other.rows),
        )


def likelihood(state: State, evidence: Evidence) -> Floats:
    """Log likelihood ``[G]``."""
    seen = np.einsum("gk,gkj->gj", state.shares, state.rows)
    clean = xlogy(evidence.clean, state.rows).sum((1, 2))
    return np.asarray(xlogy(evidence.sample, seen).sum(1) + clean)


def best(shares: Floats, evidence: Evidence, free: bool = False) -> tuple[State, Floats]:
    """The likeliest state for each left share ``[G]``, and its log likelihood ``[G]``.

    ``free``: the share, too, is to become the likeliest; ``shares`` are then where the search begins. It
    begins at several shares of unusable ones, since next to the true hill there may be a second one, where
    all are unusable.
    """
    state = starts(shares, evidence)
    level: Floats = np.full(len(state.left), -np.inf)
    for _ in range(CYCLES):
        one = _step(state, evidence, free)
        two = _step(one, evidence, free)
        leap = _step(_leap(state, one, two), evidence, free)
        of_leap, of_two = likelihood(leap, evidence), likelihood(two, evidence)
        state, fresh = leap.where(of_leap >= of_two, two), np.maximum(of_leap, of_two)
        gain, level = fresh - level, fresh
        if gain.max() < TOLERANCE:
            break
    highest = level.reshape(len(HIDDEN), -1).argmax(0) * len(shares) + np.arange(len(shares))
    return State(state.left[highest], state.hidden[highest], state.rows[highest]), level[highest]


def starts(shares: Floats, evidence: Evidence) -> State:
    """Where searches begin: at the rows of the clean labels, with few, some and many unusable ones."""
    rows = evidence.rates(evidence.clean + 0.5)
    n = len(HIDDEN) * len(shares)
    hidden = np.repeat(np.array(HIDDEN), len(shares))
    return State(np.tile(shares, len(HIDDEN)), hidden, np.broadcast_to(rows, (n, 3, 3)))


def _step(state: State, evidence: Evidence, free: bool) -> State:
    """One round of EM: the classes that are expected, and what suits these best."""
    joint = state.shares[:, :, None] * state.rows
    seen = joint.sum(1, keepdims=True)
    expected = joint * np.where(seen > 0, evidence.sample / np.maximum(seen, 1e-300), 0.0)
    classes = expected.sum(2)
    hidden = classes[:, UNUSABLE] / max(evidence.sample.sum(), 1e-300)
    made = State(state.left, hidden, evidence.rates(evidence.clean + expected))
    if not free:
        return made
    handed = classes[:, LEFT] + classes[:, RIGHT]
    return replace(made, left=np.where(handed > 0, classes[:, LEFT] / np.maximum(handed, 1e-300), state.left))


def _leap(zero: State, one: State, two: State) -> State:
    """How far two rounds of EM lead when they go on as they go; the second round where that leads outside."""
    v0, v1, v2 = (np.column_stack([s.left, s.hidden, s.rows.reshape(-1, 9)]) for s in (zero, one, two))
    r = v1 - v0
    bend = v2 - v1 - r
    length, curve = np.linalg.norm(r, axis=1), np.linalg.norm(bend, axis=1)
    far = np.maximum(length / np.maximum(curve, 1e-300), 1.0)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        v = v0 + 2 * far * r + far**2 * bend
    # what two rounds leave above 0 must stay so: at 0 EM would stay for ever
    inside = np.isfinite(v).all(1) & ((v > 0) | (v2 <= 0)).all(1) & ((v < 1) | (v2 >= 1)).all(1)
    v = np.clip(np.where(inside[:, None], v, v2), 0.0, 1.0)
    return State(v[:, 0], v[:, 1], v[:, 2:].reshape(-1, 3, 3))
