from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from science_scenes import objects

from emclean.science.annotators import Priors, agreement, estimate, krippendorff_alpha, measured
from emclean.science.annotators.gather import associate, from_places, to_places
from emclean.science.evaluation import label_quality
from emclean.types import Labels

BOX = np.array([[0.0, 0.0, 10.0, 10.0]])
ZERO = np.zeros(1, dtype=np.int64)
MISS = np.array([0.05, 0.3, 0.15, 0.5, 0.2])
SPURIOUS = np.array([0.3, 0.1, 0.2, 0.05, 0.0])
SIGMA = np.array([0.03, 0.06, 0.12, 0.05, 0.04])
BIAS = np.array([[0.1, 0, 0, 0], [-0.1, 0, 0, 0], [0, 0, 0.1, 0.1], [0, 0, -0.1, -0.1], [0, 0, 0, 0]])


def joined(parts: list[Labels]) -> Labels:
    names = [f"a{k}" for k, part in enumerate(parts) for _ in range(len(part))]
    return Labels(
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.categories for p in parts]),
        annotators=tuple(names),
    )


def drawn(rng: np.random.Generator, truth: Labels, a: int, n_categories: int) -> Labels:
    """What annotator ``a`` makes of an image; with several categories, a fifth of them is called the next."""
    seen = truth.take(rng.random(len(truth)) >= MISS[a])
    sides = seen.boxes[:, 2:] - seen.boxes[:, :2]
    places = to_places(seen.boxes, sides) + BIAS[a] + rng.normal(0, SIGMA[a], (len(seen), 4))
    n = int(rng.poisson(SPURIOUS[a] * len(truth)))
    extra = objects(rng, n, n_categories) if n else Labels.empty()
    wrong = rng.random(len(seen)) < (0.2 if n_categories > 1 else 0.0)
    called = np.where(wrong, (seen.categories + 1) % n_categories, seen.categories)
    return Labels(
        np.concatenate([from_places(places, sides), extra.boxes]), np.append(called, extra.categories)
    )


def planted(
    seed: int, images: int = 40, annotators: int = 5, n_categories: int = 1
) -> tuple[list[Labels], list[Labels]]:
    rng = np.random.default_rng(seed)
    truths = [objects(rng, 12, n_categories) for _ in range(images)]
    return truths, [joined([drawn(rng, t, a, n_categories) for a in range(annotators)]) for t in truths]


def seen_by(n: int, images: int) -> list[list[str]]:
    return [[f"a{k}" for k in range(n)]] * images


def test_planted_rates_and_offsets_are_recovered_without_truth() -> None:
    _, labels = planted(0)
    found = estimate(labels, 1, seen_by(5, 40)).annotators
    assert [a.name for a in found] == ["a0", "a1", "a2", "a3", "a4"]
    np.testing.assert_allclose([a.miss for a in found], MISS, atol=0.06)
    invented = SPURIOUS / (1 - MISS + SPURIOUS)
    np.testing.assert_allclose([a.spurious for a in found], invented, atol=0.06)
    relative = BIAS - np.average(BIAS, axis=0, weights=1 - MISS)
    np.testing.assert_allclose([a.bias for a in found], relative, atol=0.02)
    np.testing.assert_allclose([a.sigma.mean() for a in found], SIGMA, atol=0.015)


def test_the_consensus_is_better_than_every_annotator() -> None:
    truths, labels = planted(1)
    fused = label_quality(truths, estimate(labels, 1, seen_by(5, 40)).labels())
    for k in range(5):
        own = [x.take([i for i, a in enumerate(x.annotators) if a == f"a{k}"]) for x in labels]
        quality = label_quality(truths, own)
        assert fused.f1 > quality.f1 + 0.05
        assert fused.mean_iou > quality.mean_iou


@pytest.mark.slow
def test_a_bias_that_all_share_is_seen_only_with_some_truth() -> None:
    truths, labels = planted(2)
    tighter = [
        Labels(x.boxes + np.array([3, 3, -3, -3]), x.categories, annotators=x.annotators) for x in labels
    ]
    alone = estimate(tighter, 1).annotators
    told = estimate(tighter, 1, truths={i: truths[i] for i in range(8)}).annotators
    counted = np.array([a.bias for a in measured(tighter, truths, 1)])
    assert np.abs(np.array([a.bias for a in alone]) - counted).mean() > 0.06
    assert np.abs(np.array([a.bias for a in told]) - counted).mean() < 0.03


def test_confusion_between_categories_is_recovered() -> None:
    _, labels = planted(3, n_categories=3)
    for annotator in estimate(labels, 3, seen_by(5, 40)).annotators:
        np.testing.assert_allclose(annotator.confusion.sum(axis=1), 1.0)
        assert np.diag(annotator.confusion).mean() == pytest.approx(0.8, abs=0.08)
        assert np.roll(annotator.confusion, -1, axis=1).diagonal().mean() == pytest.approx(0.2, abs=0.08)


def test_categories_of_the_consensus_outvote_each_annotator() -> None:
    truths, labels = planted(4, n_categories=3)
    assert label_quality(truths, estimate(labels, 3, seen_by(5, 40)).labels()).f1 > 0.9


def test_two_annotators_who_overlook_much_do_not_look_perfect() -> None:
    rng = np.random.default_rng(5)
    truths = [objects(rng, 15) for _ in range(60)]
    half = [joined([t.take(rng.random(len(t)) >= 0.4) for _ in range(2)]) for t in truths]
    believed = Priors(invented=(1.1, 40.0))  # these two invent nothing
    found = estimate(half, 1, seen_by(2, 60), priors=believed).annotators
    np.testing.assert_allclose([a.miss for a in found], 0.4, atol=0.1)


def test_with_the_truth_of_every_image_the_estimate_is_the_count() -> None:
    truths, labels = planted(6, images=20)
    known = measured(labels, truths, 1, seen_by(5, 20))
    found = estimate(labels, 1, seen_by(5, 20), dict(enumerate(truths)))
    for a, b in zip(found.annotators, known, strict=True):
        assert (a.name, a.images, a.boxes) == (b.name, b.images, b.boxes)
        assert a.miss == pytest.approx(b.miss, abs=0.03)
        assert a.spurious == pytest.approx(b.spurious, abs=0.03)
        np.testing.assert_allclose(a.bias, b.bias, atol=0.02)
    for fused, truth in zip(found.fused, truths, strict=True):
        assert fused.scores.tolist() == [1.0] * len(truth)
        np.testing.assert_allclose(
            np.sort(fused.boxes, axis=0), np.sort(truth.boxes, axis=0), rtol=0, atol=1e-9
        )


def test_who_was_not_shown_an_image_did_not_miss_anything_there() -> None:
    truths, labels = planted(7, images=10)
    half = [
        x.take([i for i, a in enumerate(x.annotators) if a != "a0" or k % 2]) for k, x in enumerate(labels)
    ]
    shown = [["a1", "a2", "a3", "a4", *(["a0"] if k % 2 else [])] for k in range(10)]
    fair, blamed = estimate(half, 1, shown).annotators[0], estimate(half, 1, seen_by(5, 10)).annotators[0]
    assert (fair.images, blamed.images) == (5, 10)
    assert fair.miss < 0.2 < 0.4 < blamed.miss
    assert measured(half, truths, 1, shown)[0].miss < 0.2


def test_empty_images_and_nobody() -> None:
    assert estimate([], 1).annotators == ()
    found = estimate([Labels.empty(), Labels.empty()], 1)
    assert found.annotators == ()
    assert [len(f) for f in found.fused] == [0, 0]
    idle = estimate([Labels.empty()], 2, [["idle"]]).annotators[0]
    assert (idle.boxes, idle.images) == (0, 1)
    assert np.isnan(agreement([Labels.empty()], 1).alpha)


def test_truth_without_any_box_is_learnt_from() -> None:
    truths, labels = planted(8, images=6)
    found = estimate([*labels, Labels.empty()], 1, seen_by(5, 7), {6: truths[0]})
    assert len(found.fused[6]) == len(truths[0])


def test_boxes_without_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="annotators"):
        estimate([Labels(BOX, ZERO)], 1)
    named = Labels(BOX, ZERO, annotators=("a",))
    with pytest.raises(ValueError, match="seen"):
        estimate([named], 1, [])
    with pytest.raises(ValueError, match="truths"):
        estimate([named], 1, truths={3: Labels(BOX, ZERO)})


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_association_keeps_every_box_once_and_apart(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = objects(rng, 6)
    parts = [drawn(rng, truth, a, 1) for a in range(n)]
    boxes = np.concatenate([p.boxes for p in parts])
    who = np.repeat(np.arange(n), [len(p) for p in parts])
    targets, owner = associate(boxes, who, np.ones(n), np.zeros((0, 4)))
    assert (owner >= 0).all()
    assert sorted(set(owner.tolist())) == list(range(len(targets)))
    assert len({(int(a), int(o)) for a, o in zip(who, owner, strict=True)}) == len(boxes)


@pytest.mark.slow
@given(st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_the_names_of_annotators_do_not_matter(seed: int) -> None:
    _, labels = planted(seed, images=4, annotators=3)
    swap = {"a0": "z", "a1": "y", "a2": "x"}
    renamed = [Labels(x.boxes, x.categories, annotators=tuple(swap[a] for a in x.annotators)) for x in labels]
    first = {a.name: a for a in estimate(labels, 1).annotators}
    other = {a.name: a for a in estimate(renamed, 1).annotators}
    for old, new in swap.items():
        assert first[old].miss == pytest.approx(other[new].miss, abs=0.15)


def test_places_and_back() -> None:
    boxes = objects(np.random.default_rng(0), 8).boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_allclose(from_places(to_places(boxes, sides), sides), boxes)


def test_alpha_is_krippendorffs() -> None:
    """The worked example of four observers and twelve units: nominal alpha 0.743."""
    rows = (
        "1    2 3 3 2 1 4 1 2 *  *  *|1    2 3 3 2 2 4 1 2 5 * 3|"
        "*    3 3 3 2 3 4 2 2 5 1 *|1    2 3 3 2 4 4 1 2 5 1 *"
    ).split("|")
    values = [row.split() for row in rows]
    counts = np.zeros((12, 5), dtype=np.int64)
    for row in values:
        for unit, value in enumerate(row):
            if value != "*":
                counts[unit, int(value) - 1] += 1
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_one_for_agreement_and_none_for_chance() -> None:
    rng = np.random.default_rng(0)
    assert krippendorff_alpha(np.array([[3, 0], [0, 3]])) == 1.0
    votes = rng.integers(0, 2, (4000, 2))
    counts = np.stack([(votes == v).sum(axis=1) for v in (0, 1)], axis=1)
    assert abs(krippendorff_alpha(counts)) < 0.05
    assert np.isnan(krippendorff_alpha(np.array([[2, 0]])))


def test_agreement_of_pairs() -> None:
    truth = objects(np.random.default_rng(1), 10)
    labels = [joined([truth, truth, truth.take(range(5))])]
    found = agreement(labels, 1)
    assert found.f1[0, 1] == 1.0
    assert found.mean_iou[0, 1] == pytest.approx(1.0)
    assert found.f1[0, 2] == pytest.approx(2 * 5 / 15)
    assert found.alpha < 1.0
    apart = [Labels(BOX, ZERO, annotators=("a",)), Labels(BOX, ZERO, annotators=("b",))]
    assert np.isnan(agreement(apart, 1).f1[0, 1])


@pytest.mark.slow
def test_ten_pathologists_are_ranked_as_the_truth_ranks_them(emclean_data: Path) -> None:
    """Real experts, no truth told: misses and inventions as ground truth counts them (two of three tasks)."""
    from benchmarks.annotators import figure, task
    from benchmarks.fit_noise import read

    rows = read(emclean_data / "expert_box_raters" / "annotations.csv.gz")
    for name, error in (("Asthma", 0.03), ("Mitosen", 0.12)):
        mine = task(rows, name)
        found = estimate(mine.labels, mine.n_categories, mine.seen).annotators
        known = measured(mine.labels, mine.truths, mine.n_categories, mine.seen)
        for column in ("miss", "spurious"):
            one, other = figure(found, column)[:, 0], figure(known, column)[:, 0]
            assert np.corrcoef(one, other)[0, 1] > 0.9
            assert np.abs(one - other).mean() < error
