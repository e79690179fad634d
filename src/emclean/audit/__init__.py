"""The grading alone: which labels of a COCO file are wrong, judged by a detector's predictions."""

from emclean.audit.run import audit
from emclean.audit.settings import Settings
from emclean.audit.summary import Summary

__all__ = ["Settings", "Summary", "audit"]
