"""A folder of simulated cut-outs of chiral particles with their hands, as PNG and CSV."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from emclean.imaging.simulate.chiral import HIDDEN, Cutout, Hand, Pose, cutout
from emclean.imaging.simulate.sem import NOMINAL, Population

UNUSABLE = "unusable"
"""The label of a particle whose pose shows no hand."""


@dataclass(frozen=True)
class WrittenParticles:
    """Where a set of cut-outs lies: the folder of pictures, and ``image,label,group``."""

    images: Path
    labels: Path


def write_particle_set(
    folder: Path,
    n: int,
    size: int = NOMINAL,
    seed: int = 0,
    population: Population = "ideal",
    *,
    left: float = 0.5,
    unusable: float = 0.0,
) -> WrittenParticles:
    """Write ``n`` particles and ``labels.csv`` (``left``, ``right``, ``unusable``); same seed, same bytes.

    ``left`` is the share of left hands among the usable (0: a one-handed set, whose mirror images are the
    other class), ``unusable`` the share of poses without a hand, both met exactly; ``group`` is the particle.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (hand, pose) in enumerate(drawn_kinds(np.random.default_rng([seed, n]), n, left, unusable)):
        made = cutout(np.random.default_rng([seed, n, i]), hand, size=size, population=population, pose=pose)
        name = f"particle-{i:05d}.png"
        Image.fromarray(made.pixels).save(images / name, compress_level=1)
        rows.append((name, label_of(made), f"particle-{i:05d}"))
    labels = folder / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "group"), *rows])
    return WrittenParticles(images, labels)


def label_of(made: Cutout) -> str:
    """What a set calls a particle: its hand, where its pose shows it."""
    return made.hand if made.usable else UNUSABLE


def drawn_kinds(rng: np.random.Generator, n: int, left: float, unusable: float) -> list[tuple[Hand, Pose]]:
    """The hand and pose of each of ``n`` particles: exact counts in random order."""
    hidden = round(unusable * n)
    lefts = round(left * (n - hidden))
    poses: list[Pose] = [HIDDEN[i % len(HIDDEN)] for i in range(hidden)] + ["front"] * (n - hidden)
    hands: list[Hand] = ["left" if rng.random() < left else "right" for _ in range(hidden)]
    hands.extend(["left"] * lefts)
    hands.extend(["right"] * (n - hidden - lefts))
    return [(hands[i], poses[i]) for i in rng.permutation(n)]
