"""Every public module can be the first one imported, and without Ray on the machine."""

import json
import subprocess
import sys

import pytest

# For each module in turn: forget all of emclean, import that one first, tell what else came with it.
EACH_FIRST = """
import importlib, json, pathlib, sys
sys.modules["ray"] = None
import emclean

light = tuple("emclean." + name for name in ("science", "types", "boxes", "errors", "seams", "config"))
root = pathlib.Path(emclean.__path__[0])
files = [file.relative_to(root.parent).with_suffix("") for file in sorted(root.rglob("*.py"))]
names = [".".join(file.parts).removesuffix(".__init__") for file in files]
names.sort(key=lambda name: not name.startswith(light))  # light ones first: what comes is theirs
told = {}
for first in [name for name in names if name.startswith(light) or EVERYTHING]:
    for loaded in [n for n in sys.modules if n.partition(".")[0] == "emclean"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(first)
        told[first] = sorted({n.partition(".")[0] for n in sys.modules})
    except Exception as error:
        told[first] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""

PIECES = """
import sys
sys.modules["ray"] = None
from emclean import config
from emclean.loop import policies, states
from emclean.report.data import ReportData
from emclean.report.page import render

settings = config.load(overrides=["compute=inline", "label_service=in_process"])
state = states.RunState(settings.run_name())
assert state.phase is states.Phase.INGEST
assert "inline" in render(ReportData(state.run, state.phase.value, config=settings.model_dump(mode="json")))
print("fine")
"""


def run(script: str) -> str:
    """Run a script in a fresh interpreter and return the last line that it printed."""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def faults(told: dict[str, list[str] | str]) -> dict[str, str]:
    return {name: fault for name, fault in told.items() if isinstance(fault, str)}


@pytest.mark.slow
def test_the_words_and_the_science_import_first_and_need_no_framework():
    told = json.loads(run(EACH_FIRST.replace("EVERYTHING", "False")))
    assert faults(told) == {}
    assert {"emclean.types", "emclean.science.grading"} <= set(told)
    heavy = {"torch", "mlflow", "label_studio_sdk", "deltalake", "matplotlib", "PIL"}
    assert {name: heavy & set(others) for name, others in told.items() if heavy & set(others)} == {}


@pytest.mark.slow
def test_every_module_can_be_imported_first_and_without_ray():
    told = json.loads(run(EACH_FIRST.replace("EVERYTHING", "True")))
    assert faults(told) == {}
    assert {"emclean.loop.controller", "emclean.distributed.session", "emclean.models.engine"} <= set(told)


@pytest.mark.slow
def test_inline_pieces_work_without_ray():
    assert run(PIECES) == "fine"
