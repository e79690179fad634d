"""What the report of an analysis shows: plain values; ``None`` wherever something could not be known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emclean.types import SetAside


@dataclass(frozen=True)
class Ratio:
    """The left share of a sample or picture (``level``): as counted and corrected, each with its interval."""

    level: str
    sample: str
    image: str
    images: int
    particles: int
    left: int
    naive: float | None = None
    naive_low: float | None = None
    naive_high: float | None = None
    corrected: float | None = None
    low: float | None = None
    high: float | None = None
    design_effect: float | None = None
    true_left: float | None = None
    border: int = 0
    debris: int = 0
    cluster: int = 0
    unusable: int = 0
    without_nm: int = 0
    note: str | None = None

    @staticmethod
    def of(row: Mapping[str, Any]) -> "Ratio":
        """Read one entry of ``samples`` or ``images`` in a ``summary.json``."""
        fields: dict[str, Any] = {name: row.get(name) for name in Ratio.__dataclass_fields__}
        return Ratio(**fields)


@dataclass(frozen=True, eq=False)
class AnalysisData:
    """Everything that the page of an analysis shows.

    ``sizes`` counts the lengths of each sample in whole units, for each unit (nm; px where a picture does not
    tell the side of its pixels); ``overlays`` and ``gallery`` are PNG pictures by name; ``facts`` are figures
    for the head of the page, as text.
    """

    name: str
    ratios: Sequence[Ratio]
    confidence: float = 0.95
    finished: str | None = None
    sizes: Mapping[str, Mapping[str, Mapping[int, int]]] = field(default_factory=dict)
    overlays: Mapping[str, bytes] = field(default_factory=dict)
    gallery: Mapping[str, bytes] = field(default_factory=dict)
    classifier: Mapping[str, Any] = field(default_factory=dict)
    confusion: Mapping[str, Any] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    set_aside: Sequence[SetAside] = ()
    services: Mapping[str, str | None] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> list[Ratio]:
        """The samples, in their order."""
        return [ratio for ratio in self.ratios if ratio.level == "sample"]

    @property
    def images(self) -> list[Ratio]:
        """The pictures, in their order."""
        return [ratio for ratio in self.ratios if ratio.level == "image"]
