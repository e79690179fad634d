from collections.abc import Mapping

import numpy as np
import pytest
from science_scenes import SIDE, scenes

from emclean.science.evaluation import label_quality
from emclean.science.grading import Evidence
from emclean.science.rivals import RIVALS, ObjectLab, Suspicion, image_scores, oa_mil, paper
from emclean.science.rivals.objectlab import to_cleanlab
from emclean.types import Labels, Predictions

PLACES = np.array([[10, 10, 50, 50], [100, 100, 140, 150], [200, 40, 240, 90], [300, 300, 360, 340]], float)
CALLED = np.array([0, 1, 0, 1])


def evidence(labels: Labels, scores: float = 0.97, found: np.ndarray | None = None) -> Evidence:
    boxes = PLACES if found is None else found
    predictions = Predictions(boxes, CALLED[: len(boxes)], np.full(len(boxes), scores))
    return Evidence(labels, None, None, predictions, SIDE, SIDE)


def faulty() -> dict[str, Evidence]:
    """One fault at a time in labels that four sure predictions confirm."""
    good = Labels(PLACES, CALLED)
    moved = PLACES.copy()
    moved[1] += [14, 0, 14, 0]
    swapped = CALLED.copy()
    swapped[1] = 0
    lone = np.concatenate([PLACES, [[400, 400, 440, 440]]])
    return {
        "clean": evidence(good),
        "missed": evidence(good.take([0, 2, 3])),
        "shifted": evidence(Labels(moved, CALLED)),
        "mislabelled": evidence(Labels(PLACES, swapped)),
        "spurious": evidence(Labels(lone, np.append(CALLED, 0))),
    }


BLIND = {("objectlab", "spurious")}  # a label that no prediction touches counts as clean there


@pytest.mark.parametrize("name", sorted(RIVALS))
@pytest.mark.parametrize("fault", ["missed", "shifted", "mislabelled", "spurious"])
def test_each_fault_is_found_in_the_image_and_in_the_instance(name: str, fault: str) -> None:
    given = faulty()
    clean, wrong = RIVALS[name]([given["clean"], given[fault]])
    if (name, fault) in BLIND:
        assert wrong.image == pytest.approx(clean.image, abs=1e-6)
        return
    if fault == "missed":
        assert wrong.candidates.boxes.tolist() == [PLACES[1].tolist()]
        assert not len(clean.candidates)
    else:
        assert int(wrong.labels.argmax()) == (4 if fault == "spurious" else 1)
        assert wrong.labels.max() > clean.labels.max()
    if (name, fault) not in {("paper", "shifted"), ("clod", "shifted"), ("cross_entropy", "shifted")}:
        assert wrong.image > clean.image  # these three do not count a small shift


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_every_rival_answers_in_order_and_for_hard_images(name: str) -> None:
    none = Evidence(Labels.empty(), None, None, Predictions.empty(), SIDE, SIDE)
    bare = evidence(Labels.empty())
    unseen = Evidence(Labels(PLACES, CALLED), None, None, Predictions.empty(), SIDE, SIDE)
    images = [none, bare, unseen, *(s.evidence for s in scenes(3, 3, n_categories=3))]
    judged = RIVALS[name](images)
    for image, suspicion in zip(images, judged, strict=True):
        assert suspicion.labels.shape == (len(image.labels),)
        assert np.isfinite(suspicion.labels).all()
        assert np.isfinite(suspicion.missed).all()
        assert np.isfinite(suspicion.image)
    assert len(RIVALS[name]([none])) == 1
    assert RIVALS[name]([]) == []


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_noisy_images_come_before_clean_ones(name: str) -> None:
    made = scenes(11, 12)
    clean = [
        Evidence(s.truth, s.evidence.cleaning, s.evidence.consensus, s.evidence.crowd, SIDE, SIDE)
        for s in made
    ]
    judged = RIVALS[name]([*clean, *(s.evidence for s in made)])
    values = np.array([s.image for s in judged])
    assert (values[12:] > values[:12]).mean() >= 0.8


@pytest.mark.parametrize("n_categories", [1, 3])
def test_objectlab_is_the_librarys(n_categories: int) -> None:
    from cleanlab.object_detection import rank

    images = [s.evidence for s in scenes(5, 4, n_categories=n_categories)]
    pairs = [to_cleanlab(e, n_categories) for e in images]
    labels, predictions = [p[0] for p in pairs], [p[1] for p in pairs]
    judged = ObjectLab()(images)
    quality = rank.get_label_quality_scores(labels, predictions, verbose=False)
    np.testing.assert_allclose([s.image for s in judged], 1 - quality, atol=1e-7)
    place = rank.compute_badloc_box_scores(labels=labels, predictions=predictions)
    for suspicion, expected in zip(judged, place, strict=True):
        np.testing.assert_allclose(suspicion.kinds["shifted"], 1 - expected, atol=1e-7)


def test_objectlab_hears_of_its_thresholds() -> None:
    given = [evidence(Labels(PLACES[:3], CALLED[:3]), scores=0.6)]
    assert not len(ObjectLab()(given)[0].candidates)
    assert len(RIVALS["objectlab"](given)[0].candidates) == 1


def test_clod_takes_its_thresholds_from_the_whole_set() -> None:
    doubtful = evidence(Labels(PLACES[:3], CALLED[:3]), scores=0.55)
    sure = [evidence(Labels(PLACES, CALLED))] * 5
    alone, among = RIVALS["clod"]([doubtful])[0], RIVALS["clod"]([doubtful, *sure])[0]
    assert alone.labels.tolist() == among.labels.tolist()
    assert among.image > alone.image  # the other images show how sure a prediction of a right label is


def test_the_papers_count_is_raw() -> None:
    found = np.concatenate([PLACES[:2], PLACES[2:] + 90])
    assert RIVALS["paper"]([evidence(Labels(PLACES, CALLED), found=found)])[0].image == 4.0


def test_cross_entropy_leaves_ambiguous_labels_for_later() -> None:
    swapped = Labels(PLACES[:1], np.array([1]))
    wrong, unclear = (
        RIVALS["cross_entropy"]([evidence(swapped, score, PLACES[:1])])[0].labels[0] for score in (0.95, 0.5)
    )
    assert wrong > unclear


def test_cross_entropy_rises_with_the_score_of_what_is_overlooked() -> None:
    scores = np.array([0.02, 0.3, 0.5, 0.6, 0.97])
    lone = Predictions(np.concatenate([PLACES, PLACES[:1] + 400]), np.zeros(5, int), scores)
    judged = RIVALS["cross_entropy"]([Evidence(Labels.empty(), None, None, lone, SIDE, SIDE)])[0]
    by_score = judged.missed[np.argsort(judged.candidates.scores)]
    assert (np.diff(by_score) > 0).all()
    assert judged.image == pytest.approx(by_score[2:].sum())


def test_image_scores_are_computed_only_for_rivals() -> None:
    images = list(faulty().values())
    assert image_scores("discrepancy", images) == {}
    scores: Mapping[str, np.ndarray] = image_scores("loss", images)
    assert list(scores) == ["loss"]
    assert scores["loss"].shape == (5,)
    assert scores["loss"].argmin() == 0


def test_columns_of_other_length_are_refused() -> None:
    with pytest.raises(ValueError, match="missed"):
        Suspicion(0.0, np.zeros(2), Predictions.empty(), np.zeros(1))
    with pytest.raises(ValueError, match="shifted"):
        Suspicion(0.0, np.zeros(2), Predictions.empty(), np.zeros(0), {"shifted": np.zeros(3)})


def test_refined_boxes_move_towards_the_surest_prediction_of_their_bag():
    labels = Labels(PLACES + np.array([8, 0, 8, 0]), CALLED, ids=("a", "b", "c", "d"))
    sure = Predictions(PLACES[:2], CALLED[:2], np.array([0.5, 0.95]))
    moved = oa_mil.refine(labels, sure)
    assert moved.ids == labels.ids
    np.testing.assert_allclose(moved.boxes[:, 0] - PLACES[:, 0], [4, 0.2 * 8, 8, 8])  # at most 0.8 of the way
    np.testing.assert_allclose(oa_mil.refine(labels, sure, gamma=2).boxes[0, 0], 10 + 0.75 * 8)


def test_nothing_is_refined_by_another_category_or_from_afar():
    labels = Labels(PLACES, CALLED)
    other = Predictions(PLACES + np.array([5, 0, 5, 0]), 1 - CALLED, np.ones(4))
    afar = Predictions(PLACES + np.array([60, 60, 60, 60]), CALLED, np.ones(4))
    for found in (other, afar, Predictions.empty()):
        assert oa_mil.refine(labels, found).boxes.tolist() == PLACES.tolist()
    assert len(oa_mil.refine(Labels.empty(), other)) == 0


def test_neighbours_keep_their_own_predictions():
    pair = np.array([[0.0, 0, 20, 20], [6, 0, 26, 20]])
    found = Predictions(pair, np.zeros(2, int), np.array([0.6, 0.9]))
    assert oa_mil.refine(Labels(pair, np.zeros(2, int)), found).boxes.tolist() == pair.tolist()


def both(labels: Labels, cleaning: Predictions, consensus: Predictions | None = None) -> list[list[float]]:
    """The boxes after the paper's corrections, in order of their corners."""
    found = paper.correct(labels, cleaning, cleaning if consensus is None else consensus)
    return sorted(found.boxes.tolist())


SURE = Predictions(PLACES, CALLED, np.full(4, 0.9))


def test_the_papers_corrections_mend_one_fault_at_a_time():
    truth = PLACES.tolist()
    away = PLACES.copy()
    away[1] += [25, 0, 25, 0]  # IoU 0.23
    lone = np.concatenate([PLACES, [[400, 400, 440, 440]]])
    pair = Predictions(np.array([[10, 10, 30, 50], [32, 10, 52, 50]]), np.zeros(2, int), np.full(2, 0.9))
    whole = Labels(np.array([[10.0, 10, 52, 50]]), [0])
    assert both(Labels(PLACES, CALLED), SURE) == truth
    assert both(Labels(away, CALLED), SURE) == truth
    assert both(Labels(lone, [*CALLED, 0]), SURE) == truth
    assert both(Labels(PLACES[1:], CALLED[1:]), SURE) == truth
    assert both(Labels.empty(), SURE) == truth
    assert both(whole, pair) == pair.boxes.tolist()
    called = paper.correct(Labels(PLACES, 1 - CALLED), SURE, SURE)
    assert (called.categories.tolist(), len(called)) == (CALLED.tolist(), 4)
    assert called.ids == ("found-0", "found-1", "found-2", "found-3")


def test_what_one_model_alone_says_stays_for_the_expert():
    labels = Labels(PLACES[:3], CALLED[:3])
    for seeing, blind in ((SURE.take([3]), SURE.take([])), (SURE.take([]), SURE.take([3]))):
        assert both(labels.take([]), seeing, blind) == []  # no object of one model alone is added
    assert both(labels, SURE.take([]), SURE) == labels.boxes.tolist()  # nor is what one of them sees deleted
    weak = Predictions(PLACES, CALLED, np.full(4, 0.2))
    assert both(labels, weak, SURE) == labels.boxes.tolist()
    assert both(labels, weak) == []  # neither is sure of anything


def test_an_object_takes_the_place_of_no_neighbour_and_of_no_confirmed_label():
    two = np.array([[0.0, 0, 40, 40], [30, 0, 70, 40]])  # IoU 0.14
    labels = Labels(two, [0, 0])
    other = Predictions([[14, 0, 54, 40]], [0], [0.9])  # IoU 0.48 and 0.43 with the labels
    assert (
        both(labels, other, Predictions(two, [0, 0], [0.9, 0.9])) == two.tolist()
    )  # the other model confirms both
    assert both(labels, other) == [
        [14, 0, 54, 40],
        [30, 0, 70, 40],
    ]  # it stands for one of them, not for both
    wrong = Predictions(two[:1], [1], [0.9])
    confirmed = Predictions(np.concatenate([two[:1], two[:1]]), [0, 1], [0.9, 0.9])
    assert (
        both(labels.take([0]), confirmed, wrong) == two[:1].tolist()
    )  # nothing is added on a confirmed label


def test_a_label_that_is_in_order_is_kept_as_it_was_drawn():
    near = Labels(PLACES + 3.0, CALLED, ids=("a", "b", "c", "d"), annotators=("x", "x", "y", "y"))
    found = paper.correct(near, SURE, SURE)
    assert (found.ids, found.annotators) == (near.ids, near.annotators)
    assert found.boxes.tolist() == near.boxes.tolist()


def test_the_papers_corrections_mend_more_than_they_spoil():
    cases = scenes(3, 12)
    fixed = [paper.correct(s.evidence.labels, s.evidence.cleaning, s.evidence.consensus) for s in cases]
    truths = [s.truth for s in cases]
    before = label_quality(truths, [s.evidence.labels for s in cases]).f1
    assert label_quality(truths, fixed).f1 > before + 0.1
