"""Annotators told apart by how far models agree with what they drew."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.science import calibration
from emclean.science.grading import Evidence, features, grade, with_habits
from emclean.science.grading.habits import habits
from emclean.types import Labels, Predictions

SIDE = 100.0


def image(rng, name, careless):
    """Twenty objects and an unsure model; a careless annotator misplaces half and overlooks many."""
    low = (np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2) + 0.1) * 20
    truth = np.concatenate([low, low + 12], axis=1)
    boxes = truth + rng.normal(0, 0.3, truth.shape)
    if careless:
        boxes[::2] += rng.choice([-4.0, 4.0], (len(boxes[::2]), 4))
        boxes = boxes[rng.random(len(boxes)) < 0.6]
    n = len(boxes)
    labels = Labels(boxes, np.zeros(n, np.int64), tuple(map(str, range(n))), (name,) * n)
    found = Predictions(
        truth + np.tile(rng.normal(0, 2.5, (20, 2)), 2), np.zeros(20, np.int64), rng.uniform(0.6, 0.9, 20)
    )
    return Evidence(labels, None, None, found, SIDE, SIDE), Labels(truth, np.zeros(20, np.int64))


@pytest.fixture
def pool():
    """Images of a careful and of a careless annotator in turn, with their truth."""
    rng = np.random.default_rng(0)
    return {k: image(rng, ("careful", "careless")[k % 2], bool(k % 2)) for k in range(40)}


def evidence_of(pool):
    return {k: evidence for k, (evidence, _) in pool.items()}


def test_the_careless_one_has_the_worse_habits(pool):
    known = habits(evidence_of(pool).values())
    careful, careless = known["careful"], known["careless"]
    assert careful.overlap > 0.02 > -0.02 > careless.overlap
    assert careful.support > careless.support
    assert careful.unseen < 0 < careless.unseen


def test_a_few_labels_make_nobody_an_exception(pool):
    many = habits(evidence_of(pool).values())["careless"]
    few = {k: e for k, e in evidence_of(pool).items() if k % 2 == 0 or k == 1}
    assert abs(habits(few.values())["careless"].overlap) < abs(many.overlap) / 2 + 0.05


def test_nobody_is_told_apart_without_names_or_enough_expert_images(pool):
    evidence = evidence_of(pool)
    bare = {k: replace(e, labels=Labels(e.labels.boxes, e.labels.categories)) for k, e in evidence.items()}
    one = {k: e for k, e in evidence.items() if k % 2}
    for found in (with_habits(bare, 40), with_habits(one, 40), with_habits(evidence, 9)):
        assert not any(e.habits for e in found.values())
    assert all(e.habits for e in with_habits(evidence, 10).values())


def test_columns_follow_only_where_annotators_are_told_apart(pool):
    plain, told = pool[1][0], with_habits(evidence_of(pool), 40)[1]
    before, after = features(plain), features(told)
    assert after.labels.shape[1] == before.labels.shape[1] + 3
    np.testing.assert_array_equal(after.labels[:, :-3], before.labels)
    np.testing.assert_array_equal(after.candidates[:, :-3], before.candidates)
    np.testing.assert_allclose(after.labels[:, -3:], np.tile(told.habits["careless"], (len(plain.labels), 1)))


@pytest.mark.slow
def test_a_label_of_the_careless_one_is_trusted_less():
    """Both label every image, so that nothing but the name tells their labels apart."""
    rng = np.random.default_rng(1)
    both = {}
    for k in range(30):
        (one, truth), (other, _) = image(rng, "careful", False), image(rng, "careless", True)
        left, right = (
            np.flatnonzero((e.labels.boxes[:, 0] < 50) == flag) for e, flag in ((one, 1), (other, 0))
        )
        drawn = one.labels.take(left), other.labels.take(right)
        boxes, names = np.concatenate([d.boxes for d in drawn]), sum((d.annotators for d in drawn), ())
        labels = Labels(boxes, np.zeros(len(boxes), np.int64), annotators=names)
        both[k] = replace(one, labels=labels), truth
    told = with_habits(evidence_of(both), 20)
    learnt = list(range(20))
    judge = calibration.fit([told[k] for k in learnt], [both[k][1] for k in learnt], rng, rows=0)
    clean = {}
    for name in ("careful", "careless"):  # the same labels of the same pictures, under either name
        rows = []
        for k in range(20, 30):
            labels = told[k].labels
            mine = replace(labels, annotators=(name,) * len(labels))
            rows.append(grade(replace(told[k], labels=mine), judge).posterior[: len(labels), 0])
        clean[name] = np.concatenate(rows).mean()
    assert clean["careful"] > clean["careless"] + 0.05


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=6), st.integers(0, 3))
def test_habits_are_finite_and_balance(names, n_found):
    rng = np.random.default_rng(len(names))
    evidences = []
    for name in names:
        evidence, _ = image(rng, name, careless=name == "b")
        evidences.append(replace(evidence, crowd=evidence.crowd.take(np.arange(n_found))))
    known = habits(evidences)
    assert set(known) == (set(names) - {""} if len(set(names) - {""}) > 1 else set())
    assert np.isfinite([list(habit) for habit in known.values()]).all()
    if known:
        assert min(h.overlap for h in known.values()) <= 1e-9 <= max(h.overlap for h in known.values()) + 2e-9
