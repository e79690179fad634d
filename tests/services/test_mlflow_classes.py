"""A registered classifier on a real MLflow: it loads by what it carries, without pickle."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from class_toys import SPEC, strokes
from PIL import Image

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


def test_a_registered_classifier_loads_by_what_it_carries(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    engine.save(weights, SPEC, [build(SPEC).state_dict()])
    card = {"task": "classes", "categories": ["left", "right"], "sides": [16, 16], "mirror": True}
    Image.fromarray(strokes(1)[0]).save(tmp_path / "p.png")
    server = mlflow_server.start(tmp_path / "mlflow")
    try:
        registry = MlflowRegistry(server.url, "classes")
        version = registry.register("classes/1", weights, card, None)
        environment = {**os.environ, "MLFLOW_TRACKING_URI": server.url, "OMP_NUM_THREADS": "1"}
        environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        line = [sys.executable, "-c", LOADED, registry.uri_of(version), str(tmp_path / "p.png")]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    finally:
        mlflow_server.stop(server.pid)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = json.loads(done.stdout.splitlines()[-1])
    form = answering.AnswerForm.of(card)
    (expected,) = answering.answer(engine.load(weights), strokes(1)[:1], form)
    assert [found["probabilities"][n] for n in card["categories"]] == pytest.approx(expected, abs=1e-5)
    assert found["category"] == card["categories"][int(np.argmax(expected))]
