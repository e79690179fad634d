"""The demonstration on real servers: Ray, Label Studio, MLflow, Ray Serve, and an expert as a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import label_studio_copies
import pytest
from chromium import Browser, find_chromium, sign_in
from conftest import ROOT

from emclean import services
from emclean.loop.build import EXPERIMENT
from emclean.loop.publishing import registered_name
from emclean.stores.label_studio import LabelStudioClient, read_token
from emclean.stores.registry import MlflowRegistry
from emclean.stores.tracking import connect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

TINY = (
    "data.simulate={pool: 16, test: 8, size: 128, noise: crowd}",
    "budget={rounds: 1, seed_images: 5, share_of_full: 0.6}",
    "detector={steps: 10, final_steps: 20, baseline_steps: 20, eval_every: 10, crop: 128, patience: 0}",
    "baselines=true",
    "services.serve_port=0",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demonstration whose services are still up: its workspace and what it printed."""
    workspace = tmp_path_factory.mktemp("demo")
    label_studio_copies.prepare(services.home(workspace) / "label_studio")
    line = [sys.executable, "pipelines/demo.py", "--keep", "--workspace", str(workspace), *TINY]
    try:
        done = subprocess.run(line, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        yield workspace, done.stdout
    finally:
        services.down(workspace)


def summary(workspace: Path) -> dict:
    return json.loads((workspace / "runs" / "demo-1" / "summary.json").read_text())


def test_it_ends_with_the_table_and_every_address(demo):
    _, said = demo
    assert "round  images" in said
    for name in ("Label Studio", "MLflow", "Served model", "Report"):
        assert f"{name}  " in said, said
    assert "summary: " in said


def test_the_summary_keeps_its_promises(demo):
    found = summary(demo[0])
    assert found["status"] == "finished"
    assert [row["round"] for row in found["rounds"]] == [0, 1]
    for row in found["rounds"]:
        assert set(row["cost"]) == {"images", "boxes", "minutes", "share_of_full"}
        assert row["estimate"]["labels"]["images"] >= 4
        assert 0 <= row["estimate"]["labels"]["value"] <= 1
        assert set(row["cost"]["boxes"]) == {"added", "moved", "deleted", "verified"}
        assert {"precision", "recall", "f1"} <= set(row["labels"])
        assert 0 <= row["ap50"] <= 1
    assert found["final"]["ap50"] == found["rounds"][-1]["ap50"]
    assert found["floor"]["ap50"] is not None
    assert found["ceiling"]["ap50"] > 0
    assert found["rounds"][1]["labels"]["f1"] > found["crowd_labels"]["f1"]


def test_the_champion_is_served(demo):
    workspace, _ = demo
    served = summary(workspace)["served"]
    picture = next((workspace / "simulated").glob("*/test/*.png"))
    answer = httpx.post(f"{served['url']}/v1/detect", files={"file": picture.read_bytes()}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_version"] == served["model_version"]
    model = httpx.get(f"{served['url']}/v1/model", timeout=30).json()
    assert model["categories"] == ["deposit"]


def test_every_round_is_in_mlflow_and_the_champion_in_its_registry(demo):
    workspace, _ = demo
    found = summary(workspace)
    url = services.addresses(workspace).mlflow
    registry = MlflowRegistry(url, registered_name(("deposit",)))
    assert registry.champion() == found["served"]["model_version"]
    assert registry.card(registry.champion())["run"] == "demo-1"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=url)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    names = {run.info.run_name for run in runs}
    assert {"demo-1", "demo-1 round 0", "demo-1 round 1"} <= names
    (child,) = [run for run in runs if run.info.run_name == "demo-1 round 1"]
    assert child.data.metrics["ap50"] == pytest.approx(found["rounds"][1]["ap50"])
    (parent,) = [run for run in runs if run.info.run_name == "demo-1"]
    final = {name: parent.data.metrics[f"final.{name}"] for name in found["final"]}
    assert final == pytest.approx(found["final"])
    assert parent.data.metrics["ceiling.ap50"] == pytest.approx(found["ceiling"]["ap50"])


def test_every_task_in_label_studio_was_asked_once_and_answered(demo):
    workspace, _ = demo
    at = services.addresses(workspace)
    with LabelStudioClient(at.label_studio, read_token(at.label_studio_token_file)) as client:
        (project,) = client.get("/api/projects", page_size=100)["results"]
        tasks = list(client.tasks(int(project["id"]), [], ("id", "data", "annotations")))
    keys = [task["data"]["key"] for task in tasks]
    assert len(keys) == len(set(keys)) == summary(workspace)["rounds"][-1]["cost"]["images"]
    assert all(len(task["annotations"]) == 1 for task in tasks)


@pytest.fixture(scope="module")
def shown(request):
    """A workspace with a finished run and its services up: EMCLEAN_DEMO_WORKSPACE, else the tiny one here."""
    find_chromium()
    named = os.environ.get("EMCLEAN_DEMO_WORKSPACE")
    return Path(named).absolute() if named else request.getfixturevalue("demo")[0]


@pytest.fixture
def browser(request, tmp_path):
    """A browser with a window of the size that the test names."""
    made = Browser(tmp_path / "profile", *request.param)
    yield made
    made.close()


def newest(workspace: Path) -> Path:
    """The folder of the run that finished last."""
    ended = (workspace / "runs").glob("*/summary.json")
    return max(ended, key=lambda file: file.stat().st_mtime).parent


def keep(browser: Browser, name: str) -> None:
    """Renew a picture of the documents, where that is asked for."""
    if os.environ.get("EMCLEAN_UPDATE_DOCS"):
        (ROOT / "docs" / name).write_bytes(browser.screenshot())


def labels_of(task: dict) -> list[str]:
    """What the suggestions of a task say, for instance ``deposit · missed?``."""
    regions = [region for shown in task["predictions"] for region in shown["result"]]
    return [region["value"]["rectanglelabels"][0] for region in regions]


def most_telling(workspace: Path) -> tuple[str, dict]:
    """The task with the most kinds of suggestions, and the address of its page."""
    at, run = services.addresses(workspace), newest(workspace).name
    with LabelStudioClient(at.label_studio, read_token(at.label_studio_token_file)) as client:
        projects = client.get("/api/projects", page_size=100)["results"]
        found = [
            (f"{at.label_studio}/projects/{project['id']}/data?task={task['id']}", task)
            for project in projects
            for task in client.tasks(int(project["id"]), [], ("id", "data", "predictions"))
            if task["data"]["key"].startswith(f"{run}/")
        ]
    return max(found, key=lambda one: (len(set(labels_of(one[1]))), len(labels_of(one[1]))))


STORE = "window.Htx?.annotationStore"


@pytest.mark.parametrize("browser", [(1500, 950)], indirect=True)
def test_a_task_in_a_browser_shows_its_suggestions(shown, browser):
    at, (address, task) = services.addresses(shown), most_telling(shown)
    sign_in(browser, at.label_studio, at.label_studio_token_file)
    browser.open(address)
    browser.wait(f"{STORE}?.predictions?.length && document.querySelector('.konvajs-content')")
    browser.run(f"void {STORE}.selectPrediction({STORE}.predictions[0].id)")
    browser.wait(f"{STORE}.selected.regions?.length == {len(labels_of(task))}")
    browser.run(f"void {STORE}.selected.selectArea({STORE}.selected.regions[0])")
    browser.wait("document.body.innerText.includes('score')")
    text = browser.run("document.body.innerText")
    keep(browser, "labelling-page.png")
    assert task["data"]["name"] in text
    assert all(label in text for label in labels_of(task))


@pytest.mark.parametrize("browser", [(1250, 1700)], indirect=True)
def test_the_report_in_a_browser(shown, browser):
    folder = newest(shown)
    found = json.loads((folder / "summary.json").read_text())
    browser.open((folder / "report.html").as_uri())
    browser.wait("document.readyState === 'complete' && [...document.images].every(i => i.naturalWidth > 0)")
    text = browser.run("document.body.innerText")
    place = json.dumps(str(shown.parents[1]))  # a picture in the documents names no machine's folders
    browser.run(
        f"document.querySelectorAll('code').forEach(c => c.innerText = c.innerText.replace({place}, '…'))"
    )
    keep(browser, "report.png")
    assert folder.name in text
    assert f"{found['final']['ap50']:.3f}" in text
    for row in found["rounds"]:
        assert f"{row['cost']['minutes']:.1f}" in text


COLUMNS = ("ap50", "labels.f1", "cost.minutes", "cost.share_of_full")


def show_columns(browser: Browser, url: str, experiment: str, parent: str) -> None:
    """Let MLflow's page, which keeps its state in the browser, show these columns and a parent's runs."""
    state = {
        "selectedColumns": [f"metrics.`{name}`" for name in COLUMNS],
        "runsExpanded": {parent: True},
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
    }
    kept = {
        f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState': json.dumps(state),
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        "mlflow.assistant.panelOpen_v1": "false",
    }
    browser.open(f"{url}/health")
    browser.wait("location.pathname == '/health' && document.readyState == 'complete'")
    for name, value in kept.items():
        browser.run(f"localStorage.setItem({json.dumps(name)}, {json.dumps(value)})")


@pytest.mark.parametrize("browser", [(1800, 500)], indirect=True)
def test_the_runs_in_a_browser(shown, browser):
    run, url = newest(shown), services.addresses(shown).mlflow
    rounds = json.loads((run / "summary.json").read_text())["rounds"]
    client = connect(url)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (parent,) = client.search_runs([experiment], f"attributes.run_name = '{run.name}'")
    show_columns(browser, url, experiment, parent.info.run_id)
    browser.open(f"{url}/#/experiments/{experiment}/runs")
    browser.wait(f"document.body.innerText.includes('{run.name} round {rounds[-1]['round']}')")
    figure = f"{rounds[-1]['ap50']:.3f}"
    browser.wait(f"document.body.innerText.includes('{figure[:4]}')")
    text = browser.run("document.body.innerText")
    keep(browser, "mlflow-runs.png")
    assert all(name in text for name in COLUMNS)
    assert all(f"{run.name} round {row['round']}" in text for row in rounds)
