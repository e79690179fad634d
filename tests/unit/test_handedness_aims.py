"""The aims of the handedness grid, told from cells whose accuracies are known."""

import pytest

from benchmarks.handedness_aims import of_set, over_sets, standings
from emclean.report.grid_data import CellRow


def cells(method, *values, rate=0.2, noise="pair", trusted=None):
    return [
        CellRow(method, noise, rate, seed, accuracy=value, trusted=trusted)
        for seed, value in enumerate(values)
    ]


def of(found, method):
    return next(standing for standing in standings(found) if standing.method == method)


def test_methods_are_compared_seed_by_seed():
    # Seeds differ by far more than methods: only the paired difference shows that elr is always 2 % worse.
    sources = cells("cross_entropy", 0.70, 0.80, 0.90) + cells("two_step", 0.6, 0.7, 0.8)
    (loss,) = of(sources + cells("elr", 0.68, 0.78, 0.88), "elr").losses
    assert (loss.rival, loss.rate, loss.by) == ("cross_entropy", 0.2, pytest.approx(0.02))
    assert of(sources + cells("elr", 0.72, 0.82, 0.92), "elr").losses == ()
    # 1 % worse in the mean, with a standard error of 1.5 %
    assert of(sources + cells("elr", 0.70, 0.82, 0.85), "elr").losses == ()


def test_only_seeds_that_both_have_are_compared():
    one = cells("cross_entropy", 0.9, 0.9) + cells("elr", 0.9)
    assert of(one, "elr").losses is None
    assert of(one, "elr").verdicts[0] is None


def clean_and_noisy(method, clean, noisy):
    return cells(method, clean, rate=0.0) + cells(method, noisy, rate=0.4)


@pytest.mark.parametrize(("noisy", "reached"), [(0.93, True), (0.94, True), (0.92, False)])
def test_what_is_kept_counts_where_the_sources_methods_keep_less(noisy, reached):
    names = ("cross_entropy", "two_step", "co_teaching")
    sources = [cell for name in names for cell in clean_and_noisy(name, 1.0, 0.9)]
    found = sources + clean_and_noisy("gce", 0.97, noisy)
    assert of(found, "gce").verdicts[1] is reached
    assert of(found, "two_step").verdicts[1] is False


def test_nothing_is_asked_where_a_source_method_keeps_as_much():
    found = clean_and_noisy("cross_entropy", 1.0, 0.9) + clean_and_noisy("two_step", 1.0, 0.97)
    found += clean_and_noisy("co_teaching", 1.0, 0.9) + clean_and_noisy("gce", 1.0, 0.5)
    assert of(found, "gce").verdicts[1] is None
    assert "not asked" in "\n".join(of_set(found))


@pytest.mark.parametrize(("values", "above"), [((0.7, 0.8), True), ((0.52, 0.5, 0.48), False)])
def test_chance_is_left_behind_by_trusted_labels_alone(values, above):
    given = cells("elr", *values, rate=0.5, trusted=20)
    assert of(given, "elr").verdicts[2] is above
    assert of(cells("elr", *values, rate=0.5), "elr").verdicts[2] is None


def test_the_best_single_method_misses_the_fewest_aims_on_all_sets():
    strong = cells("cross_entropy", 0.9, 0.91) + cells("elr", 0.95, 0.96) + cells("gce", 0.8, 0.81)
    weak = cells("cross_entropy", 0.9, 0.91) + cells("elr", 0.91, 0.92) + cells("gce", 0.99, 0.99)
    *_, last = over_sets({"one": strong, "other": weak})
    assert last.startswith("The best single method: elr, misses no aim")
    table = "\n".join(over_sets({"one": strong, "other": weak}))
    assert "| gce | no: one | – | – |" in table


def test_without_cells_there_is_no_verdict():
    assert over_sets({}) == []
    assert standings([]) == []
