"""Label files in and out: COCO JSON and CSV, told apart by content; bad rows are set aside with reasons."""

from collections.abc import Sequence

from emclean.stores.formats import coco, csv
from emclean.stores.formats.rows import ImageEntry, LabelFile, fetch

__all__ = ["ImageEntry", "LabelFile", "coco", "csv", "read_labels"]


def read_labels(path: str, categories: Sequence[str] = ()) -> LabelFile:
    """Read COCO JSON or CSV from a path or URI.

    With ``categories`` the labels get these indices, and those of any other category are set aside.
    """
    text = fetch(path)
    parse = coco.parse if text.lstrip()[:1] in ("{", "[") else csv.parse
    file = parse(text, str(path))
    return file.with_categories(categories) if categories else file
