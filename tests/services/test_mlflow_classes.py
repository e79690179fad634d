"""Registered classifiers and analyses on a real MLflow: they load by what they carry, without pickle."""

import json
import os
import subprocess
import sys

import analysis_toys
import numpy as np
import pytest
import torch
from class_toys import SPEC, strokes
from PIL import Image

from emclean.imaging import windows
from emclean.loop.analysis.picture import Analyst, analysed, told
from emclean.models.classifiers import answering, engine
from emclean.models.classifiers.nets import build
from emclean.stores import mlflow_server
from emclean.stores.registry import MlflowRegistry

pytestmark = [pytest.mark.services, pytest.mark.slow]

LOADED = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
used = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "emclean"]
assert used and all("/code/emclean/" in file for file in used), used  # the model's own, not the installed
print(json.dumps(model.predict([sys.argv[2]])))
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """The address of a server."""
    server = mlflow_server.start(tmp_path_factory.mktemp("mlflow"))
    yield server.url
    mlflow_server.stop(server.pid)


def answered(mlflow, registry, version, picture):
    """What a registered model says of a picture, in a process that knows nothing else."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow, "OMP_NUM_THREADS": "1"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    line = [sys.executable, "-c", LOADED, registry.uri_of(version), str(picture)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_registered_classifier_loads_by_what_it_carries(mlflow, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    engine.save(weights, SPEC, [build(SPEC).state_dict()])
    card = {"task": "classes", "categories": ["left", "right"], "sides": [16, 16], "mirror": True}
    Image.fromarray(strokes(1)[0]).save(tmp_path / "p.png")
    registry = MlflowRegistry(mlflow, "classes")
    found = answered(
        mlflow, registry, registry.register("classes/1", weights, card, None), tmp_path / "p.png"
    )
    form = answering.AnswerForm.of(card)
    (expected,) = answering.answer(engine.load(weights), strokes(1)[:1], form)
    assert [found["probabilities"][n] for n in card["categories"]] == pytest.approx(expected, abs=1e-5)
    assert found["category"] == card["categories"][int(np.argmax(expected))]


def test_a_registered_analysis_loads_by_what_it_carries(mlflow, tmp_path):
    weights, card = analysis_toys.analysis(tmp_path)
    (tmp_path / "p.tif").write_bytes(analysis_toys.micrograph())
    registry = MlflowRegistry(mlflow, "analyses")
    version = registry.register("analysis/1", weights, card, None)
    found = answered(mlflow, registry, version, tmp_path / "p.tif")
    analyst = Analyst.load(registry.fetch(version, tmp_path / "fetched"), registry.card(version))
    with windows.opened(str(tmp_path / "p.tif")) as source:
        expected = told(analysed(source, analyst), analyst.way)
    assert found == json.loads(json.dumps(expected))
    assert found["counts"]["particles"] > 5
