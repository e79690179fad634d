"""Which class labels are asked about, and what several labellers and a model say together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.science.classes import asking
from emclean.science.classes.votes import shares
from emclean.science.selection import Pool

P = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.45, 0.55]])


def test_the_score_is_cross_entropy_less_entropy():
    found = asking.cross_entropy(np.zeros(4, np.int64), P)
    by_hand = [-np.log(row[0]) + sum(p * np.log(p) for p in row) for row in P]
    assert found == pytest.approx(by_hand)


def test_a_sure_contradiction_comes_before_what_is_merely_hard():
    labels = np.zeros(4, np.int64)
    assert np.argmax(asking.cross_entropy(labels, P)) == 1
    assert np.argmax(asking.entropy(P)) == 2  # blind to the label


def test_several_given_labels_count_by_their_shares():
    """Bernhardt's score is that of the labels given, not of what most of them say."""
    said = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 1], [1, 1, 1]])
    p = np.tile([[0.9, 0.1]], (4, 1))
    found = asking.cross_entropy(shares(said, 2), p)
    rest = 0.9 * np.log(0.9) + 0.1 * np.log(0.1)
    by_hand = [-(2 - k) / 2 * np.log(0.9) - k / 2 * np.log(0.1) + rest for k in (0, 2 / 3, 1, 2)]
    assert found == pytest.approx(by_hand)
    assert (np.diff(found) > 0).all()
    one = asking.cross_entropy(said[:, 0], p)
    assert one == pytest.approx(asking.cross_entropy(np.eye(2)[said[:, 0]], p))
    assert one[1] < found[1]  # the two that agree with the model do not hide the third


@given(st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_scores_are_finite_also_where_the_model_is_certain(p):
    probabilities = np.array([[p, 1 - p]])
    for label in (0, 1):
        assert np.isfinite(asking.cross_entropy(np.array([label]), probabilities)).all()
    assert asking.entropy(probabilities)[0] >= 0


def votes(n=120, labellers=3, error=0.2, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    said = np.where(rng.random((n, labellers)) < error, 1 - truth[:, None], truth[:, None])
    sure = np.clip(0.75 + 0.1 * rng.standard_normal(n), 0.55, 0.95)
    p = np.where((truth == 1)[:, None], np.stack([1 - sure, sure], 1), np.stack([sure, 1 - sure], 1))
    return truth, said, p


def test_labellers_and_model_together_are_better_than_most_labellers():
    truth, said, p = votes()
    labels, quality = asking.crowdlab(said, p)
    majority = (said.sum(axis=1) >= 2).astype(int)
    assert (labels == truth).mean() > (majority == truth).mean()
    assert ((quality > 0) & (quality <= 1)).all()


def test_one_labeller_alone_is_no_crowd():
    _, said, p = votes()
    said[:, 1:] = -1
    with pytest.raises(ValueError, match="several labellers, got 1"):
        asking.crowdlab(said, p)


def test_activelab_asks_first_where_labels_and_model_differ():
    truth, said, p = votes(error=0.1)
    said[0] = 1 - truth[0]
    said[:, 2] = -1  # this labeller saw nothing
    score = asking.activelab(said, p)
    agreed = (said[:, :2] == truth[:, None]).all(axis=1)
    assert score[0] > np.median(score[agreed])


def test_every_strategy_asks_for_no_more_than_the_minutes_pay():
    n = 20
    scores = {"cross_entropy": np.arange(n, dtype=float), "activelab": -np.arange(n, dtype=float)}
    pool = Pool(tuple(map(str, range(n))), np.ones(n), np.ones(n), np.ones(n), np.full(n, 0.5), scores=scores)
    for name, strategy in asking.STRATEGIES.items():
        chosen = strategy(pool, 2.2, np.random.default_rng(0))
        assert len(set(chosen.tolist())) == 4, name
    assert asking.STRATEGIES["cross_entropy"](pool, 1.0, np.random.default_rng(0)).tolist() == [19, 18]
    assert asking.STRATEGIES["activelab"](pool, 1.0, np.random.default_rng(0)).tolist() == [0, 1]
