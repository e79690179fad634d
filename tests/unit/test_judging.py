"""What the benchmark of the grades counts, on scenes whose errors are known."""

import numpy as np
import pytest
from science_scenes import scenes

from benchmarks.cases import Cache, Case
from benchmarks.judging import (
    Teaching,
    bins,
    by_chance,
    calibration_error,
    chances,
    graded,
    measured,
    overlooked,
)
from emclean.science.finding import planted_faults
from emclean.science.grading import grade
from emclean.types import GRADES


def case_of(seed: int, n: int) -> Case:
    cases = scenes(seed, n)
    faults = tuple(planted_faults(c.planted, c.truth) for c in cases)
    return Case(tuple(c.evidence for c in cases), faults, tuple(c.truth for c in cases), seed)


def test_the_expert_sees_the_same_images_everywhere() -> None:
    case = case_of(1, 12)
    assert case.drawn(len(case.expert())) == case.expert()
    assert case.drawn(5) == case.drawn(8)[:5]


def test_every_label_and_every_object_without_one_is_counted_once() -> None:
    case = case_of(2, 6)
    found = graded([grade(e) for e in case.evidences], case.truths, case.faults)
    labels = sum(len(e.labels) for e in case.evidences)
    missing = sum(len(f.missed) for f in case.faults)
    assert sum(found.true.values()) == labels + missing
    assert found.true["missed"] == missing > 0
    assert all(found.right[k] <= min(found.said[k], found.true[k]) for k in found.right)
    assert sum(found.said.values()) - found.said["missed"] == len(found.clean[0]) == labels
    assert sum(found.missed[1]) <= missing


def test_an_object_is_found_by_one_candidate() -> None:
    case = case_of(3, 3)
    for evidence, truth, faults in zip(case.evidences, case.truths, case.faults, strict=True):
        verdicts = grade(evidence)
        found = overlooked(verdicts, truth, faults)
        assert len(found) == len(verdicts) - len(evidence.labels)
        assert found.sum() <= len(faults.missed)


def test_the_calibration_error_is_the_mean_gap_over_bins_of_equal_count() -> None:
    stated = np.repeat([0.2, 0.8], 50)
    so = np.tile([True, False], 50)
    assert bins(stated, so)[:, 2].tolist() == [10] * 10
    assert calibration_error(stated, so) == pytest.approx(0.3)
    assert calibration_error(np.full(100, 0.5), so) == pytest.approx(0.0)
    assert calibration_error(np.zeros(0), np.zeros(0, bool)) == 0.0


def test_measuring_teaches_corrects_and_is_kept(tmp_path) -> None:
    case, way, cache = case_of(4, 14), Teaching(4, planted=False, outside=4), Cache(tmp_path)
    (found,) = measured([case], way, cache)
    assert found.before < found.corrected["likely"].f1
    assert set(found.corrected) == {"0.95", "0.9", "likely"}
    for made in found.corrected.values():
        assert all(made.right[k] <= made.made[k] for k in made.right)
    labels = sum(len(case.evidences[i].labels) for i in range(14) if i not in case.drawn(4))
    stated, so = chances(found, "clean")
    assert (
        len(stated)
        == len(so)
        == labels
        == sum(found.grades.said[k] for k in GRADES if k != "missed" and k in found.grades.said)
    )
    assert 0 < by_chance(found, "clean") < 0.2
    (stored,) = tmp_path.iterdir()
    before = stored.stat().st_mtime_ns
    assert measured([case], way, cache) == [found]
    assert stored.stat().st_mtime_ns == before
    (rules,) = measured([case], Teaching(0, outside=4), cache)
    assert not rules.corrected["0.95"].made
    assert np.isnan(rules.corrected["0.95"].share())
