import numpy as np
import pytest

from emclean.science.cost import Changes, CostModel, changes, cost, total
from emclean.types import Cost, Labels

SHOWN = Labels(np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50.0]]), np.array([0, 0, 1]))


def test_changes_of_a_hand_worked_answer() -> None:
    answered = Labels(np.array([[0.4, 0, 10, 10], [20, 20, 35, 30], [60, 60, 70, 70.0]]), np.array([0, 0, 0]))
    assert changes(SHOWN, answered, [0, 1, -1]) == Changes(added=1, moved=1, deleted=1, verified=1)


def test_a_new_category_counts_as_moved() -> None:
    relabelled = Labels(SHOWN.boxes, np.array([0, 1, 1]))
    assert changes(SHOWN, relabelled, [0, 1, 2]) == Changes(0, 1, 0, 2)


def test_nothing_shown_and_nothing_answered() -> None:
    assert changes(Labels.empty(), Labels.empty(), []) == Changes(0, 0, 0, 0)
    assert changes(SHOWN, Labels.empty(), []) == Changes(0, 0, 3, 0)


@pytest.mark.parametrize("origin", [[0], [0, 1, 3], [0, 1, -2]])
def test_an_origin_that_cannot_be_is_refused(origin: list[int]) -> None:
    with pytest.raises(ValueError, match="origin"):
        changes(SHOWN, SHOWN, origin)


def test_minutes_follow_the_model() -> None:
    model = CostModel(open_s=6, draw_s=30, move_s=12, verify_s=3)
    assert cost(Changes(2, 1, 1, 3), model) == Cost(1, 2, 1, 1, 3, minutes=(6 + 60 + 12 + 12) / 60)
    assert model.full(10, 100) == pytest.approx((60 + 3000) / 60)


def test_the_ends_bracket_the_default() -> None:
    low, high = CostModel().ends()
    work = Changes(5, 5, 5, 5)
    minutes = [cost(work, m).minutes for m in (low, CostModel(), high)]
    assert minutes == sorted(minutes)
    assert (low.draw_s, high.draw_s) == (7.0, 35.0)


def test_a_total_adds_up() -> None:
    assert total([Cost(1, 2, 0, 0, 1, 0.5)] * 2) == Cost(2, 4, 0, 0, 2, 1.0)
    assert total([]) == Cost()


def test_negative_seconds_are_refused() -> None:
    with pytest.raises(ValueError, match="draw_s"):
        CostModel(draw_s=-1)
