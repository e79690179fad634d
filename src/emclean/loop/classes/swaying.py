"""The blind check for classes: do experts who are told the label so far answer as those who are not?"""

from collections.abc import Mapping, Sequence

from emclean.loop.asking import Question
from emclean.loop.job import Job
from emclean.report.text import plural
from emclean.science.classes.accuracy import wilson
from emclean.types import Answer

ENOUGH = 5
"""Pictures of each kind from which the comparison says anything."""


def comparison(
    questions: Sequence[Question], answers: Mapping[str, Answer], crowd: Mapping[str, int], job: Job
) -> str:
    """How many of the pictures drawn at random got another class, told and untold; empty without both.

    Only random pictures are alike in both kinds: a strategy picks those whose label looks wrong.
    """
    parts, shares, ends = [], [], []
    for blind, words in ((True, "without"), (False, "with")):
        mine = [q.task for q in questions if q.at_random and q.task.blind == blind and _named(q, answers)]
        if not mine:
            return ""
        names = job.data.categories
        other = [answers[t.key].boxes[0].category != names[crowd[t.image.image_id]] for t in mine]
        shares.append(sum(other) / len(other))
        ends.append(wilson(shares[-1], len(other)))
        parts.append(f"{words} being told it in {100 * shares[-1]:.0f} % of {plural(len(mine), 'picture')}")
        if len(mine) < ENOUGH:
            ends[-1] = (0.0, 1.0)
    said = f"Of pictures drawn at random the expert named another class than the label's {', '.join(parts)}."
    if ends[0][0] > ends[1][1]:
        return f"Telling the label may sway the expert: look at some answers again. {said}"
    return f"It does not show that telling the label sways the expert. {said}"


def _named(question: Question, answers: Mapping[str, Answer]) -> bool:
    answer = answers.get(question.task.key)
    return answer is not None and not answer.skipped and bool(answer.boxes)
