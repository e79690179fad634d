"""How many of a population are left-handed, when the classifiers that count them make mistakes.

Each particle is called left, called right, or set aside since its pose shows no hand. The naive share of
those called left is pulled towards one half by mistakes, and by particles without a visible hand that are not
set aside. Clean labels tell how often either happens to each class of particles (:class:`Confusion`); how
many unusable ones there are, the sample's own outcomes must tell, for it need not be as many as among the
clean labels. The corrected share is the likeliest: where all shares come out within 0-1 it solves the linear
equations, and without unusable ones is Rogan and Gladen's (1978, Am. J. Epidemiol. 107:71-76). Its interval
is that of the profile likelihood (:mod:`emclean.science.latent`). It takes in what is not known of the
mistakes, and stays sensible at 0 %, where plus and minus some standard errors does not. The clean labels must
not be the population's own automatic labels: there the errors are the minority.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlogy
from scipy.stats import norm
from scipy.stats import t as student

from emclean.science import latent
from emclean.science.latent import LEFT, RIGHT, UNUSABLE, Evidence
from emclean.types import Floats

GRID, FINE = 41, 25
"""Shares at which the likelihood is worked out, first over 0-1, then within each bound's bracket."""

WISDOM = 3.0
"""How many images' worth of belief there is that images do not differ (ours): steadies the design effect."""

STRANGE = 10.83
"""Twice the log likelihood that is missing for a sample that the clean labels do not explain: once in 1,000
samples by chance (chi-squared, one degree of freedom)."""

ALIKE = 1e-9
"""The rows' determinant from which on three kinds of particles can be told apart by their outcomes."""

Counts = tuple[float, float, float]


@dataclass(frozen=True)
class Confusion:
    """What becomes of particles with clean labels, none of which was trained on: counts.

    Each row: called left, called right, set aside. ``unusable`` is None where no clean label says so: then
    nothing tells what becomes of such particles, and it is taken that none of them passes. ``symmetric``: the
    classifiers treat mirror images alike by construction, so that the row of right hands mirrors that of left
    ones. A pose that shows nothing of the hand is as likely as its mirror image, whatever the share of left
    hands; so the unusable ones that pass are then called left as often as right.
    """

    left: Counts
    right: Counts
    unusable: Counts | None = None
    symmetric: bool = False

    def __post_init__(self) -> None:
        for name in ("left", "right", "unusable"):
            row = getattr(self, name)
            if row is not None and (len(row) != 3 or min(row) < 0):
                raise ValueError(f"{name}: expected three counts, got {row}")
            object.__setattr__(self, name, None if row is None else tuple(row))  # JSON has lists

    @staticmethod
    def of(truth: ArrayLike, outcome: ArrayLike, symmetric: bool = False) -> "Confusion":
        """Count clean labels (0 left, 1 right, 2 unusable) by outcome (0 called left, 1 right, 2 aside)."""
        t, o = np.asarray(truth, dtype=np.int64), np.asarray(outcome, dtype=np.int64)
        if t.shape != o.shape or t.ndim != 1:
            raise ValueError(f"expected two columns of one length, got {t.shape} and {o.shape}")
        return Confusion.from_table(np.bincount(3 * t + o, minlength=9).reshape(3, 3), symmetric)

    @staticmethod
    def from_table(table: ArrayLike, symmetric: bool = False) -> "Confusion":
        """From counts ``[3,3]``, a row for each class; an unusable row without any is none."""
        rows = [(float(a), float(b), float(c)) for a, b, c in np.asarray(table, dtype=np.float64)]
        return Confusion(rows[LEFT], rows[RIGHT], rows[UNUSABLE] if sum(rows[UNUSABLE]) else None, symmetric)

    def evidence(self, sample: ArrayLike) -> Evidence:
        """These labels beside a sample's outcomes ``[3]``."""
        told = self.unusable is not None
        clean = np.array([self.left, self.right, self.unusable or (0.0, 0.0, 0.0)], dtype=np.float64)
        return Evidence(np.asarray(sample, dtype=np.float64), clean, self.symmetric, told)

    @property
    def rates(self) -> Floats | None:
        """How often each class ``[3]`` meets each outcome ``[3]``; None where that tells no hand.

        That is: no label of a hand, or those of left hands that pass are not called left more often.
        """
        evidence = self.evidence(np.zeros(3))
        rows = evidence.rates(evidence.clean)
        (a, b), (c, d) = rows[LEFT, :UNUSABLE], rows[RIGHT, :UNUSABLE]
        return rows if a * d - b * c > ALIKE else None  # a / (a + b) > c / (c + d), cleared of quotients


@dataclass(frozen=True)
class Share:
    """The left share of ``particles`` in ``images``: as counted, and corrected, each with its interval.

    ``particles`` are those not set aside. ``corrected`` is None where clean labels cannot tell the hands
    apart or cannot have come from such a sample; the interval is then 0 to 1. ``design_effect`` says how many
    times as much the corrected share varies from image to image as chance alone does. ``note`` is what a
    reader must know, in a sentence, or empty.
    """

    particles: int
    images: int
    naive: float
    naive_low: float
    naive_high: float
    corrected: float | None
    low: float
    high: float
    design_effect: float
    note: str = ""


def left_share(outcomes: ArrayLike, confusion: Confusion, confidence: float = 0.95) -> Share | None:
    """The left share of a sample from its images: ``outcomes [m,3]`` called left, right and set aside.

    Two columns will do where nothing is set aside. Images are clusters: their particles come from one place
    and one setting of the microscope, so the sample counts as less by the design effect. None where no
    particle is called left or right.
    """
    counts = _counts(outcomes)
    total = counts.sum(0)
    n, x = float(total[:UNUSABLE].sum()), float(total[LEFT])
    if not n:
        return None
    plain = design_effect(counts, _of_count(x / n))
    low, high = wilson(x / plain, n / plain, _reach(len(counts), plain, confidence))
    counted = Share(int(n), len(counts), x / n, low, high, None, 0.0, 1.0, plain)
    rows = confusion.rates
    if rows is None:
        return replace(counted, note="The clean labels cannot tell left from right.")
    effect = design_effect(counts, _of_share(total, rows))
    evidence = confusion.evidence(total / effect)
    share, level = likeliest(evidence)
    if strangeness(evidence, level) > STRANGE:
        return replace(counted, note=_strange(total, rows))
    low, high = profile_interval(evidence, share, level, _reach(len(counts), effect, confidence))
    note = _assumed(confusion)
    return replace(counted, corrected=share, low=low, high=high, design_effect=effect, note=note)


def _counts(outcomes: ArrayLike) -> Floats:
    """The outcomes ``[m,3]`` of the images that hold a particle."""
    counts: Floats = np.array(outcomes, dtype=np.float64)
    counts = counts.reshape(0, 3) if counts.size == 0 else counts
    if counts.ndim != 2 or counts.shape[1] not in (2, 3) or (counts < 0).any():
        raise ValueError(f"outcomes: expected counts [m,3], got {counts.shape}, the least {counts.min()}")
    counts = np.pad(counts, ((0, 0), (0, 3 - counts.shape[1])))
    return np.asarray(counts[counts.sum(1) > 0])


def _reach(images: int, effect: float, confidence: float) -> float:
    """Standard errors on either side: Student's, since the spread over few images is itself uncertain.

    Where images do not differ, or there is one, chance alone is at work and its spread is known.
    """
    if effect == 1.0:
        return float(norm.ppf(0.5 + confidence / 2))
    return float(student.ppf(0.5 + confidence / 2, images - 1 + WISDOM))


def _assumed(confusion: Confusion) -> str:
    if confusion.unusable is not None:
        return ""
    return "No clean label says unusable: it is taken that every particle that is not set aside has a hand."


def _strange(total: Floats, rows: Floats) -> str:
    """Why a sample cannot be corrected."""
    aside = 100 * total[UNUSABLE] / total.sum()
    left = 100 * total[LEFT] / total[:UNUSABLE].sum()
    return (
        f"{aside:.0f} % are set aside and {left:.0f} % of the others called left: no mix of particles like "
        f"those with clean labels gives that ({100 * rows[:, UNUSABLE].min():.0f} to "
        f"{100 * rows[:, UNUSABLE].max():.0f} % of a kind are set aside there). "
        "Label particles of this sample."
    )


def likeliest(evidence: Evidence) -> tuple[float, float]:
    """The likeliest left share, and its log likelihood."""
    state, levels = latent.best(_beginnings(evidence), evidence, free=True)
    ends = profile(np.array([0.0, 1.0]), evidence)
    found, top = float(state.left[levels.argmax()]), float(max(levels.max(), ends.max()))
    for share, level in zip((0.0, 1.0), ends.tolist(), strict=True):
        if level >= top - 10 * latent.TOLERANCE:  # a search never quite arrives at an edge
            found = share
    return found, top


def strangeness(evidence: Evidence, level: float) -> float:
    """Twice what a likelihood is short of because no mix of the three classes gives such a sample."""
    n = max(float(evidence.sample.sum()), 1e-300)
    perfect = xlogy(evidence.sample, evidence.sample / n).sum()
    perfect += xlogy(evidence.clean, evidence.rates(evidence.clean)).sum()
    return float(2 * (perfect - level))


def _beginnings(evidence: Evidence) -> Floats:
    """Left shares from which the likeliest one is searched: that of the linear equations, and the middle."""
    mixed = solved(evidence.sample, evidence.rates(evidence.clean))
    handed = mixed[LEFT] + mixed[RIGHT]
    share = mixed[LEFT] / handed if handed > 0 else 0.5
    return np.array([np.clip(share, latent.INSIDE, 1 - latent.INSIDE), 0.5])


def solved(total: Floats, rows: Floats) -> Floats:
    """How many of each class ``[3]`` give these outcomes ``[3]``, if need be fewer than none.

    Where the three classes cannot be told apart by their outcomes, there is none that is unusable.
    """
    if abs(np.linalg.det(rows)) > ALIKE:
        return np.asarray(np.linalg.solve(rows.T, total), dtype=np.float64)
    hands = np.linalg.lstsq(rows[:UNUSABLE].T, total, rcond=None)[0]
    return np.append(hands, 0.0)


def _of_count(share: float) -> Floats:
    """What each outcome ``[3]`` adds to the excess of left calls over their share."""
    return np.array([1 - share, -share, 0.0])


def _of_share(total: Floats, rows: Floats) -> Floats:
    """What each outcome ``[3]`` adds to the excess of left hands over their share (linear equations)."""
    mixed = solved(total, rows)
    handed = mixed[LEFT] + mixed[RIGHT]
    if handed <= 0:
        return _of_count(total[LEFT] / total[:UNUSABLE].sum())
    share = mixed[LEFT] / handed
    units = [solved(unit, rows) for unit in np.eye(3)]
    return np.array([(1 - share) * one[LEFT] - share * one[RIGHT] for one in units])


def design_effect(counts: Floats, adds: Floats) -> float:
    """Variance of a share over images against that of as many independent particles, at least 1.

    ``counts [m,3]`` of outcomes, each of which ``adds [3]`` to a sum that is 0 over all images. Source: ratio
    estimator of a cluster sample (Cochran 1977, Sampling Techniques, section 9); drawn towards 1 by
    :data:`WISDOM`, since few images tell little of it.
    """
    m, chance = len(counts), float((counts * adds**2).sum())
    if m < 2 or chance <= 0:
        return 1.0
    seen = m / (m - 1) * float(((counts @ adds) ** 2).sum()) / chance
    return max((WISDOM + (m - 1) * seen) / (WISDOM + m - 1), 1.0)


def wilson(x: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share ``x / n`` (1927, J. Am. Stat. Assoc. 22:209-212), ``z`` errors wide."""
    middle = (x + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * float(np.sqrt(x * (n - x) / n + z * z / 4))
    return min(max(middle - half, 0.0), x / n), max(min(middle + half, 1.0), x / n)  # rounding aside


def profile_interval(evidence: Evidence, share: float, level: float, z: float = 1.96) -> tuple[float, float]:
    """Where the log of the profile likelihood is ``z`` squared, halved, below its ``level`` at ``share``."""
    grid = np.unique(np.append(np.linspace(0, 1, GRID), share))
    floor = level - z * z / 2
    inside = np.flatnonzero((profile(grid, evidence) >= floor) | (grid == share))
    first, last, end = int(inside[0]), int(inside[-1]), len(grid) - 1
    ways = np.array([[grid[first], grid[max(first - 1, 0)]], [grid[last], grid[min(last + 1, end)]]])
    low, high = _crossings(np.linspace(ways[:, 0], ways[:, 1], FINE, axis=1), floor, evidence)
    return low, high


def _crossings(ways: Floats, floor: float, evidence: Evidence) -> list[float]:
    """Where the likelihood falls below a floor, on ways ``[n,FINE]`` of shares that lead out of it."""
    above = profile(ways.reshape(-1), evidence).reshape(ways.shape) >= floor
    above[:, 0] = True
    last = FINE - 1 - above[:, ::-1].argmax(axis=1)
    after = np.minimum(last + 1, FINE - 1)
    rows = np.arange(len(ways))
    return [float(value) for value in (ways[rows, last] + ways[rows, after]) / 2]


def profile(shares: Floats, evidence: Evidence) -> Floats:
    """Log likelihood ``[G]`` of left shares ``[G]``, each with all else as suits it best."""
    return latent.best(shares, evidence)[1]
