"""The blind check: do experts who see suggestions answer as those who see none?"""

from collections.abc import Mapping, Sequence

from emclean.loop.asking import Question
from emclean.report.text import plural
from emclean.types import Answer, Labels

ENOUGH = 5
"""Pictures of each kind from which the comparison says anything."""

ALIKE = 0.15
"""Numbers of boxes that differ by no more than this share count as the same."""


def comparison(
    questions: Sequence[Question], answers: Mapping[str, Answer], crowd: Mapping[str, Labels]
) -> str:
    """What blind answers say beside the others, in words; empty while there are none of one kind.

    Compared is the number of boxes answered per crowd box of the same pictures: people who only wave
    suggestions through stay nearer to what is shown than those who look for themselves.
    """
    parts, rates, pictures = [], [], []
    for blind, words in ((True, "without suggestions"), (False, "with suggestions")):
        whole = [q for q in questions if q.task.kind == "image"]
        mine = [q.task for q in whole if q.task.blind == blind and _answered(q, answers)]
        said = sum(len(answers[task.key].boxes) for task in mine)
        given = sum(len(crowd.get(task.image.image_id, ())) for task in mine)
        if not given:
            return ""
        parts.append(f"{said / given:.2f} boxes per crowd box {words} ({plural(len(mine), 'picture')})")
        rates.append(said / given)
        pictures.append(len(mine))
    said_of_both = f"The expert's answers hold {parts[0]} and {parts[1]}"
    return f"{_conclusion(rates[0], rates[1], min(pictures))} {said_of_both}."


def _conclusion(without: float, shown: float, pictures: int) -> str:
    """What to make of the numbers of boxes per crowd box ``without`` suggestions and with ``shown`` ones."""
    if pictures < ENOUGH:
        needed = f"{ENOUGH} pictures of each kind are needed"
        return f"Whether suggestions sway the expert cannot be told yet ({needed})."
    if abs(without - shown) <= ALIKE * max(without, shown):
        return "Suggestions do not seem to sway the expert: as many boxes are answered with them as without."
    less = "fewer" if shown < without else "more"
    return f"Suggestions may sway the expert, who answers {less} boxes with them: look at some answers again."


def _answered(question: Question, answers: Mapping[str, Answer]) -> bool:
    return question.task.key in answers and not answers[question.task.key].skipped
