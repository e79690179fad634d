import io

import numpy as np
import pytest
from PIL import Image

from emclean.report import plots, theme
from emclean.report.data import Estimated, KindRow, RoundRow, StageTime
from emclean.types import LabelQuality

BAND = {"ap50_low": 0.5, "ap50_high": 0.8}
ROUNDS = [
    RoundRow(0, minutes=8.0, share_of_full=0.08, ap50=0.6, f1=0.5, grades={"clean": 5}, **BAND),
    RoundRow(1, minutes=16.0, share_of_full=0.16, ap50=0.7, f1=0.6, grades={"missed": 2}, **BAND),
]

DRAWN = {
    "curve": lambda t: plots.budget_curve([plots.curve_of(ROUNDS)], 0.4, 0.8, "minutes", t),
    "no curve": lambda t: plots.budget_curve([], 0.4, 0.8, "share", t),
    "labels": lambda t: plots.labels_by_round(ROUNDS, t),
    "quality": lambda t: plots.label_quality(LabelQuality(0.5, 0.5, 0.5, 0.7), None, t),
    "no quality": lambda t: plots.label_quality(None, None, t),
    "kinds": lambda t: plots.error_kinds([KindRow("missed", 5, None)], t),
    "no kinds": lambda t: plots.error_kinds([], t),
    "grades": lambda t: plots.grades_by_round(ROUNDS, t),
    "no grades": lambda t: plots.grades_by_round([], t),
    "times": lambda t: plots.stage_times([StageTime("a", 3.0), StageTime("a", 4.0, 1)], t),
    "no times": lambda t: plots.stage_times([], t),
}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(("name", "key"), list(zip(DRAWN, ["light", "dark"] * 6, strict=False)))
def test_every_plot_is_drawn_on_the_ground_of_its_theme(name, key):
    picture = pixels(DRAWN[name](key))
    ground = tuple(int(theme.THEMES[key].ground[i : i + 2], 16) for i in (1, 3, 5))
    assert tuple(picture[2, 2]) == ground
    assert (picture != ground).any()


def test_the_same_figures_give_the_same_bytes():
    assert DRAWN["no curve"]("light") == DRAWN["no curve"]("light")


def test_a_curve_leaves_out_rounds_without_score_and_knows_the_full_cost():
    curve = plots.curve_of([*ROUNDS, RoundRow(2, minutes=20.0)])
    assert (curve.cost, curve.score, curve.low, curve.high) == (
        [8.0, 16.0],
        [0.6, 0.7],
        [0.5, 0.5],
        [0.8, 0.8],
    )
    assert curve.full == pytest.approx(100.0)
    assert plots.curve_of(ROUNDS, "share").cost == [0.08, 0.16]


def test_an_interval_is_drawn_only_where_every_round_has_one():
    assert plots.curve_of([*ROUNDS, RoundRow(2, minutes=20.0, ap50=0.7)]).low is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(8.46, "8.5 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (0, "0.0 s")],
)
def test_durations_in_words(seconds, words):
    assert plots.duration(seconds) == words


def test_labels_are_drawn_against_answers_beside_the_model():
    rows = [RoundRow(0, answers=20, minutes=2.0, f1=0.8), RoundRow(1, answers=40, f1=0.9), RoundRow(2)]
    by_answers = plots.label_curve(rows, "answers")
    assert (by_answers.cost, by_answers.score) == ([20, 40], [0.8, 0.9])
    assert plots.label_curve(rows).cost == [2.0]
    model = plots.curve_of([RoundRow(0, answers=20, ap50=0.7)], "answers", "of the model")
    both = plots.budget_curve([model, by_answers], unit="answers", task="classes")
    assert both != plots.budget_curve([model], unit="answers", task="classes")


def test_no_global_figure_is_left_behind():
    from matplotlib import _pylab_helpers  # what pyplot would keep

    DRAWN["no curve"]("light")
    assert _pylab_helpers.Gcf.figs == {}


def test_where_nothing_is_measured_the_curve_is_the_estimated_one_and_says_so():
    found = Estimated(0.7, 0.2, 0.96, 3)
    curve = plots.curve_of([RoundRow(0, minutes=4.0, ap50_estimate=found), RoundRow(1, minutes=9.0)])
    assert (curve.score, curve.low, curve.high, curve.estimated) == ([0.7], [0.2], [0.96], True)
    measured = plots.curve_of(
        [RoundRow(0, minutes=4.0, ap50=0.5), RoundRow(1, minutes=9, ap50_estimate=found)]
    )
    assert (measured.score, measured.estimated) == ([0.5], False)
