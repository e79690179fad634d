"""Specifications, recipes and tasks are right once they exist, and tasks are known by what decides them."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe, ClassTask
from tests.class_toys import task, toy


@pytest.fixture
def job(tmp_path: Path) -> ClassTask:
    return task(toy(tmp_path, 120), tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("family", "vgg"),
        ("n_classes", 1),
        ("size", 60),
        ("channels", 2),
        ("width", 3),
    ],
)
def test_a_specification_names_the_field_at_fault(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected .*, got"):
        ClassifierSpec(**{field: value})


def test_mirrored_answers_need_two_classes() -> None:
    with pytest.raises(ValueError, match="mirror"):
        ClassifierSpec(n_classes=3, mirror=True)


def test_a_specification_survives_json_and_unknown_keys_do_not() -> None:
    spec = ClassifierSpec("basic", 3, 128, 3, width=8)
    assert ClassifierSpec.from_json(spec.to_json()) == spec
    with pytest.raises(ValueError, match="colour"):
        ClassifierSpec.from_json('{"colour": 1}')


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"zoom": (1.3, 0.7)},
        {"ema": 1.0},
        {"trusted_share": 1.0},
        {"optimiser": "lion"},
        {"schedule": "steps"},
        {"keep": "first"},
        {"rotate": -1.0},
    ],
)
def test_a_recipe_names_the_field_at_fault(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))}: expected"):
        ClassRecipe(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": []},
        {"labels": [0, 1]},
        {"pairs": [0]},
        {"validation_labels": [0]},
        {"noise_rate": 1.0},
        {"seed": -1},
        {"out": ""},
        {"probabilities": np.zeros((3, 2))},
        {"groups": [0, 1]},
        {"groups": np.arange(160)},  # a picture and its mirror image apart
    ],
)
def test_a_task_names_the_field_at_fault(job: ClassTask, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))}: expected"):
        replace(job, **changes)


def test_labels_lie_within_the_classes(job: ClassTask) -> None:
    with pytest.raises(ValueError, match=r"^labels: expected 0 to 1, got \[2\]"):
        replace(job, labels=np.full(len(job.rows), 2))


def test_a_task_pickles(job: ClassTask) -> None:
    again = pickle.loads(pickle.dumps(job))
    assert again.digest() == job.digest()
    assert np.array_equal(again.labels, job.labels)


def test_a_task_is_known_by_its_content_not_by_its_places(job: ClassTask, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy.npy"
    elsewhere.write_bytes(Path(job.pictures).read_bytes())
    assert replace(job, pictures=str(elsewhere), out="other").digest() == job.digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"noise_rate": 0.2},
        {"options": {"q": 0.5}},
        {"spec": ClassifierSpec(size=16, width=8, mirror=True)},
        {"recipe": ClassRecipe(steps=3)},
    ],
)
def test_whatever_decides_the_result_changes_the_digest(job: ClassTask, changes: dict[str, Any]) -> None:
    assert replace(job, **changes).digest() != job.digest()


def test_groups_change_the_digest_where_they_say_more_than_particles(job: ClassTask) -> None:
    assert replace(job, groups=job.pairs + 3).digest() == job.digest()
    assert replace(job, groups=job.pairs // 10).digest() != job.digest()


def test_another_label_or_picture_changes_the_digest(job: ClassTask, tmp_path: Path) -> None:
    labels = job.labels.copy()
    labels[0] = 1 - labels[0]
    assert replace(job, labels=labels).digest() != job.digest()
    pictures = np.load(job.pictures)
    pictures[0, 0, 0] ^= 1
    np.save(tmp_path / "changed.npy", pictures)
    assert replace(job, pictures=str(tmp_path / "changed.npy")).digest() != job.digest()
