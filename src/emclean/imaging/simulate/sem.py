"""How a scanning electron microscope takes its pictures: detector, scan lines, charging, shot noise, dirt."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emclean.imaging.simulate.canvas import Plane, Size, soft_step

Population = Literal["ideal", "practical"]
"""How alike the particles of a preparation are, and how clean it and its pictures."""

NOMINAL = 128
"""Side in px of the picture for which lengths are stated: a body is 90 to 120 px long and 55 to 70 wide."""


@dataclass(frozen=True)
class Microscope:
    """How a picture is taken: where the detector stands (radians), how much it matters, rim and ridge.

    ``rim`` and ``ridge`` are added grey, ``rim_px`` the rim's width in px, ``ground`` the substrate's grey;
    ``dose`` sets the shot noise (variance = level / dose), ``lines`` the unevenness from scan line to scan
    line, ``charging`` the strength of bright streaks along them.
    """

    light: float
    shading: float
    rim: float
    rim_px: float
    ridge: float
    ground: float
    blur: float
    dose: float
    lines: float
    charging: float

    @staticmethod
    def draw(rng: np.random.Generator, population: Population) -> "Microscope":
        """The settings of one session."""
        ideal = population == "ideal"
        return Microscope(
            light=rng.uniform(0.0, 2 * np.pi),
            shading=rng.uniform(0.02, 0.07) if ideal else rng.uniform(0.02, 0.12),
            rim=rng.uniform(0.3, 0.42) if ideal else rng.uniform(0.22, 0.45),
            rim_px=rng.uniform(2.2, 3.6),
            ridge=rng.uniform(0.12, 0.2) if ideal else rng.uniform(0.05, 0.18),
            ground=rng.uniform(0.1, 0.17) if ideal else rng.uniform(0.07, 0.2),
            blur=rng.uniform(0.6, 1.0) if ideal else rng.uniform(0.6, 1.6),
            dose=np.exp(rng.uniform(np.log(150), np.log(400)))
            if ideal
            else np.exp(rng.uniform(np.log(60), np.log(300))),
            lines=0.006 if ideal else rng.uniform(0.0, 0.025),
            charging=0.0 if ideal or rng.random() < 0.6 else rng.uniform(0.05, 0.2),
        )


def expose(rng: np.random.Generator, plane: Plane, scope: Microscope, turn: float) -> NDArray[np.uint8]:
    """Photograph a canvas: blur, scan lines that run at ``turn`` radians, charging, shot noise, 8 bits."""
    size = (plane.shape[0], plane.shape[1])
    image = blurred(plane, scope.blur)
    line = _line_of(size, turn)
    n = int(line.max()) + 1
    image += np.float32(scope.lines) * rng.standard_normal(n, dtype=np.float32)[line]
    if scope.charging:
        streak = np.maximum(rng.standard_normal(n, dtype=np.float32) - 1.2, 0)
        image += np.float32(scope.charging) * streak[line] * np.clip(2.5 * image, 0.2, 1)
    image += np.sqrt(np.maximum(image, 0.02) / np.float32(scope.dose)) * _grain(rng, size)
    return np.asarray(np.clip(image * 255.0 + 0.5, 0, 255), dtype=np.uint8)


def _grain(rng: np.random.Generator, size: Size) -> Plane:
    """Noise ``[H,W]`` of mean 0 and variance 1 whose neighbouring pixels are alike, on all sides equally."""
    raw = rng.standard_normal((size[0] + 2, size[1] + 2), dtype=np.float32)
    near = np.float32(0.25)
    wide = raw[:, 1:-1] + near * (raw[:, :-2] + raw[:, 2:])
    return np.asarray((wide[1:-1] + near * (wide[:-2] + wide[2:])) / np.float32(1.125))


def blurred(plane: Plane, sigma: float) -> Plane:
    """Gaussian blur of a plane, border repeated."""
    taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    h, w = plane.shape
    padded = np.pad(plane, 3, mode="edge")
    tall = sum(tap * padded[i : i + h] for i, tap in enumerate(taps))
    return np.asarray(sum(tap * tall[:, i : i + w] for i, tap in enumerate(taps)))


def _line_of(size: Size, turn: float) -> NDArray[np.intp]:
    """The number of the scan line of every pixel ``[H,W]``."""
    y = np.arange(size[0], dtype=np.float32)[:, None] * np.float32(np.cos(turn))
    x = np.arange(size[1], dtype=np.float32)[None, :] * np.float32(np.sin(turn))
    across = y + x
    return np.asarray(across - across.min(), dtype=np.intp)


def dirt(rng: np.random.Generator, plane: Plane, zoom: float, mean: float = 1.2) -> None:
    """Small bright grains here and there, in place; about ``mean`` for each nominal cut-out."""
    height, width = plane.shape
    n = rng.poisson(mean * height * width / (NOMINAL * max(zoom, 0.2)) ** 2)
    for _ in range(n):
        radius = float(rng.uniform(1.5, 5.0)) * zoom
        room = 2 * radius + 2  # each grain lies in the plane as a whole
        y, x = rng.uniform(room, height - room), rng.uniform(room, width - room)
        top, left = max(int(y - room), 0), max(int(x - room), 0)
        view = plane[top : int(y + 2 * radius + 3), left : int(x + 2 * radius + 3)]
        dy = np.arange(top, top + view.shape[0], dtype=np.float32)[:, None] - np.float32(y)
        dx = np.arange(left, left + view.shape[1], dtype=np.float32)[None, :] - np.float32(x)
        gap = np.float32(radius) - np.hypot(dx * np.float32(rng.uniform(0.7, 1.4)), dy)
        cover = soft_step(gap, 1.0)
        level = np.float32(rng.uniform(0.3, 0.6)) + np.float32(0.3) * np.exp(-np.maximum(gap, 0) / 2)
        view += cover * (level - view)
