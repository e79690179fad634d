"""How many images the first round asks about, before any model can choose."""

from dataclasses import replace

import numpy as np
import pytest
from loop_jobs import small_job

from emclean.config import load
from emclean.loop.selecting import picked
from emclean.loop.spending import full_minutes
from emclean.loop.states import RunState
from emclean.science.selection import STRATEGIES, Pool

IDS = tuple("abcdefghijkl")


def drawn(folder, *settings):
    """The picks of round 0 of twelve images that cost the same; half of the full cost may be spent."""
    job = small_job(folder, IDS)
    minutes = np.full(len(IDS), 0.99 * full_minutes(job) / len(IDS))
    job = replace(job, settings=load(None, ["budget.share_of_full=0.5", *settings]))
    pool = Pool(IDS, np.zeros(12), np.zeros(12), np.ones(12, np.int64), minutes)
    chosen, reason = picked(job, RunState("run"), pool, STRATEGIES)
    assert not reason
    return chosen


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (["budget.rounds=1"], 3),  # an equal share of the six that the budget pays for
        (["budget.rounds=2"], 2),
        (["budget.rounds=0"], 6),
        (["budget.rounds=11"], 2),  # never fewer
        (["budget.rounds=1", "budget.seed_images=5"], 5),
        (["budget.rounds=1", "budget.seed_images=9"], 6),  # the budget is the limit
    ],
)
def test_the_seed_round_takes_its_share_of_the_budget_or_what_is_asked_for(tmp_path, settings, count):
    chosen = drawn(tmp_path, *settings)
    assert len({pick.image_id for pick in chosen}) == count
    assert all(pick.at_random and not pick.review for pick in chosen)
