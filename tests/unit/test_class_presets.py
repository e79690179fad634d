"""Presets name methods that there are, with settings that these know."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from emclean.models.robust import METHODS
from emclean.models.robust.presets import PRESETS, WHY, preset
from tests.class_toys import task, toy

ALL = [(kind, name) for kind, names in PRESETS.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_preset_can_be_used(kind: str, name: str) -> None:
    found = preset(kind, name)
    assert set(found.options) <= set(METHODS[found.method].options)
    assert pickle.loads(pickle.dumps(found)) == found


def test_fair_has_every_method_with_one_network_and_budget() -> None:
    fair = PRESETS["fair"]
    assert set(METHODS) <= set(fair)
    assert {name: fair[name].method for name in METHODS} == {name: name for name in METHODS}
    assert len({(fair[name].spec, fair[name].recipe) for name in METHODS}) == 1
    assert not any(item.true_rate for item in fair.values())
    assert set(WHY) <= set(METHODS)


def test_faithful_is_the_three_methods_of_the_source() -> None:
    faithful = PRESETS["faithful"]
    assert set(faithful) == {"cross_entropy", "two_step", "co_teaching"}
    families = {name: item.spec.family for name, item in faithful.items()}
    assert families == {"cross_entropy": "basic", "two_step": "basic", "co_teaching": "pooled"}
    assert {item.spec.size for item in faithful.values()} == {128}
    peers = faithful["co_teaching"]
    passes = peers.recipe.steps * peers.recipe.batch / 100  # through a hundred pictures
    assert peers.options["ramp_epochs"] > peers.options["ramp_share"] * passes  # so that the share decides
    assert faithful["cross_entropy"].recipe.lr == 1000 * faithful["two_step"].recipe.lr
    assert [name for name, item in faithful.items() if item.true_rate] == ["co_teaching"]


def test_a_preset_leaves_a_task_its_labels_classes_and_colours(tmp_path: Path) -> None:
    given = task(toy(tmp_path, 120), tmp_path / "out")
    given = replace(given, spec=replace(given.spec, channels=3, n_classes=5))
    found = preset("fair", "gce").on(given)
    assert (found.spec.channels, found.spec.n_classes) == (3, 5)
    assert found.spec.family == "compact"
    assert found.options == {"q": 0.7}
    assert found.labels is given.labels


@pytest.mark.parametrize(("kind", "name"), [("unfair", "gce"), ("faithful", "gce")])
def test_what_there_is_is_named(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*co_teaching|expected faithful or fair"):
        preset(kind, name)
