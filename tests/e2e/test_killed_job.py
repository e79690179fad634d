"""A job that is killed again and again ends with the labels of one that was not, and asks nothing twice."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import SMALL, Program, at
from killing_proxy import KillingProxy

from emclean import services
from emclean.loop.publishing import registered_name
from emclean.stores import label_view
from emclean.stores.label_studio import LabelStudioClient, read_token, server
from emclean.stores.registry import MlflowRegistry
from emclean.stores.tables import Tables
from emclean.stores.tracking import KEY_TAG

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

KILLS = 10
INLINE = ("compute=inline", "serve=false")
LONGER = "detector={steps: 4, final_steps: 60, eval_every: 10, batch: 2, crop: 128, patience: 0}"
"""Training that takes seconds, so that a kill can fall into it."""
TWO_ROUNDS = (
    "budget={rounds: 2, seed_images: 4, share_of_full: 0.3, random_share: 0.0}",
    "cost={open_s: 0.5, draw_s: 60.0}",
    "strategy=gain",
)
"""With drawing so dear, whole images and reviews of some instances are asked about."""

IMPORT = "/import"
PULL = "was_cancelled"
"""Of the job and its simulated expert only the job, and only in a pull, asks whether a task was skipped."""

APPEND, RANDOM = "append", "random"

MOMENTS = [
    (IMPORT, "before"),
    (IMPORT, "after"),
    (PULL, "before"),
    (PULL, "after"),
    APPEND,
    RANDOM,
    RANDOM,
    APPEND,
    RANDOM,
    RANDOM,
]
"""Around calls, right after the append of the answers' label events, or at random, in this order: those
that wait for a call come first, so that no random moment can lie behind them."""


def final_labels(workspace: Path, run: str) -> dict[str, list[list[float]]]:
    """The boxes of every image as they stand at the end, in a fixed order."""
    table = Tables(str(workspace / "tables")).read("labels", where={"run": run})
    current = label_view.current(table, ("deposit",))
    return {image: sorted(labels.boxes.tolist()) for image, labels in current.items()}


def tasks_of(label_studio: server.ServerProcess, run: str) -> list[dict]:
    """Every task of the run's project, with its annotations."""
    with LabelStudioClient(label_studio.url, read_token(label_studio.credentials)) as client:
        listed = client.get("/api/projects", title=f"emclean {run}", page_size=100)["results"]
        (project,) = [p for p in listed if p["title"] == f"emclean {run}"]
        return list(client.tasks(int(project["id"]), [], ("id", "data", "annotations")))


class Killer:
    """Starts the job of one run, kills it at a chosen moment, and remembers where it was then."""

    def __init__(self, program: Program, run: str, proxy: KillingProxy) -> None:
        self.program, self.run, self.proxy = program, run, proxy
        self.rng = np.random.default_rng(0)
        self.seconds = iter(self.rng.uniform(0.5, 3, MOMENTS.count(RANDOM)).tolist())
        self.at: list[tuple[str, str]] = []

    def where(self) -> tuple[str, int]:
        """The phase and round that the saved state names."""
        file = self.program.workspace / "runs" / self.run / "state.json"
        if not file.exists():
            return "INGEST", 0
        state = json.loads(file.read_text(encoding="utf-8"))
        return str(state["phase"]), int(state["round"])

    def label_commits(self) -> int:
        """How many commits the table of label events has."""
        return len(list((self.program.workspace / "tables" / "labels" / "_delta_log").glob("*.json")))

    def kill(self, moment: tuple[str, str] | str) -> None:
        """Start the job and kill it at the moment; fails when it ended before."""
        said = self.program.log.stat().st_size if self.program.log.exists() else 0
        job = self.program.start(f"run={self.run}")
        try:
            if isinstance(moment, tuple):
                wanted = ("PUSH", 0) if moment[0] == IMPORT else None
                self.proxy.arm(*moment, job.pid, lambda: self._is_at(wanted))
            elif moment == APPEND:
                self._kill_after_append(job)
            else:
                # from its first word on: what comes before is the loading of libraries
                wait_for(lambda: self.program.log.stat().st_size > said, job)
                time.sleep(next(self.seconds))
                job.kill()
            code = job.wait(timeout=300)
        finally:
            job.kill()
            job.wait()
        assert code == -9, f"the job ended with {code} before kill {len(self.at) + 1}: {self.program.said()}"
        self.at.append((str(moment), "{} {}".format(*self.where())))

    def _is_at(self, wanted: tuple[str, int] | None) -> bool:
        return self.where() == wanted if wanted else self.where()[0] == "WAIT"

    def _kill_after_append(self, job: "subprocess.Popen[bytes]") -> None:
        """Kill right after answers became label events."""
        before = self._next_append(job)
        time.sleep(float(self.rng.uniform(0, 0.02)))
        job.kill()
        job.wait()
        assert self.label_commits() > before, f"no answer was taken in: {self.program.said()}"

    def _next_append(self, job: "subprocess.Popen[bytes]") -> int:
        """Wait for the next answers that are taken in; how many commits there were before."""
        while True:
            wait_for(lambda: self.where()[0] == "WAIT", job)
            before, place = self.label_commits(), self.where()
            wait_for(lambda n=before, then=place: self.label_commits() > n or self.where() != then, job)
            if self.where() == place or job.poll() is not None:  # else there was nothing left to take in
                return before


def wait_for(there: Callable[[], bool], job: "subprocess.Popen[bytes]") -> None:
    """Wait until something is there, as long as the job lives."""
    while not there() and job.poll() is None:
        time.sleep(0.005)


def test_ten_kills_change_nothing(tmp_path, label_studio):
    assert len(MOMENTS) == KILLS
    calm = Program(tmp_path / "calm", *SMALL, *INLINE, *at(label_studio), *TWO_ROUNDS)
    assert calm.run("run=calm") == 0, calm.said()

    proxy = KillingProxy(label_studio.url)
    torn = Program(tmp_path / "torn", *SMALL, *INLINE, *at(label_studio, proxy.url), *TWO_ROUNDS)
    killer = Killer(torn, "torn", proxy)
    try:
        for moment in MOMENTS:
            killer.kill(moment)
        assert torn.run("run=torn") == 0, torn.said()
    finally:
        proxy.close()
        print(*killer.at, *proxy.kills, sep="\n")

    assert len(killer.at) == KILLS
    assert [kill.split(" ")[:2] for kill in proxy.kills] == [
        ["before", "POST"],
        ["after", "POST"],
        ["before", "GET"],
        ["after", "GET"],
    ]
    assert final_labels(torn.workspace, "torn") == final_labels(calm.workspace, "calm")
    tasks = tasks_of(label_studio, "torn")
    keys = Counter(task["data"]["key"] for task in tasks)
    assert max(keys.values()) == 1, f"doubled: {keys.most_common(3)}"
    assert [len(task["annotations"]) for task in tasks] == [1] * len(tasks)
    assert {task["data"]["kind"] for task in tasks} == {"image", "review"}
    taken = Tables(str(torn.workspace / "tables")).read("answers").to_pylist()
    assert {row["annotation_id"] for row in taken} == {t["annotations"][0]["id"] for t in tasks}
    assert len(taken) == len(tasks)
    rounds = [row["cost"]["images"] for row in torn.summary("torn")["rounds"]]
    assert len(rounds) == 3
    assert rounds == [row["cost"]["images"] for row in calm.summary("calm")["rounds"]]


DYING = "tests/e2e/dying_job.py"


@pytest.fixture
def spine(tmp_path):
    """A workspace whose Ray and MLflow run, as ``emclean up`` starts them."""
    workspace = tmp_path / "spine"
    try:
        services.up(workspace, ["ray", "mlflow"])
        yield workspace
    finally:
        services.down(workspace)


class Place:
    """Where the models of the run ``spine`` are: in the registry, and served."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.url = services.addresses(workspace).mlflow
        self.registry = MlflowRegistry(self.url, registered_name(("deposit",)))

    def registered(self) -> dict[str, str]:
        """Run and round of every registered version."""
        from mlflow import MlflowClient

        found = MlflowClient(tracking_uri=self.url).search_model_versions(f"name = '{self.registry.name}'")
        return {v.version: v.tags[KEY_TAG].rpartition("/")[0] for v in found}

    def served(self) -> str:
        """The version that answers."""
        state = json.loads((self.workspace / "runs" / "spine" / "state.json").read_text(encoding="utf-8"))
        answer = httpx.get(f"{state['facts']['served']['url']}/v1/model", timeout=60)
        return str(answer.raise_for_status().json()["model_version"])

    def now(self) -> tuple[list[str], str | None, str]:
        """What is registered (run and round), what is champion, and what is served."""
        versions = self.registered()
        return sorted(versions.values()), versions.get(self.registry.champion()), versions[self.served()]


def test_kills_in_training_and_publishing_on_ray_with_mlflow_and_serve(spine, label_studio):
    settings = (*SMALL[:2], *SMALL[3:], *at(label_studio), LONGER, "services.serve_port=0")
    job = Program(spine, *settings, "run=spine")
    place = Place(spine)
    assert job.run(*INLINE, script=(DYING, "measured")) == -9, job.said()
    first, second = "spine/0", "spine/1"
    left = {
        "training": ([first], first, first),
        "registered": ([first, second], first, first),
        "promoted": ([first, second], second, first),
    }
    for moment, found in left.items():
        assert job.run(script=(DYING, moment)) == -9, job.said()
        assert place.now() == found, moment
    assert job.run() == 0, job.said()
    assert place.now() == ([first, second], second, second)
    summary = job.summary("spine")
    versions = {name: version for version, name in place.registered().items()}
    assert [row["model_version"] for row in summary["rounds"]] == [versions[first], versions[second]]
    assert summary["served"]["model_version"] == place.registry.champion() == versions[second]
    assert place.registry.alias("previous") == versions[first]
    tasks = tasks_of(label_studio, "spine")
    assert (
        len({task["data"]["key"] for task in tasks}) == len(tasks) == summary["rounds"][-1]["cost"]["images"]
    )
    assert [len(task["annotations"]) for task in tasks] == [1] * len(tasks)

    # the trainings are kept by content: what this run repeats is every question, answer and correction
    calm = Program(spine, *settings, *INLINE, "run=undisturbed")
    assert calm.run() == 0, calm.said()
    assert final_labels(spine, "spine") == final_labels(spine, "undisturbed")


def answer_as_a_person(program: Program, label_studio: server.ServerProcess, run: str) -> str:
    """Let the simulated expert answer all open tasks of a run; return what it printed."""
    (truth,) = (program.workspace / "simulated").glob("*/pool.truth.json")
    line = [sys.executable, "-m", "emclean.simulated_expert", "--until-idle"]
    line += ["--url", label_studio.url, "--token-file", str(label_studio.credentials)]
    line += ["--truth", str(truth), "--project", f"emclean {run}"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_job_that_does_not_wait_goes_on_when_people_have_answered(tmp_path, label_studio):
    people = ("expert.kind=label_studio", "wait=exit", "run=people")
    job = Program(tmp_path / "people", *SMALL, *INLINE, *at(label_studio), *people)
    assert job.run() == 0, job.said()
    first = job.summary("people")
    assert (first["status"], first["rounds"]) == ("waiting", [])
    asked = tasks_of(label_studio, "people")
    assert [task["annotations"] for task in asked] == [[]] * 4

    assert job.run() == 0, job.said()  # nobody has answered yet: nothing is asked twice
    assert job.summary("people")["status"] == "waiting"
    assert len(tasks_of(label_studio, "people")) == 4

    statuses = []
    while "finished" not in statuses and len(statuses) < 3:  # one round after the seed
        assert "0 tasks answered" not in answer_as_a_person(job, label_studio, "people")
        assert job.run() == 0, job.said()
        statuses.append(job.summary("people")["status"])
    assert statuses == ["waiting", "finished"]
    tasks = tasks_of(label_studio, "people")
    assert [len(task["annotations"]) for task in tasks] == [1] * len(tasks)
    last = job.summary("people")
    assert [row["round"] for row in last["rounds"]] == [0, 1]
    assert last["rounds"][-1]["cost"]["images"] == len(tasks)
    lead = Tables(str(job.workspace / "tables")).read("answers")["lead_time_s"].to_pylist()
    assert last["rounds"][-1]["cost"]["minutes"] == pytest.approx(sum(lead) / 60)

    tables = Tables(str(job.workspace / "tables"))
    given = next(row for row in tables.read("answers").to_pylist() if row["boxes"])
    key, image = given["key"], given["image_id"]
    with LabelStudioClient(label_studio.url, read_token(label_studio.credentials)) as client:
        client.patch(f"/api/annotations/{given['annotation_id']}/", {"result": []})
    assert job.run() == 0, job.said()
    assert "1 answer was given or changed since" in job.said()
    assert len(label_view.current(tables.read("labels"), ["deposit"])[image]) == 0
    rows = tables.read("tasks").sort_by("seq").to_pylist()
    revisions = [row["revision"] for row in rows if row["key"] == key and row["state"] == "answered"]
    assert len(revisions) == 2 == len(set(revisions))
