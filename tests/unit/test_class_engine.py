"""Weights on disk and predictions from them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from emclean.errors import DataError
from emclean.models.classifiers import engine
from emclean.models.classifiers.nets import build
from emclean.models.classifiers.spec import ClassifierSpec

SPEC = ClassifierSpec(size=16, width=4)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    engine.save(path, SPEC, [build(SPEC).state_dict() for _ in range(2)], {"digest": "abc"})
    return path


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 24, 20), dtype=np.uint8)


def test_a_file_tells_what_it_holds(weights: Path) -> None:
    spec, states, facts = engine.read(weights)
    assert spec == SPEC
    assert len(states) == 2
    assert facts["digest"] == "abc"


def test_several_networks_answer_with_their_mean(weights: Path, pictures: np.ndarray) -> None:
    spec, states, _ = engine.read(weights)
    each = []
    for number, state in enumerate(states):
        alone = weights.with_name(f"{number}.safetensors")
        engine.save(alone, spec, [state])
        each.append(engine.predict(alone, pictures))
    together = engine.predict(weights, pictures)
    assert together.dtype == np.float64
    assert np.abs(each[0] - each[1]).max() > 1e-6
    assert np.allclose(together, np.mean(each, axis=0), atol=1e-6)
    assert np.allclose(together.sum(1), 1, atol=1e-6)


def test_a_batch_answers_as_single_pictures_do(weights: Path, pictures: np.ndarray) -> None:
    whole = engine.predict(weights, pictures)
    assert np.allclose(whole, engine.predict(weights, pictures, batch=1), atol=1e-5)
    assert np.allclose(whole[[7, 3]], engine.predict(weights, pictures, np.array([7, 3])), atol=1e-5)
    assert np.allclose(whole[:2], engine.predict(engine.load(weights), pictures[:2]), atol=1e-5)


def test_no_rows_give_no_answers(weights: Path, pictures: np.ndarray) -> None:
    assert engine.predict(weights, pictures, np.zeros(0, np.int64)).shape == (0, 2)


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_another_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.safetensors.*classifier weights"):
        engine.load(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    engine.save(path, SPEC, [build(ClassifierSpec(size=16, width=8)).state_dict()])
    with pytest.raises(DataError, match="do not fit"):
        engine.load(path)
