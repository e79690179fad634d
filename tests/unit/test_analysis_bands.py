"""Windows' tables become a picture's particles a row of windows at a time, in memory that stays as it is."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emclean.imaging.segmentation import Levels
from emclean.loop.analysis import running
from emclean.loop.analysis.bands import bands, merged
from emclean.loop.analysis.gathering import gather
from emclean.loop.analysis.looking import SCHEMA
from emclean.loop.analysis.opening import InlineRunner
from emclean.loop.analysis.pieces import Measured, Micrograph, Piece, Pieces

PICTURE = Micrograph("a.tif", "/nowhere/a.tif", "00ff", "s")
CORE = 100


def pieces_of(height, width):
    return Pieces(PICTURE, Measured((height, width), 2.0, Levels(0, 255, 60, 20, 300)), CORE, {})


def table_of(piece, rng, per_window=6):
    """Particles at random in a window's core, each also seen by every window whose edge is near."""
    rows, cols = piece.window.core
    y = rng.uniform(rows.start, rows.stop, per_window)
    x = rng.uniform(cols.start, cols.stop, per_window)
    return y, x


def written(pieces, home, seed=0):
    """A file for each window; a particle near an edge is in the files of all windows that see it."""
    rng, every = np.random.default_rng(seed), list(pieces)
    centres = [np.stack(table_of(piece, rng), axis=1) for piece in every]
    where = np.concatenate(centres)
    home.mkdir(parents=True, exist_ok=True)
    for piece in every:
        seen = np.array([piece.window.holds(y, x, 16.0) for y, x in where], bool)
        owned = np.array([piece.window.holds(y, x) for y, x in where[seen]], bool)
        pq.write_table(table(where[seen], owned), home / f"{piece.key}.parquet")
    return len(where)


def table(centres, owned):
    n = len(centres)
    y, x = (centres[:, k] if n else np.zeros(0) for k in (0, 1))
    columns = {
        "y": y, "x": x, "y1": y - 8, "x1": x - 8, "y2": y + 8, "x2": x + 8, "area": np.full(n, 200),
        "length": np.full(n, 20.0), "width": np.full(n, 12.0), "turn": np.zeros(n), "solidity": np.ones(n),
        "grey": np.full(n, 99.0), "reason": [""] * n, "owned": owned, "p_usable": np.ones(n),
        "p_left": np.full(n, 0.25), "mask": [b"m" * 40] * n, "picture": [None] * n,
    }  # fmt: skip
    wanted = {"int32": np.int32}
    arrays = [
        pa.array(
            np.asarray(columns[f.name]).astype(wanted[str(f.type)])
            if str(f.type) in wanted
            else columns[f.name],
            f.type,
        )
        for f in SCHEMA
    ]
    return pa.table(arrays, SCHEMA)


def test_bands_hold_what_all_windows_at_once_hold_in_the_same_order(tmp_path):
    pieces = pieces_of(430, 310)
    written(pieces, tmp_path)
    every = list(pieces)
    whole = merged([pq.read_table(tmp_path / f"{p.key}.parquet", schema=SCHEMA) for p in every], every)
    found = list(bands(tmp_path, pieces))
    assert len(found) == 4
    for name in ("y", "x", "owned", "mask"):
        assert np.array_equal(np.concatenate([band[name] for band in found]), whole[name])
    assert not any("window" in band for band in found)


def test_a_particle_that_several_windows_saw_counts_once(tmp_path):
    pieces = pieces_of(300, 300)
    there = written(pieces, tmp_path)
    seen = sum(pq.read_table(tmp_path / f"{p.key}.parquet").num_rows for p in pieces)
    columns = np.concatenate([np.stack([b["y"], b["x"]], axis=1) for b in bands(tmp_path, pieces)])
    assert seen > there >= len(np.unique(columns, axis=0)) == len(columns)


class Writing:
    """Stands for the work on a window: writes its table and says that it is done."""

    def __init__(self, home):
        self.home = home

    def __call__(self, text):
        piece = Piece.of(text)
        rng = np.random.default_rng(int(piece.key[:8], 16))
        y, x = table_of(piece, rng)
        pq.write_table(
            table(np.stack([y, x], axis=1), np.ones(len(y), bool)), self.home / f"{piece.key}.parquet"
        )
        return json.dumps(
            {"key": piece.key, "image_id": piece.image_id, "pixels": piece.pixels, "reason": None}
        )


def driver_peak(folder, rows, monkeypatch):
    """The driver's peak memory in bytes for that many rows of ten windows, from the plan to the tables."""
    (folder / "windows").mkdir(parents=True)
    monkeypatch.setattr(running, "Search", lambda *given: Writing(folder / "windows"))
    settings = SimpleNamespace(classifier=SimpleNamespace(usable_from=0.5))
    console = SimpleNamespace(say=lambda text: None, progress=lambda *given: None)
    analysis = SimpleNamespace(home=folder, settings=settings, console=console, runner=InlineRunner())
    judges = SimpleNamespace(hand="", usable=None)
    pieces = pieces_of(rows * CORE, 10 * CORE)
    plan = [(PICTURE, pieces.measured, pieces)]
    tracemalloc.start()
    spent, faults = running.search(analysis, plan, judges, None)
    found = gather(plan, folder / "windows", folder, 0.5, 0, lambda *given: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (spent.windows, spent.done, faults) == (10 * rows, 10 * rows, {})
    assert found.counts[0].usable == pq.read_table(folder / "particles.parquet").num_rows > 50 * rows
    return peak


@pytest.mark.slow
def test_the_drivers_memory_does_not_grow_with_the_number_of_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "settings_of", lambda settings: None)
    driver_peak(tmp_path / "warm", 4, monkeypatch)  # what is imported and kept at the first call
    few = driver_peak(tmp_path / "few", 15, monkeypatch)
    many = driver_peak(tmp_path / "many", 60, monkeypatch)
    assert many < 1.2 * few
