"""``emclean remove``: a run goes with its rows, an expert's answers only where that is said."""

import fcntl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from emclean.cli import main
from emclean.stores.tables import Tables

AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Two runs with rows and folders; experts have answered for the second."""
    tables = Tables(tmp_path / "tables")
    for run in ("it's one", "two"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        tables.append(
            "set_aside", [{"run": run, "kind": "image", "item": "a", "reason": "unreadable", "at": AT}]
        )
    answer = {"key": "k", "run": "two", "round": 1, "image_id": "i", "task_id": 1, "annotation_id": 2}
    answer |= {"updated_at": "t", "annotator": "", "skipped": False, "boxes": [], "at": AT}
    tables.append("answers", [answer])
    return tables


def remove(tmp_path: Path, *words: str) -> int:
    return main(["remove", *words, "--workspace", str(tmp_path)])


def runs(tables: Tables, version: int | None = None) -> list[str]:
    return sorted(tables.read("set_aside", version)["run"].to_pylist())


def test_a_run_goes_with_its_rows_and_the_others_stay(tmp_path: Path, tables: Tables) -> None:
    before = tables.version("set_aside")
    assert remove(tmp_path, "it's one") == 0
    assert not (tmp_path / "runs" / "it's one").exists()
    assert runs(tables) == ["two"]
    assert runs(tables, before) == ["it's one", "two"]
    assert remove(tmp_path, "it's one") == 2


def test_answers_go_only_where_that_is_said(
    tmp_path: Path, tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    assert remove(tmp_path, "two") == 3
    assert "answered 1 of its questions" in capsys.readouterr().err
    assert runs(tables) == ["it's one", "two"]
    assert remove(tmp_path, "two", "--with-answers") == 0
    assert runs(tables) == ["it's one"]
    assert tables.read("answers").num_rows == 0


def test_a_run_that_a_job_works_on_is_left_alone(tmp_path: Path, tables: Tables) -> None:
    with (tmp_path / "runs" / "it's one" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove(tmp_path, "it's one") == 4
    assert runs(tables) == ["it's one", "two"]
