"""The blind check: do experts who see suggestions answer as those who see none?"""

from collections.abc import Mapping, Sequence

from emclean.loop.asking import Question
from emclean.types import Answer, Labels


def comparison(
    questions: Sequence[Question], answers: Mapping[str, Answer], crowd: Mapping[str, Labels]
) -> str:
    """One sentence that compares blind answers with the others, empty while there are none of one kind.

    Compared is the number of boxes answered per crowd box of the same pictures: people who only wave
    suggestions through stay nearer to what is shown than those who look for themselves.
    """
    parts = []
    for blind, words in ((True, "without suggestions"), (False, "with suggestions")):
        whole = [q for q in questions if q.task.kind == "image"]
        mine = [q.task for q in whole if q.task.blind == blind and _answered(q, answers)]
        said = sum(len(answers[task.key].boxes) for task in mine)
        given = sum(len(crowd.get(task.image.image_id, ())) for task in mine)
        if not given:
            return ""
        parts.append(
            f"{said / given:.2f} boxes per crowd box {words} ({len(mine)} picture{'s' * (len(mine) != 1)})"
        )
    return f"The expert's answers hold {parts[0]} and {parts[1]}."


def _answered(question: Question, answers: Mapping[str, Answer]) -> bool:
    return question.task.key in answers and not answers[question.task.key].skipped
