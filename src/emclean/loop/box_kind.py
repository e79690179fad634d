"""Labelling boxes: what the loop does differently from labelling classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from emclean.loop import asking, blind, likelier, publishing, selecting, simulating
from emclean.loop.baselines import baseline_trainings
from emclean.loop.cleaning import (
    cleaning_predictions,
    correct,
    crowd_labels,
    expert_labels,
    fit_cleaning,
    fit_consensus,
    fit_crowd,
    judge,
    training_targets,
    validation_ids,
)
from emclean.loop.estimating import estimate
from emclean.loop.job import Job
from emclean.loop.modelling import Training, fit
from emclean.loop.recording import (
    record_corrections,
    record_predictions,
    record_verdicts,
    round_overlays,
)
from emclean.loop.states import RunState
from emclean.science import evaluation
from emclean.science.cost import CostModel
from emclean.stores.label_studio import forms
from emclean.types import AnsweredBox, Labels, Target, TaskSpec


class BoxKind:
    """Boxes around objects, found by a detector; see :class:`emclean.loop.kind.Kind`."""

    figure, figure_words = "ap50", "AP50"
    quality, quality_words = "f1", "label F1"
    instructions = asking.INSTRUCTIONS
    form, least_side = forms.BOXES, 0

    def expert_options(self) -> dict[str, str]:
        """Nothing else."""
        return {}

    def registered_name(self, categories: Sequence[str]) -> str:
        """The registered detector of these categories."""
        return publishing.registered_name(categories)

    def digests(self) -> dict[str, str]:
        """There is nothing else."""
        return {}

    def costs(self, seconds: Mapping[str, float]) -> CostModel:
        """The stated cost model as it is set."""
        return CostModel(**seconds)

    def crowd(self, job: Job, state: RunState) -> RunState:
        """Train the crowd models."""
        return state.with_model("crowd", weights=fit_crowd(job))

    def choose(self, job: Job, state: RunState) -> tuple[list[asking.Question], str]:
        """Images, and where the strategy mixes both, reviews of some instances."""
        return selecting.choose(job, state)

    def simulate(self, job: Job, task: TaskSpec) -> list[AnsweredBox]:
        """The boxes that the simulated expert draws, moves and leaves."""
        return simulating.simulate_one(job, task)

    def answerer(self, job: Job, task: TaskSpec) -> str:
        """There is one."""
        return simulating.SIMULATED

    def settle(self, job: Job, state: RunState) -> None:
        """The newest answer stands: boxes of several experts are not weighed against each other."""

    def allowance(self, job: Job, round_: int) -> str:
        """There is no other."""
        return ""

    def clean(self, job: Job, state: RunState) -> RunState:
        """Refit cleaning and consensus models, grade every instance, correct what is safe."""
        state = state.with_model(f"cleaning-{state.round}", weights=fit_cleaning(job, state.round))
        cleaning = cleaning_predictions(job, state.round, state.models[f"cleaning-{state.round}"]["weights"])
        agreed = fit_consensus(job, state.round, cleaning)
        state = state.with_model(f"consensus-{state.round}", weights=agreed)
        judged = judge(job, state, state.round)
        record_predictions(job, state.round, "cleaning", cleaning)
        record_verdicts(job, state.round, judged)
        likelier.record(job, state.round, training_targets(job, judged))
        facts = record_corrections(job, state.round, judged, correct(job, judged))
        job.parts.console.say(f"round {state.round}: {facts['corrected']} labels corrected automatically")
        grades = {**state.facts.get("grades", {}), str(state.round): facts}
        return state.knowing(grades=grades)

    def train(self, job: Job, state: RunState) -> str:
        """Train the round's detector."""
        expert = expert_labels(job)
        held = {i: expert[i] for i in sorted(validation_ids(job, state.round, list(expert)))}
        training = Training(
            f"model of round {state.round}",
            targets(job, state),
            held,
            job.boxes.detector.final_steps,
            job.seed("final"),
        )
        (result,) = fit(job, [training])
        return result.weights

    def trained_on(self, job: Job, state: RunState) -> list[str]:
        """The images that the round's detector was trained on."""
        return sorted(targets(job, state))

    def label_quality(self, job: Job, labels: Mapping[str, Labels]) -> dict[str, float | None]:
        """Precision, recall, F1 and mean IoU."""
        return publishing.label_entry(job, labels)

    def measure(self, job: Job, round_: int, weights: str) -> dict[str, Any]:
        """AP50 with its interval, and AP; the quality of the labels in their likelier version."""
        return {**publishing.measure(job, weights), "labels_likelier": publishing.likelier_entry(job)}

    def estimate(self, job: Job, state: RunState, weights: str) -> dict[str, Any]:
        """F1 of the unseen labels, AP50 of the model."""
        return estimate(job, state, weights)

    def card(self, job: Job, state: RunState, row: Mapping[str, Any]) -> dict[str, Any]:
        """The detector and the calibration of its scores."""
        return publishing.detector_card(job, state, row)

    def gate(self, job: Job, state: RunState, weights: str) -> tuple[bool, str]:
        """Turned down only when worse beyond noise."""
        return publishing.gate(job, state, weights)

    def overlays(self, job: Job, state: RunState, run_id: str) -> None:
        """Pictures of what was asked and corrected."""
        round_overlays(job, state, run_id)

    def baselines(self, job: Job, state: RunState) -> RunState:
        """Floor and ceiling by AP50."""
        results = fit(job, baseline_trainings(job))
        found = {}
        for name, result in zip(("floor", "ceiling"), results, strict=True):
            state = state.with_model(name, weights=result.weights)
            detection = publishing.test_detection(job, result.weights)
            found[name] = None if detection is None else float(detection.ap50)
        return state.knowing(baselines=found, compared=_compared(job, state))

    def notes(self, job: Job, state: RunState) -> list[str]:
        """Whether suggestions sway the expert."""
        asked = asking.questions_until(job, state.round)
        compared = blind.comparison(asked, asking.answers_so_far(job), job.data.pool.labels)
        return [compared] if compared else []


def targets(job: Job, state: RunState) -> dict[str, Target]:
    """What the round's model is trained on: the expert's images, and the crowd's as the settings ask."""
    expert = expert_labels(job)
    held = validation_ids(job, state.round, list(expert))
    use = {i: Target.of(labels) for i, labels in expert.items() if i not in held}
    if job.settings.correction == "graded":
        use.update(training_targets(job, judge(job, state, state.round)))
    elif job.settings.correction == "none":
        use.update({i: Target.of(labels) for i, labels in crowd_labels(job).items() if i not in expert})
    return use


def _compared(job: Job, state: RunState) -> Mapping[str, float] | None:
    """The final model's AP50 as a percentage of the ceiling's, with the paired bootstrap interval."""
    if not state.rounds or job.data.test is None:
        return None
    final = state.models[f"final-{state.rounds[-1]['round']}"]["weights"]
    both = [publishing.test_detection(job, file) for file in (state.models["ceiling"]["weights"], final)]
    if both[0] is None or both[1] is None:
        return None
    ratio = evaluation.bootstrap(both[0], both[1], job.rng("bootstrap")).ratio
    return {"percent": 100 * ratio.value, "low": 100 * ratio.low, "high": 100 * ratio.high}
