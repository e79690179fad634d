"""A Label Studio that has been started once, for tests that need one but not its first start.

The first start sets up the database, which takes half a minute of work. The tests of ``services`` always make
it, and leave a copy of what it made; the tests of the whole job go on from the copy, where there is one for
the installed version.
"""

import hashlib
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from emclean.stores.label_studio import server

ROOT = Path(__file__).resolve().parents[1]
_DATABASE = "label_studio.sqlite3"


def kept() -> Path:
    """Where the copy for the installed version, and for how it is started, lies."""
    made_by = [ROOT / "constraints-label-studio.txt", Path(server.__file__)]
    version = hashlib.sha256(b"".join(file.read_bytes() for file in made_by)).hexdigest()[:16]
    return ROOT / ".cache" / "tests" / f"label-studio-{version}"


def keep(folder: Path) -> None:
    """Copy the folder of a server that has just been started for the first time and does nothing yet."""
    target = kept()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent))
    shutil.copytree(folder / "data", draft / "data", ignore=shutil.ignore_patterns(f"{_DATABASE}*"))
    with (
        closing(sqlite3.connect(folder / "data" / _DATABASE)) as source,
        closing(sqlite3.connect(draft / "data" / _DATABASE)) as copy,
    ):
        source.backup(copy)
    shutil.copy2(folder / "credentials.json", draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def prepare(folder: Path) -> None:
    """Let a server start in this new folder from the copy, where there is one."""
    if kept().is_dir():
        shutil.copytree(kept(), folder, dirs_exist_ok=True)
