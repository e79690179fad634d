"""What differs between labelling boxes and labelling classes, as one value that is chosen once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from emclean.loop.states import RunState
from emclean.science.cost import CostModel
from emclean.stores.label_studio.forms import Form
from emclean.types import AnsweredBox, Labels, TaskSpec

if TYPE_CHECKING:
    from emclean.loop.asking import Question
    from emclean.loop.job import Job


class Kind(Protocol):
    """What is labelled; everything else of the loop is the same for all kinds.

    ``figure`` is what a model is measured by, ``quality`` what labels are, both as named in a summary;
    ``figure_words`` and ``quality_words`` say the same to people.
    """

    @property
    def figure(self) -> str:
        """``ap50`` or ``accuracy``."""

    @property
    def quality(self) -> str:
        """``f1`` or ``accuracy``."""

    @property
    def figure_words(self) -> str:
        """What people call the figure."""

    @property
    def quality_words(self) -> str:
        """What people call the quality."""

    @property
    def instructions(self) -> str:
        """What the expert is told, once for a project."""

    def registered_name(self, categories: Sequence[str]) -> str:
        """The registered model of these categories: models of others never compete with it."""

    @property
    def form(self) -> Form:
        """The labelling page."""

    @property
    def least_side(self) -> int:
        """Smaller pictures are shown enlarged to this many pixels."""

    def expert_options(self) -> dict[str, str]:
        """What the program that simulates an expert is told besides slips and costs."""

    def digests(self) -> dict[str, str]:
        """Digests of what decides the result besides settings, pictures, labels and truth."""

    def costs(self, seconds: Mapping[str, float]) -> CostModel:
        """The stated cost model, of the settings ``cost``."""

    def crowd(self, job: "Job", state: RunState) -> RunState:
        """Train the models that judge each picture without having seen its label."""

    def choose(self, job: "Job", state: RunState) -> "tuple[list[Question], str]":
        """The questions of the round that ``state`` is in, or none and the reason to stop."""

    def simulate(self, job: "Job", task: TaskSpec) -> list[AnsweredBox]:
        """What the simulated expert says to one task; the draw depends on seed and key alone."""

    def answerer(self, job: "Job", task: TaskSpec) -> str:
        """Which simulated expert answers a task."""

    def settle(self, job: "Job", state: RunState) -> None:
        """Put what several experts say together in place where their answers to one picture differ."""

    def allowance(self, job: "Job", round_: int) -> str:
        """How much of a budget other than minutes was used up to a round, in words; empty without one."""

    def clean(self, job: "Job", state: RunState) -> RunState:
        """Refit the judging models with the round's answers, and correct what is safe."""

    def train(self, job: "Job", state: RunState) -> str:
        """Train the round's model; return its weights."""

    def trained_on(self, job: "Job", state: RunState) -> list[str]:
        """The images that the round's model was trained on."""

    def label_quality(self, job: "Job", labels: Mapping[str, Labels]) -> dict[str, float | None]:
        """How good labels are against the truth file; unknown without one."""

    def measure(self, job: "Job", round_: int, weights: str) -> dict[str, Any]:
        """The figures of a model on the test set, for the summary; unknown ones are None."""

    def estimate(self, job: "Job", state: RunState, weights: str) -> dict[str, Any]:
        """How good labels and model are by the expert's random images alone."""

    def card(self, job: "Job", state: RunState, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the model card says of this kind of model."""

    def gate(self, job: "Job", state: RunState, weights: str) -> tuple[bool, str]:
        """Whether a new model may take the champion's place, and why."""

    def overlays(self, job: "Job", state: RunState, run_id: str) -> None:
        """Draw what was asked and corrected in this round; keep the pictures and log them."""

    def baselines(self, job: "Job", state: RunState) -> RunState:
        """Train floor and ceiling, and compare the final model with the latter."""

    def notes(self, job: "Job", state: RunState) -> list[str]:
        """What the report says of the expert's answers."""
