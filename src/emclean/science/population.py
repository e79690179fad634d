"""How many of a population are left-handed, when the classifier that counts them makes mistakes.

The naive share of those called left is pulled towards one half by confusion. The corrected share is Rogan
and Gladen's (1978, Am. J. Epidemiol. 107:71-76), also called the adjusted count: with sensitivity ``se``
(left called left) and specificity ``sp`` (right called right), ``(naive + sp - 1) / (se + sp - 1)``, held
within 0-1. Its interval is that of the profile likelihood of three binomials: the sample, and the clean
labels of either hand that tell ``se`` and ``sp``. It takes in what is not known of these, and stays sensible
at 0 %, where an interval of plus and minus some standard errors does not. The clean labels must not be the
population's own automatic labels: there the errors are the minority.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import xlog1py, xlogy
from scipy.stats import norm
from scipy.stats import t as student

from emclean.types import Floats, Ints

STEPS, TOLERANCE = 3000, 1e-8
"""Most rounds of the EM algorithm for each share, and the change of se and sp at which it ends."""

GRID, FINE = 101, 33
"""Shares at which the likelihood is worked out, first over 0-1, then within each bound's bracket."""

WISDOM = 3.0
"""How many images' worth of belief there is that images do not differ (ours): steadies the design effect."""


@dataclass(frozen=True)
class Confusion:
    """What a classifier makes of particles with clean labels, none of which it was trained on: counts.

    A particle may count in parts. ``symmetric``: it treats mirror images alike by construction, so that both
    hands share one error rate.
    """

    left_as_left: float
    left_as_right: float
    right_as_left: float
    right_as_right: float
    symmetric: bool = False

    def __post_init__(self) -> None:
        for name in ("left_as_left", "left_as_right", "right_as_left", "right_as_right"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected a count, got {getattr(self, name)}")

    @staticmethod
    def of(truth: ArrayLike, called: ArrayLike, symmetric: bool = False) -> "Confusion":
        """Count clean labels against calls, both ``[n]`` True for left."""
        t, c = np.asarray(truth, dtype=np.bool_), np.asarray(called, dtype=np.bool_)
        if t.shape != c.shape or t.ndim != 1:
            raise ValueError(f"expected two columns of one length, got {t.shape} and {c.shape}")
        counts = (int((t & c).sum()), int((t & ~c).sum()), int((~t & c).sum()), int((~t & ~c).sum()))
        return Confusion(*counts, symmetric)

    @property
    def rates(self) -> tuple[float | None, float | None]:
        """Sensitivity and specificity for left hands; None where no clean label tells."""
        left, right = self.left_as_left + self.left_as_right, self.right_as_left + self.right_as_right
        if self.symmetric:
            both = (self.left_as_left + self.right_as_right) / (left + right) if left + right else None
            return both, both
        se = self.left_as_left / left if left else None
        return se, (self.right_as_right / right if right else None)


@dataclass(frozen=True)
class Share:
    """The left share of ``particles`` in ``images``: as counted, and corrected, each with its interval.

    ``corrected`` is None where the clean labels cannot tell the hands apart; the interval is then 0 to 1.
    ``design_effect`` says how many times as much the share varies from image to image as chance alone does.
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


def left_share(
    called_left: ArrayLike, called: ArrayLike, confusion: Confusion, confidence: float = 0.95
) -> Share | None:
    """The left share of a sample from its images: ``called_left [m]`` of ``called [m]`` particles each.

    Images are clusters: their particles come from one place and one setting of the microscope, so the
    sample counts as less by the design effect. None where there is no particle.
    """
    left, total = _counts(called_left, called)
    n, x = int(total.sum()), int(left.sum())
    if not n:
        return None
    effect = design_effect(left, total)
    reach = _reach(len(total), effect, confidence)
    naive_low, naive_high = wilson(x / effect, n / effect, reach)
    corrected = adjusted(x / n, confusion)
    low, high = 0.0, 1.0
    if corrected is not None:
        low, high = profile_interval(x / effect, n / effect, confusion, corrected, reach)
    return Share(n, len(total), x / n, naive_low, naive_high, corrected, low, high, effect)


def _reach(images: int, effect: float, confidence: float) -> float:
    """Standard errors on either side: Student's, since the spread over few images is itself uncertain.

    Where images do not differ, or there is one, chance alone is at work and its spread is known.
    """
    if effect == 1.0:
        return float(norm.ppf(0.5 + confidence / 2))
    return float(student.ppf(0.5 + confidence / 2, images - 1 + WISDOM))


def _counts(called_left: ArrayLike, called: ArrayLike) -> tuple[Ints, Ints]:
    """Both columns without images that hold no particle."""
    left = np.array(called_left, dtype=np.int64).reshape(-1)
    total = np.array(called, dtype=np.int64).reshape(-1)
    if left.shape != total.shape or (left < 0).any() or (left > total).any():
        raise ValueError("called_left: expected a count from 0 to that of called, for each image")
    return left[total > 0], total[total > 0]


def adjusted(naive: float, confusion: Confusion) -> float | None:
    """Rogan and Gladen's share, held within 0-1; None where clean labels show no better than chance."""
    se, sp = confusion.rates
    if se is None or sp is None or se + sp <= 1:
        return None
    return float(np.clip((naive + sp - 1) / (se + sp - 1), 0.0, 1.0))


def design_effect(left: Ints, total: Ints) -> float:
    """Variance of the share over images against that of as many independent particles, at least 1.

    Source: ratio estimator of a cluster sample (Cochran 1977, Sampling Techniques, section 9); drawn towards
    1 by :data:`WISDOM`, since few images tell little of it.
    """
    m, n = len(total), float(total.sum())
    share = float(left.sum()) / n
    if m < 2 or share in (0.0, 1.0):
        return 1.0
    between = m / (m - 1) * float(((left - share * total) ** 2).sum()) / n**2
    seen = between / (share * (1 - share) / n)
    return max((WISDOM + (m - 1) * seen) / (WISDOM + m - 1), 1.0)


def wilson(x: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share ``x / n`` (1927, J. Am. Stat. Assoc. 22:209-212), ``z`` errors wide."""
    middle = (x + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * float(np.sqrt(x * (n - x) / n + z * z / 4))
    return min(max(middle - half, 0.0), x / n), max(min(middle + half, 1.0), x / n)  # rounding aside


def profile_interval(
    x: float, n: float, confusion: Confusion, best: float, z: float = 1.96
) -> tuple[float, float]:
    """Bounds of the left share: where the log of the profile likelihood has fallen by ``z`` squared, halved.

    ``x`` of ``n`` (effective numbers, not necessarily whole) were called left; ``best`` is the likeliest
    share.
    """
    drop = z * z / 2
    top = float(profile(np.array([best]), x, n, confusion)[0])
    grid = np.unique(np.append(np.linspace(0, 1, GRID), best))
    inside = profile(grid, x, n, confusion) >= top - drop
    inside[np.searchsorted(grid, best)] = True
    first, last = np.flatnonzero(inside)[[0, -1]]
    low = _crossing(grid[max(first - 1, 0)], grid[first], top - drop, x, n, confusion) if first else 0.0
    end = len(grid) - 1
    high = _crossing(grid[min(last + 1, end)], grid[last], top - drop, x, n, confusion) if last < end else 1.0
    return low, high


def _crossing(outside: float, inside: float, level: float, x: float, n: float, confusion: Confusion) -> float:
    """Where between two shares the likelihood falls below a level."""
    fine: Floats = np.linspace(inside, outside, FINE, dtype=np.float64)
    above = profile(fine, x, n, confusion) >= level
    above[0] = True
    last = int(np.flatnonzero(above)[-1])
    return float(fine[min(last + 1, FINE - 1)] + fine[last]) / 2


def profile(shares: Floats, x: float, n: float, confusion: Confusion) -> Floats:
    """Log likelihood ``[G]`` of left shares ``[G]``, each with the se and sp that suit it best.

    These are found by EM: the true hand of each counted particle is what is missing (Dempster et al. 1977).
    """
    a, a_not = float(confusion.left_as_left), float(confusion.left_as_right)
    b, b_not = float(confusion.right_as_right), float(confusion.right_as_left)
    se, sp = _start(a, a_not, len(shares)), _start(b, b_not, len(shares))
    for _ in range(STEPS):
        q = np.clip(shares * se + (1 - shares) * (1 - sp), 1e-300, 1.0)
        left = x * shares * se / q, (n - x) * shares * (1 - se) / np.clip(1 - q, 1e-300, 1.0)
        hits, misses = a + left[0], a_not + left[1]
        right, wrong = b + (n - x) - left[1], b_not + x - left[0]
        if confusion.symmetric:
            hits, misses = hits + right, misses + wrong
            right, wrong = hits, misses
        fresh = hits / np.maximum(hits + misses, 1e-300), right / np.maximum(right + wrong, 1e-300)
        change = max(np.abs(fresh[0] - se).max(), np.abs(fresh[1] - sp).max())
        se, sp = fresh
        if change < TOLERANCE:
            break
    q = shares * se + (1 - shares) * (1 - sp)
    sample = xlogy(x, q) + xlog1py(n - x, -q)
    clean = xlogy(a, se) + xlog1py(a_not, -se) + xlogy(b, sp) + xlog1py(b_not, -sp)
    return np.asarray(sample + clean)


def _start(right: float, wrong: float, n: int) -> Floats:
    """First values of a rate ``[n]``, off the edges, where EM would stay for ever."""
    return np.full(n, (right + 0.5) / (right + wrong + 1.0))
