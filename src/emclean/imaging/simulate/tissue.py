"""Both sides of the membrane: foot processes and podocyte, endothelium, lumen, and their textures."""

from dataclasses import dataclass

import numpy as np

from emclean.imaging.simulate.canvas import Plane, Size, blend, profile, smooth, soft_step
from emclean.imaging.simulate.membrane import Membrane


@dataclass(frozen=True, eq=False)
class Grain:
    """Noise planes ``[H,W]`` that all textures of one picture share, of about 1.6, 4 and 22 px grain."""

    fine: Plane
    floc: Plane
    cloud: Plane

    @staticmethod
    def draw(rng: np.random.Generator, size: Size) -> "Grain":
        """New noise for one picture."""
        fine, floc, cloud = (smooth(rng, size, scale) for scale in (1.6, 4.0, 22.0))
        return Grain(fine, floc, cloud)


def cytoplasm(rng: np.random.Generator, grain: Grain) -> Plane:
    """Grey, speckled with ribosomes, cloudy."""
    level = rng.uniform(0.30, 0.46)
    speckle = np.clip(grain.fine, -1.2, 2.8)
    holes = np.clip(grain.floc - rng.uniform(1.4, 2.4), 0.0, 0.6)
    return np.asarray(level + 0.06 * speckle + 0.03 * grain.cloud + 0.015 * grain.floc + 0.4 * holes)


def chromatin(rng: np.random.Generator, grain: Grain) -> Plane:
    """A nucleus: dark clumps between bright, coarse speckle."""
    clumps = soft_step(grain.cloud + 0.25 * grain.floc - np.float32(rng.uniform(-0.1, 0.5)), 0.5)
    bright = 0.60 + 0.13 * grain.fine
    return np.asarray(bright + clumps * (0.30 + 0.03 * grain.fine - bright))


def plasma(rng: np.random.Generator, grain: Grain) -> Plane:
    """The capillary's lumen: bright, with a flocculent network that is dense, thin or absent."""
    level = rng.uniform(0.80, 0.92)
    threads = np.exp(-((grain.floc / 0.28) ** 2)) * soft_step(grain.cloud + rng.uniform(-1.5, 1.2), 0.8)
    web = (
        rng.choice([0.0, 0.16, 0.34], p=[0.35, 0.3, 0.35])
        * threads
        * (0.7 + 0.5 * np.clip(grain.fine, -1, 1.5))
    )
    return np.asarray(level - web + 0.012 * grain.cloud)


def urinary_space(rng: np.random.Generator, grain: Grain) -> Plane:
    """Nearly empty and bright."""
    level = rng.uniform(0.84, 0.95)
    return np.asarray(level + 0.012 * grain.cloud + 0.008 * grain.fine)


def build(rng: np.random.Generator, size: Size, line: Membrane, grain: Grain) -> tuple[Plane, Plane]:
    """Paint the wall of a capillary; return the picture and the plane (0-1) of where cytoplasm lies."""
    half = line.spread(line.half).astype(np.float32)
    outer, inner = -line.across - half, line.across - half  # px beyond the faces, positive outside
    plane = np.where(line.across < 0, urinary_space(rng, grain), plasma(rng, grain)).astype(np.float32)
    cells = np.zeros(size, np.float32)
    if rng.random() < 0.65:
        _cell(rng, (plane, cells), outer, line, grain)
    if rng.random() < 0.5:
        _cell(rng, (plane, cells), inner, line, grain)
    elif rng.random() < 0.15:
        _red_cell(rng, plane, inner, line)
    _foot_processes(rng, plane, outer, line, grain)
    _endothelium(rng, plane, inner, line, grain)
    _matrix(rng, plane, line, half, grain)
    return plane, cells


def _matrix(rng: np.random.Generator, plane: Plane, line: Membrane, half: Plane, grain: Grain) -> None:
    """The membrane itself: mid-grey, its lamina densa slightly darker than the two laminae rarae."""
    level = rng.uniform(0.50, 0.62)
    depth = np.abs(line.across + 0.1 * half) / half  # 0 in the middle, 1 at the faces
    rara = rng.uniform(0.02, 0.07) * np.clip((depth - 0.55) / 0.45, 0, 1)
    texture = 0.018 * grain.fine + 0.014 * grain.floc + 0.012 * grain.cloud
    blend(plane, soft_step(half - np.abs(line.across), 1.0), (level + rara + texture).astype(np.float32))


def _cell(
    rng: np.random.Generator, planes: tuple[Plane, Plane], beyond: Plane, line: Membrane, grain: Grain
) -> None:
    """A cell's body some way off the membrane, with its outline and perhaps its nucleus."""
    plane, cells = planes
    near = rng.uniform(18.0, 90.0)
    border = near * (1 + 0.25 * profile(rng, line.length, 40.0)) + 4 * profile(rng, line.length, 9.0)
    depth = beyond - line.spread(np.maximum(border, 12.0))
    mask = soft_step(depth, 0.9)
    blend(plane, mask, cytoplasm(rng, grain))
    blend(plane, 0.5 * np.exp(-(((depth - 1.0) / 1.2) ** 2)), 0.22)
    np.maximum(cells, mask, out=cells)
    if rng.random() < 0.5:
        _nucleus(rng, planes, depth, line, grain)


def _nucleus(
    rng: np.random.Generator, planes: tuple[Plane, Plane], depth: Plane, line: Membrane, grain: Grain
) -> None:
    plane, cells = planes
    hull = (
        rng.uniform(14, 40)
        + (6 * profile(rng, line.length, 35.0))
        + 30 * np.maximum(profile(rng, line.length, 90.0), 0)
    )
    inside = depth - line.spread(hull)
    blend(plane, soft_step(inside, 1.0), chromatin(rng, grain))
    rim = np.exp(-((np.maximum(inside, 0) / rng.uniform(4.0, 12.0)) ** 2)) * (inside > 0)
    blend(plane, 0.75 * rim, 0.27 + 0.03 * grain.fine)
    blend(plane, 0.5 * np.exp(-(((inside + 2.0) / 1.0) ** 2)), 0.62)
    cells *= 1 - soft_step(inside, 1.0)


def _red_cell(rng: np.random.Generator, plane: Plane, beyond: Plane, line: Membrane) -> None:
    """A red blood cell: even and dark, with a smooth outline."""
    border = rng.uniform(20, 70) * (1.4 + 0.5 * profile(rng, line.length, 80.0))
    blend(plane, soft_step(beyond - line.spread(border), 1.0), rng.uniform(0.16, 0.3))


def _foot_processes(
    rng: np.random.Generator, plane: Plane, outer: Plane, line: Membrane, grain: Grain
) -> None:
    """Rounded dark profiles that stand on the membrane, parted by slits; broad where they are effaced."""
    broad = rng.choice([1.0, 2.8], p=[0.7, 0.3])
    gap, size, tall = _row(rng, line.length, broad)
    lean = rng.uniform(-0.5, 0.5)
    exact = np.clip(line.place + lean * outer, 0, line.length - 2)
    place = exact.astype(np.int64)
    between = exact - place
    off = gap[place] * (1 - between) + gap[place + 1] * between
    power = 2.6
    reach = off**power + (np.maximum(outer, 0) / tall[place]) ** power
    edge = (1 - reach ** (1 / power)) * np.minimum(size[place], tall[place])
    edge = edge + 1.3 * grain.floc + 0.8 * grain.cloud
    body = soft_step(edge, 1.0) * (outer > -4)
    level = rng.uniform(0.27, 0.43)
    blend(plane, body, (level + 0.04 * grain.fine + 0.03 * grain.floc).astype(np.float32))
    blend(plane, 0.55 * np.exp(-((edge / 1.3) ** 2)) * (outer > 1.0), max(level - 0.1, 0.1))


def _row(rng: np.random.Generator, length: int, broad: float) -> tuple[Plane, Plane, Plane]:
    """Per place ``[L]``: distance from the process's middle (1 at its side), its half width, its height."""
    gap, size, tall = np.full(length, 9.0), np.full(length, 8.0), np.full(length, 8.0)
    at = 0.0
    while at < length:
        half = rng.uniform(5.0, 15.0) * broad
        start, stop = int(at), min(int(at + 2 * half) + 1, length)
        gap[start:stop] = np.abs(np.arange(start, stop) - at - half) / half
        size[start:stop], tall[start:stop] = half, rng.uniform(8.0, 30.0)
        at += 2 * half + rng.uniform(2.0, 7.0) + (rng.random() < 0.12) * rng.uniform(10, 50)
    return gap, size, tall


def _endothelium(rng: np.random.Generator, plane: Plane, inner: Plane, line: Membrane, grain: Grain) -> None:
    """A thin dark layer with fenestrae, sometimes lifted off by a light gap."""
    beads = profile(rng, line.length, rng.uniform(4.0, 8.0)) + rng.uniform(-0.1, 0.9)
    thick = np.clip(rng.uniform(3.0, 6.0) * beads, 0.0, 11.0) + np.maximum(
        8 * profile(rng, line.length, 50.0) - 7, 0
    )
    lift = rng.choice([0.0, 2.5], p=[0.6, 0.4])
    height = line.spread(thick)
    edge = height / 2 - np.abs(inner - lift - height / 2)
    body = soft_step(edge, 0.9) * (height > 1.5)
    blend(plane, body, (rng.uniform(0.32, 0.45) + 0.05 * grain.fine).astype(np.float32))
