"""What every method of learning from noisy labels promises; a new one is tested by being in ``METHODS``."""

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emclean.models.classifiers.engine import predict, read
from emclean.models.classifiers.spec import ClassResult, ClassTask
from emclean.models.hooks import LocalHooks, Progress, Save
from emclean.models.robust import METHODS, fit, steps
from emclean.science.classes import ConfidentJudge
from tests.class_toys import RECIPE, SPEC, Toy, task, toy

pytestmark = pytest.mark.slow  # each test trains or searches pictures

JUDGE = ConfidentJudge()


class Killed(Exception):
    """In place of a signal."""


class Watched(LocalHooks):
    """Keeps a checkpoint at every report, remembers the reports, and may stop at one of them."""

    def __init__(self, out: str, last: int = 0) -> None:
        super().__init__(out, 1, device="cpu")
        self.seen: list[Progress] = []
        self.last = last

    def report(self, progress: Progress, save: Save | None) -> None:
        super().report(progress, save)
        self.seen.append(progress)
        if len(self.seen) == self.last:
            raise Killed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return toy(tmp_path_factory.mktemp("strokes"))


@pytest.fixture(params=list(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(data: Toy, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each method's undisturbed fit, made once."""
    known: dict[str, tuple[ClassTask, ClassResult, Watched]] = {}

    def of(method: str) -> tuple[ClassTask, ClassResult, Watched]:
        if method not in known:
            job = task(data, tmp_path_factory.mktemp(method))
            hooks = Watched(job.out)
            known[method] = job, fit(method, job, hooks, JUDGE), hooks
        return known[method]

    return of


def states(result: ClassResult) -> list[dict[str, torch.Tensor]]:
    return read(result.weights)[1]


def assert_same_weights(first: ClassResult, second: ClassResult) -> None:
    for ours, theirs in zip(states(first), states(second), strict=True):
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name


def test_it_learns_despite_wrong_labels(method: str, data: Toy, whole: Any) -> None:
    _, result, _ = whole(method)
    rows = data.both(110, data.n)
    found = predict(result.weights, np.load(data.path, mmap_mode="r"), rows)
    assert found.shape == (len(rows), 2)
    assert np.allclose(found.sum(1), 1)
    assert (found.argmax(1) == data.truth(rows)).mean() > 0.8


def test_the_same_seed_gives_the_same_weights(method: str, whole: Any, tmp_path: Path) -> None:
    job, result, _ = whole(method)
    before = torch.manual_seed(99).get_state()  # whatever else was drawn makes no difference, nor is changed
    again = fit(method, replace(job, out=str(tmp_path)), Watched(str(tmp_path)), JUDGE)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(result, again)
    assert again.history == result.history
    assert np.array_equal(again.kept, result.kept) if result.kept is not None else again.kept is None


def test_a_killed_run_goes_on_to_the_same_weights(method: str, whole: Any, tmp_path: Path) -> None:
    job, result, watched = whole(method)
    job = replace(job, out=str(tmp_path))
    reports = len(watched.seen)
    for stop in (1, reports // 2):  # once at the first report, then again later on
        with pytest.raises(Killed):
            fit(method, job, Watched(job.out, stop), JUDGE)
    hooks = Watched(job.out)
    again = fit(method, job, hooks, JUDGE)
    assert len(hooks.seen) == reports - 1 - reports // 2
    assert_same_weights(result, again)
    assert again.history == result.history
    assert not (tmp_path / "state.pt").exists()


def test_the_input_stays_as_it_was(method: str, data: Toy, whole: Any, tmp_path: Path) -> None:
    job, _, _ = whole(method)
    fresh = task(data, tmp_path)
    for field in fields(job):
        ours, theirs = getattr(job, field.name), getattr(fresh, field.name)
        if isinstance(ours, np.ndarray):
            assert np.array_equal(ours, theirs), field.name
    again = toy(tmp_path)
    content = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (data.path, again.path)]
    assert content[0] == content[1]


def test_a_finished_fit_is_not_made_again(method: str, whole: Any) -> None:
    job, result, _ = whole(method)
    hooks = Watched(job.out)
    again = fit(method, job, hooks, JUDGE)
    assert not hooks.seen
    assert again.history == result.history
    assert again.noise_rate == result.noise_rate


def test_its_steps_are_what_progress_counts(method: str, whole: Any) -> None:
    _, result, watched = whole(method)
    cross_fitted = result.probabilities is not None
    assert watched.seen[-1].total == steps(method, RECIPE, cross_fitted=cross_fitted)
    assert watched.seen[-1].step <= watched.seen[-1].total
    assert all(a.step < b.step for a, b in zip(watched.seen, watched.seen[1:], strict=False))


def test_what_it_says_of_labels_is_of_every_row(method: str, whole: Any) -> None:
    job, result, _ = whole(method)
    if result.kept is not None:
        assert result.kept.shape == (len(job.rows),)
        assert ((result.kept >= 0) & (result.kept <= 1)).all()
        assert result.kept.max() > result.kept.min()
    if METHODS[method].needs_rate:
        assert 0 <= result.noise_rate < 0.5


def test_a_mirrored_picture_gets_the_mirrored_answer(method: str, data: Toy, tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=6, eval_every=6)
    job = task(data, tmp_path, spec=replace(SPEC, mirror=True), recipe=recipe, noise_rate=0.2)
    result = fit(method, job, Watched(job.out), JUDGE)
    pictures = np.load(data.path)[:20]
    straight, mirrored = (predict(result.weights, some) for some in (pictures, pictures[:, :, ::-1]))
    assert np.abs(straight - 0.5).max() > 1e-4
    assert np.allclose(straight, 1 - mirrored, atol=1e-6)
