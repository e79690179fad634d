"""Labelling classes: what the loop does differently from labelling boxes."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from emclean.config import ActiveClasses
from emclean.loop import asking, simulating
from emclean.loop.classes import agreeing, measuring, recording, selecting, spending, swaying
from emclean.loop.classes.judging import Judges
from emclean.loop.classes.labels import classes_of, held, trusted
from emclean.loop.classes.sets import ClassSet
from emclean.loop.classes.training import Training, fit, without
from emclean.loop.cleaning import crowd_labels
from emclean.loop.job import Job
from emclean.loop.states import RunState
from emclean.science.classes import expert
from emclean.science.cost import CostModel
from emclean.stores.label_studio import forms
from emclean.types import AnsweredBox, Labels, TaskSpec

TASK = "classes"


@dataclass(frozen=True, eq=False)
class ClassKind:
    """One class for every picture, told by a classifier; see :class:`emclean.loop.kind.Kind`.

    ``pool`` and ``test`` hold the pictures, with their mirror images where these are of the other class.
    """

    settings: ActiveClasses
    pool: ClassSet
    test: ClassSet | None

    figure, figure_words = "accuracy", "accuracy"
    quality, quality_words = "accuracy", "label accuracy"
    instructions = (
        "Say of every picture which class it shows: press the class's key, then submit. The line above the "
        "picture names the label that it has so far, which may be wrong: look at the picture first. Of some "
        "pictures it is not told, on purpose. Skip a picture that cannot be judged."
    )

    form, least_side = forms.CLASSES, 384

    def expert_options(self) -> dict[str, str]:
        """The column of the truth file that holds the classes, and how often each of several experts errs."""
        wanted = self.settings.expert
        several = {"misses": ",".join(map(str, wanted.slips))} if wanted.count > 1 else {}
        return {"classes": wanted.truth_column, **several}

    @cached_property
    def judges(self) -> Judges:
        """The models that judge the labels."""
        return Judges(self.settings, self.pool)

    def registered_name(self, categories: Sequence[str]) -> str:
        """The registered classifier of these classes."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(categories))
        digest = hashlib.sha256("\n".join(categories).encode()).hexdigest()[:6]
        return f"emclean-classes-{plain[:40]}-{digest}"

    def digests(self) -> dict[str, str]:
        """What further labellers said decides the result as well."""
        return {"votes": self.pool.said()} if self.pool.votes.shape[1] else {}

    def costs(self, seconds: Mapping[str, float]) -> CostModel:
        """To name a class is one key, whatever was there before: it takes what verifying does."""
        touch = seconds["verify_s"]
        return CostModel(seconds["open_s"], touch, touch, touch)

    def crowd(self, job: Job, state: RunState) -> RunState:
        """Train the models that judge labels before any answer."""
        return state.with_model("crowd", weights=self.judges.fit(job, -1))

    def choose(self, job: Job, state: RunState) -> tuple[list[asking.Question], str]:
        """Whole pictures, by the strategy."""
        judged = self.judges.judge(job, state, state.round - 1)
        return selecting.choose(job, state, self.settings, self.pool, judged)

    def simulate(self, job: Job, task: TaskSpec) -> list[AnsweredBox]:
        """The class that the simulated expert whose turn it is names."""
        turn = expert.answerer(self.settings.expert.count, task.seen_by, task.key)
        wanted = self.settings.expert
        slips = expert.ClassSlips(wanted.slips[turn], wanted.rubber_stamp)
        names, record = job.data.categories, task.image
        truth = classes_of(job.data.truth or {})[record.image_id]
        shown = names.index(task.suggestions[0].category) if task.suggestions else None
        said = expert.answer(truth, shown, len(names), slips, job.rng(f"expert {task.key}"))
        whole = (0.0, 0.0, float(record.width), float(record.height))
        name = task.suggestions[0].suggestion_id if task.suggestions else ""
        return [AnsweredBox(whole, names[said], name)]

    def answerer(self, job: Job, task: TaskSpec) -> str:
        """The one simulated expert, or the one of several whose turn it is."""
        count = self.settings.expert.count
        if count == 1:
            return simulating.SIMULATED
        return expert.names(count)[expert.answerer(count, task.seen_by, task.key)]

    def settle(self, job: Job, state: RunState) -> None:
        """Where several experts differ about a picture, their votes, the crowd's and the model decide."""
        if self.settings.expert.count > 1 and "crowd" in state.models:
            ids = job.data.ids()
            heard = agreeing.words(job, ids)
            newest = self.judges.newest(job, state)
            agreeing.settle(job, state.round, self.pool, heard, newest)

    def allowance(self, job: Job, round_: int) -> str:
        """The labels, where there is a budget in labels."""
        return spending.allowance(job, self.settings, round_)

    def clean(self, job: Job, state: RunState) -> RunState:
        """Settle where experts differ, refit the judging models, calibrate their doubts on the answers,
        correct what is safe."""
        self.settle(job, state)
        state = state.with_model(f"cleaning-{state.round}", weights=self.judges.fit(job, state.round))
        judged = self.judges.judge(job, state, state.round)
        facts = recording.record_round(job, state.round, judged)
        job.parts.console.say(f"round {state.round}: {facts['corrected']} labels corrected automatically")
        return state.knowing(grades={**state.facts.get("grades", {}), str(state.round): facts})

    def train(self, job: Job, state: RunState) -> str:
        """Train the round's classifier."""
        training = Training(
            f"model of round {state.round}",
            self.labels(job, state),
            self.settings.classifier.final_steps,
            job.seed("final"),
            trusted(job, state.round),
        )
        (result,) = fit(job, self.settings, self.pool, [training])
        return result.weights

    def labels(self, job: Job, state: RunState) -> dict[str, int]:
        """The labels beside the expert's that the round's classifier learns from, as the settings ask."""
        kept = held(job, state.round)
        bought = trusted(job, state.round)
        if job.settings.correction == "expert_only":
            return dict(bought)
        if job.settings.correction == "none":
            return without(classes_of(crowd_labels(job)), kept)
        judged = self.judges.judge(job, state, state.round)
        return {**without(judged.corrected(), kept), **bought}

    def trained_on(self, job: Job, state: RunState) -> list[str]:
        """The images that the round's classifier was trained on."""
        return sorted(self.labels(job, state))

    def label_quality(self, job: Job, labels: Mapping[str, Labels]) -> dict[str, float | None]:
        """The share of right labels."""
        return measuring.label_quality(job, labels)

    def measure(self, job: Job, round_: int, weights: str) -> dict[str, Any]:
        """Accuracy with its standard error and interval, and the answers that it took."""
        found = measuring.figures(measuring.measured(job, self.test, weights))
        return {**found, "answers": spending.answers_until(job, round_)}

    def estimate(self, job: Job, state: RunState, weights: str) -> dict[str, Any]:
        """Accuracy of the unseen labels and of the model; of each of several experts."""
        judged = self.judges.judge(job, state, state.round)
        found = measuring.estimate(job, state.round, self.pool, judged, weights)
        if self.settings.expert.count == 1:
            return found
        heard = agreeing.words(job, judged.ids)
        weighed = agreeing.together(self.pool, heard, judged.probabilities)
        return {**found, "experts": agreeing.facts(heard, weighed)}

    def card(self, job: Job, state: RunState, row: Mapping[str, Any]) -> dict[str, Any]:
        """The classifier, the form of its pictures, and the calibration of its probabilities."""
        height, width = self.pool.open().shape[1:3]
        weights = state.models[f"final-{state.round}"]["weights"]
        return {
            "task": TASK,
            "accuracy": row["accuracy"],
            "classifier": self.settings.classifier.model_dump(mode="json"),
            "sides": [int(height), int(width)],
            "mirror": self.pool.mirrored,
            "temperature": measuring.served_temperature(job, state.round, self.pool, weights),
        }

    def gate(self, job: Job, state: RunState, weights: str) -> tuple[bool, str]:
        """Turned down only when worse beyond noise."""
        return measuring.gate(job, state.round, self.pool, weights)

    def overlays(self, job: Job, state: RunState, run_id: str) -> None:
        """Pictures of what was asked and corrected, with their labels."""
        recording.round_pictures(job, state, self.judges.judge(job, state, state.round), run_id)

    def baselines(self, job: Job, state: RunState) -> RunState:
        """Floor and ceiling by accuracy: the same training on the crowd's labels, and on the truth."""
        steps, seed = self.settings.classifier.final_steps, job.seed("final")
        parts = {"floor": crowd_labels(job), "ceiling": job.data.truth or {}}
        trainings = [Training(name, classes_of(labels), steps, seed) for name, labels in parts.items()]
        found = {}
        for name, result in zip(parts, fit(job, self.settings, self.pool, trainings), strict=True):
            state = state.with_model(name, weights=result.weights)
            reached = measuring.measured(job, self.test, result.weights)
            found[name] = None if reached is None else reached.value
        return state.knowing(baselines=found, compared=self._compared(job, state))

    def _compared(self, job: Job, state: RunState) -> Mapping[str, float] | None:
        if not state.rounds:
            return None
        final = state.models[f"final-{state.rounds[-1]['round']}"]["weights"]
        return measuring.share_of_ceiling(job, self.test, state.models["ceiling"]["weights"], final)

    def notes(self, job: Job, state: RunState) -> list[str]:
        """Which budget binds, what several experts said, whether being told the label sways them."""
        budget = spending.binding(job, self.settings)
        several = state.rounds[-1]["estimate"].get("experts") if state.rounds else None
        asked = asking.questions_until(job, state.round)
        said = swaying.comparison(asked, asking.answers_so_far(job), classes_of(crowd_labels(job)), job)
        return [*filter(None, (budget, said)), *(agreeing.notes(several) if several else ())]
