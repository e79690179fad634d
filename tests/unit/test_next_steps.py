"""How a job ends: it names the served model's address and the command that writes the labels."""

import io
from dataclasses import replace

import pytest
from loop_jobs import small_job

from emclean import cli
from emclean.config import load
from emclean.loop import box_kind, finishing, steps
from emclean.loop.console import Console
from emclean.loop.states import RunState
from emclean.report.data import ReportData
from emclean.report.page import render
from emclean.report.text import next_steps


def test_the_command_names_the_run_and_works_from_any_folder(tmp_path):
    command = finishing.export_command(load(overrides=[f"workspace={tmp_path}/a b"]), "r-1")
    assert command == f"emclean export r-1 --out labels.json --workspace '{tmp_path}/a b'"


def test_the_command_finds_tables_elsewhere(tmp_path):
    command = finishing.export_command(load(overrides=[f"workspace={tmp_path}", "tables=s3://b/t"]), "r")
    given = cli.parser().parse_args(command.split()[1:])
    assert (given.run, given.tables, str(given.workspace)) == ("r", "s3://b/t", str(tmp_path))


def test_the_end_names_the_served_model_where_there_is_one():
    served = {"url": "http://127.0.0.1:8000", "model_version": "3"}
    assert next_steps({"served": served}, "emclean export r").splitlines() == [
        "served model: http://127.0.0.1:8000 (version 3)",
        "cleaned labels as COCO JSON: emclean export r",
    ]
    assert next_steps({"served": None}, "emclean export r") == "cleaned labels as COCO JSON: emclean export r"


def test_the_report_names_the_command():
    page = render(ReportData("r", "finished", export="emclean export r --out <file>"))
    assert "<code>emclean export r --out &lt;file&gt;</code>" in page


def test_a_waiting_report_says_where_and_how_it_goes_on(tmp_path):
    for wait, words in (("poll", "it goes on by itself"), ("exit", "submit it again")):
        job = small_job(tmp_path)
        job = replace(job, settings=job.settings.model_copy(update={"wait": wait}))
        state = RunState("run").knowing(label_project="http://ls/projects/1")
        finishing.write_report(job, state, "waiting")
        page = finishing.report_file(job).read_text()
        assert f"The run waits for experts at http://ls/projects/1; {words}" in page
        assert not (job.folder / "summary.json").exists()


def test_the_job_says_while_it_serves_a_model_and_where(tmp_path):
    said = io.StringIO()
    job = small_job(tmp_path, console=Console(said), swap=lambda version, file, card: "http://served")
    (tmp_path / "w").write_bytes(b"w")
    job.parts.registry.promote(job.parts.registry.register("k", tmp_path / "w", {}, None))
    steps.serve_champion(job, RunState("run"))
    lines = said.getvalue()
    assert lines.index("serving version 1 …") < lines.index("version 1 is served at http://served")


@pytest.mark.parametrize(
    ("ap50", "value", "words"),
    [(None, 0.7, "AP50 ≈0.70 (estimated)"), (0.5, 0.7, "AP50 0.500"), (None, None, "AP50 unknown")],
)
def test_a_round_ends_with_the_measured_figure_or_with_the_estimate(
    tmp_path, monkeypatch, ap50, value, words
):
    said = io.StringIO()
    job = small_job(tmp_path, console=Console(said))
    row = {"round": 0, "labels": {"f1": None}, "ap50": ap50, "cost": {"minutes": 2.0}}
    found = {"ap50": {"value": value}, "labels": {"value": None}}
    monkeypatch.setattr(steps, "round_row", lambda *given: row)
    monkeypatch.setattr(box_kind, "estimate", lambda *given: found)
    steps.evaluate(job, RunState("run").with_model("final-0", weights="w"))
    assert f"round 0: {words}, label F1 unknown, 2.0 expert minutes" in said.getvalue()
