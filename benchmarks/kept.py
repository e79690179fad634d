"""The figures of finished cells as text in the repository: tables are printed again without running anything.

One file per benchmark in ``docs/measured``, one line of JSON for each cell, ordered by digest, so that what a
run adds reads as added lines. A row's ``digest`` says what the cell was asked to do.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emclean.loop.states import write_atomically

FOLDER = Path(__file__).parents[1] / "docs" / "measured"


def digest_of_facts(asked: object) -> str:
    """A digest of plain values: by what a result is known again that follows from them."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Kept:
    """The lines of one file, by digest."""

    file: Path

    def read(self) -> dict[str, dict[str, Any]]:
        """All that is kept."""
        if not self.file.exists():
            return {}
        rows = (json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines())
        return {row["digest"]: row for row in rows}

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep these as well, in one step; a row whose digest is there already replaces it."""
        known = {**self.read(), **{row["digest"]: row for row in rows}}
        lines = [json.dumps(known[digest], sort_keys=True, separators=(",", ":")) for digest in sorted(known)]
        write_atomically(self.file, "".join(f"{line}\n" for line in lines))
