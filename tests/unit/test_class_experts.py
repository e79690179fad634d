"""What several experts who slip say together, how right each of them is, and whose turn it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.science.classes import expert
from emclean.science.classes.experts import weigh
from emclean.science.classes.votes import ABSENT

SLIPS = (0.28, 0.05, 0.15, 0.3)


def scene(seed=0, n=500, asked=150, n_classes=2, sure=0.85):
    """A crowd's label of every picture, three experts' answers to some, and a model that is often right."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    said = np.full((n, len(SLIPS)), ABSENT)
    wrong = (truth[:, None] + rng.integers(1, n_classes, said.shape)) % n_classes
    votes = np.where(rng.random(said.shape) < SLIPS, wrong, truth[:, None])
    said[:, 0] = votes[:, 0]
    for k in range(1, len(SLIPS)):
        some = rng.permutation(n)[:asked]
        said[some, k] = votes[some, k]
    met = rng.random(n) < sure
    p = np.full((n, n_classes), (1 - sure) / (n_classes - 1))
    p[np.arange(n), np.where(met, truth, wrong[:, 0])] = sure
    return truth, said, p


@pytest.mark.parametrize("n_classes", [2, 4])
def test_each_labellers_accuracy_is_found_without_the_truth(n_classes):
    off = []
    for seed in range(5):
        truth, said, p = scene(seed, n_classes=n_classes)
        found = weigh(said, p).accuracy
        off.append(found - [(said[s, k] == truth[s]).mean() for k in range(4) for s in [said[:, k] >= 0]])
    assert np.abs(off).mean() < 0.03
    assert np.abs(np.mean(off, axis=0)).max() < 0.03


def test_crowdlabs_estimate_of_an_expert_is_further_off():
    """Why it is not used for that (decision 12)."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    ours, theirs = [], []
    for seed in range(3):
        truth, said, p = scene(seed)
        right = np.array([(said[s, k] == truth[s]).mean() for k in range(4) for s in [said[:, k] >= 0]])
        table = np.where(said == ABSENT, np.nan, said)
        stats = get_label_quality_multiannotator(table, p, verbose=False, return_detailed_quality=False)
        found = stats["annotator_stats"]["annotator_quality"].sort_index().to_numpy()
        ours.append(np.abs(weigh(said, p).accuracy - right)[1:].mean())
        theirs.append(np.abs(found - right)[1:].mean())
    assert np.mean(theirs) > 2 * np.mean(ours)


def test_all_together_are_better_than_the_model_and_than_most_voices():
    truth, said, p = scene()
    chance = weigh(said, p).chance
    several = (said >= 0).sum(axis=1) > 2
    named = np.stack([(said == k).sum(axis=1) for k in (0, 1)], axis=1)
    right = (chance.argmax(axis=1) == truth)[several].mean()
    assert right > (p.argmax(axis=1) == truth)[several].mean() + 0.05
    assert right > (named.argmax(axis=1) == truth)[several].mean() + 0.02
    assert chance.sum(axis=1) == pytest.approx(np.ones(len(truth)))


def test_a_good_expert_outweighs_a_bad_one():
    _, said, _ = scene()
    said = np.concatenate([said, np.full((1, 4), ABSENT)])
    said[-1, [1, 3]] = 0, 1  # the one who slips in 5 % against the one who slips in 30 %
    p = np.concatenate([scene()[2], [[0.5, 0.5]]])
    assert weigh(said, p).chance[-1, 0] > 0.8


def test_without_votes_the_model_stands_and_nobody_is_worse_than_chance():
    _, said, p = scene()
    found = weigh(np.full((len(p), 2), ABSENT), p)
    assert found.chance == pytest.approx(p)
    assert found.accuracy == pytest.approx([0.8, 0.8])
    liar = np.where(said[:, :1] >= 0, 1 - p.argmax(axis=1)[:, None], 0)
    assert weigh(np.concatenate([said, liar], axis=1), p).accuracy[-1] == 0.5


@given(st.integers(1, 6), st.text(max_size=12), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_a_second_look_is_somebody_elses_as_long_as_there_is_one(count, key, seen):
    names = expert.names(count)
    turn = expert.answerer(count, names[:seen], key)
    assert 0 <= turn < count
    assert seen >= count or turn >= seen


def test_everybody_has_a_turn():
    turns = [expert.answerer(3, (), f"run/{i:016x}/0") for i in range(300)]
    assert min(np.bincount(turns)) > 60
