"""The figures of finished cells as text in the repository: tables are printed again without running anything.

One file per benchmark in ``docs/measured``, one line of JSON for each cell, ordered by key, so that what a
run adds reads as added lines. A key is a digest of what the cell was asked to do.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "measured"


def key_of(asked: object) -> str:
    """The digest of what a cell was asked to do."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Kept:
    """The lines of one file, by key."""

    file: Path

    def read(self) -> dict[str, dict[str, Any]]:
        """All that is kept."""
        if not self.file.exists():
            return {}
        rows = (json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines())
        return {row["key"]: row for row in rows}

    def add(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep these as well, in one step; a key that is there already is replaced."""
        known = {**self.read(), **{key: {**row, "key": key} for key, row in rows.items()}}
        lines = [json.dumps(known[key], sort_keys=True, separators=(",", ":")) for key in sorted(known)]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_suffix(f".{os.getpid()}")
        draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        draft.replace(self.file)
