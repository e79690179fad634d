"""One Ray for all tests of this folder that do not start their own."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from emclean.distributed.session import connect


@pytest.fixture(scope="session")
def cluster():
    """A Ray on this machine with two cores; its workspace is ``home`` of the session."""
    folder = Path(tempfile.mkdtemp(prefix="er", dir="/tmp"))
    with connect("", 2, home=folder / ".emclean") as session:
        yield session
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _one_thread():
    """For tiny pictures threads cost more than they give, and the cluster wants the cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def make_weights(tmp_path):
    """Writes an untrained compact detector; the seed makes another model."""
    import torch

    from emclean.models import weights
    from emclean.models.detectors import build
    from emclean.models.spec import DetectorSpec

    def make(seed: int) -> Path:
        torch.manual_seed(seed)
        spec = DetectorSpec(score=0.0, limit=20)
        path = tmp_path / f"model-{seed}.safetensors"
        weights.save(path, spec, build(spec).state_dict())
        return path

    return make


@pytest.fixture
def pictures(tmp_path):
    """Four small grey pictures as ``.npy`` files."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"picture-{i}.npy" for i in range(4)]
    for path in paths:
        np.save(path, rng.integers(0, 255, (96, 128)).astype(np.uint8))
    return [str(path) for path in paths]
