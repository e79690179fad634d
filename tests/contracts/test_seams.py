"""One contract over every tracker and registry: the fakes always, the real MLflow where marked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emclean.errors import TrackingError
from emclean.stores import mlflow_server
from emclean.stores.fakes import FolderRegistry, InMemoryTracker
from emclean.stores.registry import MlflowRegistry
from emclean.stores.tracking import MlflowTracker

# MLflow's own, where it uses a database without a server
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

REAL = [pytest.param(kind, marks=[pytest.mark.services, pytest.mark.slow]) for kind in ("database", "server")]


@pytest.fixture(scope="module")
def uri_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Addresses of MLflow: a bare database, or a server that is started once."""
    started: list[mlflow_server.ServerProcess] = []

    def uri(kind: str) -> str:
        if kind == "database":
            return mlflow_server.database(tmp_path_factory.getbasetemp() / "bare")
        if not started:
            started.append(mlflow_server.start(tmp_path_factory.mktemp("server")))
        return started[0].url

    yield uri
    for server in started:
        mlflow_server.stop(server.pid)


@pytest.fixture(params=["memory", *REAL])
def tracker(request: pytest.FixtureRequest, uri_of: Any) -> Any:
    if request.param == "memory":
        return InMemoryTracker()
    return MlflowTracker(uri_of(request.param), request.node.name)


@pytest.fixture(params=["folder", *REAL])
def registry(request: pytest.FixtureRequest, uri_of: Any, tmp_path: Path) -> Any:
    if request.param == "folder":
        return FolderRegistry(tmp_path / "models")
    return MlflowRegistry(uri_of(request.param), request.node.name.replace("[", "-").rstrip("]"))


def history(tracker: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    """Every logged value of a metric with its step."""
    if isinstance(tracker, InMemoryTracker):
        return sorted(tracker.runs[run_id].metrics.get(name, {}).items())
    from emclean.stores.tracking import connect

    return sorted((m.step, m.value) for m in connect(tracker.uri).get_metric_history(run_id, name))


def test_a_run_is_found_again_by_its_key(tracker: Any) -> None:
    first = tracker.run("job/it's", "a job", tags={"digest": "1"})
    child = tracker.run("job/it's/0", "round 0", parent=first)
    assert tracker.run("job/it's", "a job") == first
    assert tracker.run("job/it's/0", "round 0", parent=first) == child != first


def test_logging_again_changes_nothing(tracker: Any, tmp_path: Path) -> None:
    run = tracker.run("job", "job")
    (tmp_path / "plot.txt").write_text("plot")
    for _ in range(2):
        tracker.log(run, {"ap50": 0.5, "f1": 0.25}, {"seed": "7"}, [tmp_path / "plot.txt"], step=1)
    tracker.log(run, {"ap50": 0.75}, {"seed": "8"}, step=2)
    assert history(tracker, run, "ap50") == [(1, 0.5), (2, 0.75)]
    assert history(tracker, run, "f1") == [(1, 0.25)]
    tracker.finish(run, "FINISHED")
    tracker.finish(run, "FINISHED")


def status(tracker: Any, run_id: str) -> str:
    """How a run stands."""
    if isinstance(tracker, InMemoryTracker):
        return tracker.runs[run_id].status
    from emclean.stores.tracking import connect

    return str(connect(tracker.uri).get_run(run_id).info.status)


def test_a_run_closes_with_what_is_open_below_it_and_opens_again(tracker: Any) -> None:
    parent = tracker.run("job", "job")
    ended, still = (tracker.run(f"job/{i}", f"round {i}", parent=parent) for i in range(2))
    other = tracker.run("other", "other")
    tracker.finish(ended, "FINISHED")
    tracker.finish(parent, "KILLED")
    assert [status(tracker, run) for run in (parent, ended, still, other)] == [
        "KILLED",
        "FINISHED",
        "KILLED",
        "RUNNING",
    ]
    assert tracker.resume(parent)
    assert tracker.resume(other)
    assert (status(tracker, parent), status(tracker, still)) == ("RUNNING", "KILLED")
    tracker.finish(parent, "FAILED")
    assert status(tracker, parent) == "FAILED"
    assert not tracker.resume("0" * 32)


def test_unknown_runs_and_files_are_errors(tracker: Any, tmp_path: Path) -> None:
    with pytest.raises(TrackingError):
        tracker.log("0" * 32, {"a": 1.0})
    with pytest.raises(TrackingError, match="there is no file"):
        tracker.log(tracker.run("k", "k"), artifacts=[tmp_path / "none.png"])


def test_a_model_is_registered_once_and_comes_back(registry: Any, tmp_path: Path) -> None:
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(b"weights 1")
    card = {"categories": ["deposit"], "ap50": 0.5, "label_revision": 3}
    version = registry.register("run/1", weights, card, None)
    assert registry.register("run/1", weights, {}, None) == version
    assert registry.card(version) == card
    weights.write_bytes(b"weights 2")
    other = registry.register("run/2", weights, card, None)
    assert other != version
    for _ in range(2):
        assert registry.fetch(version, tmp_path / "got").read_bytes() == b"weights 1"
    assert registry.fetch(other, tmp_path / "got").read_bytes() == b"weights 2"
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["weights.safetensors"]


def test_promotion_moves_both_aliases(registry: Any, tmp_path: Path) -> None:
    assert registry.champion() is None
    weights = tmp_path / "w"
    weights.write_bytes(b"x")
    one, two = (registry.register(f"run/{i}", weights, {}, None) for i in (1, 2))
    for version, previous in ((one, None), (one, None), (two, one), (two, one), (one, two)):
        registry.promote(version)
        assert (registry.champion(), registry.alias("previous")) == (version, previous)


def test_missing_models_are_errors(registry: Any, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no weights at"):
        registry.register("k", tmp_path / "none", {}, None)
    for call in (registry.promote, registry.card, lambda v: registry.fetch(v, tmp_path / "f")):
        with pytest.raises(TrackingError):
            call("77")


def test_the_folder_registry_lists_no_half_version(tmp_path: Path) -> None:
    weights = tmp_path / "w"
    weights.write_bytes(b"x")
    registry = FolderRegistry(tmp_path / "models")
    with pytest.raises(TypeError):
        registry.register("run/1", weights, {"odd": object()}, None)
    assert registry.register("run/2", weights, {}, None) == "1"
    assert json.loads((tmp_path / "models" / "index.json").read_text())["keys"] == {"run/2": "1"}
