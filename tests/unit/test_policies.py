import numpy as np
import pytest

from emclean.loop import policies
from emclean.loop.policies import Spending
from emclean.loop.states import Phase


def test_a_round_goes_from_selection_to_publication() -> None:
    phase, seen = Phase.INGEST, []
    while phase is not Phase.DONE:
        seen.append(phase)
        phase = policies.after(phase, baselines=True)
    assert seen == list(Phase)[:-1]
    assert policies.after(Phase.PUBLISH, baselines=False) is Phase.FINISH


def test_what_is_left_is_shared_by_the_rounds_to_come() -> None:
    assert Spending(100, 40, 3).next_round() == 20
    assert Spending(100, 120, 3).next_round() == 0


@pytest.mark.parametrize(
    ("spending", "candidates", "gain", "reason"),
    [
        (Spending(10, 0, 0), 5, None, "rounds"),
        (Spending(10, 0, 1), 0, None, "every image"),
        (Spending(10, 9.9, 1), 5, None, "budget"),
        (Spending(10, 9.1, 9), 5, None, "budget"),
        (Spending(10, 0, 1), 5, 0.1, "expected gain"),
    ],
)
def test_each_reason_to_stop(spending, candidates, gain, reason) -> None:
    decision = policies.stop(spending, candidates, 1.0, gain, least=0.2)
    assert decision.now
    assert reason in decision.reason


def test_a_round_may_spend_more_than_its_share_while_the_budget_lasts() -> None:
    assert not policies.stop(Spending(10, 5, 10), 5, 0.6, None, least=0.0).now


def test_it_goes_on_while_minutes_pay() -> None:
    assert not policies.stop(Spending(10, 0, 1), 5, 1.0, 0.3, least=0.2).now


def test_folds_are_even_and_do_not_depend_on_the_order() -> None:
    names = [f"image{i}" for i in range(11)]
    one = policies.folds(names, 3, np.random.default_rng(5))
    other = policies.folds(names[::-1], 3, np.random.default_rng(5))
    assert one == other
    assert sorted(np.bincount(list(one.values()))) == [3, 4, 4]


def test_the_validation_part_keeps_its_images_as_more_come() -> None:
    drawn = [f"image{i}" for i in range(20)]
    parts = [policies.validation_part(drawn[:n]) for n in range(21)]
    assert parts[6] == {"image1", "image3"}
    assert parts[20] == {"image1", "image3", "image6", "image11", "image16"}
    for before, after, n in zip(parts, parts[1:], range(21), strict=False):
        assert before <= after
        assert len(before) <= n / 2
