"""What a method of learning from noisy labels is: a few short answers that the shared loop asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from emclean.models.classifiers.nets import Classifier
from emclean.models.classifiers.spec import ClassRecipe, Ints
from emclean.types import Floats

Options = Mapping[str, float]
"""A method's own settings, by name."""


class Estimate(Protocol):
    """What is thought of the labels' errors."""

    @property
    def rate(self) -> float:
        """Share of wrong labels."""

    @property
    def transition(self) -> Floats:
        """``[K,K]``: probability of the given label (column) where the true one is the row."""


class Judge(Protocol):
    """Judges labels ``[n]`` by out-of-sample probabilities ``[n,K]``; handed in, for models know no library
    that does."""

    def estimate(self, labels: Ints, probabilities: Floats) -> Estimate:
        """Rate and kind of the errors."""

    def errors(self, labels: Ints, probabilities: Floats) -> NDArray[np.bool_]:
        """Mask ``[n]`` of the labels that are probably wrong."""


@dataclass(frozen=True)
class Stage:
    """A part of a training: so many steps on some of the pictures.

    ``fresh`` starts with new networks, else with those that the stage before kept; the optimiser is always
    new. ``lr`` multiplies the recipe's learning rate.
    """

    name: str
    steps: int
    fresh: bool = True
    lr: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Varied pictures ``[B,C,S,S]``, their labels ``[B]``, whether those are trusted, and their places."""

    images: Tensor
    labels: Tensor
    trusted: Tensor
    index: Tensor


class Run(Protocol):
    """What a method sees of a running training. ``memory`` is its own and survives a stop."""

    options: Options
    networks: list[Classifier]
    optimiser: torch.optim.Optimizer
    memory: dict[str, Tensor]
    labels: Tensor
    trusted: Tensor
    n_classes: int
    device: torch.device

    @property
    def rate(self) -> float:
        """Share of wrong labels, given or estimated."""

    @property
    def transition(self) -> Tensor:
        """``[K,K]``: probability of the given label (column) where the true one is the row."""

    @property
    def done(self) -> float:
        """The share of this stage's steps that is behind, from 0 to below 1."""

    @property
    def step(self) -> int:
        """Number of this step within its stage."""

    @property
    def epoch(self) -> float:
        """How often this stage has gone through its pictures."""

    def view(self, index: Tensor) -> Tensor:
        """Another varied view ``[B,C,S,S]`` of the pictures at these places."""

    def predict(self, index: Tensor) -> Tensor:
        """Probabilities ``[b,K]`` of pictures as they are, by the weights that this stage has kept."""

    def suspects(self) -> Tensor:
        """Mask ``[n]`` of the labels that the judge holds for wrong; trusted ones never are."""

    def fold(self, number: int) -> Tensor:
        """Mask ``[n]`` of the pictures in this fold of the cross-fit."""


class Method:
    """One way to learn from noisy labels; what is here is plain training, and a method overrides a little.

    ``networks`` are trained side by side and answer together. ``needs_rate`` and ``needs_suspects`` say what
    must be known of the labels' errors, ``needs_trusted`` that there must be trusted labels. ``options`` are
    its own settings with their defaults.
    """

    name: ClassVar[str]
    networks: ClassVar[int] = 1
    needs_rate: ClassVar[bool] = False
    needs_suspects: ClassVar[bool] = False
    needs_trusted: ClassVar[bool] = False
    options: ClassVar[Options] = MappingProxyType({})

    def stages(self, recipe: ClassRecipe, options: Options) -> list[Stage]:
        """The parts of the training, in order."""
        return [Stage("train", recipe.steps)]

    def keep(self, recipe: ClassRecipe) -> str:
        """Which weights stay: the ``best`` as ``ClassRecipe`` says it, or the ``last``."""
        return recipe.keep

    def patience(self, options: Options) -> int:
        """After how many evaluations clearly below the best a stage ends; 0 never."""
        return 0

    def chosen(self, run: Run, stage: Stage) -> Tensor:
        """Mask ``[n]`` of the pictures that a stage trains on."""
        return torch.ones_like(run.trusted)

    def begin(self, run: Run, stage: Stage) -> None:
        """Called when a stage begins; not when it goes on after a stop."""

    def end(self, run: Run, stage: Stage) -> None:
        """Called when a stage has ended, its kept weights in place."""

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """What this step minimises, one number."""
        return functional.cross_entropy(logits_of(run.networks[0], batch.images), batch.labels)

    def update(self, run: Run, batch: Batch) -> float:
        """Take one step; return its loss."""
        loss = self.loss(run, batch)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimiser.step()
        return float(loss.detach())

    def kept(self, run: Run) -> Tensor | None:
        """How far each training label was trusted in the end ``[n]``, 0 to 1; None without a judgement."""
        return None


def settings(**values: float) -> Options:
    """A method's options with their defaults."""
    return MappingProxyType(values)


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of pictures, ``[B,K]``."""
    logits: Tensor = network(images)
    return logits


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values [B]`` where the ``mask`` (or weight) is set; 0 where it is nowhere."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def parameters(networks: list[Classifier]) -> list[nn.Parameter]:
    """All parameters of the networks."""
    return [parameter for network in networks for parameter in network.parameters()]
