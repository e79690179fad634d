import numpy as np

from emclean.loop.publishing import unseen
from emclean.types import Labels

ONE = Labels(np.array([[1.0, 1.0, 5.0, 5.0]]), np.zeros(1, np.int64))
HELD = {"b": ONE, "a": ONE, "empty": Labels.empty()}


def test_a_champion_is_compared_on_what_it_was_not_trained_on():
    assert unseen(HELD, ["a", "elsewhere"]) == (["b", "empty"], "")


def test_a_champion_that_saw_every_object_is_compared_on_all_and_it_is_said():
    names, remark = unseen(HELD, ["a", "b"])
    assert names == ["a", "b", "empty"]
    assert "trained on these" in remark
