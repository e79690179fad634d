"""The loop over classes with neighbours in memory: rounds, labels, corrections, and what is written down."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from class_runs import ERROR, N, SeeingCompute, assert_alike, config, dying_in, made, write
from PIL import Image

from emclean.errors import DataError
from emclean.loop import asking, controller, finishing
from emclean.loop.classes import selecting
from emclean.loop.classes.labels import answered, classes_of, held, trusted
from emclean.loop.classes.training import Pictures
from emclean.loop.cleaning import standing_labels
from emclean.loop.export import export_run
from emclean.report.text import rounds_table

pytestmark = pytest.mark.slow  # whole runs of the loop


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run that went to its end, and its summary."""
    folder = tmp_path_factory.mktemp("classes")
    write(folder)
    write(folder / "test")
    for i in range(N):  # the same draw would give the same pictures, which are left out of the pool
        file = folder / "test" / "images" / f"{i:02d}.png"
        Image.fromarray(255 - np.asarray(Image.open(file))[:, ::-1]).save(file)
    job = made(folder, config(folder))
    outcome = controller.run(job)
    return job, json.loads(outcome.summary.read_text())


def test_labels_get_better_and_the_summary_has_accuracies_in_place_of_ap50(ended):
    _, summary = ended
    assert summary["status"] == "finished"
    assert summary["crowd_labels"]["accuracy"] == pytest.approx(1 - ERROR)
    assert [r["round"] for r in summary["rounds"]] == [0, 1]
    last = summary["rounds"][-1]
    assert last["labels"]["accuracy"] > 0.9
    assert last["ap50"] is None
    assert last["labels"]["f1"] is None
    assert last["accuracy_low"] <= last["accuracy"] <= last["accuracy_high"]
    assert summary["final"]["accuracy"] == last["accuracy"]
    assert summary["final"]["percent_of_ceiling"] == pytest.approx(100)
    assert {*summary["floor"], *summary["ceiling"]} == {"ap50", "accuracy"}
    assert summary["floor"]["accuracy"] is not None
    assert last["model_version"] == "2"


def test_a_class_costs_a_look_and_a_key_whatever_was_told(ended):
    _, summary = ended
    cost = summary["rounds"][-1]["cost"]
    assert cost["minutes"] == pytest.approx(cost["images"] * 7 / 60)
    assert cost["share_of_full"] <= 0.4
    boxes = cost["boxes"]
    assert boxes["added"] > 0  # blind
    assert boxes["moved"] > 0
    assert boxes["added"] + boxes["moved"] + boxes["verified"] == cost["images"]


def test_the_expert_is_asked_once_about_each_particle(ended):
    job, _ = ended
    asked = [q.task.image.image_id for q in asking.questions_until(job, 1)]
    assert len(asked) == len(set(asked)) < N
    assert set(asked) <= set(job.data.ids())
    assert not any(i.endswith("'") for i in asked)
    assert len(job.data.ids()) == N


def test_answers_are_taken_and_only_the_unanswered_are_corrected(ended):
    job, _ = ended
    truth, standing, known = classes_of(job.data.truth), classes_of(standing_labels(job)), answered(job)
    assert all(truth[i] == standing[i] == k for i, k in known.items())
    events = job.parts.tables.read("labels").to_pylist()
    auto = {e["image_id"] for e in events if e["source"] == "auto"}
    assert auto
    assert {e["event"] for e in events if e["source"] == "auto"} == {"relabelled"}
    whole = {(e["x1"], e["y1"], e["x2"], e["y2"]) for e in events if e["instance_id"] == "class"}
    assert whole == {(0.0, 0.0, 16.0, 16.0)}


def test_what_is_held_back_is_never_trained_on(ended):
    job, _ = ended
    kept = set(held(job, 1))
    assert kept
    assert kept.isdisjoint(trusted(job, 1))
    places, _ = Pictures(job.kind.pool).labelled(held(job, 1))
    rows = set(job.kind.pool.rows[places].tolist())
    (final,) = [f for f in job.parts.compute.fits if f.task.seed == job.seed("final")][1:2]
    task = final.task
    assert rows.isdisjoint({*task.rows.tolist(), *task.validation_rows.tolist(), *task.trusted_rows.tolist()})
    card = job.parts.registry.card("2")
    assert kept.isdisjoint(card["trained_on"])
    assert (card["task"], card["sides"], card["mirror"]) == ("classes", [16, 16], True)


def test_mirror_images_are_trained_on_with_the_other_class(ended):
    job, _ = ended
    task = job.parts.compute.fits[0].task
    label = dict(zip(task.rows.tolist(), task.labels.tolist(), strict=True))
    assert all(label[row + N] == 1 - k for row, k in label.items() if row < N)
    fold = set(job.parts.compute.fits[1].task.pairs.tolist())
    assert fold.isdisjoint(task.pairs.tolist())


def test_tables_report_and_terminal_name_what_classes_have(ended):
    job, summary = ended
    tables = job.parts.tables
    assert tables.read("predictions").num_rows == 2 * N
    grades = set(tables.read("verdicts")["grade"].to_pylist())
    assert grades == {"clean", "mislabelled"}
    lines = rounds_table(summary).splitlines()
    assert "label accuracy  accuracy" in lines[0]
    assert "AP50" not in "".join(lines)
    page = re.sub(r"base64,[^\"]*", "", finishing.report_file(job).read_text())  # pictures may spell anything
    assert "<img" in page
    assert "AP50" not in page
    assert "IoU" not in page
    assert "being told it" in page


def test_the_same_run_again_takes_nothing_new(ended):
    job, _ = ended
    before = {n: job.parts.tables.version(n) for n in ("labels", "tasks", "answers", "verdicts")}
    fits = len(job.parts.compute.fits)
    assert controller.run(job).status == "finished"
    assert {n: job.parts.tables.version(n) for n in before} == before
    assert len(job.parts.compute.fits) == fits


def test_a_run_that_died_goes_on_with_the_same_questions_and_labels(tmp_path, ended):
    write(tmp_path)
    given = [s for s in ("data.test.images=", "data.test.labels=")]
    settings = config(tmp_path, *(f"{s}null" for s in given), "baselines=false")
    straight, broken = (made(tmp_path / name, settings) for name in ("a", "b"))
    controller.run(straight)
    broken = dying_in(broken, controller.STEPS, lambda job: replace(job, memory={}))
    assert_alike(straight, broken, 2)


@pytest.mark.parametrize("strategy", ["random", "uncertainty", "activelab"])
def test_every_strategy_comes_to_an_end(tmp_path, strategy):
    write(tmp_path)
    settings = config(
        tmp_path, f"strategy={strategy}", "data.test.images=null", "data.test.labels=null", "baselines=false"
    )
    job = made(tmp_path, settings)
    rounds = controller.run(job).state.rounds
    assert len(rounds) == 2
    assert rounds[-1]["labels"]["accuracy"] > 0.75


def test_several_labellers_are_combined_with_the_model(tmp_path):
    write(tmp_path, votes=2)
    settings = config(
        tmp_path, "data.pool.crowd=[v0, v1]", "data.test.images=null", "data.test.labels=null",
        "baselines=false", "budget.rounds=0",
    )  # fmt: skip
    job = made(tmp_path, settings)
    state = controller.run(job).state
    judged = job.kind.judges.judge(job, state, 0)
    truth = np.array([classes_of(job.data.truth)[i] for i in judged.ids])
    given = np.array([classes_of(job.data.pool.labels)[i] for i in judged.ids])
    assert (judged.labels == truth).mean() > (given == truth).mean() > 0.8
    events = job.parts.tables.read("labels").to_pylist()
    assert any("CROWDLAB" in e["reason"] for e in events if e["source"] == "auto")
    assert "votes" in state.facts["digests"]


def test_a_blind_question_does_not_name_the_label(tmp_path):
    write(tmp_path)
    settings = config(tmp_path, "data.test.images=null", "data.test.labels=null", "baselines=false")
    job = made(tmp_path, settings)
    controller.run(job)
    questions = asking.questions_until(job, 1)
    assert {len(q.task.suggestions) for q in questions if q.task.blind} == {0}
    assert {len(q.task.suggestions) for q in questions if not q.task.blind} == {1}
    said = [q.task.suggestions[0] for q in questions if not q.task.blind]
    assert {s.suggestion_id for s in said} == {"class"}
    assert all(0 <= s.score <= 1 for s in said)
    assert selecting.LABEL == "class"


def test_pictures_without_a_known_class_are_set_aside_and_a_tiny_pool_is_refused(tmp_path):
    write(tmp_path)
    rows = (tmp_path / "truth.csv").read_text().splitlines()
    (tmp_path / "truth.csv").write_text("\n".join([*rows[:-2], "59.png,sideways"]))
    settings = config(tmp_path, "data.test.images=null", "data.test.labels=null")
    job = made(tmp_path, settings)
    aside = [item.item for item in job.data.pool.set_aside]
    assert sorted(aside) == ["58.png", "59.png"]
    (tmp_path / "truth.csv").write_text("\n".join(rows[:4]))
    with pytest.raises(DataError, match="3 pictures of the pool can be used"):
        made(tmp_path, settings)


def test_an_expert_who_slips_is_believed(tmp_path):
    write(tmp_path)
    settings = config(
        tmp_path, "expert.miss=1.0", "data.test.images=null", "data.test.labels=null", "baselines=false",
        "budget.rounds=0",
    )  # fmt: skip
    job = made(tmp_path, settings)
    controller.run(job)
    truth = classes_of(job.data.truth)
    assert all(truth[i] == 1 - k for i, k in answered(job).items())


def test_labels_are_exported_as_a_table_with_who_said_them(ended, tmp_path):
    job, summary = ended
    file = export_run(job.parts.tables, "r", tmp_path / "out" / "labels.csv")
    rows = list(csv.DictReader(file.open()))
    assert len(rows) == N
    names = {record.image_id: record.name for record in job.data.pool.records}
    standing = {names[i]: k for i, k in classes_of(standing_labels(job)).items()}
    assert {row["image"]: row["label"] for row in rows} == {
        name: job.data.categories[k] for name, k in standing.items()
    }
    assert {row["source"] for row in rows} == {"crowd", "auto", "expert"}
    assert "labels.csv" in finishing.export_command(job.settings, "r")
    assert summary["task"] == "classes"


def test_labels_that_a_method_cannot_learn_from_are_told_as_such(tmp_path):
    class Refusing(SeeingCompute):
        def fit_classes(self, fits, progress):
            raise ValueError("labels: expected every class at least once, got none of [1]")

    write(tmp_path)
    settings = config(tmp_path, "data.test.images=null", "data.test.labels=null")
    job = made(tmp_path, settings, compute=Refusing())
    with pytest.raises(DataError, match=r"classifier.method elr: .*every class at least once"):
        controller.run(job)
