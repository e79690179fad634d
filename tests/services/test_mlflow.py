"""The real MLflow: server, served model without pickle, secrets, and what is said when it is away."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emclean.errors import TrackingError
from emclean.stores import mlflow_server
from emclean.stores.registry import MlflowRegistry
from emclean.stores.tracking import MlflowTracker, connect

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlflow_server.ServerProcess]:
    said: list[str] = []
    started = mlflow_server.start(tmp_path_factory.mktemp("mlflow"), progress=said.append)
    assert said[-1] == f"MLflow: ready at {started.url}"
    yield started
    mlflow_server.stop(started.pid)
    assert not mlflow_server.healthy(started.url)


def dark_spots() -> np.ndarray:
    """A bright noisy field with three dark discs, ``[192, 160]`` uint8."""
    y, x = np.mgrid[:192, :160]
    field = np.random.default_rng(0).normal(170, 8, (192, 160))
    for row, column, radius in ((50, 40, 10), (100, 110, 14), (150, 60, 8)):
        field[(y - row) ** 2 + (x - column) ** 2 < radius**2] -= 110
    return np.clip(field, 0, 255).astype(np.uint8)


LOADED = """
import json, sys, mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
used = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "emclean"]
assert used and all("/code/emclean/" in file for file in used), used  # the model's own, not the installed
picture = np.load(sys.argv[3])
colour = np.full((64, 64, 3), 128, np.uint8)
print(json.dumps([model.predict(picture), model.predict([picture, colour, sys.argv[2]])]))
"""


def test_a_registered_detector_is_served_without_pickle(
    server: mlflow_server.ServerProcess, tmp_path: Path
) -> None:
    from PIL import Image

    from emclean.models import engine
    from emclean.models.spec import SHIPPED

    registry = MlflowRegistry(server.url, "served")
    version = registry.register("served/1", Path(SHIPPED), {"categories": ["deposit"]}, None)
    np.save(tmp_path / "spots.npy", dark_spots())
    Image.new("L", (40, 48), 100).save(tmp_path / "picture.png")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server.url, "OMP_NUM_THREADS": "1"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    command = [sys.executable, "-c", LOADED, registry.uri_of(version), str(tmp_path / "picture.png")]
    command.append(str(tmp_path / "spots.npy"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, three = json.loads(done.stdout.splitlines()[-1])
    assert (len(one), len(three)) == (1, 3)
    own = next(engine.predict(engine.load(SHIPPED), [dark_spots()]))
    assert len(own) > 0
    np.testing.assert_allclose(one[0]["boxes"], own.boxes, atol=1e-3)
    for found in three:
        assert len(found["boxes"]) == len(found["scores"]) == len(found["categories"])
        assert set(found["categories"]) <= {"deposit"}
    root = tmp_path / "copy"
    from mlflow.artifacts import download_artifacts

    folder = download_artifacts(
        artifact_uri=connect(server.url).get_model_version_download_uri("served", version),
        dst_path=str(root),
        tracking_uri=server.url,
    )
    kept = [p for p in Path(folder).rglob("*") if p.is_file()]
    assert not [p for p in kept if p.suffix in (".pkl", ".pickle", ".pt", ".pth", ".pyc")]
    assert [p.name for p in kept if p.suffix == ".safetensors"] == ["weights.safetensors"]
    (requirements,) = [p.read_text().splitlines() for p in kept if p.name == "requirements.txt"]
    names = {line.split("==")[0] for line in requirements}
    assert names >= {"torch", "numpy", "safetensors"}
    assert "emclean" not in names


def test_settings_long_and_secret(server: mlflow_server.ServerProcess, tmp_path: Path) -> None:
    tracker = MlflowTracker(server.url, "settings")
    run = tracker.run("k", "name")
    long = "y" * 9000
    params = {"long": long, "ls.token": "S3CRET-1", "url": "http://me:S3CRET-2@host/", "odd(name)": "1"}
    for _ in range(2):
        tracker.log(run, {"bad": float("nan"), "many %": 1.0}, params)
    client = connect(server.url)
    known = client.get_run(run).data
    assert "bad" not in known.metrics
    assert known.params["odd_name_"] == "1"
    assert len(known.params["long"]) <= 500
    text = Path(client.download_artifacts(run, "config.yaml", str(tmp_path))).read_text()
    assert long in text
    assert "S3CRET" not in text + json.dumps(known.params)
    assert tracker.address(run).startswith(f"{server.url}/#/experiments/")


def test_many_figures_at_once(server: mlflow_server.ServerProcess) -> None:
    tracker = MlflowTracker(server.url, "many")
    run = tracker.run("k", "name")
    tracker.log(run, {f"m{i}": float(i) for i in range(1200)}, {f"p{i}": str(i) for i in range(150)})
    known = connect(server.url).get_run(run).data
    assert (len(known.metrics), len(known.params)) == (1200, 150)


def test_a_server_that_is_away_is_said_soon_and_without_passwords() -> None:
    port = mlflow_server.free_port()
    tracker = MlflowTracker(f"http://me:S3CRET@127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(TrackingError, match="emclean up") as caught:
        tracker.run("k", "name")
    assert time.monotonic() - began < 60
    assert "S3CRET" not in str(caught.value) + repr(tracker)
    assert f"127.0.0.1:{port}" in str(caught.value)


def test_wrong_addresses_are_said_and_strangers_are_not_ended(server: mlflow_server.ServerProcess) -> None:
    with pytest.raises(TrackingError, match="four slashes"):
        MlflowTracker("sqlite:///relative.db")
    with pytest.raises(TrackingError, match="not an MLflow address"):
        MlflowRegistry("/some/folder")
    mlflow_server.stop(os.getpid())  # not ours to end: nothing happens
    mlflow_server.stop(2**22 - 1)
    assert mlflow_server.healthy(server.url)


def test_a_server_is_started_again_on_its_own_database(tmp_path: Path) -> None:
    first = mlflow_server.start(tmp_path)
    run = MlflowTracker(first.url).run("k", "name")
    mlflow_server.stop(first.pid)
    again = mlflow_server.start(tmp_path)
    try:
        assert MlflowTracker(again.url).run("k", "name") == run
    finally:
        mlflow_server.stop(again.pid)
