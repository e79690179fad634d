"""COCO files out, row by row: the labels with their verdicts, and the labels with the safe fixes applied."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from emclean.audit.findings import Finding, sides
from emclean.audit.sources import Case
from emclean.science.correction import Change
from emclean.stores.formats.coco import Key
from emclean.stores.formats.coco_stream import LabelStream
from emclean.types import Labels


class CocoOut:
    """A COCO file being written: everything of the source but its annotations as it stands there.

    ``extra`` names a further list at the top (written to a temporary file until the end).
    """

    def __init__(self, path: Path, source: LabelStream, extra: str = "") -> None:
        self._file: BinaryIO = path.open("wb")
        self._extra = extra
        self._more: BinaryIO = tempfile.TemporaryFile(dir=path.parent)
        self._first, self._first_more = True, True
        self._file.write(b"{")
        for key in source.sections:
            if key not in ("annotations", extra):
                self._file.write(json.dumps(key).encode() + b": " + source.part(key) + b",\n")
        self._file.write(b'"annotations": [')

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Some annotations, in one line."""
        if rows:
            self._file.write((b"\n" if self._first else b",\n") + json.dumps(rows)[1:-1].encode())
            self._first = False

    def more(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Some rows of the further list."""
        if rows:
            self._more.write((b"\n" if self._first_more else b",\n") + json.dumps(rows)[1:-1].encode())
            self._first_more = False

    def close(self) -> None:
        """Finish the file."""
        self._file.write(b"\n]")
        if self._extra:
            self._file.write(b",\n" + json.dumps(self._extra).encode() + b": [")
            self._more.seek(0)
            shutil.copyfileobj(self._more, self._file)
            self._file.write(b"\n]")
        self._file.write(b"}\n")
        self._more.close()
        self._file.close()


def audited(out: CocoOut, case: Case, found: Sequence[Finding], category_ids: Sequence[Key]) -> None:
    """The labels of an image with what was found of each, and the missed objects in the further list."""
    verdict = {finding.label: finding for finding in found if finding.label >= 0}
    rows = enumerate(case.rows)
    out.rows([{**r, "audit": verdict[i].fields(category_ids)} if i in verdict else r for i, r in rows])
    out.more([_proposed(case, finding, category_ids) for finding in found if finding.label < 0])


def _proposed(case: Case, finding: Finding, category_ids: Sequence[Key]) -> dict[str, Any]:
    """The row of an object without a label."""
    return {
        "image_id": case.key,
        "category_id": category_ids[finding.category],
        "bbox": sides(finding.box),
        "score": finding.error,
        "audit": finding.fields(category_ids),
    }


class Corrector:
    """Writes the corrected labels; new rows get numbers above every id of the source."""

    def __init__(self, out: CocoOut, category_ids: Sequence[Key], largest: int) -> None:
        self._out, self._categories, self._id = out, category_ids, largest

    def changed(self, case: Case, changes: Sequence[Change]) -> None:
        """The labels of an image after its automatic corrections."""
        edits: dict[str, dict[str, Any]] = {}
        gone = set()
        for change in changes:
            if change.event == "deleted":
                gone.add(change.label_id)
            elif change.event != "added":
                edits.setdefault(change.label_id, {}).update(self._edit(change))
        rows = []
        for row, label_id in zip(case.rows, case.labels.ids, strict=True):
            if label_id not in gone:
                edit = edits.get(label_id, {})
                kept = {k: v for k, v in row.items() if k != "segmentation"} if "bbox" in edit else row
                rows.append({**kept, **edit})
        for change in changes:
            if change.event == "added":
                parent = {"parent": change.parent} if change.parent else {}
                lineage = {"source": "auto", "reason": change.reason, **parent}
                rows.append(self._new(case, change.box, change.category, lineage))
        self._out.rows(rows)

    def true(self, case: Case, truth: Labels) -> None:
        """The truth of an image in place of its labels."""
        lineage = {"source": "expert", "reason": "from the truth file"}
        pairs = zip(truth.boxes, truth.categories.tolist(), strict=True)
        self._out.rows([self._new(case, box, category, lineage) for box, category in pairs])

    def _edit(self, change: Change) -> dict[str, Any]:
        lineage = {"source": "auto", "reason": change.reason}
        if change.event == "relabelled":
            return {"category_id": self._categories[change.category], **lineage}
        box = sides(change.box)
        return {"bbox": box, "area": round(box[2] * box[3], 2), **lineage}

    def _new(
        self, case: Case, box: Sequence[float], category: int, lineage: Mapping[str, str]
    ) -> dict[str, Any]:
        """A row of its own number."""
        self._id += 1
        around = sides(box)
        return {
            "id": self._id,
            "image_id": case.key,
            "category_id": self._categories[category],
            "bbox": around,
            "area": round(around[2] * around[3], 2),
            "iscrowd": 0,
            **lineage,
        }
