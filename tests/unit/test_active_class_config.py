"""The configuration of the active loop over classes: which keys there are, and what cannot work together."""

import pytest

from emclean.config import ActiveClasses, ActiveClean, load_active
from emclean.config_active_classes import NO_SHARE
from emclean.errors import ConfigError

OWN = ("data.pool.images=.", "data.pool.labels=.", "expert.truth=.", "mirror=true")


def faults_of(*overrides):
    try:
        load_active(None, ["task=classes", *overrides])
    except ConfigError as error:
        return error.faults
    return ()


def test_the_task_decides_which_keys_there_are():
    assert isinstance(load_active(None, ["task=classes"]), ActiveClasses)
    assert isinstance(load_active(), ActiveClean)
    assert faults_of("detector.steps=5") == ("detector: unknown key of this task; it is for task=boxes",)
    assert faults_of("classifier.stepz=5") == (
        "classifier.stepz: unknown key; did you mean classifier.steps?",
    )


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["data.pool.images=.", "expert.truth=."], "data.pool.labels: needed"),
        (["data.pool.labels=."], "data.pool.images: needed"),
        (["data.pool.images=.", "data.pool.labels=."], "expert.truth: the simulated expert needs"),
        (["expert.truth=."], "expert.truth: simulated particles bring their own"),
        ([*OWN, "data.test.images=."], "data.test.labels: needed"),
        ([*OWN, "data.test.labels=."], "data.test.images: needed"),
        (["data.test.images=.", "data.test.labels=."], "data.test.images: simulated particles bring"),
        ([*OWN, "data.pool.classes=[a]"], "data.pool.classes: give two or more"),
        ([*OWN, "data.pool.classes=[a, b, c]"], "data.pool.classes: with mirror there are two"),
        ([*OWN, "data.pool.classes=[a, a]"], "data.pool.classes: a value stands there twice"),
        (["data.pool.crowd=[v]"], "data.pool.crowd: only with data.pool.images"),
        (["expert.jitter=0.1"], "expert.jitter: for boxes"),
        (["expert.kind=label_studio", "label_service=in_process"], "label_service: people answer"),
        (["classifier.method=two_step"], "classifier.method: 'two_step' needs trusted labels"),
        (["classifier.flip=true"], "classifier.flip: a mirrored picture is of the other class"),
        (["mirror=false", "classifier.mirror_head=true"], "classifier.mirror_head: only where"),
        (["classifier.zoom=[1.2, 0.8]"], "classifier.zoom: the first must not be above"),
        (["expert.misses=[0.1, 0.2]"], "expert.misses: 2 shares for expert.count=1"),
        (["expert.count=2", "expert.misses=[0.1, 2]"], "expert.misses.1: "),
        ([*OWN[:2], "expert.kind=label_studio", "expert.misses=[0.1]"], "expert.misses: for simulated"),
        (["budget.share_of_full=2"], "budget.share_of_full: more than 1 needs several experts"),
        (["budget.labels=1"], "budget.labels: "),
        (["services.mlflow=nowhere"], "services.mlflow: not an address"),
        (["data.pool.images=gone", "data.pool.labels=.", "expert.truth=."], "data.pool.images: "),
    ],
)
def test_combinations_that_cannot_work_are_named(overrides, fault):
    (found,) = faults_of(*overrides)
    assert found.startswith(fault)


def test_labels_alone_are_the_whole_budget_and_with_other_keys_one_of_several():
    def budget(*more):
        return load_active(None, ["task=classes", "budget.labels=50", *more]).budget

    assert budget().share_of_full == NO_SHARE
    assert budget("budget.share_of_full=0.1").share_of_full == 0.1
    assert (budget("budget.minutes=3").minutes, budget("budget.minutes=3").labels) == (3, 50)
    assert load_active(None, ["task=classes"]).budget.share_of_full == 0.2
    kept = load_active(None, ["task=classes", "budget.labels=50"])
    assert ActiveClasses.model_validate(kept.model_dump()) == kept


def test_experts_slip_alike_unless_each_has_a_share():
    alike = load_active(None, ["task=classes", "expert.count=3", "expert.miss=0.1"]).expert
    assert alike.slips == (0.1, 0.1, 0.1)
    own = load_active(None, ["task=classes", "expert.count=2", "expert.misses=[0.1, 0.3]"]).expert
    assert own.slips == (0.1, 0.3)


def test_people_need_no_truth_but_for_a_ceiling():
    people = ["data.pool.images=.", "data.pool.labels=.", "expert.kind=label_studio"]
    assert faults_of(*people) == ()
    (found,) = faults_of(*people, "baselines=true")
    assert found.startswith("baselines: the full-expert ceiling needs expert.truth")


def test_all_labellers_are_named_once_the_first_one_first():
    columns = ["data.pool.label_column=b", "data.pool.crowd=[a, b, c]"]
    assert load_active(None, ["task=classes", *OWN, *columns]).labellers == ("b", "a", "c")


def test_simulated_particles_are_mirrored_and_own_pictures_only_when_told():
    assert load_active(None, ["task=classes"]).is_mirrored
    assert not load_active(None, ["task=classes", *OWN[:3]]).is_mirrored


def test_the_name_of_a_run_depends_on_what_decides_it_alone():
    first = load_active(None, ["task=classes"])
    assert load_active(None, ["task=classes", "compute=inline", "serve=false"]).run_name() == first.run_name()
    assert load_active(None, ["task=classes", "classifier.steps=9"]).run_name() != first.run_name()
    assert load_active(None, ["task=classes", "classifier.steps=9"]).digest() != first.digest()
