"""What the figures of a run are called, by what is labelled."""

from collections.abc import Mapping
from dataclasses import dataclass

from emclean.types import GRADES


@dataclass(frozen=True)
class Measures:
    """Names of the figures that a :class:`~emclean.report.data.RoundRow` holds.

    ``score`` is the model's (``ap50``), ``quality`` the labels' (``f1``); ``labels`` and ``touched`` are the
    columns of the tables, by field, for the labels' figures and for what the expert's answers did.
    ``estimated`` says of which labels the quality is estimated where there is no truth, ``grades`` which
    grades there are.
    """

    score: str
    quality: str
    labels: Mapping[str, str]
    touched: Mapping[str, str]
    against: str
    pictures: str
    exported: str
    estimated: str
    grades: tuple[str, ...]


MEASURES: Mapping[str, Measures] = {
    "boxes": Measures(
        "AP50",
        "F1",
        {"precision": "precision", "recall": "recall", "f1": "F1"},
        {name: name for name in ("added", "moved", "deleted", "verified")},
        "labels against the truth, IoU 0.5",
        "Crowd: thin orange. Model: dashed blue. Asked: what the expert answered is thick green. "
        "Corrected: the fix is thick green, what was there before dashed orange, crossed out where it was "
        "deleted; the word beside it is the kind of error, left out where boxes are too close for it.",
        "COCO JSON",
        "of the labels that no expert has seen",
        GRADES,
    ),
    "classes": Measures(
        "accuracy",
        "accuracy",
        {"f1": "accuracy"},
        {"added": "untold", "moved": "changed", "verified": "confirmed"},
        "share of right labels",
        "Under each picture: the label that was given, and the class that the expert named or that was put "
        "in its place without asking.",
        "CSV",
        "of the labels by the automatic corrections alone",
        ("clean", "mislabelled"),
    ),
}
"""By the run's ``task``."""
