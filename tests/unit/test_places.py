"""What recurs at one place of many pictures without a label counts against a candidate there."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from science_scenes import SIDE, Scene, scenes

from emclean.science.calibration import fit
from emclean.science.grading import Evidence, features, grade, with_places
from emclean.science.noise import NoiseRates
from emclean.science.placing import USUAL_WEIGHT, place_weights, placed, placed_held_out
from emclean.types import Labels, Predictions

DUST = np.array([[300.0, 200.0, 340.0, 240.0]])
OVERLOOKING = NoiseRates(missed=0.4)


def with_dust(case: Scene, rng: np.random.Generator, labelled: bool = False) -> Evidence:
    """The scene's evidence, in which every model finds an object at the place of the dust."""
    box = DUST + rng.normal(0, 1.5, (1, 4))

    def more(found: Predictions) -> Predictions:
        boxes = np.concatenate([found.boxes, box])
        scores = np.append(found.scores, rng.uniform(0.6, 0.8))
        return Predictions(boxes, np.append(found.categories, 0), scores)

    one, labels = case.evidence, case.evidence.labels
    if labelled:
        labels = Labels(np.concatenate([labels.boxes, box]), np.append(labels.categories, 0))
    models = {name: more(getattr(one, name)) for name in ("cleaning", "consensus", "crowd")}
    return replace(one, labels=labels, **models)


def dusty(n: int, seed: int = 1) -> tuple[list[Scene], list[Evidence]]:
    """Scenes, and the evidence of each with dust that nobody labels and places compared."""
    rng = np.random.default_rng(seed)
    cases = scenes(seed, n, OVERLOOKING)
    known = with_places(dict(enumerate(with_dust(case, rng) for case in cases)))
    return cases, [known[k] for k in range(n)]


def at_dust(evidence: Evidence) -> float:
    """The place value of the last prediction, which is the dust."""
    assert evidence.places is not None
    return float(evidence.places[-1])


def test_dust_stands_out_from_overlooked_objects() -> None:
    _, known = dusty(40)
    assert min(at_dust(one) for one in known) > 0.9
    others = np.concatenate([one.places[:-1] for one in known if one.places is not None])
    assert np.mean(others > 0.5) < 0.02


def test_what_some_have_labelled_at_its_place_is_no_dust() -> None:
    rng = np.random.default_rng(2)
    cases = scenes(2, 40, OVERLOOKING)
    series = {k: with_dust(case, rng, labelled=k % 2 == 0) for k, case in enumerate(cases)}
    assert max(at_dust(one) for one in with_places(series).values()) < 0.1


def test_a_picture_says_nothing_of_its_own_place() -> None:
    rng = np.random.default_rng(3)
    cases = scenes(3, 12, OVERLOOKING)
    once = {k: case.evidence for k, case in enumerate(cases)} | {0: with_dust(cases[0], rng)}
    assert at_dust(with_places(once)[0]) < 0.1


def test_only_pictures_of_one_size_are_compared() -> None:
    rng = np.random.default_rng(4)
    cases = scenes(4, 8, OVERLOOKING)
    single = {k: replace(with_dust(case, rng), width=SIDE + k) for k, case in enumerate(cases)}
    assert all(one.places is None for one in with_places(single).values())
    pairs = {k: replace(one, width=SIDE + k % 8 // 7) for k, one in single.items()}  # seven, and one alone
    known = with_places(pairs)
    assert known[0].places is not None
    assert features(known[7]).candidates[:, -1].max(initial=0.0) == 0.0


def test_pictures_without_predictions_pass() -> None:
    empty = Evidence(Labels.empty(), None, None, Predictions.empty(), 64, 64)
    known = with_places({k: empty for k in range(6)})
    assert all(one.places is not None and len(one.places) == 0 for one in known.values())


def test_two_known_pictures_with_dust_keep_the_others_clean() -> None:
    """The planted fault: without places the dust is added as an object that the crowd overlooked."""
    cases, known = dusty(40)

    def added(evidences: Sequence[Evidence]) -> float:
        """The mean probability that the dust of unseen pictures is a missed object."""
        judge = fit(evidences[:2], [case.truth for case in cases[:2]], np.random.default_rng(0))
        said = [grade(one, judge) for one in evidences[2:]]
        mine = [
            v.probability[v.prediction == len(e.reference) - 1]
            for v, e in zip(said, evidences[2:], strict=True)
        ]
        return float(np.concatenate(mine).mean())

    blind = [replace(one, places=None) for one in known]
    assert added(blind) > 0.4
    assert added(known) < 0.1


def test_overlooked_objects_are_found_as_before() -> None:
    cases, known = dusty(40)
    truths = [case.truth for case in cases[:10]]

    def found(evidences: Sequence[Evidence]) -> int:
        """How many objects of unseen pictures, the dust aside, are held for overlooked."""
        judge = fit(evidences[:10], truths, np.random.default_rng(0))
        said = [(one, grade(one, judge)) for one in evidences[10:]]
        likely = [
            (v.label < 0) & (v.probability >= 0.5) & (v.prediction < len(e.reference) - 1) for e, v in said
        ]
        return int(np.concatenate(likely).sum())

    before = found([replace(one, places=None) for one in known])
    assert before > 100
    assert found(known) == pytest.approx(before, rel=0.1)


def test_the_expert_decides_what_a_place_counts() -> None:
    probability, place = np.full(20, 0.8), np.full(20, 0.95)
    category = np.repeat([0, 1], 10)
    right = category == 0  # an edge where objects of the first are overlooked, dust for the second
    weights = place_weights(probability, right, place, category)
    assert weights[0] < 0.3
    assert weights[1] > 0.9
    assert place_weights(probability[:0], right[:0], place[:0], category[:0]).tolist() == []


def test_without_anything_at_such_places_the_mode_of_the_prior_stays() -> None:
    weights = place_weights(np.full(9, 0.8), np.ones(9, np.bool_), np.zeros(9), np.zeros(9, np.int64))
    assert weights.tolist() == [1.0]
    assert USUAL_WEIGHT < 1


def test_held_out_probabilities_do_not_know_their_own_truth() -> None:
    probability, place = np.full(8, 0.7), np.full(8, 0.9)
    category, fold = np.zeros(8, np.int64), np.arange(8) % 2
    first = placed_held_out(probability, fold == 0, place, category, fold)
    # the other fold, all wrong, is what those in fold 0 learn from
    assert first[0] < 0.1 < first[1]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_place_never_speaks_for_a_candidate(probability: float, place: float, weight: float) -> None:
    found = placed(np.array([probability]), np.array([place]), weight)
    assert 0 <= found[0] <= probability
