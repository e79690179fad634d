"""The Label Selection Module at work: out-of-sample models, evidence, grades, automatic corrections.

Nothing here is kept between steps but weights and predictions, both found again by their content; whatever
a later step needs (verdicts for the selection, targets for the training) is derived anew.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from emclean.loop import policies
from emclean.loop.asking import drawn_at_random
from emclean.loop.job import Job
from emclean.loop.modelling import Training, fit, predict
from emclean.loop.states import RunState
from emclean.science import calibration, consensus, correction
from emclean.science.grading import Evidence, grade, with_habits, with_places
from emclean.science.settling import settle
from emclean.stores import label_view
from emclean.types import Grade, Labels, Predictions, Settled, Target, Verdicts

FOLDS = 2


@dataclass(frozen=True)
class Judged:
    """What the models and the expert's answers say of every pool image in one round.

    ``evidence`` and ``verdicts`` by image id; ``limits`` the probability from which each grade is corrected
    without asking, ``calibrator`` None before any expert has answered; ``held_out`` the verdicts on the
    expert's images, by image id, as given by graders that did not learn from them.
    """

    evidence: Mapping[str, Evidence]
    verdicts: Mapping[str, Verdicts]
    limits: Mapping[Grade, float]
    calibrator: calibration.Calibrator | None
    held_out: Mapping[str, Verdicts] = field(default_factory=dict)


def standing_labels(job: Job) -> dict[str, Labels]:
    """The labels of every pool image as they stand now."""
    current = _said(job).current
    return {image_id: current.get(image_id, Labels.empty()) for image_id in job.data.ids()}


def expert_labels(job: Job) -> dict[str, Labels]:
    """The labels of the images that an expert has answered."""
    current, answered, _ = _said(job)
    return {image_id: current.get(image_id, Labels.empty()) for image_id in sorted(answered)}


def reviewed(job: Job) -> Mapping[str, Settled]:
    """What experts decided in the images of which they only reviewed some instances."""
    return _said(job).settled


class _Said(NamedTuple):
    """The labels as they stand, the images that an expert has answered, and the reviews of others."""

    current: Mapping[str, Labels]
    answered: Set[str]
    settled: Mapping[str, Settled]


def _said(job: Job) -> _Said:
    """What is said of the images, read once per version of the table."""

    def read() -> _Said:
        table, names = job.parts.tables.read("labels", where={"run": job.run}), job.data.categories
        answered = label_view.expert_images(table)
        return _Said(label_view.current(table, names), answered, label_view.settled(table, names))

    return job.remembered("labels", job.parts.tables.version("labels"), read)


def crowd_labels(job: Job) -> dict[str, Labels]:
    """The crowd's labels of every pool image, as ingested."""
    return {i: job.data.pool.labels.get(i, Labels.empty()) for i in job.data.ids()}


def validation_ids(job: Job, round_: int, answered: Sequence[str]) -> set[str]:
    """The expert images kept out of every training: for early stopping, score calibration and the gate."""
    held = policies.validation_part(drawn_at_random(job, round_)).intersection(answered)
    return held if len(held) < len(answered) else set()


def fold_of(job: Job, ids: Sequence[str], purpose: str) -> dict[str, int]:
    """The cross-fitting fold of each image; images of one group never straddle, unless there is only one."""
    group = {i: job.data.record(i).group for i in ids}
    return policies.grouped_folds(group, FOLDS, job.rng(purpose))


def out_of_sample(job: Job, weights: Sequence[str], fold: Mapping[str, int]) -> dict[str, Predictions]:
    """What each image's own fold model, which never saw it, finds in it as it is and mirrored."""
    found: dict[str, Predictions] = {}
    for k, file in enumerate(weights):
        found.update(predict(job, file, [i for i, f in fold.items() if f == k], flips=True))
    return found


def fit_crowd(job: Job) -> list[str]:
    """The crowd-trained models, one per fold of the pool, each blind to its own fold."""
    crowd = crowd_labels(job)
    fold = fold_of(job, job.data.ids(), "crowd folds")
    trainings = [
        Training(
            f"crowd model {k + 1}",
            {i: Target.of(labels) for i, labels in crowd.items() if fold[i] != k},
            {},
            job.boxes.detector.steps,
            job.seed(f"crowd {k}"),
        )
        for k in range(FOLDS)
    ]
    return [result.weights for result in fit(job, trainings)]


def crowd_predictions(job: Job, weights: Sequence[str]) -> dict[str, Predictions]:
    """Out-of-sample predictions of the crowd-trained models for the whole pool."""
    return out_of_sample(job, weights, fold_of(job, job.data.ids(), "crowd folds"))


def fit_cleaning(job: Job, round_: int) -> list[str]:
    """The cleaning models, trained on the expert's answers alone, one per fold of the answered images."""
    expert = expert_labels(job)
    validation = validation_ids(job, round_, list(expert))
    use = [i for i in expert if i not in validation]
    fold = fold_of(job, use, "expert folds")
    trainings = [
        Training(
            f"cleaning model {k + 1}",
            {i: Target.of(expert[i]) for i in use if fold[i] != k} or {i: Target.of(expert[i]) for i in use},
            {i: expert[i] for i in sorted(validation)},
            job.boxes.detector.steps,
            job.seed(f"cleaning {k}", round_),
        )
        for k in range(FOLDS)
    ]
    return [result.weights for result in fit(job, trainings)]


def cleaning_predictions(job: Job, round_: int, weights: Sequence[str]) -> dict[str, Predictions]:
    """One cleaning model's predictions for every image: for the expert's, that of the model that held it out.

    Every image is searched by a single model, since the scores of several fused are spread differently, and
    the calibration learnt on the expert's images must hold for the others.
    """
    expert = list(expert_labels(job))
    validation = validation_ids(job, round_, expert)
    use = [i for i in expert if i not in validation]
    rest = [i for i in job.data.ids() if i not in set(use)]
    fold = {**fold_of(job, rest, "other folds"), **fold_of(job, use, "expert folds")}
    return out_of_sample(job, weights, fold)


def fit_consensus(job: Job, round_: int, cleaning: Mapping[str, Predictions]) -> list[str]:
    """The consensus models: trained where crowd and cleaning model agree, and on the expert's answers.

    One per fold of the pool, blind to everything of its own fold; what only one of the two says is left out
    of the negatives.
    """
    crowd, expert = crowd_labels(job), expert_labels(job)
    validation = validation_ids(job, round_, list(expert))
    fold = fold_of(job, job.data.ids(), "crowd folds")
    targets = {
        i: Target.of(expert[i]) if i in expert else consensus.agreement_target(crowd[i], cleaning[i])
        for i in job.data.ids()
        if i not in validation
    }
    trainings = [
        Training(
            f"consensus model {k + 1}",
            {i: t for i, t in targets.items() if fold[i] != k},
            {i: expert[i] for i in sorted(validation)},
            job.boxes.detector.steps,
            job.seed(f"consensus {k}", round_),
        )
        for k in range(FOLDS)
    ]
    return [result.weights for result in fit(job, trainings)]


def judge(job: Job, state: RunState, round_: int) -> Judged:
    """Grade the crowd's labels of every pool image with the models of a round; -1 is before any answer.

    The newest judgement is kept in memory, for as long as the labels stay as they are.
    """
    key = (round_, job.parts.tables.version("labels"))
    return job.remembered("judged", key, lambda: _judge(job, state, round_))


def _judge(job: Job, state: RunState, round_: int) -> Judged:
    crowd = crowd_labels(job)
    from_crowd = crowd_predictions(job, state.models["crowd"]["weights"])
    roles = state.models.get(f"cleaning-{round_}"), state.models.get(f"consensus-{round_}")
    cleaning = cleaning_predictions(job, round_, roles[0]["weights"]) if roles[0] else None
    pool_fold = fold_of(job, job.data.ids(), "crowd folds")
    agreed = out_of_sample(job, roles[1]["weights"], pool_fold) if roles[1] else None
    evidence = with_places(
        {
            i: Evidence(
                crowd[i],
                cleaning[i] if cleaning else None,
                agreed[i] if agreed else None,
                from_crowd[i],
                job.data.record(i).width,
                job.data.record(i).height,
                picture=partial(job.pixels, i),
                names=job.data.categories,
            )
            for i in job.data.ids()
        }
    )
    evidence = with_habits(evidence, len(expert_labels(job)))
    if round_ < 0 or cleaning is None:
        return Judged(evidence, {i: grade(e) for i, e in evidence.items()}, {}, None)
    return _calibrated(job, round_, evidence)


def _calibrated(job: Job, round_: int, evidence: Mapping[str, Evidence]) -> Judged:
    expert = expert_labels(job)
    held = validation_ids(job, round_, list(expert))
    trained = [i for i in expert if i not in held]
    # With a single image to train on, no model judges it without having seen it.
    known = sorted(expert) if len(trained) >= FOLDS else sorted(held)
    calibrator = calibration.fit(
        [evidence[i] for i in known], [expert[i] for i in known], job.rng("calibration", round_)
    )
    limits = calibration.thresholds(
        calibrator.observations.of_images(_drawn(job, round_, known)), job.settings.corrections.precision
    )
    verdicts = {i: grade(e, calibrator) for i, e in evidence.items()}
    held_out = dict(zip(known, calibrator.held_out, strict=False))
    return _settled(job, Judged(evidence, verdicts, limits, calibrator, held_out))


def _settled(job: Job, judged: Judged) -> Judged:
    """The same with the expert's word in place of the verdicts on what was reviewed."""
    evidence, verdicts = dict(judged.evidence), dict(judged.verdicts)
    for i, said in reviewed(job).items():
        labels, verdicts[i] = settle(evidence[i].labels, verdicts[i], said)
        evidence[i] = replace(evidence[i], labels=labels)
    return replace(judged, evidence=evidence, verdicts=verdicts)


def _drawn(job: Job, round_: int, known: Sequence[str]) -> list[int]:
    """The places of the images that were drawn at random: those a strategy chose are worse than the rest."""
    drawn = set(drawn_at_random(job, round_))
    return [place for place, image_id in enumerate(known) if image_id in drawn]


def correct(job: Job, judged: Judged) -> dict[str, correction.Corrected]:
    """The automatic corrections of every image that no expert has answered."""
    return _corrected(job, judged, judged.limits)


def training_targets(job: Job, judged: Judged) -> dict[str, Target]:
    """What the model is trained on in the images that no expert has answered.

    The labels in their more likely version, weighted by how likely it is; what is recorded as corrected
    needs more (``correct``). Before the expert's images have taught the grader, the labels stay as they are.
    """
    known = judged.calibrator is not None and judged.calibrator.calibrated
    likely = _corrected(job, judged, correction.LIKELY if known else judged.limits)
    return {i: fixed.target for i, fixed in likely.items()}


def _corrected(job: Job, judged: Judged, limits: Mapping[Grade, float]) -> dict[str, correction.Corrected]:
    answered = set(expert_labels(job))
    return {
        i: correction.correct(judged.evidence[i].labels, judged.verdicts[i], limits)
        for i in job.data.ids()
        if i not in answered
    }
