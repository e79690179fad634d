"""Which code made a result."""

import subprocess
from functools import cache
from pathlib import Path

from emclean import __version__


@cache
def code_version() -> str:
    """The package's version and, in a git checkout, its commit: ``0.1.0+abc1234``, edited ``….dirty``."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return __version__
    edited = ".dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{__version__}+{commit}{edited}"


def _git(*arguments: str) -> str:
    """What git says of the folder that this file lies in; empty where it is no checkout of this package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
