"""The configuration of a grid over classes: every fault in one report, names that are the same everywhere."""

from pathlib import Path
from typing import get_args

import pytest

from emclean.config import load_grid
from emclean.config_classes import (
    FAITHFUL,
    NEED_TRUSTED,
    OF_FAITHFUL,
    Classifier,
    ClassMethod,
    ClassNoise,
    Contestant,
    GridClassifier,
)
from emclean.errors import ConfigError
from emclean.loop.grid.classes.courses import course
from emclean.models import robust
from emclean.models.classifiers.spec import FAMILIES
from emclean.models.robust.presets import PRESETS
from pipelines import noise_grid

OWN = ("data.train.images=.", "data.train.labels=.")
CROWD = ("noise=[crowd]", "data.train.crowd=[v]")


def faults_of(*overrides: str) -> tuple[str, ...]:
    try:
        load_grid(None, ["task=classes", *overrides])
    except ConfigError as error:
        return error.faults
    return ()


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["data.train.images=."], "data.train.labels: needed with data.train.images"),
        (["data.train.labels=."], "data.train.images: needed with data.train.labels"),
        ([*OWN, "data.test.images=."], "data.test.labels: needed with data.test.images"),
        (["data.test.images=.", "data.test.labels=."], "data.test.images: simulated particles bring"),
        ([*OWN, "data.train.classes=[a]"], "data.train.classes: give two or more"),
        (
            [*OWN, "mirror=true", "data.train.classes=[a, b, c]"],
            "data.train.classes: with mirror there are two",
        ),
        (["data.train.classes=[a, b]"], "data.train.classes: only with data.train.images"),
        ([*OWN, "noise=[crowd]"], "data.train.crowd: needed with noise 'crowd'"),
        ([*OWN, "data.train.crowd=[v]"], "data.train.crowd: only with 'crowd' among noise"),
        ([*OWN, *CROWD, "rates=[0.1]"], "rates: have no meaning with noise 'crowd' alone"),
        ([*OWN, "noise=[pair, independent]"], "noise: 'pair' and 'independent' differ only with mirror=true"),
        (["trusted_pairs=0"], "trusted_pairs: two_step needs trusted labels"),
        (["methods=[gce]", "trusted_pairs=0", "trusted_to_all=true"], "trusted_to_all: there are no"),
        ([*OWN, "classifier.mirror_head=true"], "classifier.mirror_head: only where the mirror image"),
        (["classifier.flip=true"], "classifier.flip: a mirrored picture is of the other class"),
        (["classifier.zoom=[1.2, 0.8]"], "classifier.zoom: the first must not be above the second"),
        (["preset=faithful", "classifier.lr=0.1"], "classifier.lr: the preset 'faithful' has its own"),
        (["preset=faithful", "methods=[gce]"], "methods: gce: the preset 'faithful' has only cross_entropy"),
        (["methods=[]"], "methods: empty"),
        (["seeds=[1, 1]"], "seeds: a value stands there twice"),
        (["own_rate=2"], "own_rate: Input should be less than or equal to 1"),
        (["classifier.size=40"], "classifier.size: Input should be a multiple of 16"),
        (["expert_images=4"], "expert_images: unknown key of this task; it is for task=boxes"),
        (["data.train.truth=."], "data.train.truth: unknown key of this task; it is for task=boxes"),
        (["trusted_pair=3"], "trusted_pair: unknown key; did you mean trusted_pairs?"),
    ],
)
def test_what_cannot_work_is_named(overrides, fault):
    (found,) = faults_of(*overrides)
    assert found.startswith(fault)


def test_all_faults_come_in_one_report_and_end_with_2(capsys):
    wrong = [
        "methods=[magic]",
        "rates=[2]",
        "classifier.flip=true",
        "data.train.images=/not/there",
        "bogus=1",
    ]
    assert noise_grid.main(["task=classes", *wrong]) == 2
    said = capsys.readouterr().err
    for part in ("methods.0", "rates.0", "'/not/there' does not exist", "data.train.labels: needed", "bogus"):
        assert part in said


def test_simulated_particles_are_mirrored_and_own_pictures_only_when_told():
    assert load_grid(None, ["task=classes"]).is_mirrored
    assert not load_grid(None, ["task=classes", "mirror=false"]).is_mirrored
    assert not load_grid(None, ["task=classes", *OWN]).is_mirrored
    assert load_grid(None, ["task=classes", *OWN, "mirror=true"]).is_mirrored


def test_names_that_yaml_takes_for_numbers_are_names():
    config = load_grid(None, ["task=classes", *OWN, "data.train.classes=[3, 5]"])
    assert config.data.train.classes == ("3", "5")


def test_methods_families_and_noises_are_those_that_exist():
    fair = PRESETS["fair"]
    assert set(get_args(ClassMethod)) == set(robust.METHODS)
    assert set(get_args(Contestant)) == set(fair)
    assert set(get_args(ClassNoise)) == {"pair", "independent", "crowd"}
    assert set(get_args(Classifier.model_fields["family"].annotation)) == set(FAMILIES)
    chosen = {name: robust.METHODS[found.method] for name, found in fair.items()}
    needing = {name for name, method in chosen.items() if method.needs_trusted}
    assert set(NEED_TRUSTED) == needing
    assert set(FAITHFUL) == set(PRESETS["faithful"])


def test_a_course_is_the_presets_save_where_keys_say_else():
    def of(method, *overrides):
        return course(load_grid(None, ["task=classes", *overrides]), method, 2)

    assert of("elr") == PRESETS["fair"]["elr"]
    assert of("co_teaching", "preset=faithful") == PRESETS["faithful"]["co_teaching"]
    found = of("gce", "classifier={steps: 40, size: 32, lr: 0.01, rotate: 90, mirror_head: true}")
    assert (found.spec.size, found.spec.mirror, found.options["q"]) == (32, True, 0.7)
    assert (found.recipe.steps, found.recipe.lr, found.recipe.rotate) == (40, 0.01, 90)
    assert found.recipe.eval_every == 2  # as often as before
    assert found.recipe.ema == PRESETS["fair"]["gce"].recipe.ema
    assert of("low_rate", "classifier.lr=0.01").recipe.lr == pytest.approx(0.001)
    assert set(GridClassifier.model_fields) >= OF_FAITHFUL


def test_the_usage_page_tells_what_the_presets_have():
    text = (Path(__file__).parents[2] / "docs" / "usage.md").read_text(encoding="utf-8")
    fair, faithful = (PRESETS[kind]["cross_entropy"] for kind in ("fair", "faithful"))
    assert f"({fair.recipe.steps}; `faithful`: {faithful.recipe.steps} for" in text
    assert f"({fair.spec.size}; `faithful`: {faithful.spec.size})" in text
    assert f"pictures in a step ({fair.recipe.batch}; {faithful.recipe.batch})" in text
    assert f"learning rate ({fair.recipe.lr:g}; `faithful`: {faithful.recipe.lr:g} for" in text


def test_grids_over_boxes_and_classes_have_names_of_their_own():
    assert load_grid().run_name() == "grid-93253bfa4f"  # runs on file are found again
    assert load_grid(None, ["task=classes"]).run_name() != load_grid().run_name()
