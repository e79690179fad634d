"""What every selection strategy promises; a new one is tested by being in ``STRATEGIES``."""

from dataclasses import replace

import numpy as np
import pytest

from emclean.science.rivals import RIVALS
from emclean.science.selection import STRATEGIES, Pool, Strategy


def pool(n: int, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(20, n)
    return Pool(
        tuple(f"image-{i}" for i in range(n)),
        discrepancy=rng.random(n) * counts,
        uncertainty=rng.random(n),
        n_boxes=counts,
        expected_minutes=0.1 + 0.2 * counts * rng.random(n),
        features=rng.normal(size=(n, 4)),
        scores={name: rng.normal(size=n) for name in RIVALS},
    )


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param]


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_seed_gives_the_same_answer(strategy: Strategy) -> None:
    first, again = strategy(pool(40), 15.0, rng()), strategy(pool(40), 15.0, rng())
    assert first.tolist() == again.tolist()


def test_the_input_stays_as_it_was(strategy: Strategy) -> None:
    images, before = pool(40), pool(40)
    strategy(images, 15.0, rng())
    for name in ("image_ids", "discrepancy", "uncertainty", "n_boxes", "expected_minutes", "features"):
        assert np.array_equal(getattr(images, name), getattr(before, name))
    for name, column in images.scores.items():
        assert np.array_equal(column, before.scores[name])


@pytest.mark.parametrize("minutes", [0.5, 5.0, 25.0, 1e6])
def test_the_budget_is_kept_and_no_image_asked_twice(strategy: Strategy, minutes: float) -> None:
    images = pool(40)
    chosen = strategy(images, minutes, rng())
    assert chosen.dtype == np.int64
    assert len(set(chosen.tolist())) == len(chosen) >= 1
    assert images.expected_minutes[chosen].sum() <= minutes
    assert minutes < 1e6 or len(chosen) == 40


def test_most_of_the_budget_is_used(strategy: Strategy) -> None:
    images = pool(200)
    chosen = strategy(images, 60.0, rng())
    assert images.expected_minutes[chosen].sum() > 60.0 - images.expected_minutes.max()


def test_an_empty_pool_and_no_budget_give_nothing(strategy: Strategy) -> None:
    assert len(strategy(pool(0), 10.0, rng())) == 0
    assert len(strategy(pool(5), 0.0, rng())) == 0


def test_images_without_boxes_are_no_trouble(strategy: Strategy) -> None:
    bare = Pool(("a", "b", "c"), np.zeros(3), np.zeros(3), np.zeros(3, np.int64), np.zeros(3))
    bare = replace(bare, scores={name: np.zeros(3) for name in RIVALS})
    assert sorted(strategy(bare, 1.0, rng()).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_a_rival_ranks_by_its_own_score_whatever_an_image_costs(name: str) -> None:
    images = replace(pool(30), scores={name: np.arange(30.0) - 10})
    assert STRATEGIES[name](images, 1e6, rng()).tolist() == list(range(29, -1, -1))


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_a_rival_without_its_score_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        STRATEGIES[name](replace(pool(3), scores={}), 5.0, rng())
