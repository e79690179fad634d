"""The loop that all methods share, its stages, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emclean.errors import TrainingError
from emclean.models.classifiers import engine
from emclean.models.classifiers.spec import ClassResult, ClassTask
from emclean.models.hooks import LocalHooks, Progress
from emclean.models.robust import METHODS, crossfit, fit, steps
from emclean.models.robust.base import Stage
from emclean.models.robust.cross_entropy import CrossEntropy
from emclean.models.robust.loop import Training, clearly_below, pace
from emclean.models.robust.sampling import Order, Samples, folds
from emclean.science.classes import RateEstimate
from tests.class_toys import RECIPE, SPEC, Toy, task, toy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return toy(tmp_path_factory.mktemp("strokes"), 120)


@pytest.fixture
def job(data: Toy, tmp_path: Path) -> ClassTask:
    return task(data, tmp_path / "out", recipe=replace(RECIPE, steps=8, eval_every=4))


def hooks(job: ClassTask, **changes: Any) -> LocalHooks:
    return LocalHooks(job.out, 1, device="cpu", **changes)


class Knows:
    """A judge with a fixed opinion."""

    def __init__(self, rate: float = 0.25) -> None:
        self.rate = rate
        self.asked: list[tuple[np.ndarray, np.ndarray]] = []

    def __repr__(self) -> str:
        return f"Knows({self.rate})"

    def estimate(self, labels: np.ndarray, probabilities: np.ndarray) -> RateEstimate:
        self.asked.append((labels, probabilities))
        transition = np.array([[1 - self.rate, self.rate], [self.rate, 1 - self.rate]])
        return RateEstimate(transition / 2, self.rate, transition)

    def errors(self, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        self.asked.append((labels, probabilities))
        return np.arange(len(labels)) % 4 == 0


def test_a_turn_has_every_picture_once_and_batches_follow_on() -> None:
    order = Order(np.array([3, 5, 8, 9, 11]), (0, 1))
    drawn = np.concatenate([order.batch(step, 4) for step in range(5)])
    turns = drawn.reshape(4, 5)
    assert (np.sort(turns, axis=1) == [3, 5, 8, 9, 11]).all()
    assert len({tuple(turn) for turn in turns.tolist()}) > 1
    again = Order(np.array([3, 5, 8, 9, 11]), (0, 1))
    assert again.batch(3, 4).tolist() == drawn[12:16].tolist()
    assert again.batch(0, 13).tolist() == drawn[:13].tolist()


def test_no_pictures_make_no_order() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        Order(np.zeros(0, np.int64), (0,))


def of_pairs(pairs: Any, groups: Any = None, seed: int = 0) -> ClassTask:
    n = len(pairs)
    return ClassTask("p", np.arange(n), np.zeros(n, int), pairs, out="o", groups=groups, seed=seed)


def test_folds_are_even_and_keep_particles_whole() -> None:
    pairs = np.tile(np.arange(100) * 7, 2)
    found = folds(of_pairs(pairs), 4)
    assert np.array_equal(found[:100], found[100:])
    assert np.bincount(found).tolist() == [50] * 4
    assert not np.array_equal(found, folds(of_pairs(pairs, seed=1), 4))


def test_folds_keep_groups_whole_however_unlike_their_sizes() -> None:
    groups = np.tile(np.repeat(np.arange(9), [40, 20, 10, 10, 5, 5, 4, 3, 3]), 2)
    for seed in range(5):
        found = folds(of_pairs(np.tile(np.arange(100), 2), groups, seed), 2)
        assert len(np.unique(np.stack([groups, found]), axis=1).T) == 9
        assert 40 <= np.bincount(found).min()


def test_groups_that_say_no_more_than_particles_change_no_fold() -> None:
    pairs = np.tile(np.arange(50), 2)
    alone, one = of_pairs(pairs, pairs + 7), of_pairs(pairs, np.zeros(100, int))
    assert alone.groups is None
    assert np.array_equal(folds(alone, 2), folds(of_pairs(pairs), 2))
    assert np.array_equal(folds(one, 2), folds(of_pairs(pairs), 2))  # one group cannot be two folds


def test_trusted_labels_replace_given_ones_and_new_rows_join(job: ClassTask) -> None:
    first, new = int(job.rows[0]), int(job.trusted_rows[0])
    given = replace(
        job, trusted_rows=np.array([new, first]), trusted_labels=np.array([1, 1 - int(job.labels[0])])
    )
    found = Samples.of(given)
    assert found.rows.tolist() == [*job.rows.tolist(), new]
    assert found.trusted.nonzero()[0].tolist() == [0, len(job.rows)]
    assert found.labels.tolist() == [1 - job.labels[0], *job.labels[1:].tolist(), 1]


@pytest.mark.slow
def test_a_share_of_every_batch_is_of_trusted_labels(job: ClassTask, data: Toy) -> None:
    """Labels that say nothing are borne when a few that are right are shown often enough."""
    lot = np.random.default_rng(0).integers(0, 2, 80)
    job = replace(
        job, labels=np.concatenate([lot, 1 - lot]), validation_labels=data.truth(job.validation_rows)
    )
    recipe = replace(RECIPE, steps=40, eval_every=40)
    met = []
    for share in (0.0, 0.5):
        changed = replace(job, recipe=replace(recipe, trusted_share=share), out=f"{job.out}{share}")
        met.append(fit("cross_entropy", changed, hooks(changed)).history[-1].accuracy)
    assert met[1] > 0.85
    assert met[1] > met[0]


def test_the_learning_rate_falls_by_half_a_cosine() -> None:
    assert pace(0.0, "cosine") == 1.0
    assert pace(0.5, "cosine") == pytest.approx(0.51)
    assert pace(1.0, "cosine") == pytest.approx(0.02)
    assert pace(0.9, "constant") == 1.0


@pytest.mark.slow
def test_a_late_schedule_falls_to_nothing_and_forgets_faster(job: ClassTask) -> None:
    assert [pace(done, "late_linear") for done in (0.0, 0.375, 0.6875, 1.0)] == pytest.approx([1, 1, 0.5, 0])
    betas = []

    class Seen(CrossEntropy):
        def update(self, run: Any, batch: Any) -> float:
            betas.append(run.optimiser.param_groups[0]["betas"][0])
            return super().update(run, batch)

    recipe = replace(RECIPE, steps=8, schedule="late_linear")
    Training([(Seen(), Stage("train", 8))], replace(job, recipe=recipe), hooks(job), None, "d").run()
    assert betas == [0.9] * 3 + [0.1] * 5


def test_adadelta_is_that_of_the_source(job: ClassTask) -> None:
    recipe = replace(RECIPE, optimiser="adadelta", lr=1.0, steps=2)
    run = Training([(CrossEntropy(), Stage("train", 2))], replace(job, recipe=recipe), hooks(job), None, "d")
    run.run()
    assert isinstance(run.optimiser, torch.optim.Adadelta)
    assert {(g["rho"], g["eps"]) for g in run.optimiser.param_groups} == {(0.95, 1e-7)}


def test_two_step_may_be_told_how_many_steps_come_first() -> None:
    options = {"first": 90, "share": 0.25, "second_lr": 1.0}
    stages = METHODS["two_step"].stages(replace(RECIPE, steps=500), options)
    assert [stage.steps for stage in stages] == [90, 410]


@pytest.mark.slow
def test_the_best_weights_stay_or_the_last(job: ClassTask, data: Toy) -> None:
    """With validation labels turned round, weights look worse the more they have learnt."""
    job = replace(job, validation_labels=1 - data.truth(job.validation_rows))
    job = replace(job, recipe=replace(RECIPE, steps=24, eval_every=3))
    results = {}
    for keep in ("best", "last"):
        changed = replace(job, recipe=replace(job.recipe, keep=keep), out=f"{job.out}-{keep}")
        results[keep] = fit("gce", changed, hooks(changed))
    assert results["best"].history == results["last"].history
    met = {keep: accuracy(result, job) for keep, result in results.items()}
    history = [line.accuracy for line in results["best"].history]
    assert met["best"] in history
    assert met["last"] == pytest.approx(history[-1])
    assert met["best"] > met["last"] + 0.1


@pytest.mark.parametrize(("lost", "won", "below"), [(1, 0, False), (2, 0, True), (4, 1, True), (4, 2, False)])
def test_below_is_by_more_than_a_standard_error(lost: int, won: int, below: bool) -> None:
    best = torch.tensor([True] * (lost + 5) + [False] * (won + 5))
    met = best.clone()
    met[:lost], met[-won or len(met) :] = False, True
    assert clearly_below(met, best) == below
    assert not clearly_below(best, best)
    assert not clearly_below(best[:0], best[:0])


def accuracy(result: ClassResult, job: ClassTask) -> float:
    found = engine.predict(result.weights, np.load(job.pictures), job.validation_rows)
    return float((found.argmax(1) == job.validation_labels).mean())


def test_early_stopping_ends_when_nothing_gets_better(job: ClassTask, data: Toy) -> None:
    job = replace(job, validation_labels=1 - data.truth(job.validation_rows))
    job = replace(job, recipe=replace(RECIPE, steps=60, eval_every=2), options={"patience": 3})
    result = fit("early_stopping", job, hooks(job))
    scores = [line.accuracy for line in result.history]
    assert result.history[-1].step < 60
    assert max(scores[-3:]) < max(scores)


def test_averaged_weights_are_others(job: ClassTask) -> None:
    plain = fit("cross_entropy", job, hooks(job))
    smooth = replace(job, recipe=replace(job.recipe, ema=0.9), out=f"{job.out}-ema")
    averaged = fit("cross_entropy", smooth, hooks(smooth))
    ours, theirs = (engine.read(result.weights)[1][0] for result in (plain, averaged))
    assert not torch.equal(ours["net.0.0.weight"], theirs["net.0.0.weight"])
    assert [line.loss for line in plain.history] == [line.loss for line in averaged.history]


def test_training_needs_no_validation_part(job: ClassTask) -> None:
    none = np.zeros(0, np.int64)
    job = replace(job, validation_rows=none, validation_labels=none)
    result = fit("early_stopping", job, hooks(job))
    assert [line.accuracy for line in result.history] == [None, None]


@pytest.mark.slow
def test_sgd_and_the_basic_network_train(job: ClassTask) -> None:
    recipe = replace(job.recipe, optimiser="sgd", schedule="constant", lr=0.02, steps=30)
    job = replace(job, recipe=recipe, spec=replace(SPEC, family="basic"), noise_rate=0.2)
    result = fit("co_teaching", job, hooks(job))
    assert result.history[-1].loss < result.history[0].loss
    assert result.noise_rate == 0.2


@pytest.mark.slow
def test_two_step_begins_with_the_trusted_alone(job: ClassTask, data: Toy) -> None:
    """With every other label wrong, what is kept of the first stage is what the trusted ones taught."""
    job = replace(job, labels=1 - data.truth(job.rows), options={"share": 0.9})
    recipe = replace(RECIPE, steps=40, eval_every=36, keep="last")
    job = replace(job, recipe=recipe, validation_labels=data.truth(job.validation_rows))
    result = fit("two_step", job, hooks(job))
    assert [line.stage for line in result.history] == ["trusted", "noisy"]
    assert result.history[0].accuracy > 0.8


@pytest.mark.slow
def test_crossfit_probabilities_are_out_of_sample(job: ClassTask, data: Toy) -> None:
    """Labels drawn by lot cannot be met by a model that did not see them."""
    lot = np.random.default_rng(0).integers(0, 2, 80)
    job = replace(job, labels=np.concatenate([lot, 1 - lot]), recipe=replace(RECIPE, steps=60))
    result = crossfit(job, hooks(job))
    assert result.probabilities is not None
    assert result.probabilities.shape == (len(job.rows), 2)
    assert result.probabilities.sum(1) == pytest.approx(np.ones(160), abs=1e-6)
    assert (result.probabilities.argmax(1) == job.labels).mean() < 0.65


def test_probabilities_that_are_given_spare_the_crossfit(job: ClassTask) -> None:
    judge, given = Knows(), np.full((len(job.rows), 2), 0.5)
    result = fit("forward", replace(job, probabilities=given), hooks(job), judge)
    assert {line.stage for line in result.history} == {"train"}
    assert result.noise_rate == 0.25
    assert result.probabilities is None
    assert np.array_equal(judge.asked[0][1], given)


def test_trusted_labels_are_neither_judged_nor_left_out(job: ClassTask) -> None:
    judge, given = Knows(), np.full((len(job.rows), 2), 0.5)
    job = replace(job, probabilities=given, trusted_rows=job.rows[:8], trusted_labels=job.labels[:8])
    result = fit("confident", job, hooks(job), judge)
    assert len(judge.asked[0][0]) == len(job.rows) - 8
    assert result.kept is not None
    assert result.kept.tolist() == [1.0] * 8 + [float(i % 4 > 0) for i in range(len(job.rows) - 8)]


def test_a_rate_that_is_given_needs_no_judge(job: ClassTask) -> None:
    job = replace(job, noise_rate=0.1)
    seen: list[Progress] = []
    result = fit("forward", job, hooks(job, watch=seen.append))
    assert result.noise_rate == 0.1
    assert seen[-1].total == steps("forward", job.recipe) == 8
    assert seen[-1].seconds_left == 0


def test_another_judge_is_another_fit(job: ClassTask) -> None:
    given = replace(job, probabilities=np.full((len(job.rows), 2), 0.5))
    rates = [fit("forward", given, hooks(job), Knows(rate)).noise_rate for rate in (0.1, 0.3)]
    assert rates == [0.1, 0.3]


def test_what_a_method_lacks_is_said_before_training(job: ClassTask) -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match=r"^judge: forward needs"):
        fit("forward", job)
    with pytest.raises(ValueError, match=r"^trusted_rows: two_step begins"):
        fit("two_step", replace(job, trusted_rows=none, trusted_labels=none))
    with pytest.raises(ValueError, match=r"^options of gce: expected q, got"):
        fit("gce", replace(job, options={"r": 1}))
    with pytest.raises(ValueError, match=r"^method: expected one of .*, got 'magic'"):
        fit("magic", job)


def test_a_loss_that_is_not_finite_ends_the_training(job: ClassTask) -> None:
    job = replace(job, recipe=replace(job.recipe, lr=1e30, steps=50, optimiser="sgd"))
    with pytest.raises(TrainingError, match=r"cross_entropy, train, step \d+: the loss is no longer finite"):
        fit("cross_entropy", job, hooks(job))


def test_a_checkpoint_of_another_task_is_not_used(job: ClassTask) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        fit("gce", job, hooks(job, watch=stop))
    assert (Path(job.out) / "state.pt").exists()
    other = replace(job, seed=1)
    seen: list[Progress] = []
    fit("gce", other, hooks(other, watch=seen.append))
    assert [progress.step for progress in seen] == [4, 8]


@pytest.mark.slow
def test_dividemix_takes_several_views(job: ClassTask) -> None:
    job = replace(job, recipe=replace(job.recipe, steps=12), options={"views": 2})
    result = fit("dividemix", job, hooks(job))
    assert result.kept is not None
    assert len(set(result.kept.tolist())) > 2


def test_methods_are_called_as_their_files() -> None:
    for name, method in METHODS.items():
        assert type(method).__module__ == f"emclean.models.robust.{name}"
        assert type(method).__doc__
