import pickle

import numpy as np
import pytest
from science_scenes import SIDE, Scene, scenes

from emclean.science.calibration import (
    Calibrator,
    Observations,
    design_effect,
    fit,
    threshold,
    thresholds,
    uncalibrated,
)
from emclean.science.correction import correct
from emclean.science.evaluation import label_quality
from emclean.science.forest import Bounds
from emclean.science.grading import Evidence, features, grade
from emclean.science.leaning import leanings, leant
from emclean.science.truth import right_fixes, true_grades
from emclean.types import GRADES, NOISE_KINDS, Labels, Predictions


def fitted(cases: list[Scene], seed: int = 0) -> Calibrator:
    return fit([c.evidence for c in cases], [c.truth for c in cases], np.random.default_rng(seed))


@pytest.fixture(scope="module")
def calibrator() -> Calibrator:
    """Fitted to 50 images of two classes."""
    return fitted(scenes(11, 50, n_categories=2))


@pytest.fixture(scope="module")
def unseen() -> list[Scene]:
    return scenes(12, 50, n_categories=2)


def outcome(calibrator: Calibrator | None, cases: list[Scene]) -> Observations:
    """Verdicts on images whose truth the calibrator has not seen."""
    grades, probabilities, right, image = [], [], [], []
    for k, case in enumerate(cases):
        said = grade(case.evidence, calibrator)
        labels = case.evidence.labels
        grades.append(said.grade)
        probabilities.append(said.probability)
        right.append(right_fixes(labels, said, case.truth, true_grades(labels, case.truth)))
        image.append(np.full(len(said), k))
    return Observations(*(np.concatenate(c) for c in (grades, probabilities, right, image)))


def accuracy(calibrator: Calibrator | None, cases: list[Scene]) -> float:
    hits = [
        grade(c.evidence, calibrator).grade[: len(c.evidence.labels)]
        == true_grades(c.evidence.labels, c.truth).grade
        for c in cases
    ]
    return float(np.concatenate(hits).mean())


@pytest.mark.slow
def test_learning_from_the_expert_beats_the_rules(calibrator: Calibrator, unseen: list[Scene]) -> None:
    assert calibrator.calibrated
    assert accuracy(calibrator, unseen) > accuracy(None, unseen) + 0.02
    assert accuracy(calibrator, unseen) > 0.85


@pytest.mark.slow
def test_five_images_are_enough_not_to_be_worse(unseen: list[Scene]) -> None:
    few = fitted(scenes(13, 5, n_categories=2))
    assert few.calibrated
    assert accuracy(few, unseen) > accuracy(None, unseen) - 0.02


@pytest.mark.slow
def test_probabilities_mean_what_they_say(calibrator: Calibrator, unseen: list[Scene]) -> None:
    posterior, known = [], []
    for case in unseen:
        posterior.append(calibrator.label_posterior(features(case.evidence).labels))
        known.append(true_grades(case.evidence.labels, case.truth).grade)
    p, true = np.concatenate(posterior), np.concatenate(known)
    sure, right = p.max(axis=1), p.argmax(axis=1) == true
    bins = np.digitize(sure, [0.5, 0.7, 0.85, 0.95])
    gaps = [
        abs(sure[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    ]
    assert sum(gaps) < 0.05  # expected calibration error


@pytest.mark.slow
def test_the_asked_precision_holds_on_held_out_images(calibrator: Calibrator, unseen: list[Scene]) -> None:
    limits = thresholds(calibrator.observations, precision=0.95)
    seen = outcome(calibrator, unseen)
    acted = seen.probability >= np.array([limits.get(g, np.inf) for g in GRADES])[seen.grade]
    assert acted.sum() > 300
    assert seen.right[acted].mean() >= 0.94
    reached = [kind for kind in NOISE_KINDS if np.isfinite(limits[kind])]
    assert {"missed", "spurious"} <= set(reached)
    for kind in reached:
        mine = acted & (seen.grade == GRADES.index(kind))
        assert seen.right[mine].mean() >= 0.85, kind  # some are few


@pytest.mark.slow
def test_safe_corrections_raise_label_f1(calibrator: Calibrator, unseen: list[Scene]) -> None:
    limits = thresholds(calibrator.observations)
    truths = [c.truth for c in unseen]
    done = [correct(c.evidence.labels, grade(c.evidence, calibrator), limits).labels for c in unseen]
    before, after = label_quality(truths, [c.evidence.labels for c in unseen]), label_quality(truths, done)
    assert after.f1 > before.f1 + 0.1
    assert after.precision > before.precision
    assert after.recall > before.recall


@pytest.mark.slow
def test_models_that_fail_on_a_whole_image_do_not_condemn_its_labels(
    calibrator: Calibrator, unseen: list[Scene]
) -> None:
    limits = thresholds(calibrator.observations)
    for case in unseen[:5]:
        labels = case.evidence.labels
        blind = Evidence(labels, *[case.evidence.crowd.take([0])] * 3, SIDE, SIDE)
        said = grade(blind, calibrator)
        assert (said.grade[: len(labels)] == GRADES.index("spurious")).mean() > 0.5
        assert "deleted" not in [c.event for c in correct(labels, said, limits).changes]


@pytest.mark.slow
def test_a_calibrator_survives_pickle(calibrator: Calibrator, unseen: list[Scene]) -> None:
    assert_same(pickle.loads(pickle.dumps(calibrator)), calibrator, unseen[0])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_calibrator(unseen: list[Scene]) -> None:
    cases = scenes(14, 2)
    assert_same(fitted(cases), fitted(cases), unseen[0])


def assert_same(one: Calibrator, other: Calibrator, scene: Scene) -> None:
    rows = features(scene.evidence)
    called = np.zeros(len(rows.candidates), np.int64)
    np.testing.assert_array_equal(one.label_posterior(rows.labels), other.label_posterior(rows.labels))
    found = [c.missed_probability(rows.candidates, called) for c in (one, other)]
    np.testing.assert_array_equal(*found)
    assert thresholds(one.observations) == thresholds(other.observations)


def test_what_is_unlike_anything_learnt_from_is_half_prior() -> None:
    bounds = Bounds(np.array([0.0, -1.0]), np.array([1.0, 1.0]))
    rows = np.array([[0.0, 1.0], [1.1, 0.0], [0.5, -2.0]])
    said = bounds.shy(np.array([[0.9, 0.1]] * 3), rows, np.array([0.5, 0.5]))
    np.testing.assert_allclose(said, [[0.9, 0.1], [0.7, 0.3], [0.7, 0.3]])


def test_without_an_expert_rules_answer_and_nothing_is_corrected() -> None:
    case = scenes(15, 1)[0]
    for nobody in (uncalibrated(), fit([], [], np.random.default_rng(0))):
        assert not nobody.calibrated
        said = grade(case.evidence, nobody)
        assert not said.calibrated
        assert np.array_equal(said.probability, grade(case.evidence).probability)
        assert set(thresholds(nobody.observations).values()) == {np.inf}


def test_one_image_is_too_few_to_fit() -> None:
    one = fitted(scenes(16, 1))
    assert not one.calibrated
    assert len(one.observations) > 0


@pytest.mark.slow
def test_images_on_which_the_crowd_said_nothing_teach_what_they_can() -> None:
    silent = [
        (Evidence(Labels.empty(), None, None, c.evidence.crowd, SIDE, SIDE), c.truth) for c in scenes(18, 4)
    ]
    some = fit([e for e, _ in silent], [t for _, t in silent], np.random.default_rng(0))
    assert some.judge is None
    assert some.finder is not None
    said = grade(silent[0][0], some)
    assert set(said.names()) == {"missed"}
    blank = [Evidence(Labels.empty(), None, None, Predictions.empty(), SIDE, SIDE)] * 3
    assert not fit(blank, [Labels.empty()] * 3, np.random.default_rng(0)).calibrated


def test_images_and_truths_must_be_paired() -> None:
    with pytest.raises(ValueError, match="truths"):
        fit([scenes(17, 1)[0].evidence], [], np.random.default_rng(0))


def test_a_threshold_weighs_what_was_seen_against_the_probabilities() -> None:
    few = np.full(8, 0.9)
    assert threshold(few, np.ones(8, bool)) == 0.9  # (8 + 5 x 0.9) / 13 = 0.96
    assert threshold(few[:4], np.ones(4, bool)) == np.inf  # (4 + 4.5) / 9 = 0.94
    assert threshold(few, np.ones(8, bool), weight=0.5) == np.inf  # worth four
    assert threshold(few, np.arange(8) > 0) == np.inf
    assert threshold(np.zeros(0), np.zeros(0, bool)) == np.inf


def test_a_threshold_lies_where_the_precision_falls() -> None:
    probability = np.linspace(1, 0, 400)
    right = probability > 0.5
    found = threshold(probability, right)
    assert 0.45 < found < 0.5
    acted = probability >= found
    assert right[acted].mean() >= 0.945
    assert threshold(probability, ~right) == np.inf


def test_equal_probabilities_are_never_split() -> None:
    probability = np.array([0.9] * 100)
    right = np.array([True] * 60 + [False] * 40)
    assert threshold(probability, right) == np.inf


def test_observations_of_one_image_count_less_where_they_err_together() -> None:
    image = np.repeat(np.arange(20), 10)
    apart = np.random.default_rng(0).random(200) < 0.9
    together = np.repeat(np.random.default_rng(0).random(20) < 0.9, 10)
    assert design_effect(apart, image) < 1.6
    assert design_effect(together, image) == pytest.approx(10)
    assert design_effect(np.ones(200, bool), image) == 1.0
    assert design_effect(apart, np.zeros(200, int)) == 1.0
    clustered = Observations(np.full(200, GRADES.index("missed")), np.full(200, 0.6), together, image)
    assert threshold(clustered.probability, together, precision=0.85) == 0.6
    assert thresholds(clustered, precision=0.85)["missed"] == np.inf  # 200 that are worth 20


def test_observations_of_some_images() -> None:
    seen = Observations(np.zeros(4, np.int64), np.arange(4) / 4, np.ones(4, bool), np.array([0, 1, 1, 2]))
    assert seen.of_images([1, 2]).probability.tolist() == [0.25, 0.5, 0.75]
    assert len(seen.of_images([])) == 0


def test_a_category_that_the_crowd_labels_completely_gets_no_additions() -> None:
    rng = np.random.default_rng(0)
    category = np.repeat([0, 1], [12, 200])
    probability = rng.uniform(0.6, 0.95, 212)
    right = np.concatenate([np.zeros(12, bool), rng.random(200) < probability[12:]])
    found = leanings(probability, right, category)
    assert found[0] < -2
    assert abs(found[1]) < 0.5
    assert leant(probability[:12], category[:12], found).max() < 0.75
    assert leant(probability[:3], np.full(3, 7), found).tolist() == probability[:3].tolist()


def test_one_category_alone_does_not_lean() -> None:
    found = leanings(np.full(9, 0.9), np.zeros(9, bool), np.zeros(9, np.int64))
    assert found.tolist() == [0.0]


def test_few_candidates_of_a_category_move_it_little() -> None:
    one = leanings(np.array([0.6, 0.9]), np.array([False, True]), np.array([0, 1]))
    many = leanings(np.full(40, 0.6), np.arange(40) > 19, np.repeat([0, 1], 20))
    assert -2 < one[0] < 0
    assert many[0] < one[0]
