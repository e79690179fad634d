"""An analysis on a real Ray: the same as in one process, a killed worker, a killed driver."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from emclean.config import load_analysis
from emclean.distributed import stream
from emclean.errors import DataError
from emclean.imaging import simulate
from emclean.loop.analysis import opening, running
from emclean.loop.console import Console
from emclean.models.classifiers import engine
from emclean.models.classifiers.nets import build
from emclean.models.classifiers.spec import ClassifierSpec
from emclean.stores.fakes import FolderRegistry, InMemoryTracker

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:.*is deprecated.*:DeprecationWarning:ray\.data\.context"),
]

JOB = Path(__file__).resolve().parents[2] / "pipelines" / "analyze_micrographs.py"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Two small micrographs and two untrained classifiers: what they say does not matter here."""
    folder = tmp_path_factory.mktemp("analysis")
    recipe = simulate.Recipe(zoom=0.35, density=24)
    written = simulate.write_micrographs(folder, 2, 640, 3, recipe, (0.3,))
    given = [f"data.images={written.images}", "run=a", "segmentation.window=160"]
    for key, mirror in (("weights", True), ("usable_weights", False)):
        torch.manual_seed(1)
        spec = ClassifierSpec("compact", size=16, mirror=mirror, width=4)
        engine.save(folder / f"{key}.safetensors", spec, [build(spec).state_dict()])
        given.append(f"classifier.{key}={folder / key}.safetensors")
    return (*given, "classifier.usable_from=0.1", f"services.mlflow=sqlite:///{folder}/mlflow.db")


def run(workspace, monkeypatch, *settings):
    """Run an analysis on the Ray that this process has joined; its summary."""
    monkeypatch.setattr(opening, "MlflowTracker", lambda *_: InMemoryTracker())
    monkeypatch.setattr(opening, "MlflowRegistry", lambda *_: FolderRegistry(workspace / "registry"))
    with opening.opened(load_analysis(None, [f"workspace={workspace}", *settings]), Console()) as analysis:
        outcome = running.run(analysis)
    return json.loads(outcome.summary.read_text())


def test_a_stream_does_every_piece_also_where_a_worker_dies(cluster, tmp_path, monkeypatch):
    folder = str(tmp_path)
    monkeypatch.setattr(stream, "AT_A_TIME", 2)

    def work(text):
        import os
        import signal
        from pathlib import Path

        mark = Path(folder) / text
        if text == "dies once" and not mark.exists():
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return text.upper()

    ended = []
    stream.run_all(work, iter(["a", "dies once", "b"]), ended.append, at_once=1)
    assert sorted(ended) == ["A", "B", "DIES ONCE"]
    stream.run_all(work, [], ended.append)
    assert len(ended) == 3


def test_what_a_piece_raises_comes_back_as_it_was(cluster):
    def work(text):
        from emclean.errors import DataError

        raise DataError("broken", text, "Mend it.")

    with pytest.raises(DataError, match=r"here: broken\. Mend it"):
        stream.run_all(work, ["here"], lambda text: None)


def test_the_cluster_finds_and_serves_what_one_process_finds(cluster, settings, tmp_path, monkeypatch):
    over_ray = run(tmp_path / "r", monkeypatch, *settings, "serve=true", "services.serve_port=0")
    inline = run(tmp_path / "i", monkeypatch, *settings, "compute=inline")
    assert over_ray["windows"] == {"all": 32, "done_now": 32}
    assert over_ray["counts"]["particles"] > 10
    assert over_ray["counts"] == inline["counts"]
    assert over_ray["samples"] == inline["samples"]
    served, images = over_ray["served"], Path(settings[0].partition("=")[2])
    assert (served["model_version"], inline["served"]) == ("1", None)
    row = over_ray["images"][0]
    body = (images / row["image"]).read_bytes()
    found = httpx.post(f"{served['url']}/v1/analyze", content=body, timeout=60).json()
    assert found["counts"] == {name: row[name] for name in found["counts"] if name != "right"} | {
        "right": row["particles"] - row["left"]
    }


def finished(workspace):
    """The finished windows, with the moment in which each was written."""
    folder = workspace / "analyses" / "windows"
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("[!.]*")}


def test_an_analysis_whose_driver_is_killed_goes_on_and_repeats_no_window(
    cluster, settings, tmp_path, monkeypatch
):
    line = [sys.executable, str(JOB), f"workspace={tmp_path}", *settings, "concurrent=1"]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(
            line, env={**os.environ, "RAY_ADDRESS": cluster.address}, stdout=log, stderr=log
        )
    until = time.monotonic() + 240
    while len(finished(tmp_path)) < 2 and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    time.sleep(1.0)  # what was at work when the driver died ends by itself
    before = finished(tmp_path)
    assert 2 <= len(before) < 32, (tmp_path / "log").read_text()
    found = run(tmp_path, monkeypatch, *settings)
    assert found["windows"] == {"all": 32, "done_now": 32 - len(before)}
    after = finished(tmp_path)
    repeated = sum(after[name] != moment for name, moment in before.items())
    print(f"{len(before)} of 32 windows were finished at SIGKILL, {repeated} of them were repeated")
    assert repeated == 0
    assert found["counts"] == run(tmp_path / "anew", monkeypatch, *settings, "compute=inline")["counts"]


def test_a_segmenter_trained_under_ray_train_is_the_one_that_one_process_trains(cluster, tmp_path):
    from emclean.distributed import train
    from emclean.models.segmenters import engine as segmenters
    from emclean.models.segmenters import training
    from emclean.models.segmenters.spec import SegmenterSpec, SegmentJob, SegmentSchedule

    pixels, ids = simulate.scene(1, (160, 160), simulate.Recipe(zoom=0.3)).whole()
    paths = [str(tmp_path / name) for name in ("p.npy", "i.npy")]
    np.save(paths[0], pixels)
    np.save(paths[1], ids)
    schedule = SegmentSchedule(max_steps=4, batch=2, crop=32, eval_every=2)
    jobs = [
        SegmentJob((paths[0],), (paths[1],), str(tmp_path / out), SegmenterSpec(8, 1), schedule)
        for out in ("ray", "here")
    ]
    over_ray = train.fit_segmenter(jobs[0], storage=tmp_path / "storage")
    here = training.fit(jobs[1])
    assert np.allclose(over_ray.history, here.history, rtol=1e-4)
    for a, b in zip(*(segmenters.load(one.weights).parameters() for one in (over_ray, here)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    again = train.fit_segmenter(jobs[0], storage=tmp_path / "storage")
    assert again.history == over_ray.history
