"""Whole SEM micrographs of chiral particles with their truth, of any size: drawn strip by strip.

A scene knows where every particle lies; its pixels exist only while a strip of rows is drawn, so that a
picture of 50,000 px a side needs no more memory than a small one. The same seed gives the same pixels,
whatever part of the picture is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.imaging.simulate.canvas import Plane, Size
from emclean.imaging.simulate.chiral import HANDS, HIDDEN, Body, Hand, Place, Pose, body, lay, paint
from emclean.imaging.simulate.sem import Microscope, Population, dirt, expose

STRIP = 512
"""Rows drawn at a time."""

MARGIN = 4
"""Rows drawn beyond a strip, so that the blur knows what lies there."""

TRIES = 30
"""How many places are tried for a particle before it is left out."""


@dataclass(frozen=True)
class Recipe:
    """What lies in a micrograph: ``density`` particles per million px (at magnification 1), shares 0-1.

    ``left`` of the particles are left-handed, ``usable`` show their hand, ``touching`` lie against another.
    ``zoom`` is the magnification: 1 draws bodies of 90 to 120 px.
    """

    population: Population = "practical"
    left: float = 0.3
    density: float = 22.0
    usable: float = 0.75
    touching: float = 0.2
    zoom: float = 0.75
    nm_per_px: float = 2.0


@dataclass(frozen=True)
class Particle:
    """One particle of a scene: where it lies, its pose, half its length and width in px."""

    place: Place
    pose: Pose
    half_length: float
    half_width: float

    @property
    def usable(self) -> bool:
        """Whether the pose shows the hand."""
        return self.pose == "front"


@dataclass(frozen=True, eq=False)
class Scene:
    """A micrograph that can be drawn in strips; particle ``i`` has the instance id ``i + 1``."""

    size: Size
    recipe: Recipe
    seed: tuple[int, ...]
    scope: Microscope
    particles: tuple[Particle, ...]
    waves: NDArray[np.float32] = field(repr=False)

    def strips(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint32]]]:
        """The picture from top to bottom: pixels and instance ids of :data:`STRIP` rows (the last: fewer)."""
        rows = self._by_strip()
        for number in range(len(rows)):
            yield self._strip(number, rows[number])

    def whole(self) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """Pixels and instance ids ``[H,W]`` of the whole picture."""
        parts = list(self.strips())
        return np.concatenate([p for p, _ in parts]), np.concatenate([ids for _, ids in parts])

    def _by_strip(self) -> list[list[int]]:
        """The particles that reach into each strip, in the order in which they are laid."""
        rows: list[list[int]] = [[] for _ in range(-(-self.size[0] // STRIP))]
        for i, particle in enumerate(self.particles):
            reach = _reach(particle) + MARGIN
            first = max(int((particle.place.y - reach) // STRIP), 0)
            last = min(int((particle.place.y + reach) // STRIP), len(rows) - 1)
            for number in range(first, last + 1):
                rows[number].append(i)
        return rows

    def _strip(self, number: int, ids: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        top, bottom = number * STRIP, min((number + 1) * STRIP, self.size[0])
        rng = np.random.default_rng([*self.seed, 1, number])
        plane = self._ground(top - MARGIN, bottom + MARGIN)
        map_ = np.zeros(plane.shape, np.uint32)
        for i in ids:
            self._lay(i, plane, map_, top - MARGIN)
        mean = 0.1 if self.recipe.population == "ideal" else 0.5
        dirt(rng, plane, self.recipe.zoom, mean)
        inner = slice(MARGIN, MARGIN + bottom - top)
        return expose(rng, plane, self.scope, 0.0)[inner], map_[inner]

    def _ground(self, top: int, bottom: int) -> Plane:
        """The substrate: its grey drifts slowly over the whole picture."""
        y = np.arange(top, bottom, dtype=np.float32)[:, None]
        x = np.arange(self.size[1], dtype=np.float32)[None, :]
        plane = np.full((bottom - top, self.size[1]), self.scope.ground, np.float32)
        for ky, kx, phase, strength in self.waves:
            plane += strength * (
                np.cos(ky * y + phase) * np.cos(kx * x) - np.sin(ky * y + phase) * np.sin(kx * x)
            )
        return plane

    def _lay(self, i: int, plane: Plane, ids: NDArray[np.uint32], top: int) -> None:
        """Lay one particle where it reaches into the rows from ``top`` on."""
        particle = self.particles[i]
        y1, x1, y2, x2 = _patch(particle, self.size[1])
        first, last = max(y1, top), min(y2, top + len(plane))
        if first >= last or x1 >= x2:
            return
        rng, shape = self.shape_of(i)
        painted = paint(rng, shape, particle.place, self.scope, (y2 - y1, x2 - x1), (y1, x1))
        cut = slice(first - y1, last - y1)
        view = slice(first - top, last - top), slice(x1, x2)
        part = type(painted)(painted.inside[cut], painted.grey[cut])
        lay(plane[view], part)
        ids[view][part.inside > 0] = i + 1

    def shape_of(self, i: int) -> tuple[np.random.Generator, Body]:
        """The body of a particle, drawn anew, and the generator that goes on to draw its texture."""
        rng = np.random.default_rng([*self.seed, 2, i])
        return rng, body(rng, self.recipe.population, self.particles[i].pose)

    def area_of(self, i: int) -> int:
        """How many px a particle covers, were it alone and the picture without end."""
        particle = self.particles[i]
        y1, x1, y2, x2 = _patch(particle, None)
        rng, shape = self.shape_of(i)
        size = (y2 - y1, x2 - x1)
        return int((paint(rng, shape, particle.place, self.scope, size, (y1, x1)).inside > 0).sum())


def _reach(particle: Particle) -> float:
    return 1.25 * max(particle.half_length, particle.half_width)


def _patch(particle: Particle, width: int | None) -> tuple[int, int, int, int]:
    """Rows and columns round a particle (with room for its shadow), cut at the picture's left and right."""
    reach = _reach(particle) + 20
    y1, x1 = int(particle.place.y - reach), int(particle.place.x - reach)
    y2, x2 = int(particle.place.y + reach) + 1, int(particle.place.x + reach) + 1
    return (y1, x1, y2, x2) if width is None else (y1, max(x1, 0), y2, min(x2, width))


def scene(seed: int | tuple[int, ...], size: Size, recipe: Recipe | None = None) -> Scene:
    """Place the particles of a micrograph of ``size`` (rows, columns) px."""
    recipe = recipe or Recipe()
    key = (seed,) if isinstance(seed, int) else seed
    rng = np.random.default_rng([*key, 0])
    scope = Microscope.draw(rng, recipe.population)
    wanted = rng.poisson(recipe.density * size[0] * size[1] / 1e6 / recipe.zoom**2)
    crowd = _Crowd(2.6 * 60 * recipe.zoom)
    # bodies are drawn from seeds by their place in the list; one that finds no room leaves no gap in it
    for _ in range(wanted):
        _add(rng, key, size, recipe, crowd)
    waves = np.stack(
        [
            rng.normal(0, 2 * np.pi / max(size), 4),
            rng.normal(0, 2 * np.pi / max(size), 4),
            rng.uniform(0, 2 * np.pi, 4),
            rng.normal(0, 0.008, 4),
        ],
        axis=1,
    ).astype(np.float32)
    return Scene(size, recipe, key, scope, tuple(crowd.particles), waves)


def _add(rng: np.random.Generator, key: tuple[int, ...], size: Size, recipe: Recipe, crowd: "_Crowd") -> None:
    """Find room for one more particle, if there is any."""
    pose: Pose = "front" if rng.random() < recipe.usable else HIDDEN[int(rng.integers(len(HIDDEN)))]
    hand: Hand = HANDS[int(rng.random() >= recipe.left)]
    own = np.random.default_rng([*key, 2, len(crowd.particles)])
    shape = body(own, recipe.population, pose)
    zoom = recipe.zoom
    touching = bool(crowd.particles) and rng.random() < recipe.touching
    for _ in range(TRIES):
        place = Place(rng.uniform(0, size[1]), rng.uniform(0, size[0]), rng.uniform(0, 2 * np.pi), zoom, hand)
        made = Particle(place, pose, shape.half_length * zoom, shape.half_width * zoom)
        if touching:
            made = crowd.beside(rng, made)
        gap = crowd.gap(made)
        if gap >= (-1.5 if touching else 5.0) * zoom and _within(made, size):
            crowd.add(made)
            return


def _within(particle: Particle, size: Size) -> bool:
    return 0 <= particle.place.x < size[1] and 0 <= particle.place.y < size[0]


class _Crowd:
    """Particles as three discs each, found by the cell of a grid in which they lie."""

    def __init__(self, cell: float) -> None:
        self.particles: list[Particle] = []
        self._cell = cell
        self._cells: dict[tuple[int, int], list[int]] = {}

    def add(self, particle: Particle) -> None:
        """Take in a particle."""
        self._cells.setdefault(self._key(particle), []).append(len(self.particles))
        self.particles.append(particle)

    def gap(self, particle: Particle) -> float:
        """Px between a particle and the nearest other; negative where they overlap."""
        row, col = self._key(particle)
        near = [
            k
            for i in (row - 1, row, row + 1)
            for j in (col - 1, col, col + 1)
            for k in self._cells.get((i, j), ())
        ]
        return min((_gap(particle, self.particles[k]) for k in near), default=np.inf)

    def beside(self, rng: np.random.Generator, particle: Particle) -> Particle:
        """The particle moved up to a random other one, until they touch."""
        other = self.particles[int(rng.integers(len(self.particles)))]
        turn, reach = rng.uniform(0, 2 * np.pi), 2.5 * (particle.half_length + other.half_length)
        moved = particle
        for _ in range(6):  # each step closes the gap that is left; discs are convex, so it never overshoots
            x = other.place.x + reach * float(np.cos(turn))
            y = other.place.y + reach * float(np.sin(turn))
            place = Place(x, y, particle.place.turn, particle.place.zoom, particle.place.hand)
            moved = Particle(place, particle.pose, particle.half_length, particle.half_width)
            reach -= _gap(moved, other)
        return moved

    def _key(self, particle: Particle) -> tuple[int, int]:
        return int(particle.place.y // self._cell), int(particle.place.x // self._cell)


def _discs(particle: Particle) -> list[tuple[float, float, float]]:
    """Three discs (x, y, radius) that cover a particle."""
    place, far = particle.place, max(particle.half_length - particle.half_width, 0.0)
    dx, dy = -far * float(np.sin(place.turn)), far * float(np.cos(place.turn))
    return [(place.x + k * dx, place.y + k * dy, particle.half_width) for k in (-1, 0, 1)]


def _gap(a: Particle, b: Particle) -> float:
    pairs = [(p, q) for p in _discs(a) for q in _discs(b)]
    return min(float(np.hypot(p[0] - q[0], p[1] - q[1])) - p[2] - q[2] for p, q in pairs)


def truth_rows(made: Scene, covered: NDArray[np.int64]) -> list[dict[str, Any]]:
    """One row for each particle: place, hand, pose, size in nm, and which share of it is to be seen.

    ``covered [N + 1]`` counts the px of every instance id in the picture.
    """
    nm, rows = made.recipe.nm_per_px, []
    for i, particle in enumerate(made.particles):
        place = particle.place
        rows.append(
            {
                "id": i + 1,
                "x": round(place.x, 2),
                "y": round(place.y, 2),
                "turn_deg": round(float(np.degrees(place.turn)), 1),
                "hand": place.hand,
                "pose": particle.pose,
                "usable": int(particle.usable),
                "length_nm": round(2 * particle.half_length * nm, 1),
                "width_nm": round(2 * particle.half_width * nm, 1),
                "visible": round(float(covered[i + 1]) / max(made.area_of(i), 1), 3),
            }
        )
    return rows
