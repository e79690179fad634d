"""The demonstration on real servers: Ray, Label Studio, MLflow, Ray Serve, and an expert as a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import ROOT

from emclean import services
from emclean.loop.publishing import registered_name
from emclean.stores.label_studio import LabelStudioClient, read_token
from emclean.stores.registry import MlflowRegistry

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
