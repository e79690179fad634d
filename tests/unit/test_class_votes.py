"""What several labellers say becomes one label and a measure of their agreement."""

import numpy as np
import pytest

from emclean.science.classes import agreement, consensus

VOTES = np.array([[0, 0, 1], [2, -1, 2], [1, -1, -1], [0, 1, 2]])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_most_votes_win() -> None:
    assert consensus(VOTES, 3, rng()).tolist()[:3] == [0, 2, 1]


def test_ties_are_drawn_evenly() -> None:
    drawn = consensus(np.tile([[0, 1]], (1000, 1)), 3, rng())
    assert set(drawn.tolist()) == {0, 1}
    assert 420 < drawn.sum() < 580


def test_agreement_is_the_share_of_the_most_named() -> None:
    assert agreement(VOTES, 3) == pytest.approx([2 / 3, 1, 1, 1 / 3])


def test_a_picture_without_votes_has_no_label() -> None:
    unseen = np.array([[0, 1], [-1, -1]])
    assert np.isnan(agreement(unseen, 2)[1])
    with pytest.raises(
        ValueError, match=r"^votes: expected at least one for every picture, got none for \[1\]"
    ):
        consensus(unseen, 2, rng())


@pytest.mark.parametrize("votes", [np.array([[0, 3]]), np.array([[-2, 0]]), np.array([0, 1])])
def test_votes_are_classes(votes: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^votes: expected"):
        consensus(votes, 3, rng())
