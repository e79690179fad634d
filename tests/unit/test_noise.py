from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from science_scenes import SIDE, objects

from emclean.boxes import coverage, enclosing, intersection
from emclean.science.noise import PRESETS, NoiseRates, Planted, plant, una
from emclean.science.truth import true_grades
from emclean.types import GRADES, Labels

shares = st.floats(0, 0.5)
rates_of_any_kind = st.builds(
    NoiseRates,
    missed=shares,
    shifted=st.floats(0, 1),
    shift_sigma=st.floats(0, 0.5),
    merged=shares,
    spurious=st.floats(0, 1.5),
    mislabelled=shares,
    duplicate=shares,
    redraw=st.booleans(),
)


def planted(seed: int, rates: NoiseRates, n: int = 20, n_categories: int = 3) -> tuple[Labels, Planted]:
    rng = np.random.default_rng(seed)
    truth = objects(rng, n, n_categories)
    return truth, plant(truth, SIDE, SIDE, rates, n_categories, rng)


def rows(result: Planted, kind: str) -> np.ndarray:
    return np.flatnonzero(result.ledger.kind == GRADES.index(kind))


@given(st.integers(0, 999), rates_of_any_kind, st.integers(0, 25))
@settings(max_examples=30, deadline=None)
def test_the_ledger_accounts_for_every_difference(seed: int, rates: NoiseRates, n: int) -> None:
    truth, result = planted(seed, rates, n)
    ledger, labels = result.ledger, result.labels
    gone = {
        int(t) for kind in ("missed", "merged") for r in rows(result, kind) for t in ledger.truths(int(r))
    }
    kept = [i for i in range(len(truth)) if i not in gone]
    added = np.isin(ledger.kind, [GRADES.index(k) for k in ("merged", "duplicate", "spurious")])
    assert len(labels) == len(kept) + added.sum()
    assert sorted(ledger.noisy[added]) == list(range(len(kept), len(labels)))
    assert (ledger.noisy[rows(result, "missed")] == -1).all()
    moved = {int(ledger.noisy[r]) for r in rows(result, "shifted")}
    called = {int(ledger.noisy[r]) for r in rows(result, "mislabelled")}
    for position, i in enumerate(kept):
        assert labels.ids[position] == truth.ids[i]
        assert position in moved or (labels.boxes[position] == truth.boxes[i]).all()
        assert (position in called) == (labels.categories[position] != truth.categories[i])


@given(st.integers(0, 999), rates_of_any_kind)
@settings(max_examples=30, deadline=None)
def test_boxes_stay_inside_the_image_and_the_seed_decides_everything(seed: int, rates: NoiseRates) -> None:
    _, result = planted(seed, rates)
    _, again = planted(seed, rates)
    boxes = result.labels.boxes
    assert (boxes >= 0).all()
    assert (boxes <= SIDE).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert np.array_equal(boxes, again.labels.boxes)
    assert np.array_equal(result.ledger.kind, again.ledger.kind)
    assert len(set(result.labels.ids)) == len(result.labels)


@given(st.integers(0, 999), st.integers(0, 25))
@settings(max_examples=10, deadline=None)
def test_zero_rates_change_nothing(seed: int, n: int) -> None:
    truth, result = planted(seed, NoiseRates(), n)
    assert len(result.ledger) == 0
    assert np.array_equal(result.labels.boxes, truth.boxes)
    assert result.labels.ids == truth.ids


def test_counts_are_exact_to_one_in_an_image_and_unbiased_over_many() -> None:
    rates = NoiseRates(missed=0.3, shifted=0.25, spurious=0.15)
    results = [planted(seed, rates, n=20) for seed in range(60)]
    for kind, rate in (("missed", 0.3), ("shifted", 0.25), ("spurious", 0.15)):
        counts = np.array([result.ledger.count(kind) for _, result in results])
        wanted = np.array([rate * len(truth) for truth, _ in results])
        assert (np.abs(counts - wanted) <= 1).all()
        assert abs(counts.mean() - wanted.mean()) < 0.25


def test_a_merged_box_is_the_hull_of_near_objects_of_one_category() -> None:
    truth, result = planted(1, NoiseRates(merged=0.5), n=25, n_categories=2)
    merged = rows(result, "merged")
    assert len(merged) > 0
    for row in merged:
        pair = result.ledger.truths(int(row))
        noisy = result.ledger.noisy[row]
        assert np.array_equal(result.labels.boxes[noisy], enclosing(truth.boxes[pair]))
        assert len(set(truth.categories[pair].tolist())) == 1


def test_spurious_boxes_keep_off_every_object() -> None:
    truth, result = planted(2, NoiseRates(spurious=0.6))
    boxes = result.labels.boxes[result.ledger.noisy[rows(result, "spurious")]]
    assert len(boxes) >= 8
    assert coverage(boxes, truth.boxes).max() <= 0.1 + 1e-9
    assert coverage(truth.boxes, boxes).max() <= 0.1 + 1e-9


def test_spurious_boxes_are_given_up_where_no_place_is_free() -> None:
    whole = Labels(np.array([[0.0, 0, 100, 100]]), np.array([0]))
    result = plant(whole, 100, 100, NoiseRates(spurious=3.0), 1, np.random.default_rng(0))
    assert len(result.labels) == 1


def test_with_one_category_nothing_is_mislabelled() -> None:
    _, result = planted(3, NoiseRates(mislabelled=0.5), n_categories=1)
    assert len(result.ledger) == 0


def test_presets_plant_what_they_say() -> None:
    rates = replace(PRESETS["expert_raters"], mislabelled=0.1)
    results = [planted(seed, rates, n=25) for seed in range(40)]
    total = sum(len(truth) for truth, _ in results)
    known = [true_grades(result.labels, truth) for truth, result in results]
    grades = np.concatenate([k.grade for k in known])
    assert sum(len(k.missed) for k in known) / total == pytest.approx(rates.missed, abs=0.03)
    assert (grades == GRADES.index("spurious")).sum() / total == pytest.approx(rates.spurious, abs=0.03)
    assert (grades == GRADES.index("mislabelled")).sum() / total == pytest.approx(0.1, abs=0.03)


def test_una_follows_its_recipe() -> None:
    truth, result = planted(4, una(0.25), n=20)
    n, count = len(truth), result.ledger.count
    assert [count(k) for k in ("missed", "shifted", "mislabelled")] == pytest.approx([n / 4] * 3, abs=1)
    assert count("spurious") == pytest.approx(n / 3, abs=1)
    redrawn = result.labels.boxes[result.ledger.noisy[rows(result, "shifted")]]
    own = truth.boxes[[int(result.ledger.truths(int(r))[0]) for r in rows(result, "shifted")]]
    assert (np.abs(redrawn - own) <= np.tile(own[:, 2:] - own[:, :2], 2) * 1.5).all()
    assert intersection(redrawn, own).diagonal().min() < (own[:, 2:] - own[:, :2]).prod(axis=1).max()


@pytest.mark.parametrize(
    ("rates", "fault"),
    [
        ({"missed": -0.1}, "missed"),
        ({"shift_sigma": float("nan")}, "shift_sigma"),
        ({"missed": 0.6, "merged": 0.6}, "merged"),
    ],
)
def test_impossible_rates_are_refused(rates: dict[str, float], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        NoiseRates(**rates)
    with pytest.raises(ValueError, match="ratio"):
        una(0.9)
