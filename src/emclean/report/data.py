"""What a report shows: plain values; ``None`` wherever something could not be known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emclean.report.measures import MEASURES, Measures
from emclean.types import LabelQuality, SetAside


@dataclass(frozen=True)
class Estimated:
    """A figure estimated on ``images`` of the expert's random pictures, with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None
    images: int | None = None

    @staticmethod
    def of(entry: Mapping[str, Any] | None) -> "Estimated | None":
        """Read one figure of ``rounds[].estimate`` in a ``summary.json``; None where it is not known."""
        if not entry or entry.get("value") is None:
            return None
        return Estimated(entry["value"], entry.get("low"), entry.get("high"), entry.get("images"))


@dataclass(frozen=True)
class RoundRow:
    """One round. Cost columns count everything spent up to its end; shares and rates are fractions 0-1.

    By grade, ``grades`` counts the judged instances, ``corrected`` those corrected without asking, and
    ``asked`` those in the images that the expert was asked about up to its end. ``images`` were answered,
    ``skipped`` tasks were not; ``answers`` counts every expert's where classes are labelled. The estimates
    need no truth: ``ap50_estimate`` is the model's, ``f1_estimate`` that of the labels which no expert has
    seen. Where classes are labelled, ``ap50`` holds the model's accuracy and ``f1`` the labels'
    (:mod:`emclean.report.measures`).
    """

    round: int
    images: int | None = None
    added: int | None = None
    moved: int | None = None
    deleted: int | None = None
    verified: int | None = None
    minutes: float | None = None
    share_of_full: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    ap50: float | None = None
    ap50_low: float | None = None
    ap50_high: float | None = None
    model_version: str | None = None
    promoted: bool | None = None
    grades: Mapping[str, int] = field(default_factory=dict)
    corrected: Mapping[str, int] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    skipped: int | None = None
    answers: int | None = None
    ap50_estimate: Estimated | None = None
    f1_estimate: Estimated | None = None

    @staticmethod
    def of(row: Mapping[str, Any], **more: Any) -> "RoundRow":
        """Read one entry of ``rounds`` in a run's ``summary.json``; ``more`` adds or replaces fields."""
        cost, labels = row.get("cost") or {}, row.get("labels") or {}
        estimate = row.get("estimate") or {}
        fields: dict[str, Any] = {
            "round": row["round"],
            **{name: cost.get(name) for name in ("images", "minutes", "share_of_full")},
            **{
                name: (cost.get("boxes") or {}).get(name)
                for name in ("added", "moved", "deleted", "verified")
            },
            **{name: labels.get(name) for name in ("precision", "recall")},
            "f1": labels.get("accuracy", labels.get("f1")),
            **{name: row.get(name) for name in ("model_version", "promoted", "skipped", "answers")},
            **{
                f"ap50{end}": row.get(f"accuracy{end}", row.get(f"ap50{end}"))
                for end in ("", "_low", "_high")
            },
            "ap50_estimate": Estimated.of(estimate.get("accuracy", estimate.get("ap50"))),
            "f1_estimate": Estimated.of(estimate.get("labels")),
        }
        return RoundRow(**{**fields, **more})


@dataclass(frozen=True)
class KindRow:
    """One kind of label error: how many there were before and after, and how well the grade finds it.

    ``precision`` and ``recall`` compare the grade with the ledger of what was planted, where there is one.
    """

    kind: str
    before: int | None = None
    after: int | None = None
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class GradeRow:
    """One grade: how often it was given, the threshold of its correction, and what that correction is worth.

    ``precision`` is measured on ``checked`` instances that the expert answered; ``threshold`` is None where
    the wanted precision cannot be reached, so that nothing is corrected without being asked. ``corrected``
    and ``asked`` are as in :class:`RoundRow`; ``right`` of the corrected ones are right by a truth file.
    """

    grade: str
    count: int | None = None
    threshold: float | None = None
    precision: float | None = None
    checked: int | None = None
    corrected: int | None = None
    asked: int | None = None
    right: int | None = None


@dataclass(frozen=True)
class Figure:
    """A picture with its words; ``dark`` is the same picture for a dark page, where it differs."""

    title: str
    png: bytes
    caption: str = ""
    dark: bytes | None = None


@dataclass(frozen=True)
class StageTime:
    """Seconds that one stage took, in one round or over all."""

    stage: str
    seconds: float
    round: int | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything that the page of one run shows.

    ``floor`` and ``ceiling`` are AP50 (or accuracy) after training on all crowd labels and on full expert
    labels; ``services`` maps names to addresses; ``lineage`` maps what the run was made from to a digest or
    version;
    ``export`` is the command that writes the labels to a file.
    """

    name: str
    status: str
    task: str = "boxes"
    started: str | None = None
    finished: str | None = None
    rounds: Sequence[RoundRow] = ()
    floor: float | None = None
    ceiling: float | None = None
    percent_of_ceiling: float | None = None
    before: LabelQuality | None = None
    after: LabelQuality | None = None
    kinds: Sequence[KindRow] = ()
    grades: Sequence[GradeRow] = ()
    overlays: Sequence[Figure] = ()
    figures: Sequence[Figure] = ()
    stages: Sequence[StageTime] = ()
    set_aside: Sequence[SetAside] = ()
    services: Mapping[str, str | None] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    export: str = ""

    @property
    def measures(self) -> Measures:
        """What the figures are called."""
        return MEASURES[self.task]

    @property
    def last(self) -> RoundRow | None:
        """The final round, never the best one."""
        return self.rounds[-1] if self.rounds else None
