from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from science_scenes import SIDE, Scene, scenes

from emclean.science.correction import Corrected, Trust, acted, bib_split, correct
from emclean.science.evaluation import label_quality
from emclean.science.grading import grade
from emclean.types import GRADES, NOISE_KINDS, Labels, Verdicts

ALL = dict.fromkeys(NOISE_KINDS, 0.5)
BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 90, 10], [100, 0, 110, 10.0]])
LABELS = Labels(BOXES, np.zeros(5, int), ids=tuple("abcde"))
PARTS = np.array([[60, 0, 72, 10], [76, 0, 90, 10.0]])


def verdicts(
    grades: list[str], probability: float = 0.9, labels: Labels = LABELS, add: float | None = None
) -> Verdicts:
    """One verdict per label, and one missed object at (200, 0) when ``add`` gives its probability."""
    n, extra = len(labels), 0 if add is None else 1
    kinds = np.array([GRADES.index(g) for g in [*grades, *["missed"] * extra]])
    box = np.concatenate(
        [labels.boxes + np.array([1, 0, 1, 0.0]), np.array([[200, 0, 210, 10.0]] * extra).reshape(-1, 4)]
    )
    box[:n][kinds[:n] != GRADES.index("shifted")] = labels.boxes[kinds[:n] != GRADES.index("shifted")]
    merged = np.flatnonzero(kinds == GRADES.index("merged"))
    return Verdicts(
        label=np.array([*range(n), *[-1] * extra]),
        prediction=np.full(n + extra, -1),
        grade=kinds,
        probability=np.array([probability] * n + [add] * extra),
        box=box,
        category=np.where(kinds == GRADES.index("mislabelled"), 1, 0),
        reason=tuple(f"because {k}" for k in range(n + extra)),
        parts=np.concatenate([PARTS] * len(merged)) if len(merged) else np.zeros((0, 4)),
        part_of=np.repeat(merged, 2),
    )


def events(done: Corrected) -> list[tuple[str, str]]:
    return [(c.event, c.label_id) for c in done.changes]


def test_each_kind_has_its_correction() -> None:
    done = correct(LABELS, verdicts(["clean", "shifted", "spurious", "merged", "mislabelled"], add=0.8), ALL)
    assert events(done) == [
        ("moved", "b"),
        ("deleted", "c"),
        ("deleted", "d"),
        ("relabelled", "e"),
        ("added", "d/0"),
        ("added", "d/1"),
        ("added", "added-0"),
    ]
    assert done.labels.ids == ("a", "b", "e", "d/0", "d/1", "added-0")
    assert done.labels.boxes[1].tolist() == [21, 0, 31, 10]
    assert done.labels.categories.tolist() == [0, 0, 1, 0, 0, 0]
    assert [c.parent for c in done.changes] == ["", "", "", "", "d", "d", ""]
    assert done.changes[0].reason == "because 1"


@pytest.mark.parametrize("limits", [{}, dict.fromkeys(NOISE_KINDS, np.inf), dict.fromkeys(NOISE_KINDS, 0.91)])
def test_nothing_below_its_threshold_is_touched(limits: dict[str, float]) -> None:
    done = correct(
        LABELS, verdicts(["clean", "shifted", "spurious", "merged", "mislabelled"], add=0.8), limits
    )
    assert done.changes == ()
    assert done.labels.ids == LABELS.ids
    assert np.array_equal(done.labels.boxes, LABELS.boxes)


def test_only_kinds_with_a_threshold_are_corrected() -> None:
    done = correct(LABELS, verdicts(["spurious", "shifted", "clean", "clean", "clean"]), {"shifted": 0.5})
    assert events(done) == [("moved", "b")]


def test_of_two_labels_of_one_object_one_stays() -> None:
    twins = Labels(np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 1, 10, 11.0]]), np.zeros(3, int))
    done = correct(twins, verdicts(["duplicate"] * 3, labels=twins), ALL)
    assert len(done.labels) == 1
    lone = Labels(BOXES[:1], np.zeros(1, int))
    assert len(correct(lone, verdicts(["duplicate"], labels=lone), ALL).labels) == 1


def test_what_is_safe_but_changes_nothing_is_not_acted_on() -> None:
    said = verdicts(["clean", "shifted", "spurious", "merged", "mislabelled"], add=0.8)
    assert acted(LABELS, said, ALL).tolist() == [False, True, True, True, True, True]
    assert not acted(LABELS, said, {}).any()
    same = replace(said, box=np.concatenate([BOXES, said.box[5:]]), category=np.zeros(6, int))
    alone = replace(same, parts=PARTS[:1], part_of=np.array([3]))
    assert acted(LABELS, alone, ALL).tolist() == [False, False, True, False, False, True]
    twins = Labels(np.array([[0, 0, 10, 10], [1, 0, 11, 10.0]]), np.zeros(2, int))
    assert acted(twins, verdicts(["duplicate"] * 2, labels=twins), ALL).sum() == 1


def test_a_split_leaves_out_parts_that_are_labelled_already() -> None:
    said = verdicts(["clean", "clean", "clean", "merged", "clean"])
    assert bib_split(LABELS, said, 3, LABELS.boxes[:3]).tolist() == PARTS.tolist()
    assert bib_split(LABELS, said, 3, PARTS[:1]).tolist() == PARTS[1:].tolist()
    assert len(bib_split(LABELS, said, 0, LABELS.boxes)) == 0


def test_the_target_says_what_is_trusted() -> None:
    said = verdicts(["clean", "shifted", "spurious", "clean", "clean"], add=0.6)
    target = correct(LABELS, said, {"shifted": 0.5}).target
    assert target.weights[0] > 0.9 > 0.2 > target.weights[2]
    assert target.weights[1] == pytest.approx(0.9)
    assert target.regress.tolist() == [True, True, False, True, True]
    assert target.ignore.tolist() == [BOXES[2].tolist(), [200, 0, 210, 10]]
    assert target.ignore_categories.tolist() == [LABELS.categories[2], said.category[-1]]
    added = correct(LABELS, said, {"missed": 0.3}).target
    assert added.ignore.tolist() == [BOXES[2].tolist()]
    assert added.weights[-1] == pytest.approx(0.6)


def test_a_candidate_that_is_probably_nothing_is_background() -> None:
    said = verdicts(["clean"] * len(LABELS), add=0.4)
    assert not len(correct(LABELS, said, {}).target.ignore)
    assert len(correct(LABELS, said, {}, Trust(suspect=0.3)).target.ignore) == 1


def test_where_the_category_is_in_doubt_none_is_background() -> None:
    said = verdicts(["clean", "clean", "mislabelled", "clean", "clean"])
    assert correct(LABELS, said, {}).target.ignore_categories.tolist() == [-1]


def test_verdicts_of_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="verdicts"):
        correct(LABELS, verdicts(["clean"], labels=LABELS.take([0])), ALL)


@given(st.integers(0, 500), st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_the_changes_tell_the_whole_story(seed: int, limit: float) -> None:
    case: Scene = scenes(seed, 1, n_categories=2)[0]
    before = case.evidence.labels
    said, limits = grade(case.evidence), dict.fromkeys(NOISE_KINDS, limit)
    done = correct(before, said, limits)
    assert acted(before, said, limits).sum() == len({c.parent or c.label_id for c in done.changes})
    np.testing.assert_array_equal(done.acted, acted(before, said, limits))
    boxes = {
        i: (b, int(c)) for i, b, c in zip(before.ids, before.boxes.tolist(), before.categories, strict=True)
    }
    for change in done.changes:
        assert (change.label_id in boxes) == (change.event != "added")
        if change.event == "deleted":
            del boxes[change.label_id]
        else:
            boxes[change.label_id] = (list(change.box), change.category)
    after = zip(done.labels.ids, done.labels.boxes.tolist(), done.labels.categories, strict=True)
    assert boxes == {i: (b, int(c)) for i, b, c in after}
    assert len(done.target) == len(done.labels)
    assert ((done.target.weights >= 0) & (done.target.weights <= 1)).all()


def test_with_fair_models_even_raw_corrections_raise_label_f1() -> None:
    cases = scenes(1, 15)
    done = [correct(c.evidence.labels, grade(c.evidence), ALL).labels for c in cases]
    truths = [c.truth for c in cases]
    before, after = label_quality(truths, [c.evidence.labels for c in cases]), label_quality(truths, done)
    assert after.f1 > before.f1 + 0.1
    assert all((d.boxes >= 0).all() and (d.boxes <= SIDE).all() for d in done)
