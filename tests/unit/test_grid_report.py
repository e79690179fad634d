"""The report of a grid: means over seeds, maps and curves on the ground of their theme, failures listed."""

import io

import numpy as np
import pytest
from PIL import Image

from emclean.report import grid_plots, theme
from emclean.report.grid_data import CellRow, GridData, points
from emclean.report.grid_page import render
from emclean.report.text import grid_table

CELLS = [
    CellRow(method, "missed", rate, seed, ap50=0.9 - rate + 0.1 * seed, label_f1=1 - rate, seconds=2.0)
    for method in ("crowd", "graded")
    for rate in (0.1, 0.2)
    for seed in (0, 1)
]
FAILED = CellRow("truth", "missed", 0.1, 0, status="failed", reason="no <labels>")
POINTS = points(CELLS, "ap50")

DRAWN = {
    "map": lambda t: grid_plots.heat_map(POINTS, ["crowd", "graded", "truth"], theme=t),
    "curves": lambda t: grid_plots.rate_curves(POINTS, ["crowd", "graded"], theme=t),
    "no map": lambda t: grid_plots.heat_map([], ["crowd"], theme=t),
    "no curves": lambda t: grid_plots.rate_curves([], ["crowd"], theme=t),
}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(
    ("name", "key"), [("map", "light"), ("curves", "dark"), ("no map", "dark"), ("no curves", "light")]
)
def test_every_plot_is_drawn_on_the_ground_of_its_theme(name, key):
    picture = pixels(DRAWN[name](key))
    ground = tuple(int(theme.THEMES[key].ground[i : i + 2], 16) for i in (1, 3, 5))
    assert tuple(picture[2, 2]) == ground
    assert (picture != ground).any()


def test_the_map_shows_larger_values_in_other_colours():
    other = [*POINTS[:-1], POINTS[0]]
    assert grid_plots.heat_map(POINTS, ["crowd", "graded"]) != grid_plots.heat_map(other, ["crowd", "graded"])


def test_small_differences_do_not_look_large():
    assert grid_plots.span_of([0.88, 0.90]) == pytest.approx((0.84, 0.94))
    assert grid_plots.span_of([0.2, 0.9]) == (0.2, 0.9)
    assert grid_plots.span_of([]) == (0.0, 1.0)


def test_points_are_means_with_standard_errors_of_what_is_known():
    mean = points([*CELLS, FAILED], "ap50")
    assert [(p.method, p.rate, p.n) for p in mean][:2] == [("crowd", 0.1, 2), ("crowd", 0.2, 2)]
    assert mean[0].mean == pytest.approx(0.85)
    assert mean[0].error == pytest.approx(0.05)  # sd 0.0707 of two values, by the root of 2
    assert points(CELLS[:1], "ap50")[0].error is None
    assert all(p.method != "truth" for p in mean)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages whose pictures are empty: drawing is tried above, and takes the time."""
    for name in ("heat_map", "rate_curves"):
        monkeypatch.setattr(grid_plots, name, lambda *given, theme: b"")


@pytest.mark.usefixtures("undrawn")
def test_the_page_shows_the_pictures_and_lists_what_failed():
    page = render(GridData("g", "finished", [*CELLS, FAILED]))
    assert page.count("<figure>") == 4
    assert "8 of 9 cells: 3 methods, 1 noise, 2 rates, 2 seeds." in page
    assert "no &lt;labels&gt;" in page


@pytest.mark.usefixtures("undrawn")
def test_a_grid_without_any_result_has_a_page():
    assert "Failed (1)" in render(GridData("g", "failed", [FAILED]))


def test_the_table_for_a_terminal_has_a_line_for_each_mean_and_failure():
    rows = [vars(cell) for cell in (*CELLS, FAILED)]
    lines = grid_table({"task": "boxes", "cells": rows}).splitlines()
    assert lines[1].split() == ["crowd", "missed", "0.1", "2", "0.850", "0.050", "0.900"]
    assert lines[-1] == "failed: truth missed 0.1 seed 0: no <labels>"
    assert len(lines) == 6
