"""Questions about a few instances: which are asked, what the answer changes, and what stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_jobs import small_job
from science_scenes import scene

from emclean.loop import asking
from emclean.loop.cleaning import expert_labels, reviewed, standing_labels
from emclean.loop.spending import spent_until
from emclean.science import doubt
from emclean.science.correction import LIKELY, correct
from emclean.science.cost import CostModel
from emclean.science.expert import Slips, answer
from emclean.science.grading import grade
from emclean.science.selection import STRATEGIES, Pool, joined
from emclean.science.settling import settle
from emclean.stores import labels as label_events
from emclean.types import GRADES, AnsweredBox, Labels, Settled, Suggestion

CROWD = Labels(
    np.array([[10, 10, 30, 30], [40, 10, 60, 30], [10, 40, 30, 60.0]]), np.zeros(3, np.int64), ("a", "b", "c")
)
NEW = (40.0, 40.0, 60.0, 60.0)


def judged(seed: int):
    one = scene(np.random.default_rng(seed))
    return one, grade(one.evidence)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_what_an_expert_decided_stands_whatever_the_grader_says(seed, n):
    one, verdicts = judged(seed)
    labels = one.evidence.labels
    asked = np.argsort(-doubt.doubts(verdicts))[:n]
    shown = doubt.proposals(verdicts, asked)
    decided = frozenset(labels.ids[k] for k in verdicts.label[asked] if k >= 0)
    kept = Labels(shown.boxes[:1], shown.categories[:1], ("said",))
    both, after = settle(labels, verdicts, Settled(kept, decided, shown.boxes[1:]))
    done = correct(both, after, LIKELY)
    assert not decided & set(done.labels.ids)
    place = done.labels.ids.index("said")
    assert done.labels.boxes[place].tolist() == kept.boxes[0].tolist()
    assert done.target.weights[place] == 1
    assert done.target.regress[place]
    untouched = [i for i, name in enumerate(labels.ids) if name not in decided]
    assert after.label[: len(both)].tolist() == list(range(len(both)))
    assert after.grade[: len(untouched)].tolist() == verdicts.grade[untouched].tolist()
    assert len(set(done.labels.ids)) == len(done.labels)


def test_nothing_decided_changes_nothing():
    one, verdicts = judged(1)
    both, after = settle(one.evidence.labels, verdicts, Settled(Labels.empty()))
    assert both.ids == one.evidence.labels.ids
    assert after.probability.tolist() == verdicts.probability.tolist()
    assert after.part_of.tolist() == verdicts.part_of.tolist()


def test_a_review_asks_for_the_most_doubtful_and_only_a_few():
    _, verdicts = judged(2)
    offer = doubt.review(verdicts, CostModel())
    each = doubt.doubts(verdicts)
    assert 1 <= len(offer.rows) <= doubt.MOST
    assert each[offer.rows].min() >= np.delete(each, offer.rows).max()
    assert offer.errors == pytest.approx(each[offer.rows].sum())
    certain = np.where(verdicts.label >= 0, 1.0, 0.0)
    sure = replace(verdicts, probability=certain, posterior=np.zeros((0, len(GRADES))))
    assert doubt.review(sure, CostModel()) is None


def test_what_answers_bring_is_learnt_from_known_images():
    scenes = [scene(np.random.default_rng(k)) for k in range(6)]
    verdicts = [grade(s.evidence) for s in scenes]
    labels, truths = [s.evidence.labels for s in scenes], [s.truth for s in scenes]
    found = doubt.experience(labels, verdicts, truths, CostModel())
    wrong = sum(
        doubt.errors(correct(*pair, LIKELY).labels, t)
        for pair, t in zip(zip(labels, verdicts, strict=True), truths, strict=True)
    )
    expected = sum(doubt.doubts(v).sum() for v in verdicts)
    assert found.image_errors == pytest.approx((wrong + doubt.BELIEF) / (expected + doubt.BELIEF))
    assert 0 < found.review_errors < 2
    assert 0.5 < found.review_time < 2
    assert 0.5 < found.image_time < 3
    assert doubt.experience([], [], [], CostModel()) == doubt.Experience()


def test_errors_count_wrong_labels_and_overlooked_objects():
    truth = CROWD.take([0, 1])
    assert doubt.errors(truth, truth) == 0
    assert doubt.errors(CROWD, truth) == 1
    assert doubt.errors(Labels.empty(), truth) == 2
    renamed = Labels(truth.boxes, np.ones(2, np.int64))
    assert doubt.errors(renamed, truth) == 4


def questions(gain, minutes, review=False, features=None) -> Pool:
    n = len(gain)
    zero, like = np.zeros(n), np.zeros((n, 1)) if features is None else features
    ids = tuple(f"image-{i}" for i in range(n))
    kinds = np.full(n, review)
    return Pool(ids, zero, zero, zero, np.array(minutes), like, {}, np.array(gain), kinds)


def kinds(pool, minutes):
    picked = STRATEGIES["gain"](pool, minutes, np.random.default_rng(0))
    return sorted((pool.image_ids[i], bool(pool.review[i])) for i in picked)


def test_gain_reviews_first_and_takes_the_whole_where_that_pays_next():
    whole = questions([10.0, 4.0], [5.0, 1.0])
    both = joined(whole, questions([4.0, 3.0], [0.5, 1.0], review=True))
    assert kinds(both, 0.6) == [("image-0", True)]
    assert kinds(both, 2.0) == [("image-0", True), ("image-1", False)]
    assert kinds(both, 6.0) == [("image-0", False), ("image-1", False)]


def test_gain_never_asks_a_review_that_brings_less_per_minute():
    both = joined(questions([10.0], [2.0]), questions([1.0], [1.0], review=True))
    assert kinds(both, 1.5) == []
    assert kinds(both, 2.0) == [("image-0", False)]


def test_gain_prefers_what_is_unlike_the_chosen_among_equals():
    features = np.array([[0.0], [0.0], [9.0]])
    pool = questions([1.0, 0.95, 0.9], [1.0, 1.0, 1.0], features=features)
    assert STRATEGIES["gain"](pool, 2.0, np.random.default_rng(0)).tolist() == [0, 2]
    level = questions([1.0, 0.95, 0.9], [1.0, 1.0, 1.0])
    assert STRATEGIES["gain"](level, 2.0, np.random.default_rng(0)).tolist() == [0, 1]


def test_a_simulated_review_decides_what_is_shown_and_adds_nothing():
    shown = CROWD.take([0, 1])
    truth = Labels(np.array([CROWD.boxes[0], CROWD.boxes[2], NEW]), np.zeros(3, np.int64))
    given = answer(truth, shown, Slips(), np.random.default_rng(0), 100, 80, only_shown=True)
    assert given.origin.tolist() == [0]


@pytest.fixture
def job(tmp_path):
    """A job whose image ``x`` has three crowd labels, and a review of two of them and of a seen object."""
    made = small_job(tmp_path, ("x", "y"))
    crowd = {"x": CROWD, "y": CROWD}
    names = made.data.categories
    made.parts.tables.append(
        "labels", label_events.crowd_events(crowd, names, run="run", at=made.parts.now())
    )
    shown = [
        Suggestion("a", tuple(CROWD.boxes[0]), "deposit", 0.5, "spurious", "why"),
        Suggestion("b", tuple(CROWD.boxes[1]), "deposit", 0.5, "clean", "why"),
        Suggestion("seen-3", NEW, "deposit", 0.5, "missed", "why"),
    ]
    kind = {"at_random": False, "blind": False, "value": 1.0, "review": True}
    asking.save_plan(made, 1, [asking.make_question(made, "x", 1, shown, **kind)])
    asking.push(made, 1)
    return made


def ids(job, image):
    return sorted(standing_labels(job)[image].ids)


def test_a_review_comes_back_from_its_plan(job):
    (question,) = asking.load_plan(job, 1)
    assert question.task.kind == "review"
    assert [s.suggestion_id for s in question.task.suggestions] == ["a", "b", "seen-3"]


def test_an_answered_review_changes_what_was_asked_and_nothing_else(job):
    moved = AnsweredBox((43.0, 10.0, 63.0, 30.0), "deposit", "b")
    job.parts.service.answer("run/x/1", [moved])
    asking.pull(job, 1)
    asking.pull(job, 1)  # again: nothing twice
    assert ids(job, "x") == ["b", "c"]
    assert expert_labels(job) == {}
    said = reviewed(job)["x"]
    assert said.kept.ids == ("b",)
    assert said.kept.boxes.tolist() == [[43, 10, 63, 30]]
    assert {"a", "b"} <= said.decided
    assert "c" not in said.decided
    assert sorted(said.empty.tolist()) == [list(CROWD.boxes[0]), list(NEW)]
    cost = spent_until(job, 1)
    assert (cost.images, cost.added, cost.moved, cost.deleted) == (1, 0, 1, 2)


def test_an_accepted_object_becomes_a_label_of_the_expert(job):
    boxes = [AnsweredBox(tuple(CROWD.boxes[k]), "deposit", name) for k, name in enumerate("ab")]
    job.parts.service.answer("run/x/1", [*boxes, AnsweredBox(NEW, "deposit", "seen-3")])
    asking.pull(job, 1)
    assert len(standing_labels(job)["x"]) == 4
    assert len(reviewed(job)["x"].kept) == 3
    assert not len(reviewed(job)["x"].empty)


def test_an_instance_that_was_corrected_away_is_decided_all_the_same(job):
    events = label_events.auto_events(
        "x",
        CROWD,
        CROWD.take([1, 2]),
        {},
        categories=job.data.categories,
        round_=0,
        run="run",
        at=job.parts.now(),
    )
    job.parts.tables.append("labels", events)
    job.parts.service.answer("run/x/1", [])
    asking.pull(job, 1)
    assert ids(job, "x") == ["c"]
    assert {"a", "b"} <= reviewed(job)["x"].decided


def test_a_later_answer_for_the_whole_image_takes_over(job):
    job.parts.service.answer("run/x/1", [])
    asking.pull(job, 1)
    shown = [Suggestion("c", tuple(CROWD.boxes[2]), "deposit", 0.9, "clean", "why")]
    question = asking.make_question(job, "x", 2, shown, at_random=False, blind=False, value=1.0)
    asking.save_plan(job, 2, [question])
    asking.push(job, 2)
    job.parts.service.answer("run/x/2", [AnsweredBox(NEW, "deposit")])
    asking.pull(job, 2)
    assert reviewed(job) == {}
    assert [len(labels) for labels in expert_labels(job).values()] == [1]


def test_a_skipped_review_says_nothing(job):
    job.parts.service.answer("run/x/1", [], skipped=True)
    asking.pull(job, 1)
    assert reviewed(job) == {}
    assert ids(job, "x") == ["a", "b", "c"]


def test_every_grade_can_be_asked_about():
    _, verdicts = judged(5)
    shown = doubt.proposals(verdicts, np.arange(len(verdicts)))
    counts = np.bincount(shown.row, minlength=len(verdicts))
    merged = verdicts.grade == GRADES.index("merged")
    assert (counts[~merged] == 1).all()
    assert (counts[merged] >= 1).all()
