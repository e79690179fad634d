"""The whole analysis of micrographs as a program: simulated, in one process, without any service."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "compute=inline",
    "run=a",
    "data.simulated_particles=60",
    "data.simulate={lefts: [0.0, 0.5], images: 2, size: 512}",
    "classifier={steps: 4, batch: 8, size: 32}",
)


def job(tmp_path, *settings):
    """What the program says, and its exit code."""
    line = [sys.executable, str(ROOT / "pipelines" / "analyze_micrographs.py"), *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)


def test_simulated_micrographs_become_a_population_table(tmp_path):
    done = job(tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("summary: ")
    found = json.loads(Path(last.removeprefix("summary: ")).read_text())
    assert found["samples"][0]["true_left"] == 0
    assert found["counts"]["images"] == 4
    assert found["confusion"]["symmetric"]
    folder = tmp_path / "workspace" / "runs" / "a"
    table = pq.read_table(folder / "particles.parquet")
    assert table.num_rows > 20
    with (folder / "population.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    assert "data:image/png" in (folder / "report.html").read_text()
    again = job(tmp_path, *SMALL)
    assert again.returncode == 0, again.stderr
    assert "4 windows: 4 on file, 0 to do" in again.stdout


def test_exit_codes_tell_configuration_from_data(tmp_path):
    wrong = job(tmp_path, "segmentation.blur=2", "classifier.steps=0")
    assert wrong.returncode == 2
    assert "segmentation.blur" in wrong.stderr
    assert "classifier.steps" in wrong.stderr
    (tmp_path / "none").mkdir()
    empty = job(tmp_path, *SMALL, "data.images=none")
    assert empty.returncode == 3
    assert "none" in empty.stderr
