"""What a grid over classes comes down to: areas, the rate up to which a method holds, and advice."""

import pytest

from emclean.report import grid_classes, grid_plots
from emclean.report.grid_data import CellRow, GridData
from emclean.report.grid_page import render
from emclean.report.grid_scores import advice, curves
from emclean.report.text import grid_table
from emclean.report.theme import THEMES


def cells(method, values, noise="pair", seed=0, trusted=0):
    """A method's accuracy at some rates."""
    return [
        CellRow(method, noise, rate, seed, accuracy=value, trusted=trusted, seconds=1.0, train_seconds=1.0)
        for rate, value in values.items()
    ]


PLAIN = cells("plain", {0.0: 1.0, 0.2: 0.9, 0.4: 0.6}) + cells(
    "plain", {0.0: 0.96, 0.2: 0.9, 0.4: 0.5}, seed=1
)
BETTER = cells("better", {0.0: 0.95, 0.2: 0.95, 0.4: 0.91}, trusted=20)
BETTER += cells("better", {0.0: 0.97, 0.2: 0.93, 0.4: 0.91}, seed=1, trusted=20)


def test_the_area_is_the_mean_accuracy_over_the_rates_with_its_error_over_seeds():
    plain, better = curves(PLAIN + BETTER)
    assert plain.area == pytest.approx((0.85 + 0.815) / 2)  # trapezoids by hand
    assert plain.area_error == pytest.approx(0.0175)  # half the difference of two
    assert (plain.holds, better.holds) == (0.2, 0.4)


def test_a_seed_that_lacks_a_rate_has_no_area():
    (curve,) = curves(PLAIN[:-1])
    assert curve.area == pytest.approx(0.85)
    assert curve.area_error is None
    (failed,) = curves([CellRow("plain", "pair", 0.1, 0, status="failed", reason="why")])
    assert (failed.area, failed.holds) == (None, None)


def test_advice_is_taken_between_the_rates_and_knows_what_is_as_good():
    (found,) = advice(PLAIN + BETTER, 0.3)
    assert [ranked.method for ranked in found.ranking] == ["better", "plain"]
    assert found.ranking[0].accuracy == pytest.approx(0.925)
    assert [ranked.as_good for ranked in found.ranking] == [True, False]
    (clean,) = advice(PLAIN + BETTER, 0.0)
    assert [(r.method, r.as_good) for r in clean.ranking] == [("plain", True), ("better", True)]


def test_there_is_no_advice_beyond_the_rates_tried_or_without_a_rate():
    assert advice(PLAIN, None) == []
    assert advice(PLAIN, 0.45)[0].ranking == ()
    crowd = advice(cells("plain", {0.27: 0.8}, noise="crowd"), None)
    assert (crowd[0].rate, crowd[0].ranking[0].error) == (0.27, None)


def test_the_table_has_a_line_a_method_and_says_what_to_use():
    rows = [vars(cell) for cell in PLAIN + BETTER]
    text = grid_table({"task": "classes", "cells": rows, "own_rate": 0.3}).splitlines()
    assert text[0].split("  ")[-1].strip() == ">= 90 %"
    assert text[1].split() == "plain pair 0 98.0 ± 2.0 90.0 ± 0.0 55.0 ± 5.0 83.2 ± 1.8 20 %".split()
    assert text[2].split()[:3] == ["better", "pair", "20"]
    assert text[3].startswith("at 30 % wrong labels (pair): better (with 20 trusted particles), 92.5 ±")
    assert len(text) == 4


def test_the_limit_at_half_wrong_labels_is_said():
    half = cells("plain", {0.4: 0.6, 0.5: 0.5})
    assert grid_classes.LIMIT in grid_table({"task": "classes", "cells": [vars(cell) for cell in half]})
    assert grid_classes.LIMIT not in grid_table({"task": "classes", "cells": [vars(cell) for cell in PLAIN]})


def test_the_page_shows_curves_and_a_map_of_every_noise_and_tables():
    crowd = cells("plain", {0.27: 0.8}, noise="crowd")
    page = render(GridData("g", "finished", PLAIN + crowd, task="classes", own_rate=0.1))
    assert page.count("<figure>") == 3  # of a single rate there is no curve
    assert "Means over the seeds: crowd" in page
    assert "At 10 % wrong labels (pair): plain, 94.0 ±" in page
    assert "(one seed: no standard error)" in page


def test_more_lines_than_colours_still_differ():
    many = [cell for k in range(17) for cell in cells(f"m{k}", {0.0: 0.9, 0.4: 0.5 + k / 100})]
    data = GridData("g", "finished", many, task="classes")
    for draw in grid_classes.figures(data, "pair").values():
        assert draw(theme="light").startswith(b"\x89PNG")
    looks = [tuple(grid_plots._look(k, THEMES["light"]).values()) for k in range(17)]
    assert len(set(looks)) == 17
