"""A job that is killed again and again ends with the labels of one that was not, and asks nothing twice."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Program, at
from killing_proxy import KillingProxy

from emclean.stores import labels as label_events
from emclean.stores.label_studio import LabelStudioClient, read_token, server
from emclean.stores.tables import Tables

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

KILLS = 10
INLINE = ("compute=inline", "serve=false")


def final_labels(workspace: Path, run: str) -> dict[str, list[list[float]]]:
    """The boxes of every image as they stand at the end, in a fixed order."""
    table = Tables(str(workspace / "tables")).read("labels", where={"run": run})
    current = label_events.current(table, ("deposit",))
    return {image: sorted(labels.boxes.tolist()) for image, labels in current.items()}


def tasks_of(label_studio: server.ServerProcess, run: str) -> list[dict]:
    """Every task of the run's project, with its annotations."""
    with LabelStudioClient(label_studio.url, read_token(label_studio.credentials)) as client:
        listed = client.get("/api/projects", title=f"emclean {run}", page_size=100)["results"]
        (project,) = [p for p in listed if p["title"] == f"emclean {run}"]
        return list(client.tasks(int(project["id"]), [], ("id", "data", "annotations")))


def test_ten_kills_change_nothing(tmp_path, label_studio):
    calm = Program(tmp_path / "calm", *SMALL, *INLINE, *at(label_studio))
    assert calm.run("run=calm") == 0, calm.said()

    proxy = KillingProxy(label_studio.url)
    torn = Program(tmp_path / "torn", *SMALL, *INLINE, *at(label_studio, proxy.url))
    rng = np.random.default_rng(0)
    moments = [
        ("/import", "before"),
        ("/import", "after"),
        ("GET /api/tasks", "before"),
        ("GET /api/tasks", "after"),
    ]
    killed = 0
    try:
        while killed < KILLS:
            job = torn.start("run=torn")
            if killed < len(moments):
                proxy.arm(*moments[killed], job.pid)
            else:
                time.sleep(float(rng.uniform(6, 14)))
                job.kill()
            if job.wait(timeout=300) == 0:
                break
            killed += 1
        assert torn.run("run=torn") == 0, torn.said()
    finally:
        proxy.close()

    assert len(proxy.kills) == len(moments)
    assert killed >= len(moments) + 2, "the job ended before it could be killed often enough"
    assert final_labels(torn.workspace, "torn") == final_labels(calm.workspace, "calm")
    tasks = tasks_of(label_studio, "torn")
    keys = Counter(task["data"]["key"] for task in tasks)
    assert max(keys.values()) == 1, f"doubled: {keys.most_common(3)}"
    assert [len(task["annotations"]) for task in tasks] == [1] * len(tasks)
    taken = Tables(str(torn.workspace / "tables")).read("answers").to_pylist()
    assert {row["annotation_id"] for row in taken} == {t["annotations"][0]["id"] for t in tasks}
    rounds = [row["cost"]["images"] for row in torn.summary("torn")["rounds"]]
    assert rounds == [row["cost"]["images"] for row in calm.summary("calm")["rounds"]]
