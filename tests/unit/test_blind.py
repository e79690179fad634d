import numpy as np
import pytest

from emclean.loop.asking import Question
from emclean.loop.blind import comparison
from emclean.types import Answer, AnsweredBox, ImageRecord, Labels, TaskSpec

CROWD = {name: Labels(np.array([[0, 0, 9, 9], [20, 20, 29, 29.0]]), np.zeros(2, np.int64)) for name in "abc"}


def question(name: str, blind: bool) -> Question:
    image = ImageRecord(name, f"/{name}", name, 50, 50)
    return Question(TaskSpec(f"run/{name}/0", image, blind=blind), at_random=True)


def answer(name: str, boxes: int, skipped: bool = False) -> Answer:
    drawn = tuple(AnsweredBox((k, k, k + 5.0, k + 5.0), "deposit") for k in range(boxes))
    return Answer(f"run/{name}/0", 1, 1, "2026-01-01T00:00:00Z", "who", drawn, skipped)


def test_blind_answers_stand_beside_the_others() -> None:
    questions = [question("a", True), question("b", False), question("c", False)]
    answers = {a.key: a for a in (answer("a", 3), answer("b", 2), answer("c", 0, skipped=True))}
    words = comparison(questions, answers, CROWD)
    assert "1.50 boxes per crowd box without suggestions (1 picture)" in words
    assert "1.00 boxes per crowd box with suggestions (1 picture)" in words


def test_nothing_is_said_without_both_kinds() -> None:
    assert comparison([question("a", True)], {"run/a/0": answer("a", 3)}, CROWD) == ""
    assert comparison([], {}, CROWD) == ""


@pytest.mark.parametrize(
    ("pictures", "boxes", "said"),
    [
        (1, 2, "cannot be told yet"),
        (5, 2, "do not seem to sway"),
        (5, 1, "answers fewer boxes with them"),
        (5, 3, "answers more boxes with them"),
    ],
)
def test_the_numbers_come_with_what_to_conclude(pictures: int, boxes: int, said: str) -> None:
    names = [f"{kind}{k}" for kind in ("blind", "shown") for k in range(pictures)]
    questions = [question(name, name.startswith("blind")) for name in names]
    answers = {q.task.key: answer(q.task.image.image_id, 2 if q.task.blind else boxes) for q in questions}
    crowd = {name: CROWD["a"] for name in names}
    assert said in comparison(questions, answers, crowd).split(".")[0]
