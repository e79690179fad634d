"""A budget in labels, and second looks by several experts, in runs with neighbours in memory."""

import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from class_runs import SeeingCompute, assert_alike, config, dying_in, made, write

from emclean.loop import asking, controller, finishing
from emclean.loop.classes import agreeing, selecting, spending
from emclean.loop.classes.judging import Judged
from emclean.loop.classes.labels import answered, classes_of, label
from emclean.loop.classes.training import Pictures
from emclean.loop.cleaning import standing_labels
from emclean.loop.console import Console
from emclean.loop.states import Phase
from emclean.science.classes import asking as scores
from emclean.science.classes import doubt
from emclean.science.classes.votes import shares
from emclean.stores.fakes import InMemoryLabelService
from emclean.stores.labels import image_of

pytestmark = pytest.mark.slow  # whole runs of the loop

PLAIN = ("data.test.images=null", "data.test.labels=null", "baselines=false")
SEVERAL = (
    "strategy=activelab", "expert.count=3", "expert.misses=[0.1, 0.3, 0.3]", "budget.labels=44",
    "budget.rounds=2", "budget.share_of_full=2", "budget.blind_share=0", "corrections.precision=0.99",
)  # fmt: skip


def ran(folder, *more, sure=3.0, said=None):
    write(folder)
    job = made(folder, config(folder, *PLAIN, *more), SeeingCompute(sure), Console(said or io.StringIO()))
    outcome = controller.run(job)
    return job, json.loads(outcome.summary.read_text())


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A run with three experts who slip, and its summary."""
    return ran(tmp_path_factory.mktemp("several"), *SEVERAL, sure=1.0)


def tasks(job):
    return [q.task for q in asking.questions_until(job, 2)]


def given_to(job):
    """Who answered about each picture."""
    who = {}
    for answer in asking.annotations_so_far(job):
        who.setdefault(image_of(answer.key), []).append(answer.annotator)
    return who


@pytest.mark.parametrize(
    ("keys", "rounds", "words"),
    [
        (["budget.labels=25"], [12, 25], "Budget: 25 labels."),
        (["budget.labels=5"], [5], "Budget: 5 labels."),
        (["budget.labels=25", "budget.minutes=2.0"], [12, 17], "pay for 17: the minutes bind"),
        (["budget.labels=25", "budget.minutes=3.0"], [12, 25], "pay for 25: the labels bind"),
    ],
)
def test_as_many_labels_are_asked_for_as_the_strictest_budget_allows(tmp_path, keys, rounds, words):
    said = io.StringIO()
    write(tmp_path)
    settings = config(tmp_path, *PLAIN, *keys)
    if not any("minutes" in key for key in keys):  # labels alone: as if the share were not given
        budget = settings.budget.model_copy(update={"share_of_full": 100.0})
        settings = settings.model_copy(update={"budget": budget})
    job = made(tmp_path, settings, console=Console(said))
    summary = json.loads(controller.run(job).summary.read_text())
    assert [row["answers"] for row in summary["rounds"]] == rounds
    assert words in said.getvalue()
    assert words in finishing.report_file(job).read_text()
    if rounds == [5]:
        assert summary["stop_reason"] == "all 5 labels of the budget are given"


def test_every_answer_of_every_expert_counts_in_the_budget_and_a_picture_once(several):
    job, summary = several
    last = summary["rounds"][-1]
    assert last["answers"] == 44 == len(asking.annotations_so_far(job))
    assert last["cost"]["minutes"] == pytest.approx(44 * 7 / 60)
    assert last["cost"]["images"] == len({t.image.image_id for t in tasks(job)}) < 44
    waiting = json.loads((job.folder / "waiting.json").read_text())
    assert waiting["words"].endswith("44 of 44 labels of the budget")


def test_answered_pictures_are_looked_at_again_by_somebody_else_who_is_told_nothing(several):
    job, _ = several
    again = [t for t in tasks(job) if t.seen_by]
    assert again
    assert all(t.blind and not t.suggestions for t in again)
    first = {t.image.image_id for t in tasks(job) if not t.seen_by}
    assert {t.image.image_id for t in again} <= first
    for who in given_to(job).values():
        assert len(who) == len(set(who)) <= 3
    assert max(map(len, given_to(job).values())) > 1
    assert not any(q.at_random for q in asking.questions_until(job, 2) if q.task.seen_by)


def test_where_experts_differ_all_together_decide_and_else_their_word_stands(several):
    job, _ = several
    heard = agreeing.words(job, job.data.ids())
    standing, known = classes_of(standing_labels(job)), answered(job)
    assert heard.disputed.any()
    for k in np.flatnonzero((heard.looks > 0) & ~heard.disputed):
        assert {standing[heard.ids[k]], known[heard.ids[k]]} == set(heard.said[k][heard.said[k] >= 0])
    truth = classes_of(job.data.truth)
    disputed = [heard.ids[k] for k in np.flatnonzero(heard.disputed)]
    newest = {image_of(a.key): a.boxes[0].category for a in asking.annotations_so_far(job)}
    names = job.data.categories
    right = np.mean([standing[i] == truth[i] for i in disputed])
    assert right > np.mean([names.index(newest[i]) == truth[i] for i in disputed])
    events = job.parts.tables.read("labels").to_pylist()
    told = [e["reason"] for e in events if e["reason"].startswith("experts differ (expert-")]
    assert told
    assert all("expert-" in why and ": right" in why and ": left" in why for why in told)


def test_the_report_names_each_experts_accuracy(several):
    job, summary = several
    found = summary["rounds"][-1]["estimate"]["experts"]
    assert found["answers"] == 44
    assert [e["name"] for e in found["each"]] == [f"expert-{k}@simulated.invalid" for k in (1, 2, 3)]
    accuracy = [e["accuracy"] for e in found["each"]]
    assert accuracy[0] == max(accuracy)
    page = finishing.report_file(job).read_text()
    assert "3 experts gave 44 answers about" in page
    assert "How often each expert is right" in page
    for cost in ("expert minutes", "answers"):
        assert f"accuracy of model and labels against {cost}" in page


def test_without_second_looks_or_with_another_strategy_nobody_is_asked_again(tmp_path, several):
    for name, key in (("a", "budget.second_looks=false"), ("b", "strategy=uncertainty")):
        job, summary = ran(tmp_path / name, *SEVERAL, key, sure=1.0)
        assert not any(t.seen_by for t in tasks(job))
        assert summary["rounds"][-1]["estimate"]["experts"]["looked_twice"] == 0
        assert max(Counter(t.image.image_id for t in tasks(job)).values()) == 1


def test_the_loop_ranks_by_all_votes_of_a_picture_and_by_corrections_as_they_stand(tmp_path):
    write(tmp_path, votes=2)
    kind = made(tmp_path, config(tmp_path, *PLAIN, "data.pool.crowd=[v0, v1]")).kind
    ids = tuple(i for i in kind.pool.ids if not i.endswith("'"))
    places = Pictures(kind.pool).places(ids)
    said, p = kind.pool.all_votes()[places], np.tile([[0.8, 0.2]], (len(ids), 1))
    judged = Judged(ids, said[:, 0], p, doubt.contest(said[:, 0], p))
    table = selecting.Table(judged, kind.pool, agreeing.Words(ids, (), np.zeros((len(ids), 0), int)), {})
    found = selecting._scores("cross_entropy", table, np.arange(len(ids)))["cross_entropy"]
    assert len(set(found.round(6))) == 4  # none, one, two or three of three votes against the model
    assert found == pytest.approx(scores.cross_entropy(shares(said, 2), p))
    flipped = replace(judged, limit=0.75)
    table = replace(table, judged=flipped)
    now = selecting._scores("cross_entropy", table, np.arange(len(ids)))["cross_entropy"]
    assert flipped.flips.any()
    assert now[flipped.flips] == pytest.approx(found.min())


def test_several_annotations_of_one_task_are_several_experts_words(tmp_path):
    """Two users answer the same task: nothing is asked for that, and neither word is lost."""
    job, _ = ran(tmp_path, "expert.count=2", "budget.rounds=0", "budget.seed_images=6")
    state = controller.states.load(controller.state_file(job), "r")
    names, one = job.data.categories, tasks(job)[0]
    i, before = one.image.image_id, classes_of(standing_labels(job))
    other = names[1 - before[i]]
    job.parts.service.answer(one.key, [((0, 0, 16, 16), other, "")], annotator="ben")
    asking.pull(job, 0)
    assert classes_of(standing_labels(job))[i] == 1 - before[i]  # the newest, until all are heard
    heard = agreeing.words(job, job.data.ids())
    assert heard.disputed[heard.ids.index(i)]
    job.kind.settle(job, state)
    found = agreeing.together(job.kind.pool, heard, job.kind.judges.newest(job, state))
    assert classes_of(standing_labels(job))[i] == agreeing.agreed(heard, found)[heard.ids.index(i)]
    rows = job.parts.tables.read("labels").num_rows
    job.kind.settle(job, state)
    assert job.parts.tables.read("labels").num_rows == rows
    assert spending.answers_until(job, 0) == 7


def test_an_answer_that_comes_when_the_work_is_over_is_weighed_too(tmp_path):
    job, _ = ran(tmp_path, "expert.count=2", "budget.rounds=0", "budget.seed_images=6")
    state = controller.states.load(controller.state_file(job), "r")
    names, before = job.data.categories, classes_of(standing_labels(job))
    for task in tasks(job):
        other = names[1 - before[task.image.image_id]]
        job.parts.service.answer(task.key, [((0, 0, 16, 16), other, "")], annotator="ben")
    served = replace(job, settings=job.settings.model_copy(update={"label_service": "label_studio"}))
    asking.look_once_more(served, state)
    heard = agreeing.words(job, job.data.ids())
    found = agreeing.together(job.kind.pool, heard, job.kind.judges.newest(job, state))
    best = dict(zip(heard.ids, agreeing.agreed(heard, found), strict=True))
    standing = classes_of(standing_labels(job))
    late = [task.image.image_id for task in tasks(job)]
    assert {i: standing[i] for i in late} == {i: best[i] for i in late}
    assert any(best[i] == before[i] for i in late)  # the newest answer does not simply stand


def test_an_expert_who_answers_again_has_one_word(tmp_path):
    job, _ = ran(tmp_path, "budget.rounds=0", "budget.seed_images=4")
    one = tasks(job)[0]
    said = label(one.image, 0)
    for name in ("left", "right"):
        job.parts.service.answer(one.key, [(tuple(said.boxes[0]), name, "")], annotator="anna")
    asking.pull(job, 0)
    heard = agreeing.words(job, job.data.ids())
    k = heard.ids.index(one.image.image_id)
    assert heard.names == ("anna", "simulated expert")
    assert heard.said[k, 0] == job.data.categories.index("right")


@pytest.mark.parametrize("phases", [tuple(Phase), (Phase.WAIT,)], ids=["every step", "answers waiting"])
def test_a_run_of_several_experts_that_died_ends_with_the_same_labels(tmp_path, several, phases):
    straight, _ = several
    write(tmp_path)
    broken = made(tmp_path, config(tmp_path, *PLAIN, *SEVERAL), SeeingCompute(1.0))

    def born_again(job):  # a new process has an empty memory, and so has its label service
        return replace(job, memory={}, parts=replace(job.parts, service=InMemoryLabelService()))

    broken = dying_in(broken, phases, born_again)
    assert_alike(straight, broken, 3)
    assert len(asking.annotations_so_far(broken)) == len(asking.annotations_so_far(straight)) == 44
    assert said_by(broken) == said_by(straight)


def said_by(job):
    """Who said what to each task."""
    return {a.key: (a.annotator, a.boxes[0].category) for a in asking.annotations_so_far(job)}
