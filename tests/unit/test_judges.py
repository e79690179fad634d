"""The two classifiers of an analysis: trained on one part of the clean labels, tested on another."""

from dataclasses import replace

import analysis_toys
import numpy as np
import pytest

from emclean.config import load_analysis
from emclean.errors import ConfigError, DataError
from emclean.imaging import simulate
from emclean.loop.analysis import judges, particles
from emclean.models.classifiers import engine
from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe
from emclean.science.population import Confusion


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two untrained classifiers: one of hands, one of usable poses."""
    folder = tmp_path_factory.mktemp("weights")
    return [str(analysis_toys.classifier(folder, *which)) for which in (("hand", True), ("usable", False))]


def quiet(done, total):
    """Nobody watches."""


def test_counts_of_the_user_are_four_or_nine(weights, tmp_path):
    def of(*counts):
        wanted = judges.Wanted(weights=weights[0], confusion=counts)
        return judges.judges(wanted, None, tmp_path, quiet).confusion

    assert of(40, 2, 3, 45) == Confusion((40, 2, 0), (3, 45, 0), None, symmetric=True)
    assert of(40, 2, 8, 3, 45, 2, 5, 6, 30) == Confusion((40, 2, 8), (3, 45, 2), (5, 6, 30), symmetric=True)
    with pytest.raises(ConfigError, match="four or nine"):
        load_analysis(None, ["classifier.weights=w.safetensors", "classifier.confusion=[1, 2, 3]"])


def clean(n, unusable=True):
    rng = np.random.default_rng(0)
    pictures = np.stack([simulate.cutout(rng, size=32).pixels for _ in range(n)])
    labels = np.arange(n) % (3 if unusable else 2)
    return particles.Particles(pictures, labels, np.arange(n), "test")


@pytest.mark.slow
def test_classifiers_are_trained_on_one_part_and_tested_on_another(tmp_path):
    spec, recipe = ClassifierSpec("compact", size=16, width=4), ClassRecipe(steps=2, batch=8, eval_every=1)
    wanted = judges.Wanted(spec=spec, recipe=recipe)
    told = []
    found = judges.judges(wanted, clean(40), tmp_path, lambda done, total: told.append((done, total)))
    assert found.facts["tested on"] == 14
    assert engine.read(found.hand)[0].mirror
    assert found.confusion.symmetric
    assert told[-1] == (4, 4)
    again = judges.judges(wanted, clean(40), tmp_path, quiet)
    assert (again.hand, again.digest()) == (found.hand, found.digest())
    without = judges.judges(wanted, clean(40, unusable=False), tmp_path, quiet)
    assert without.usable is None
    assert without.facts["unusable set aside"] is None
    foreign = replace(clean(40), foreign=True)  # of other pictures: they tell nothing of mistakes in these
    assert judges.judges(wanted, foreign, tmp_path, quiet).confusion is None


def test_too_few_labels_to_train_on_are_a_data_error(tmp_path):
    with pytest.raises(DataError, match="at least 10"):
        judges.judges(judges.Wanted(), clean(6), tmp_path, quiet)


def test_what_trains_nothing_tests(weights, tmp_path):
    hand, usable = weights

    def tested(clean, **given):
        spec, recipe = (
            ClassifierSpec("compact", size=16, width=4),
            ClassRecipe(steps=1, batch=8, eval_every=1),
        )
        wanted = judges.Wanted(spec=spec, recipe=recipe, **given)
        return judges.judges(wanted, clean, tmp_path, quiet)

    assert tested(clean(30), weights=hand, usable_weights=usable).facts["tested on"] == 30
    assert tested(clean(30, unusable=False), weights=hand).facts["tested on"] == 30  # no filter to train
    assert not (tmp_path / "particles").exists()
    filtered = tested(clean(30), usable_weights=usable)
    assert sum(filtered.confusion.unusable) == 10  # all unusable ones
    assert sum(filtered.confusion.left + filtered.confusion.right) < 12
    trained = tested(clean(9), weights=hand)  # too few to train a classifier of hands, which is given
    assert trained.usable is not None
    assert trained.facts["tested on"] < 9


def test_no_group_trains_and_tests(tmp_path):
    some = replace(clean(40), groups=np.arange(40) // 5)
    for given in ({}, {"usable_weights": "given"}):
        train, test = judges._parts(some, judges.Wanted(**given))
        handed = test[some.labels[test] != particles.UNUSABLE]
        assert not set(some.groups[train]) & set(some.groups[handed])
        assert not set(train) & set(test)
