import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from science_scenes import SIDE, objects, scene

from emclean.science.cost import changes
from emclean.science.evaluation import label_quality
from emclean.science.expert import Answered, Slips, answer
from emclean.types import Labels


def test_a_careful_expert_who_sees_nothing_draws_the_truth() -> None:
    truth = objects(np.random.default_rng(0), 12)
    said = answer(truth, None, Slips(), np.random.default_rng(1), SIDE, SIDE)
    assert np.array_equal(said.labels.boxes, truth.boxes)
    assert (said.origin == -1).all()


@given(st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_a_careful_expert_repairs_whatever_is_shown(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = scene(rng, n_categories=2)
    said = answer(case.truth, case.planted.labels, Slips(), rng, SIDE, SIDE)
    quality = label_quality([case.truth], [said.labels])
    assert (quality.precision, quality.recall) == (1.0, 1.0)
    assert len(set(said.labels.ids)) == len(said.labels)
    made = changes(case.planted.labels, said.labels, said.origin)
    assert made.added + made.moved + made.verified == len(case.truth)


def shares(slips: Slips, shown: bool) -> tuple[int, int, list[Answered]]:
    rng = np.random.default_rng(5)
    cases = [scene(rng) for _ in range(25)]
    given_ = [c.planted.labels if shown else None for c in cases]
    said = [answer(c.truth, g, slips, rng, SIDE, SIDE) for c, g in zip(cases, given_, strict=True)]
    return sum(len(c.truth) for c in cases), sum(len(c.planted.labels) for c in cases), said


def test_misses_and_jitter_have_the_stated_size() -> None:
    objects_, _, said = shares(Slips(miss=0.2), shown=False)
    assert sum(len(s.labels) for s in said) / objects_ == pytest.approx(0.8, abs=0.05)
    truth = objects(np.random.default_rng(0), 40)
    drawn = answer(truth, None, Slips(jitter=0.1), np.random.default_rng(2), SIDE, SIDE).labels.boxes
    off = (drawn - truth.boxes) / np.tile(truth.boxes[:, 2:] - truth.boxes[:, :2], 2)
    assert off.std() == pytest.approx(0.1, abs=0.02)


def test_rubber_stamping_leaves_what_is_shown() -> None:
    _, shown, said = shares(Slips(rubber_stamp=1.0, miss=1.0), shown=True)
    assert sum(len(s.labels) for s in said) == shown
    assert all((s.origin >= 0).all() for s in said)


def test_an_empty_image_gets_an_empty_answer() -> None:
    wrong = Labels(np.array([[5.0, 5, 50, 50]]), np.array([0]))
    said = answer(Labels.empty(), wrong, Slips(), np.random.default_rng(0), SIDE, SIDE)
    assert len(said.labels) == 0
    blind = answer(Labels.empty(), None, Slips(miss=0.5), np.random.default_rng(0), SIDE, SIDE)
    assert len(blind.labels) == 0


@pytest.mark.parametrize("slips", [{"miss": 1.5}, {"rubber_stamp": -0.1}, {"jitter": float("nan")}])
def test_impossible_slips_are_refused(slips: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(slips))):
        Slips(**slips)
