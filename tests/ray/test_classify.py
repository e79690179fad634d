"""Classifiers on a real Ray: as in one process, after a killed worker, and errors as what they are."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from class_toys import task, toy

from emclean.distributed import classify
from emclean.errors import ComputeError
from emclean.loop.compute import InlineCompute, RayCompute
from emclean.models.classifiers.fits import ClassFit

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:.*is deprecated.*:DeprecationWarning:ray\.data\.context"),
]


def quiet(done, total):
    """Tell nobody."""


@pytest.fixture
def data(tmp_path):
    return toy(tmp_path)


def fits(data, folder, *seeds, **recipe):
    made = []
    for seed in seeds:
        given = task(data, folder / f"fit-{seed}", seed=seed)
        given = replace(given, recipe=replace(given.recipe, **recipe))
        made.append(ClassFit("elr", given, given.recipe.steps))
    return made


def test_a_cluster_trains_and_predicts_as_one_process_does(cluster, data, tmp_path):
    there, here = RayCompute(tmp_path / "train"), InlineCompute()
    told = []
    on_ray = there.fit_classes(fits(data, tmp_path / "a", 1, 2), lambda done, total: told.append(done))
    alone = here.fit_classes(fits(data, tmp_path / "b", 1, 2), quiet)
    rows = data.both(100, 150)
    for one, other in zip(on_ray, alone, strict=True):
        found, expected = (
            c.predict_classes(r.weights, data.path, rows, quiet) for c, r in ((there, one), (here, other))
        )
        assert found == pytest.approx(expected, abs=1e-4)
    assert told[-1] == 48
    before = [os.stat(result.weights).st_mtime_ns for result in on_ray]
    again = there.fit_classes(fits(data, tmp_path / "a", 1, 2), quiet)
    assert [os.stat(result.weights).st_mtime_ns for result in again] == before


def test_parts_come_back_in_order(cluster, data, tmp_path, monkeypatch):
    monkeypatch.setattr(classify, "CHUNK", 16)
    (result,) = InlineCompute().fit_classes(fits(data, tmp_path, 1), quiet)
    rows = np.random.default_rng(0).permutation(2 * data.n)[:50]
    found = classify.predict(result.weights, data.path, rows, quiet)
    assert found == pytest.approx(
        InlineCompute().predict_classes(result.weights, data.path, rows, quiet), abs=1e-5
    )
    assert classify.predict(result.weights, data.path, rows[:0], quiet).shape == (0, 2)


def test_a_killed_worker_is_replaced_and_its_training_goes_on(cluster, data, tmp_path):
    (fit,) = fits(data, tmp_path, 3, steps=3000, eval_every=50)
    killed = []

    def kill():
        until = time.monotonic() + 120
        while classify.steps_done(fit) < 150 and time.monotonic() < until:
            time.sleep(0.05)
        told = json.loads((tmp_path / "fit-3" / "progress.json").read_text())
        os.kill(told["pid"], signal.SIGKILL)
        killed.append(told)

    thread = threading.Thread(target=kill)
    thread.start()
    (result,) = classify.fit_all([fit], False, quiet)
    thread.join()
    assert killed[0]["step"] >= 150
    assert result.history[-1].step == 3000


def test_what_a_method_refuses_is_told(cluster, data, tmp_path):
    given = task(data, tmp_path / "fit")
    none = np.zeros(0, np.int64)
    broken = ClassFit("two_step", replace(given, trusted_rows=none, trusted_labels=none), 24)
    with pytest.raises(ComputeError, match="begins with trusted labels"):
        classify.fit_all([broken], False, quiet)
