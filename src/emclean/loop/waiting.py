"""What people are told while answers are out: where to answer, how many are in, how many were skipped."""

import json
from dataclasses import asdict, dataclass

from emclean.loop.job import Job
from emclean.loop.states import WAITING, RunState, write_atomically
from emclean.report.text import plural
from emclean.stores import labels as label_events
from emclean.types import Pull


@dataclass(frozen=True)
class Standing:
    """How many of a round's tasks are answered, skipped or gone."""

    asked: int
    answered: int
    skipped: int
    deleted: int

    def words(self) -> str:
        """``3 of 4 answered, 1 skipped``."""
        others = ((self.skipped, "skipped"), (self.deleted, "deleted"))
        return f"{self.answered} of {self.asked} answered" + "".join(
            f", {count} {word}" for count, word in others if count
        )


def standing(keys: set[str], brought: Pull) -> Standing:
    """How the tasks with these keys stand by what the label service said."""
    left = keys.intersection(brought.open)
    newest = label_events.newest(brought.answers)
    ended = {key: newest[key] for key in keys - left if key in newest}
    skipped = sum(answer.skipped for answer in ended.values())
    return Standing(len(keys), len(ended) - skipped, skipped, len(keys) - len(left) - len(ended))


def invitation(job: Job, state: RunState, count: int) -> str:
    """Where the tasks that were just sent are to be answered."""
    if job.settings.expert.kind == "simulated":
        are = "is" if count == 1 else "are"
        return f"{plural(count, 'task')} {are} with the label service, for the simulated expert"
    wait = "waits" if count == 1 else "wait"
    return f"{plural(count, 'task')} {wait} for answers at {state.facts['label_project']}"


def tell(job: Job, state: RunState, now: Standing) -> None:
    """Say how far the answers are, when that changed and now and then; keep it for ``emclean status``."""
    words = "; ".join(filter(None, (now.words(), job.kind.allowance(job, state.round))))
    job.parts.console.patiently(f"tasks: {words}")
    text = json.dumps(
        {"round": state.round, "project": state.facts["label_project"], "words": words, **asdict(now)}
    )
    file = job.folder / WAITING
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        write_atomically(file, text)


def ended(now: Standing) -> str:
    """That the expert has dealt with every task."""
    return f"no task is open any more: {now.words()}"
