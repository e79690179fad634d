from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from science_scenes import RATES, SIDE, Scene, model, objects, scenes

from emclean.science.cost import CostModel
from emclean.science.grading import Evidence, Rules, features, grade, image_score
from emclean.science.grading.features import CANDIDATE_FEATURES, LABEL_FEATURES
from emclean.science.grading.grade import verdicts
from emclean.science.noise import NoiseRates
from emclean.science.truth import right_fixes, true_grades
from emclean.types import GRADES, Labels, Predictions, Verdicts

OBJECTS = np.array([[50, 50, 90, 90], [110, 50, 150, 90], [300, 300, 340, 340], [50, 300, 90, 340.0]])


def evidence(
    labels: list[list[float]], objects: np.ndarray = OBJECTS, categories: list[int] | None = None
) -> Evidence:
    """Labels against models that see ``objects`` exactly, with score 0.9 and category 0."""
    boxes = np.array(labels, dtype=float).reshape(-1, 4)
    seen = Predictions(objects, np.zeros(len(objects), int), np.full(len(objects), 0.9))
    given_ = Labels(boxes, np.array(categories or [0] * len(boxes)))
    return Evidence(given_, seen, seen, seen, SIDE, SIDE)


def first(labels: list[list[float]], **more: list[int]) -> str:
    return grade(evidence(labels, **more)).names()[0]


A, B, C, D = OBJECTS.tolist()


def test_rules_name_every_kind_of_error() -> None:
    assert first([A, B, C, D]) == "clean"
    assert first([[60, 62, 110, 105], B, C, D]) == "shifted"
    assert first([[50, 50, 150, 90], C, D]) == "merged"
    assert first([[400, 100, 440, 140], A, B, C, D]) == "spurious"
    assert first([A, B, C, D], categories=[1, 0, 0, 0]) == "mislabelled"
    names = grade(evidence([A, [52, 51, 93, 92], B, C, D])).names()
    assert names.count("duplicate") == 1
    assert grade(evidence([A, B, C])).names() == ("clean", "clean", "clean", "missed")


def test_every_error_comes_with_its_correction() -> None:
    shifted = grade(evidence([[60, 62, 110, 105], B, C, D]))
    assert shifted.box[0].tolist() == pytest.approx(A)
    merged = grade(evidence([[50, 50, 150, 90], C, D]))
    assert sorted(merged.parts.tolist()) == [A, B]
    assert merged.part_of.tolist() == [0, 0]
    wrong = grade(evidence([A, B, C, D], categories=[1, 0, 0, 0]))
    assert wrong.category[0] == 0
    missed = grade(evidence([A, B, C]))
    assert missed.box[-1].tolist() == D
    assert missed.label[-1] == -1
    assert "no label" in missed.reason[-1]
    assert "2 objects" in merged.reason[0]
    reasons = [reason for said in (shifted, merged, wrong, missed) for reason in said.reason]
    assert not [reason for reason in reasons if "score" in reason]  # the page's own score stands beside it


def test_reasons_call_categories_by_their_names() -> None:
    case = evidence([A, B, C, D], categories=[1, 0, 0, 0])
    assert grade(replace(case, names=("deposit", "vesicle"))).reason[0] == "the model calls it deposit"
    assert grade(case).reason[0] == "the model calls it category 0"  # nobody has said what it is called


def test_a_grade_whose_fix_no_model_shows_says_so() -> None:
    case = evidence([[400, 100, 440, 140]])
    found, rows = features(case), np.eye(len(GRADES))
    for kind in ("shifted", "merged", "mislabelled"):
        said = verdicts(case, found, rows[[GRADES.index(kind)]], np.zeros(len(found.proposed)), True)
        assert said.names()[0] == kind
        assert "but the model" in said.reason[0]
        assert not any(sign.isdigit() for sign in said.reason[0])


@given(st.integers(0, 300), st.integers(1, 3), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_verdicts_are_whole_for_any_image(
    seed: int, n_categories: int, cleaning: bool, consensus: bool
) -> None:
    rng = np.random.default_rng(seed)
    truth = objects(rng, int(rng.integers(0, 12)), n_categories)
    labels = objects(rng, int(rng.integers(0, 12)), n_categories)
    one, two, three = (model(rng, truth, n_categories=n_categories) for _ in range(3))
    case = Evidence(labels, one if cleaning else None, two if consensus else None, three, SIDE, SIDE)
    said = grade(case)
    assert said.label[: len(labels)].tolist() == list(range(len(labels)))
    assert (said.label[len(labels) :] == -1).all()
    assert "missed" not in said.names()[: len(labels)]
    assert said.posterior.sum(axis=1) == pytest.approx(np.ones(len(said)))
    assert np.allclose(said.posterior[np.arange(len(said)), said.grade], said.probability)
    assert (said.box[:, 2:] > said.box[:, :2]).all()
    assert (said.prediction < len(case.reference)).all()
    assert not said.calibrated


def test_an_image_with_nothing_at_all() -> None:
    bare = Evidence(Labels.empty(), None, None, Predictions.empty(), SIDE, SIDE)
    assert len(grade(bare)) == 0
    assert image_score(bare, grade(bare)).discrepancy == 0.0


def test_features_are_finite_and_have_their_columns() -> None:
    found = features(scenes(0, 1, n_categories=2)[0].evidence)
    assert found.labels.shape[1] == len(LABEL_FEATURES)
    assert found.candidates.shape[1] == len(CANDIDATE_FEATURES)
    assert np.isfinite(found.labels).all()
    assert np.isfinite(found.candidates).all()


def test_features_do_not_depend_on_the_order_of_predictions() -> None:
    case = scenes(3, 1, n_categories=2)[0].evidence
    turned = [p.take(np.arange(len(p))[::-1]) for p in (case.reference, case.models[1], case.crowd)]
    other = Evidence(case.labels, *turned, SIDE, SIDE)
    assert np.allclose(features(case).labels, features(other).labels)


def graded(cases: list[Scene]) -> tuple[list[Verdicts], list[np.ndarray]]:
    said = [grade(c.evidence) for c in cases]
    return said, [true_grades(c.evidence.labels, c.truth).grade for c in cases]


def test_rules_beat_chance_by_far_on_planted_errors() -> None:
    said, true = graded(scenes(1, 20))
    guess = np.concatenate([v.grade[: len(t)] for v, t in zip(said, true, strict=True)])
    known = np.concatenate(true)
    most_common = np.bincount(known).max() / len(known)
    assert (guess == known).mean() > most_common + 0.2
    for kind in ("merged", "spurious", "shifted", "duplicate"):
        mine = known == GRADES.index(kind)
        assert (guess[mine] == known[mine]).mean() > 0.5, kind


def test_true_grades_follow_the_ledger() -> None:
    rates = NoiseRates(missed=0.2, merged=0.15, spurious=0.2, mislabelled=0.1)
    agree, rows = 0, 0
    for case in scenes(2, 15, rates, n_categories=3):
        true, ledger = true_grades(case.planted.labels, case.truth), case.planted.ledger
        has_label = ledger.noisy >= 0
        agree += (true.grade[ledger.noisy[has_label]] == ledger.kind[has_label]).sum()
        rows += has_label.sum()
        planted = np.concatenate([ledger.truths(int(r)) for r in np.flatnonzero(~has_label)])
        assert set(true.missed.tolist()) <= set(planted.tolist()) | set(ledger.truth.tolist())
        assert len(true.missed) >= 0.8 * len(planted)
    assert agree / rows > 0.95


def test_true_grades_of_a_hand_worked_image() -> None:
    truth = Labels(OBJECTS, np.array([0, 0, 0, 1]))
    labels = Labels(
        np.array(
            [
                [50, 50, 150, 90],
                [301, 301, 341, 341],
                [302, 300, 342, 347],
                [65, 315, 105, 355],
                [400, 0, 440, 40.0],
            ]
        ),
        np.array([0, 0, 0, 1, 0]),
    )
    found = true_grades(labels, truth)
    assert [GRADES[g] for g in found.grade] == ["merged", "clean", "duplicate", "shifted", "spurious"]
    assert found.truth.tolist() == [-1, 2, -1, 3, -1]
    assert found.missed.tolist() == []
    assert true_grades(Labels.empty(), truth).missed.tolist() == [0, 1, 2, 3]
    assert [GRADES[g] for g in true_grades(labels, Labels.empty()).grade] == ["spurious"] * 5


def test_a_fix_is_right_only_if_it_mends() -> None:
    case = evidence([[60, 62, 110, 105], B, [400, 0, 440, 40]])
    said, truth = grade(case), Labels(OBJECTS, np.zeros(4, int))
    right = right_fixes(case.labels, said, truth, true_grades(case.labels, truth))
    assert right.tolist() == [True, True, True, True, True]
    elsewhere = Labels(OBJECTS + 200, np.zeros(4, int))
    wrong = right_fixes(case.labels, said, elsewhere, true_grades(case.labels, elsewhere))
    assert wrong.tolist() == [False, False, True, False, False]


def test_the_score_of_an_image_grows_with_its_errors() -> None:
    clean = [scene_score(c) for c in scenes(4, 10, NoiseRates())]
    noisy = [scene_score(c) for c in scenes(4, 10, RATES)]
    assert np.mean([s.share for s in noisy]) > np.mean([s.share for s in clean]) + 0.2
    assert np.mean([s.discrepancy for s in noisy]) > 2 * np.mean([s.discrepancy for s in clean])
    assert all(0 <= s.share <= 1 and 0 <= s.uncertainty <= 1 for s in noisy)


def scene_score(case: Scene):  # type: ignore[no-untyped-def]
    return image_score(case.evidence, grade(case.evidence))


def test_expected_boxes_and_minutes_are_near_what_the_expert_will_do() -> None:
    cases = scenes(5, 20)
    scores = [scene_score(c) for c in cases]
    objects_ = sum(len(c.truth) for c in cases)
    assert sum(s.expected_boxes for s in scores) == pytest.approx(objects_, rel=0.25)
    assert sum(s.blank_minutes for s in scores) == pytest.approx(CostModel().full(20, objects_), rel=0.25)
    assert all(s.expected_minutes > 0 for s in scores)


def test_what_is_shown_right_costs_a_look_and_what_is_not_shown_a_box() -> None:
    costs = CostModel(open_s=10, draw_s=100, move_s=20, verify_s=1)
    here = evidence([A, B, C])  # the models see D as well
    verdicts = grade(here)
    assert verdicts.names() == ("clean", "clean", "clean", "missed")

    def minutes(chance: float) -> float:
        return image_score(here, replace(verdicts, probability=np.full(4, chance)), costs).expected_minutes

    assert minutes(1.0) == pytest.approx((10 + 4 * 1) / 60)
    assert minutes(0.5) == pytest.approx((10 + 3 * 10.5 + 1) / 60)
    assert minutes(0.4) == pytest.approx((10 + 3 * (0.4 + 12) + 40) / 60)  # not shown: drawn if it is there


def test_rules_are_not_called_calibrated() -> None:
    assert not Rules().calibrated


def test_weak_specks_in_a_large_clean_box_do_not_make_it_merged() -> None:
    whole = Labels(np.array([[100.0, 100.0, 300.0, 300.0]]), np.zeros(1, np.int64))
    specks = np.array([[110, 110, 150, 150], [250, 250, 290, 290], [110, 250, 150, 290]], float)
    halves = np.array([[100, 100, 195, 300], [205, 100, 300, 300]], float)
    of = [Predictions(b, np.zeros(len(b), np.int64), np.full(len(b), 0.8)) for b in (specks, halves)]
    dotted, filled = (grade(Evidence(whole, None, None, p, SIDE, SIDE)) for p in of)
    assert dotted.posterior[0, GRADES.index("merged")] < 0.1
    assert filled.names()[0] == "merged"


def test_models_that_see_nothing_of_an_image_condemn_its_labels_less() -> None:
    truth = objects(np.random.default_rng(0), 12)
    lone = np.concatenate([truth.boxes, [[5.0, 5.0, 25.0, 25.0]]])
    labels = Labels(lone, np.zeros(len(lone), np.int64))
    seen = Predictions(truth.boxes, truth.categories, np.full(len(truth), 0.9))
    clear, dark = (
        grade(Evidence(labels, None, None, p, SIDE, SIDE)).posterior[len(truth), GRADES.index("spurious")]
        for p in (seen, Predictions.empty())
    )
    assert clear > 0.7
    assert dark < 0.6
