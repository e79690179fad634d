"""One training of a classifier as a plain value that pickles."""

import hashlib
from dataclasses import dataclass, replace

from emclean.models.classifiers.spec import ClassTask


@dataclass(frozen=True, eq=False)
class ClassFit:
    """A ``task``, the ``method`` of ``models.robust`` that learns it, and the most ``steps`` this takes."""

    method: str
    task: ClassTask
    steps: int

    def digest(self) -> str:
        """16 hex digits of everything that decides the outcome."""
        return hashlib.sha256(f"{self.method}\n{self.task.digest()}".encode()).hexdigest()[:16]

    def at(self, out: str) -> "ClassFit":
        """The same with its result in another folder."""
        return replace(self, task=replace(self.task, out=out))
