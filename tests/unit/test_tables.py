"""Delta tables: exactly once by key, atomic under crashes and rivals, documented."""

import multiprocessing
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from emclean.errors import DataError
from emclean.stores import schemas
from emclean.stores import tables as tables_module
from emclean.stores.tables import Tables

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def aside(item: str, run: str = "r1", reason: str = "unreadable") -> dict[str, object]:
    return {"run": run, "kind": "image", "item": item, "reason": reason, "at": AT}


def event(name: str, run: str = "r1", **others: object) -> dict[str, object]:
    fixed = {"event_id": name, "image_id": "i", "instance_id": name, "event": "added", "source": "crowd"}
    return {**fixed, "annotator": "", "at": AT, "round": 0, "reason": "", "run": run, **others}


def items(table: pa.Table) -> list[str]:
    return sorted(table["item"].to_pylist())


def test_rows_come_back_in_the_documented_schema(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.append("labels", [event("a", category="deposit", x1=1, y1=2.5, x2=3, y2=4)])
    table = tables.read("labels")
    assert table.schema.equals(schemas.LABELS.schema, check_metadata=True)
    row = table.to_pylist()[0]
    assert (row["x1"], row["y1"], row["category"], row["parent_id"]) == (1.0, 2.5, "deposit", None)
    assert row["at"] == AT


def test_lists_and_structures_come_back(tmp_path: Path) -> None:
    box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0, "category": "deposit", "suggestion_id": "s"}
    answer = {"key": "k", "run": "r", "round": 1, "image_id": "i", "task_id": 1, "annotation_id": 2}
    answer |= {"updated_at": "t", "annotator": "", "skipped": False, "boxes": [box], "at": AT}
    tables = Tables(tmp_path)
    tables.append("answers", [answer, {**answer, "annotation_id": 3, "boxes": []}])
    tables.append("answers", [answer])
    assert sorted(map(len, tables.read("answers")["boxes"].to_pylist())) == [0, 1]
    assert box in [b for boxes in tables.read("answers")["boxes"].to_pylist() for b in boxes]


def test_a_repeated_append_changes_nothing(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    first = tables.append("set_aside", [aside("a"), aside("b"), aside("a")])
    assert items(tables.read("set_aside")) == ["a", "b"]
    assert tables.append("set_aside", [aside("a"), aside("b")]) == first
    assert tables.append("set_aside", [aside("b"), aside("c")]) == first + 1
    assert items(tables.read("set_aside")) == ["a", "b", "c"]


def test_the_first_of_two_rows_with_one_key_counts(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.append("set_aside", [aside("a", reason="one"), aside("a", reason="two")], key=("run", "item"))
    tables.append("set_aside", [aside("a", reason="three")], key=("run", "item"))
    assert tables.read("set_aside")["reason"].to_pylist() == ["one"]


def test_keys_are_apart_between_runs(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.append("set_aside", [aside("a", run="r/1 ü")])
    tables.append("set_aside", [aside("a", run="r2"), aside("a", run="r/1 ü")])
    assert sorted(tables.read("set_aside")["run"].to_pylist()) == ["r/1 ü", "r2"]


def test_seq_goes_on_over_appends_runs_and_compaction(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.append("labels", [event("a"), event("b")])
    tables.append("labels", [event("b"), event("c")])
    tables.compact("labels")
    tables.append("labels", [event("a", run="r2", seq=99)])
    rows = tables.read("labels").sort_by("seq").to_pylist()
    assert [(r["seq"], r["run"], r["event_id"]) for r in rows] == [
        (0, "r1", "a"),
        (1, "r1", "b"),
        (2, "r1", "c"),
        (3, "r2", "a"),
    ]


def test_every_past_version_can_be_read_after_compaction(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    versions = [tables.append("set_aside", [aside(str(i))]) for i in range(3)]
    assert tables.compact("set_aside") > versions[-1]
    counts = [tables.read("set_aside", version=v).num_rows for v in (-1, *versions)]
    assert counts == [0, 1, 2, 3]
    assert tables.read("set_aside").num_rows == 3


def test_many_small_files_of_a_run_are_joined_and_its_past_stays(tmp_path: Path) -> None:
    tables, run = Tables(tmp_path), "r/1 ü"
    tables.append("labels", [event("other", run="r2")])
    versions = [tables.append("labels", [event(str(i), run=run)]) for i in range(6)]
    files = len(list((tmp_path / "labels").rglob("*.parquet")))
    tables.tidy(run, many=6)
    assert tables.version("labels") == versions[-1]  # not too many yet
    tables.tidy(run, many=5)
    tables.tidy(run, many=5)
    assert tables.version("labels") == versions[-1] + 1
    assert len(list((tmp_path / "labels").rglob("*.parquet"))) == files + 1  # what was joined stays
    assert tables.append("labels", [event("3", run=run)]) == versions[-1] + 1
    assert [tables.read("labels", version=v).num_rows for v in versions] == [2, 3, 4, 5, 6, 7]
    assert tables.read("labels").num_rows == 7


def test_a_key_is_found_among_neighbours_and_beyond_the_files_statistics(tmp_path: Path) -> None:
    """Only a range of keys is read back; the files' own statistics hold the start of long texts alone."""
    tables = Tables(tmp_path)
    long = [f"{'x' * 90}{end}" for end in ("a", "m", "z", "\U0010ffff")]
    tables.append("set_aside", [aside(name, reason=name) for name in long])
    version = tables.version("set_aside")
    for some in ([long[0], long[3]], long[1:3], [long[3], long[2]], long[:1]):
        assert tables.append("set_aside", [aside(name, reason=name) for name in some]) == version
    tables.append("set_aside", [aside("w" * 91, reason=long[0]), aside(long[1], reason=long[1])])
    assert tables.read("set_aside").num_rows == 5


def test_columns_and_equality_filters(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.append("labels", [event("a"), event("b", round=1), event("c", run="r2", round=1)])
    found = tables.read("labels", columns=["event_id", "run"], where={"round": 1})
    assert found.schema.names == ["event_id", "run"]
    assert sorted(found["event_id"].to_pylist()) == ["b", "c"]
    assert tables.read("labels", where={"run": "r2", "round": [0, 1]})["event_id"].to_pylist() == ["c"]
    assert tables.read("labels", where={"event_id": set()}).num_rows == 0


def test_a_missing_table_reads_as_an_empty_one(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "none")
    assert tables.version("labels") == -1
    assert tables.read("labels").schema.equals(schemas.LABELS.schema)
    assert tables.append("labels", []) == -1
    assert tables.compact("labels") == -1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{**aside("a"), "colour": 1}], "unknown column.* 'colour'"),
        ([{"run": "r"}], "column 'kind' is missing"),
        ([{**aside("a"), "item": None}], "'item' holds 1 null"),
        ([{**aside("a"), "item": 3}], "wrong type"),
        (pa.table({"run": ["r"], "kind": [[1]]}), "column 'kind'"),
        (pa.table({"odd": [1]}), "unknown column.* 'odd'"),
    ],
)
def test_rows_of_another_shape_are_refused(tmp_path: Path, rows: object, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        Tables(tmp_path).append("set_aside", rows)
    assert "set_aside" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.append("set_aside", [aside("a")])
    with pytest.raises(DataError, match=r"version 9 does not exist.*0 to 1"):
        tables.read("set_aside", version=9)
    with pytest.raises(DataError, match="no table 'label'"):
        tables.read("label")
    with pytest.raises(DataError, match="no column 'colour'"):
        tables.read("set_aside", columns=["colour"])
    with pytest.raises(DataError, match="where 'item'"):
        tables.read("set_aside", where={"item": 3})
    with pytest.raises(DataError):
        tables.read("labels", version=0)


def test_a_foreign_table_of_that_name_is_an_error(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    write_deltalake(str(tmp_path / "set_aside"), pa.table({"run": ["r"], "item": ["a"], "at": ["now"]}))
    with pytest.raises(DataError, match="cannot be used"):
        Tables(tmp_path).read("set_aside")


def test_a_damaged_log_is_an_error_not_an_empty_table(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.append("set_aside", [aside("a")])
    for entry in (tmp_path / "set_aside" / "_delta_log").glob("*.json"):
        entry.write_text("{broken")
    with pytest.raises(DataError, match="set_aside"):
        tables.read("set_aside")


def test_file_uri_and_path_name_the_same_table(tmp_path: Path) -> None:
    by_uri = Tables(f"file://{tmp_path}/")
    by_uri.append("set_aside", [aside("a")])
    assert items(Tables(tmp_path).read("set_aside")) == ["a"]
    assert by_uri.uri("labels") == f"file://{tmp_path}/labels"


def test_an_object_store_gets_its_options_and_errors_hide_them() -> None:
    secret = "S3CRET-VALUE"
    options = {"aws_access_key_id": "user", "aws_secret_access_key": secret, "allow_http": "true"}
    options |= {"endpoint": f"http://127.0.0.1:9/{secret}", "max_retries": "0", "aws_region": "here"}
    tables = Tables("s3://bucket/work", options)
    with pytest.raises(DataError) as caught:
        tables.version("labels")
    assert "s3://bucket/work/labels" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert secret not in str(caught.value) + repr(tables)
    with pytest.raises(DataError, match="nknown scheme"):
        Tables("odd://bucket").read("labels")


def test_tables_survive_pickle(tmp_path: Path) -> None:
    tables = pickle.loads(pickle.dumps(Tables(tmp_path, {"timeout": "5s"})))
    tables.append("set_aside", [aside("a")])
    assert items(tables.read("set_aside")) == ["a"]


def _rival(root: str, start: object, mine: str) -> None:
    start.wait(30)  # type: ignore[attr-defined]
    for i in range(5):
        Tables(root).append("labels", [event(f"shared-{i}"), event(f"{mine}-{i}")])


@pytest.mark.slow
def test_rivals_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """Two processes append at once, from the very creation of the table on."""
    context = multiprocessing.get_context("forkserver")
    start = context.Barrier(2)
    rivals = [context.Process(target=_rival, args=(str(tmp_path), start, name)) for name in "ab"]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(60)
    assert [rival.exitcode for rival in rivals] == [0, 0]
    table = Tables(tmp_path).read("labels")
    names = [f"{who}-{i}" for who in ("a", "b", "shared") for i in range(5)]
    assert sorted(table["event_id"].to_pylist()) == sorted(names)
    assert sorted(table["seq"].to_pylist()) == list(range(15))


WRITER = """
import sys, datetime
from emclean.stores.tables import Tables
tables, at = Tables(sys.argv[1]), datetime.datetime.now(datetime.UTC)
for turn in range(10_000):
    rows = [{"run": "r", "kind": "image", "item": f"{turn}-{i}", "reason": "", "at": at} for i in range(500)]
    tables.append("set_aside", rows)
    print(turn, flush=True)
"""


@pytest.mark.slow
def test_a_writer_killed_in_the_middle_leaves_whole_appends(tmp_path: Path) -> None:
    for pause in (0.0, 0.013, 0.029, 0.041, 0.057):
        root = tmp_path / str(pause)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        reported = 1 + len(writer.stdout.read().splitlines())
        writer.wait()
        count = Tables(root).read("set_aside").num_rows
        assert count % 500 == 0
        assert count >= 500 * reported - 500
        again = [
            {**aside(f"{t}-{i}", run="r", reason="")} for t in range(count // 500 + 1) for i in range(500)
        ]
        Tables(root).append("set_aside", again)
        assert Tables(root).read("set_aside").num_rows == count + 500


def test_every_column_says_what_it_means() -> None:
    for spec in schemas.SPECS.values():
        assert all(field.metadata[b"doc"].endswith(b".") for field in spec.schema), spec.name
        assert not any(spec.schema.field(name).nullable for name in (*spec.key, *spec.partition))


def test_the_document_agrees_with_the_schemas() -> None:
    page = Path(__file__).parents[2] / "docs" / "tables.md"
    assert page.read_text() == schemas.document()


def test_a_table_takes_rows_after_its_columns_were_described_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tables(tmp_path).append("labels", [event("first")])
    spec = schemas.SPECS["labels"]
    told = pa.schema([field.with_metadata({"doc": "said otherwise"}) for field in spec.schema])
    monkeypatch.setattr(tables_module, "SPECS", {**schemas.SPECS, "labels": replace(spec, schema=told)})
    Tables(tmp_path).append("labels", [event("second")])
    assert sorted(Tables(tmp_path).read("labels")["event_id"].to_pylist()) == ["first", "second"]
