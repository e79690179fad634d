"""Training on a real Ray: side by side, on two workers, after killed workers and drivers, broken records."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emclean.distributed import score, train
from emclean.errors import ComputeError, DataError
from emclean.loop.compute import InlineCompute, RayCompute
from emclean.models import engine
from emclean.models.hooks import LocalHooks
from emclean.models.spec import DetectorSpec, FitJob, Schedule
from emclean.types import Labels, Target

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    # Ray Data warns of its own defaults when it is imported.
    pytest.mark.filterwarnings(r"ignore:.*is deprecated.*:DeprecationWarning:ray\.data\.context"),
]

LABELS = Labels(np.array([[10.0, 10, 40, 40]]), np.array([0]))


@pytest.fixture
def make_job(pictures, tmp_path):
    def make(seed: int, steps: int = 20, **schedule) -> FitJob:
        return FitJob(
            DetectorSpec(),
            tuple(pictures),
            (Target.of(LABELS),) * len(pictures),
            tuple(pictures[:1]),
            (LABELS,),
            Schedule(**{"max_steps": steps, "batch": 2, "crop": 64, "eval_every": 10, **schedule}),
            seed,
            str(tmp_path / f"out-{seed}"),
            None,
        )

    return make


def arrays(weights: str) -> list[np.ndarray]:
    return [value.numpy() for value in engine.load(weights).state_dict().values()]


def same(a: str, b: str) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def test_jobs_train_side_by_side_once_and_as_inline(cluster, make_job, tmp_path):
    seen: list[tuple[float, float]] = []
    compute = RayCompute(tmp_path / "train")
    jobs = [make_job(0), make_job(1), make_job(0)]
    results = compute.fit_all(jobs, lambda done, total: seen.append((done, total)))
    assert [result.steps for result in results] == [20, 20, 20]
    assert results[0].weights == results[2].weights
    assert seen[-1] == (40, 40)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not any((tmp_path / "train").glob("fit-*"))  # checkpoints of finished jobs are gone
    inline = InlineCompute().fit_all([replace(jobs[0], out=str(tmp_path / "inline"))], lambda *_: None)
    assert np.allclose(arrays(inline[0].weights)[0], arrays(results[0].weights)[0], atol=1e-5)
    since = time.monotonic()
    assert compute.fit_all(jobs, lambda *_: None) == results
    assert time.monotonic() - since < 2  # the results are known: no trainer starts


def test_two_workers_train_one_job(cluster, make_job, tmp_path):
    (result,) = train.fit_all([make_job(2)], train.Resources(workers=2), storage=tmp_path / "train")
    assert result.steps == 20
    assert result.ap50 is not None


@pytest.mark.gpu
def test_a_worker_trains_on_its_gpu(cluster, make_job, tmp_path):
    compute = RayCompute(tmp_path / "train", use_gpu=True)
    (trained,) = compute.fit_all([make_job(6)], lambda *_: None)
    on_cpu = engine.fit(replace(make_job(6), out=str(tmp_path / "cpu")), LocalHooks(tmp_path, device="cpu"))
    assert trained.steps == 20
    assert trained.history[-1].loss == pytest.approx(on_cpu.history[-1].loss, rel=0.1)
    assert not same(trained.weights, on_cpu.weights)  # bfloat16 is not float32: it was the GPU


def test_more_workers_than_cores_is_said_at_once(cluster, make_job, tmp_path):
    with pytest.raises(ComputeError, match="9 workers are asked for, the cluster offers 2 CPUs"):
        train.fit_all([make_job(3)], train.Resources(workers=9), storage=tmp_path)


def worker_pids() -> list[int]:
    """The processes that run our training function, by Ray's own name for them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"RayTrainWorker" in entry.read_bytes() and os.getsid(int(entry.parent.name)) in sessions():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def sessions() -> set[int]:
    """The process sessions of this test's Ray: those of its children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {os.getsid(int(pid)) for pid in children} | {os.getsid(0)}


def test_a_killed_worker_is_replaced_and_goes_on(cluster, make_job, tmp_path):
    job = make_job(4, steps=400, eval_every=20)
    killed = []

    def kill(done: float, total: float) -> None:
        if not killed and train.steps_done(job) >= 160 and (pids := worker_pids()):
            os.kill(pids[0], signal.SIGKILL)
            killed.append(train.steps_done(job))

    (result,) = train.fit_all([job], storage=tmp_path / "train", progress=kill)
    assert killed
    assert result.steps == 400
    assert [at.step for at in result.history] == list(range(20, 401, 20))


def test_a_record_cut_off_in_the_middle_is_put_aside(cluster, make_job, tmp_path):
    job = make_job(5)
    run = train._Run(job, job.digest(), train.Resources(), tmp_path / "train")
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoint_manager_snapshot.json").write_text('{"checkpoint_results": [')
    (result,) = train.fit_all([job], storage=tmp_path / "train")
    assert result.steps == 20
    assert [path.name for path in (tmp_path / "train").iterdir()] == [f"{run.name}.broken-1"]


def test_an_error_of_ours_arrives_as_it_is(cluster, make_job, tmp_path):
    broken = tmp_path / "init.safetensors"
    broken.write_bytes(b"x")
    job = replace(make_job(6), init=str(broken))
    resources = train.Resources(retries=0)
    with pytest.raises(DataError, match="not usable as detector weights"):
        train.fit_all([job], resources, storage=tmp_path / "train")


DRIVER = """
import pickle, sys
from pathlib import Path
from emclean.distributed import train
from emclean.distributed.session import connect
job = pickle.loads(Path(sys.argv[1]).read_bytes())
with connect(num_cpus=1, home=Path(sys.argv[2]) / ".emclean"):
    result = train.fit_all([job], storage=Path(sys.argv[2]) / "train")[0]
    print("result", result.steps, result.weights)
"""


def test_a_killed_driver_goes_on_where_it_was(make_job, tmp_path):
    import pickle

    job = make_job(7, steps=400, eval_every=20)
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    line = [sys.executable, "-c", DRIVER, str(tmp_path / "job"), str(tmp_path)]
    first = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 90
    while train.steps_done(job) < 160 and time.monotonic() < until:
        time.sleep(0.05)
    first.kill()
    first.wait()
    reached = train.steps_done(job)
    assert 160 <= reached < 400
    steps: list[int] = []
    stop = threading.Event()
    watcher = threading.Thread(target=lambda: _watch(job, steps, stop))
    watcher.start()
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=180)
    stop.set()
    watcher.join()
    assert "result 400" in done.stdout, done.stderr
    assert min(steps) >= 100  # it did not begin anew


def _watch(job: FitJob, steps: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.02):
        if step := train.steps_done(job):
            steps.append(step)


def test_predictions_come_in_order_as_inline(cluster, pictures, make_weights, tmp_path):
    weights = str(make_weights(3))
    many = [*pictures, *reversed(pictures), *pictures]
    seen: list[float] = []
    found = RayCompute(tmp_path).predict_all(
        weights, many, lambda done, total: seen.append(done / total), flips=True
    )
    expected = InlineCompute().predict_all(weights, many, lambda *_: None, flips=True)
    plain = InlineCompute().predict_all(weights, many[:1], lambda *_: None)
    assert plain[0].boxes.tolist() != expected[0].boxes.tolist()
    assert all(np.allclose(a.boxes, b.boxes, atol=1e-3) for a, b in zip(found, expected, strict=True))
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert score.predict_all(weights, []) == []


def test_a_picture_that_is_missing_is_named(cluster, make_weights):
    with pytest.raises(ComputeError, match=r"missing\.npy"):
        score.predict_all(str(make_weights(3)), ["/nowhere/missing.npy"])


def test_records_that_can_be_gone_on_from(tmp_path):
    record = tmp_path / "checkpoint_manager_snapshot.json"
    assert train.sound(tmp_path)
    entry = {"checkpoint_dir_name": "c1"}
    record.write_text(json.dumps({"checkpoint_results": [entry], "latest_checkpoint_result": entry}))
    assert not train.sound(tmp_path)
    (tmp_path / "c1").mkdir()
    assert train.sound(tmp_path)
