"""How well a population's left share is told: error of the naive and the corrected count, and coverage.

    python benchmarks/population.py [--samples 50] [--images 8] [--particles 40] [--clean 100]

Samples are drawn by chance alone: images with about so many particles, each called left or right by a
classifier of the stated accuracy, and as many clean labels of each hand to tell how accurate it is. With
``--differ`` the share itself differs from image to image (a beta distribution).
"""

import argparse

import numpy as np

from emclean.science.population import Confusion, Share, left_share

TRUE = (0.0, 0.02, 0.1, 0.3, 0.5)


def main() -> None:
    """Parse, draw, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--particles", type=int, default=40, help="in an image, on average")
    parser.add_argument("--clean", type=int, default=100, help="clean labels of each hand")
    parser.add_argument("--sensitivity", type=float, default=0.93)
    parser.add_argument("--specificity", type=float, default=0.9)
    parser.add_argument("--differ", type=float, default=0.0, help="0: images do not differ; 0.05: clearly")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("true left | naive error  coverage | corrected error  coverage  width of the interval")
    for true in TRUE:
        rng = np.random.default_rng([options.seed, round(1000 * true)])
        print(row(true, [drawn(rng, true, options) for _ in range(options.samples)]))


def drawn(rng: np.random.Generator, true: float, options: argparse.Namespace) -> Share:
    """The share of one simulated sample."""
    se, sp, clean = options.sensitivity, options.specificity, options.clean
    shares = np.full(options.images, true)
    if options.differ and 0 < true < 1:
        shares = rng.beta(true / options.differ, (1 - true) / options.differ, options.images)
    total = np.maximum(rng.poisson(options.particles, options.images), 1)
    left = rng.binomial(total, shares)
    called = rng.binomial(left, se) + rng.binomial(total - left, 1 - sp)
    hits, rejections = rng.binomial(clean, se), rng.binomial(clean, sp)
    share = left_share(called, total, Confusion(hits, clean - hits, clean - rejections, rejections))
    assert share is not None  # every image holds a particle
    return share


def row(true: float, shares: list[Share]) -> str:
    """One line of the table: mean absolute errors, and how often each interval holds the truth."""
    naive = float(np.mean([abs(share.naive - true) for share in shares]))
    corrected = float(np.mean([abs((share.corrected or 0.0) - true) for share in shares]))
    naive_held = float(np.mean([share.naive_low <= true <= share.naive_high for share in shares]))
    held = float(np.mean([share.low <= true <= share.high for share in shares]))
    width = float(np.mean([share.high - share.low for share in shares]))
    return (
        f"{100 * true:7.0f} % | {100 * naive:9.1f} %  {100 * naive_held:6.0f} % |"
        f" {100 * corrected:13.1f} %  {100 * held:6.0f} %  {100 * width:12.1f} %"
    )


if __name__ == "__main__":
    main()
