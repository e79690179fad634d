"""Several experts about the same pictures: who said what, what they say together, how right each is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emclean.loop.asking import annotations_so_far
from emclean.loop.classes.labels import LABEL, label
from emclean.loop.classes.sets import ClassSet
from emclean.loop.classes.training import Pictures
from emclean.loop.cleaning import standing_labels
from emclean.loop.job import Job
from emclean.report.text import plural
from emclean.science.classes.experts import Weighed, weigh
from emclean.science.classes.votes import ABSENT
from emclean.stores import labels as label_events
from emclean.types import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class Words:
    """The newest word of every expert ``names [E]`` on every picture ``ids [n]``: classes ``said [n,E]``."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    said: Ints

    @cached_property
    def looks(self) -> Ints:
        """How many experts have answered about each picture ``[n]``."""
        return np.asarray((self.said != ABSENT).sum(axis=1), dtype=np.int64)

    @cached_property
    def disputed(self) -> Bools:
        """The pictures ``[n]`` about which experts said different things."""
        low = np.where(self.said == ABSENT, np.iinfo(np.int64).max, self.said).min(axis=1, initial=2**31)
        return np.asarray((self.looks > 1) & (self.said.max(axis=1, initial=ABSENT) > low))

    def who(self, k: int) -> tuple[str, ...]:
        """Those who have answered about the picture at this place."""
        return tuple(name for name, said in zip(self.names, self.said[k], strict=True) if said != ABSENT)

    def told(self, k: int, categories: Sequence[str]) -> str:
        """``anna: left, ben: right``."""
        pairs = zip(self.names, self.said[k], strict=True)
        return ", ".join(f"{name}: {categories[said]}" for name, said in pairs if said != ABSENT)


def words(job: Job, ids: Sequence[str]) -> Words:
    """What each expert said, by every annotation of this run; of one expert the newest counts, no skip."""
    given = [a for a in annotations_so_far(job) if not a.skipped and a.boxes]
    names, place = tuple(sorted({a.annotator for a in given})), {i: k for k, i in enumerate(ids)}
    index = {name: k for k, name in enumerate(job.data.categories)}
    said = np.full((len(ids), len(names)), ABSENT, np.int64)
    for answer in sorted(given, key=lambda a: (label_events.when(a.updated_at), a.annotation_id)):
        at = place.get(label_events.image_of(answer.key))
        if at is not None:
            said[at, names.index(answer.annotator)] = index[answer.boxes[0].category]
    return Words(tuple(ids), names, said)


def together(pool: ClassSet, heard: Words, probabilities: Floats) -> Weighed:
    """What the pool's labellers, the experts (the last ``E``) and ``probabilities [n,K]`` say together."""
    crowd = pool.all_votes()[Pictures(pool).places(heard.ids)]
    return weigh(np.concatenate([crowd, heard.said], axis=1), probabilities)


def agreed(heard: Words, found: Weighed) -> Ints:
    """The class ``[n]`` that is likeliest by all that is known, among those that experts named; -1: none."""
    named = (heard.said[:, :, None] == np.arange(found.chance.shape[1])).any(axis=1)  # [n,K]
    best = np.argmax(np.where(named, found.chance, -1.0), axis=1)
    return np.where(named.any(axis=1), best, ABSENT)


def settle(job: Job, round_: int, pool: ClassSet, heard: Words, probabilities: Floats) -> None:
    """Where experts differ, write what all together say as the label.

    One expert's word, or that of several who agree, is left as it is. What was answered names the event: the
    same answers in the same round are settled once.
    """
    best = agreed(heard, together(pool, heard, probabilities))
    standing, names = standing_labels(job), job.data.categories
    events: list[dict[str, Any]] = []
    for k in np.flatnonzero(heard.disputed).tolist():
        i = heard.ids[k]
        why = f"experts differ ({heard.told(k, names)}): with labellers and model it is {names[best[k]]}"
        after = label(job.data.record(i), int(best[k]))
        rows = label_events.auto_events(
            i, standing[i], after, {LABEL: (why, "")}, categories=names, round_=round_, run=job.run,
            at=job.parts.now(),
        )  # fmt: skip
        cause = hashlib.sha256(why.encode()).hexdigest()[:12]
        events += [row | {"event_id": f"agreed/{round_}/{i}/{cause}"} for row in rows]
    job.parts.tables.append("labels", events)


def facts(heard: Words, found: Weighed) -> dict[str, Any]:
    """The summary's ``experts``: how much they answered, where they differed, and each one's accuracy."""
    accuracy = found.accuracy[len(found.accuracy) - len(heard.names) :]
    given = (heard.said != ABSENT).sum(axis=0)
    each = [
        {"name": name, "answers": int(n), "accuracy": float(right)}
        for name, n, right in zip(heard.names, given, accuracy, strict=True)
    ]
    return {
        "answers": int(given.sum()),
        "pictures": int((heard.looks > 0).sum()),
        "looked_twice": int((heard.looks > 1).sum()),
        "disputed": int(heard.disputed.sum()),
        "each": each,
    }


def notes(found: Mapping[str, Any]) -> list[str]:
    """The same for the report."""
    differ = found["disputed"]
    who = ", ".join(
        f"{e['name'] or 'unnamed'} {e['accuracy']:.2f} ({plural(e['answers'], 'answer')})"
        for e in found["each"]
    )
    decided = " There the label is what experts, labellers and model say together." if differ else ""
    return [
        f"{plural(len(found['each']), 'expert')} gave {plural(found['answers'], 'answer')} about "
        f"{plural(found['pictures'], 'picture')}; {found['looked_twice']} of these were seen by more than "
        f"one, who differed on {differ}.{decided}",
        f"How often each expert is right, estimated from labellers, the other experts and the model: {who}.",
    ]
