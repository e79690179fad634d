from dataclasses import replace

import numpy as np
import pytest

from emclean.science.selection import STRATEGIES, Pool, split_random_share, subset


def pool(discrepancy: list[float], minutes: list[float]) -> Pool:
    n = len(minutes)
    return Pool(
        tuple(f"i{k}" for k in range(n)),
        np.array(discrepancy),
        np.linspace(0, 1, n),
        np.ones(n, np.int64),
        np.array(minutes),
    )


def test_discrepancy_counts_per_minute() -> None:
    images = pool([10, 6, 1], [10, 2, 1])  # per minute: 1, 3, 1
    assert STRATEGIES["discrepancy"](images, 2.0, np.random.default_rng(0)).tolist() == [1]


def test_uncertainty_does_not_look_at_the_labels() -> None:
    images = pool([10, 6, 1], [1, 1, 1])
    assert STRATEGIES["uncertainty"](images, 10.0, np.random.default_rng(0)).tolist() == [2, 1, 0]


def test_what_is_too_dear_is_passed_over() -> None:
    images = pool([3, 100, 1], [1, 50, 1])
    assert STRATEGIES["discrepancy"](images, 2.0, np.random.default_rng(0)).tolist() == [0, 2]


def test_ties_are_broken_at_random() -> None:
    images = pool([1.0] * 30, [1.0] * 30)
    picks = [tuple(STRATEGIES["discrepancy"](images, 5.0, np.random.default_rng(s))) for s in range(5)]
    assert len(set(picks)) > 1


def test_the_random_share_is_unbiased_and_disjoint() -> None:
    images = pool(list(range(50)), [1.0] * 50)
    counts = np.zeros(50)
    for seed in range(300):
        sample, rest = split_random_share(images, 20.0, 0.5, np.random.default_rng(seed))
        assert len(sample) == 10
        assert sorted([*sample, *rest]) == list(range(50))
        counts[sample] += 1
    assert counts.mean() == pytest.approx(60)
    assert counts.std() == pytest.approx(np.sqrt(60 * 0.8), rel=0.3)


def test_no_share_is_no_sample_and_a_wrong_one_is_refused() -> None:
    images = pool([1, 2], [1, 1])
    sample, rest = split_random_share(images, 5.0, 0.0, np.random.default_rng(0))
    assert (len(sample), len(rest)) == (0, 2)
    with pytest.raises(ValueError, match="share"):
        split_random_share(images, 5.0, 1.5, np.random.default_rng(0))


def test_a_subset_keeps_its_columns_aligned() -> None:
    whole = replace(pool([1, 2, 3], [4, 5, 6]), scores={"loss": np.array([7.0, 8.0, 9.0])})
    part = subset(whole, np.array([2, 0]))
    assert part.image_ids == ("i2", "i0")
    assert part.discrepancy.tolist() == [3, 1]
    assert part.expected_minutes.tolist() == [6, 4]
    assert part.scores["loss"].tolist() == [9, 7]


def test_columns_of_other_length_or_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="discrepancy"):
        pool([1, 2], [1, 1, 1])
    with pytest.raises(ValueError, match="expected_minutes"):
        pool([1, 2], [1, float("nan")])
    with pytest.raises(ValueError, match="loss"):
        replace(pool([1, 2], [1, 1]), scores={"loss": np.zeros(3)})
