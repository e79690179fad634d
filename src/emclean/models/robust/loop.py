"""The training loop that all methods share.

Every step's batch and every random draw in it is derived from seed, stage and step alone, so a run that was
stopped goes on from its checkpoint exactly as if it had not been: same weights at the end.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emclean.errors import TrainingError
from emclean.models.classifiers import engine
from emclean.models.classifiers.augment import Pictures, as_floats, open_pictures, vary
from emclean.models.classifiers.nets import Classifier, build
from emclean.models.classifiers.spec import ClassEvaluation, ClassResult, ClassTask
from emclean.models.files import whole
from emclean.models.hooks import Hooks, Progress
from emclean.models.robust import storage
from emclean.models.robust.base import Batch, Judge, Method, Options, Stage, parameters
from emclean.models.robust.crossfit import FOLDS
from emclean.models.robust.sampling import Order, Samples, folds, seeded

_FLAT = 0.02  # the share of the learning rate that is left at the end of the cosine
_MOMENTUM = 0.9
_RHO, _EPSILON = 0.95, 1e-7  # Adadelta as Keras has it, which the source's code uses
_HELD = 15 / 40  # the part of a late_linear schedule at the full rate; from then on Adam's first beta is low
_LATE_BETA = 0.1

States = list[dict[str, Tensor]]


@dataclass
class _State:
    """What a checkpoint holds beside networks, averages, optimiser and memory."""

    stage: int = 0
    step: int = 0
    history: list[ClassEvaluation] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: float | None = None
    stale: int = 0
    seconds: float = 0.0


class Training:
    """One fit at work; methods see it as :class:`emclean.models.robust.base.Run`."""

    def __init__(
        self,
        plan: list[tuple[Method, Stage]],
        task: ClassTask,
        hooks: Hooks,
        judge: Judge | None,
        digest: str,
    ) -> None:
        self.plan, self.task, self.hooks, self.judge, self.digest = plan, task, hooks, judge, digest
        self.method = plan[-1][0]
        self.options: Options = {**self.method.options, **task.options}
        self.device, self.n_classes = hooks.device, task.spec.n_classes
        source = open_pictures(task.pictures)
        self.samples = Samples.of(task)
        self.labels = torch.from_numpy(self.samples.labels).to(self.device)
        self.trusted = torch.from_numpy(self.samples.trusted).to(self.device)
        self.pictures = Pictures(source, self.samples.rows, task.spec.size, task.spec.channels)
        self.validation = Pictures(source, task.validation_rows, task.spec.size, task.spec.channels)
        self.memory: dict[str, Tensor] = {}
        self.state = _State()
        self.total = sum(stage.steps for _, stage in plan)
        self.networks: list[Classifier] = []
        self._resume()
        self.began = time.perf_counter() - self.state.seconds

    # What methods see.

    @cached_property
    def rate(self) -> float:
        """Share of wrong labels, given or estimated."""
        return self.task.noise_rate if self.task.noise_rate is not None else self._estimate[0]

    @cached_property
    def transition(self) -> Tensor:
        """``[K,K]`` by true (row) and given (column) label; a rate that was given is spread evenly."""
        if self.task.noise_rate is None:
            return torch.from_numpy(self._estimate[1]).float().to(self.device)
        share = self.task.noise_rate / (self.n_classes - 1)
        others = torch.full((self.n_classes, self.n_classes), share, device=self.device)
        return others.fill_diagonal_(1 - self.task.noise_rate)

    @property
    def step(self) -> int:
        """Number of this step within its stage."""
        return self.state.step

    @property
    def done(self) -> float:
        """The share of this stage's steps that is behind."""
        return self.state.step / self.stage.steps

    @property
    def epoch(self) -> float:
        """How often this stage has gone through its pictures."""
        return self.state.step * self.task.recipe.batch / len(self.order)

    def view(self, index: Tensor) -> Tensor:
        """Another varied view of the pictures at these places."""
        return vary(as_floats(self.pictures(index.cpu()).to(self.device)), self.task.recipe)

    def predict(self, index: Tensor) -> Tensor:
        """Probabilities of pictures as they are, by the weights that are kept or followed at present."""
        return engine.probabilities(self.served, self.pictures, self.device, index).to(self.device)

    def suspects(self) -> Tensor:
        """Mask ``[n]`` of the labels that the judge holds for wrong; trusted ones never are."""
        assert self.judge is not None
        open_, labels, probabilities = self._judged()
        mask = np.zeros(len(self.labels), bool)
        mask[open_] = self.judge.errors(labels, probabilities)
        return torch.from_numpy(mask).to(self.device)

    def fold(self, number: int) -> Tensor:
        """Mask ``[n]`` of the pictures in this fold; pictures beyond the task's rows are in none."""
        inside = folds(self.task, FOLDS) == number
        mask = np.zeros(len(self.labels), bool)
        mask[: len(inside)] = inside
        return torch.from_numpy(mask).to(self.device)

    # The course of the training.

    def run(self) -> ClassResult:
        """Train through all stages, then write the result."""
        while self.state.stage < len(self.plan):
            self._open()
            while not self._ended():
                self._step()
                if self.state.step % self.task.recipe.eval_every == 0 or self.state.step == self.stage.steps:
                    self._evaluate()
                    self.hooks.report(self._progress(), self._save)
            self._close()
        return self._finish()

    def _open(self) -> None:
        """Bring a stage to its first step, or to the one that its checkpoint stands at."""
        self.worker, self.stage = self.plan[self.state.stage]
        if self.state.step == 0:
            self._begin()
        chosen = self.worker.chosen(self, self.stage).cpu().numpy()
        self.order = Order(np.flatnonzero(chosen), (self.task.seed, 0, self.state.stage))
        bought = np.flatnonzero(self.samples.trusted)
        self.bought = Order(bought, (self.task.seed, 4, self.state.stage)) if len(bought) else None

    def _begin(self) -> None:
        state = self.state
        if self.stage.fresh or not self.networks:
            torch.manual_seed(seeded(self.task.seed, 1, state.stage))
            self.networks = [build(self.task.spec).to(self.device) for _ in range(self.worker.networks)]
        self._follow_afresh()
        self.best: States = []
        self.best_met = torch.zeros(len(self.validation), dtype=torch.bool)
        state.best, state.stale = None, 0
        self.optimiser = self._optimiser()
        self.worker.begin(self, self.stage)

    def _follow_afresh(self) -> None:
        """The networks that are validated and kept: the averages, or where none are wanted the networks."""
        averaged = self.networks
        if self.task.recipe.ema > 0:
            averaged = [build(self.task.spec).to(self.device) for _ in self.networks]
            for average, network in zip(averaged, self.networks, strict=True):
                average.load_state_dict(network.state_dict())
        self.served = engine.Ensemble(self.task.spec, averaged)

    def _optimiser(self) -> torch.optim.Optimizer:
        recipe, trained = self.task.recipe, parameters(self.networks)
        groups: list[dict[str, Any]] = [  # norms and biases do not decay
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if recipe.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=recipe.lr, momentum=_MOMENTUM, fused=True)
        if recipe.optimiser == "adadelta":
            return torch.optim.Adadelta(groups, lr=recipe.lr, rho=_RHO, eps=_EPSILON)
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)

    def _ended(self) -> bool:
        patience = self.worker.patience(self.options)
        return 0 < patience <= self.state.stale or self.state.step >= self.stage.steps

    def _step(self) -> None:
        state, recipe = self.state, self.task.recipe
        torch.manual_seed(seeded(self.task.seed, 2, state.stage, state.step))
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * self.stage.lr * pace(self.done, recipe.schedule)
            if recipe.schedule == "late_linear" and self.done >= _HELD and "betas" in group:
                group["betas"] = (_LATE_BETA, group["betas"][1])
        for network in self.networks:
            network.train()
        index = self._places()
        there = index.to(self.device)
        batch = Batch(self.view(index), self.labels[there], self.trusted[there], there)
        loss = self.worker.update(self, batch)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is no longer finite ({loss})",
                f"{self.worker.name}, {self.stage.name}, step {state.step}",
                "Lower the recipe's lr.",
            )
        state.step += 1
        state.losses.append(loss)
        self._follow()

    def _places(self) -> Tensor:
        """What this step trains on; a share of it is drawn from the trusted labels, if that is wanted."""
        size, step = self.task.recipe.batch, self.state.step
        own = round(self.task.recipe.trusted_share * size) if self.bought else 0
        places = self.order.batch(step, size - own)
        if self.bought and own:
            places = np.concatenate([places, self.bought.batch(step, own)])
        return torch.from_numpy(places)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averages a little towards the current weights; early on, faster."""
        if self.task.recipe.ema == 0:
            return
        decay = min(self.task.recipe.ema, self.state.step / (self.state.step + 10.0))
        for average, network in zip(self.served.networks, self.networks, strict=True):
            for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                if value.is_floating_point():
                    mean.lerp_(value, 1.0 - decay)
                else:
                    mean.copy_(value)

    def _evaluate(self) -> None:
        state = self.state
        loss = sum(state.losses) / len(state.losses)
        state.losses.clear()
        met = self._met()
        score = float(met.double().mean()) if len(met) else None
        state.history.append(ClassEvaluation(self.stage.name, state.step, loss, score))
        if score is not None and (state.best is None or score >= state.best):
            state.best, self.best_met = score, met
        fell = clearly_below(met, self.best_met)
        state.stale = state.stale + 1 if fell else 0
        if not fell:
            self.best = [_copy(network.state_dict()) for network in self.served.networks]

    def _met(self) -> Tensor:
        """Mask of the validation part's noisy labels that are met."""
        found = engine.probabilities(self.served, self.validation, self.device).argmax(1)
        return found == torch.from_numpy(self.task.validation_labels)

    def _progress(self) -> Progress:
        state = self.state
        state.seconds = time.perf_counter() - self.began
        behind = sum(stage.steps for _, stage in self.plan[: state.stage]) + state.step
        left = state.seconds / behind * (self.total - behind)
        return Progress(behind, self.total, state.history[-1].loss, state.history[-1].accuracy, left)

    def _close(self) -> None:
        """Put the kept weights in place, let the method note what it wants, and go to the next stage."""
        if self.worker.keep(self.task.recipe) == "best":
            for average, state in zip(self.served.networks, self.best, strict=True):
                average.load_state_dict(state)
        self.worker.end(self, self.stage)
        for network, average in zip(self.networks, self.served.networks, strict=True):
            network.load_state_dict(average.state_dict())
        self.state.stage, self.state.step = self.state.stage + 1, 0

    # What the judge is asked.

    def _judged(self) -> tuple[Any, Any, Any]:
        """Places, given labels and out-of-sample probabilities of the labels that are not trusted."""
        places = np.flatnonzero(~self.samples.trusted)
        return places, self.samples.labels[places], self.probabilities[places]

    @property
    def probabilities(self) -> Any:
        """Out-of-sample probabilities ``[n,K]`` of the task's rows, given or from the cross-fit."""
        given = self.task.probabilities
        return given if given is not None else self.memory["probabilities"].cpu().numpy()

    @cached_property
    def _estimate(self) -> tuple[float, Any]:
        assert self.judge is not None
        _, labels, probabilities = self._judged()
        estimate = self.judge.estimate(labels, probabilities)
        return float(estimate.rate), np.asarray(estimate.transition)

    # What is written and read.

    def _save(self, path: Path) -> None:
        """Write everything that the rest of the training depends on; the file appears when it is whole."""
        content = {
            "digest": self.digest,
            "networks": [network.state_dict() for network in self.networks],
            "served": [network.state_dict() for network in self.served.networks],
            "best": self.best,
            "best_met": self.best_met,
            "optimiser": self.optimiser.state_dict(),
            "memory": self.memory,
            "state": json.dumps(asdict(self.state)),
        }
        with whole(path) as draft:
            torch.save(content, draft)

    def _resume(self) -> None:
        path = self.hooks.resume()
        if path is None:
            return
        content: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if content["digest"] != self.digest:  # left by another task: start anew
            return
        stored = json.loads(content["state"])
        stored["history"] = [ClassEvaluation(**row) for row in stored["history"]]
        self.state, self.memory = _State(**stored), content["memory"]
        self.best, self.best_met = content["best"], content["best_met"].cpu()
        self.networks = [build(self.task.spec).to(self.device) for _ in content["networks"]]
        self._follow_afresh()
        for network, state in zip(self.networks, content["networks"], strict=True):
            network.load_state_dict(state)
        for average, state in zip(self.served.networks, content["served"], strict=True):
            average.load_state_dict(state)
        self.optimiser = self._optimiser()
        self.optimiser.load_state_dict(content["optimiser"])

    def _finish(self) -> ClassResult:
        state, out = self.state, Path(self.task.out)
        state.seconds = time.perf_counter() - self.began
        kept = self.method.kept(self)
        rate = self.rate if self.method.needs_rate else self.task.noise_rate
        result = ClassResult(
            str(out / storage.WEIGHTS),
            self.method.name,
            rate,
            tuple(state.history),
            state.seconds,
            None if kept is None else kept[: len(self.task.rows)].double().cpu().numpy(),
            self.memory["probabilities"].cpu().numpy()[: len(self.task.rows)]
            if "probabilities" in self.memory
            else None,
        )
        states = [network.state_dict() for network in self.served.networks]
        storage.write(out, self.task.spec, states, result, self.digest)
        return result


def pace(done: float, schedule: str) -> float:
    """The share of the learning rate when ``done`` of the stage is behind.

    Always 1; or 1 for 15 of 40 parts and then linearly to 0, as in the public code of co-teaching (Han et al.
    2018); or half a cosine to 2 %.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "late_linear":
        return min(1.0, (1 - done) / (1 - _HELD))
    return _FLAT + (1 - _FLAT) * 0.5 * (1 + math.cos(math.pi * done))


def clearly_below(met: Tensor, best: Tensor) -> bool:
    """Whether fewer labels are ``met [n]`` than by the ``best``, by more than one standard error.

    Only labels that one meets and the other does not can tell: their number's square root is the standard
    error of the difference. Among models that noisy labels cannot tell apart the longest trained is taken,
    where the mere best would be one by lot.
    """
    lost, won = int((best & ~met).sum()), int((met & ~best).sum())
    return lost - won > math.sqrt(lost + won)


def _copy(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
