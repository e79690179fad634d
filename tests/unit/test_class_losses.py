"""What each method minimises, worked out by hand for one batch."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from emclean.models.robust import METHODS, dividemix
from emclean.models.robust.base import Batch
from emclean.models.robust.forward import told_apart
from emclean.models.robust.mixture import small_component
from emclean.models.robust.small_loss import kept_share, smallest

P = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
Q = torch.tensor([[0.7, 0.3], [0.3, 0.7], [0.1, 0.9]])
LABELS = torch.tensor([0, 0, 0])
GIVEN = torch.tensor([0.9, 0.6, 0.2])


def close(value: Any, abs: float | None = None) -> Any:
    return pytest.approx(value, rel=1e-5, abs=abs)


class Says(torch.nn.Module):
    """A network whose probabilities for a batch are known."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(probabilities.log())

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[: len(images)]


def running(method: str, *networks: Tensor, **changes: Any) -> Any:
    """What a method sees of a training halfway through."""
    seen = {
        "options": dict(METHODS[method].options),
        "networks": [Says(some) for some in networks or (P,)],
        "memory": {},
        "labels": LABELS,
        "trusted": torch.zeros(3, dtype=torch.bool),
        "n_classes": 2,
        "device": torch.device("cpu"),
        "rate": 1 / 3,
        "done": 0.5,
        "epoch": 20.0,
        "step": 40,
        "transition": torch.tensor([[0.8, 0.2], [0.3, 0.7]]),
    }
    return SimpleNamespace(**{**seen, **changes})


def batch(trusted: list[bool] | None = None) -> Batch:
    held = torch.tensor(trusted or [False] * 3)
    return Batch(torch.zeros(3, 1, 16, 16), LABELS, held, torch.arange(3))


def number(value: Tensor) -> float:
    return float(value.detach())


def loss(method: str, *networks: Tensor, **changes: Any) -> float:
    return number(METHODS[method].loss(running(method, *networks, **changes), batch()))


@pytest.mark.parametrize("method", ["cross_entropy", "early_stopping", "two_step", "confident", "sam"])
def test_plain_training(method: str) -> None:
    assert loss(method) == close(float(-GIVEN.log().mean()))


def test_label_smoothing() -> None:
    smoothed = 0.9 * -P[:, 0].log() + 0.1 * -P[:, 1].log()  # 0.2, half of it to each class
    assert loss("label_smoothing") == close(float(smoothed.mean()))


def test_gce() -> None:
    assert loss("gce") == close(float(((1 - GIVEN**0.7) / 0.7).mean()))


def test_gce_lies_between_cross_entropy_and_mean_absolute_error() -> None:
    assert loss("gce", options={"q": 1e-6}) == close(loss("cross_entropy"), abs=1e-4)
    assert loss("gce", options={"q": 1.0}) == close(float((1 - GIVEN).mean()))


def test_sce() -> None:
    assert loss("sce") == close(float((-0.1 * GIVEN.log() + 4 * (1 - GIVEN)).mean()))


def test_forward() -> None:
    given = P[:, 0] * 0.8 + P[:, 1] * 0.3
    assert loss("forward") == close(float(-given.log().mean()))


def test_forward_takes_trusted_labels_as_they_are() -> None:
    found = METHODS["forward"].loss(running("forward"), batch([True, True, True]))
    assert number(found) == close(loss("cross_entropy"))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7])
def test_a_transition_keeps_classes_apart(rate: float) -> None:
    given = torch.tensor([[1 - rate, rate], [rate, 1 - rate]])
    found = told_apart(given)
    assert torch.allclose(found.sum(1), torch.ones(2))
    assert float((found.diagonal() - found.fliplr().diagonal()).min()) >= 0.1 - 1e-6
    assert torch.equal(found, given) == (rate < 0.45)


def test_elr_pulls_towards_what_was_said_before() -> None:
    run = running("elr")
    method: Any = METHODS["elr"]
    method.begin(run, None)
    first = number(method.loss(run, batch()))
    assert torch.allclose(run.memory["targets"], 0.3 * P, atol=1e-6)
    pull = (1 - 0.3 * (P * P).sum(1)).log().mean()
    assert first == close(float(-GIVEN.log().mean() + 3 * pull))
    method.loss(run, batch())
    assert torch.allclose(run.memory["targets"], (0.7 * 0.3 + 0.3) * P, atol=1e-6)


def test_co_teaching_learns_from_what_the_other_network_picks() -> None:
    # Of three, two are kept: the first network would leave out picture 2, the second one picture 1 or 2.
    run = running("co_teaching", P, Q)
    found = number(METHODS["co_teaching"].loss(run, batch()))
    first, second = -P[:, 0].log(), -Q[:, 0].log()
    assert found == close(float(first[[0, 1]].mean() + second[[0, 1]].mean()))
    assert run.memory["kept"].tolist() == [1, 1, 0]


def test_co_teaching_hands_its_choice_to_its_peer() -> None:
    run = running("co_teaching", P, 1 - Q)
    found = number(METHODS["co_teaching"].loss(run, batch()))
    first, second = -P[:, 0].log(), -(1 - Q)[:, 0].log()  # the second keeps pictures 1 and 2
    assert found == close(float(first[[1, 2]].mean() + second[[0, 1]].mean()))
    assert run.memory["kept"].tolist() == [0.5, 1, 0.5]


def test_co_teaching_plus_picks_among_disputed_pictures() -> None:
    found = loss("co_teaching_plus", P, Q)  # they differ on picture 1 alone
    assert found == close(float(-P[1, 0].log() - Q[1, 0].log()))
    early = loss("co_teaching_plus", P, Q, done=0.1)
    assert early == close(loss("co_teaching", P, Q))
    agreed = loss("co_teaching_plus", P, P)
    assert agreed == close(loss("co_teaching", P, P))


def test_jocor_asks_both_to_agree() -> None:
    run = running("jocor", P, Q)
    found = number(METHODS["jocor"].loss(run, batch()))
    each = -(P[:, 0] * Q[:, 0]).log()
    apart = (P * (P / Q).log()).sum(1) + (Q * (Q / P).log()).sum(1)
    joint = 0.5 * each + 0.5 * apart
    kept = joint.argsort()[:2]
    assert found == close(float(joint[kept].mean()))
    assert run.memory["kept"].nonzero()[:, 0].tolist() == sorted(kept.tolist())


def test_the_share_that_is_kept_falls_to_one_less_the_rate() -> None:
    shares = [
        kept_share(running("co_teaching", epoch=epoch, done=epoch / 40 or 0.0, rate=0.4))
        for epoch in (0.0, 5.0, 10.0, 30.0)
    ]
    assert shares == close([1.0, 0.8, 0.6, 0.6])
    short = kept_share(running("co_teaching", epoch=2.0, done=0.5, rate=0.4))  # four epochs in all
    assert short == close(0.6)
    early = {"ramp_epochs": 320.0, "ramp_share": 0.25}
    assert kept_share(running("co_teaching", epoch=0.5, done=0.125, rate=0.4, options=early)) == close(0.8)


def test_trusted_labels_are_never_left_out() -> None:
    losses = torch.tensor([5.0, 1.0, 2.0, 9.0])
    trusted = torch.tensor([True, False, False, False])
    assert smallest(losses, 1 / 3, trusted).tolist() == [True, True, False, False]  # one of the three others
    assert smallest(losses, 0.01, ~trusted & False).tolist() == [False, True, False, False]


def test_a_mixture_tells_small_losses_from_large() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(0.2, 0.1, 600), rng.normal(2.0, 0.5, 400)
    found = small_component(torch.from_numpy(np.concatenate([small, large])))
    assert float(found[:600].mean()) > 0.99
    assert float(found[600:].mean()) < 0.02


def test_a_mixture_knows_nothing_of_what_is_unknown_or_all_alike() -> None:
    values = torch.tensor([0.1, math.nan, 3.0, 0.1, 3.0])
    assert float(small_component(values)[1]) == 0.5
    assert small_component(torch.ones(4)).tolist() == [0.5] * 4
    assert small_component(torch.full((3,), math.nan)).tolist() == [0.5] * 3


def test_dividemix_refines_what_it_believes_and_guesses_the_rest() -> None:
    method: Any = METHODS["dividemix"]
    run = running("dividemix")
    said = torch.stack([P, Q])
    found = method._targets(run, batch(), torch.tensor([0.8, 0.6, 0.1]), said, 0)
    refined = torch.stack(
        [0.8 * torch.tensor([1.0, 0.0]) + 0.2 * P[0], 0.6 * torch.tensor([1.0, 0.0]) + 0.4 * P[1]]
    )
    expected = torch.cat([refined, (P[2:] + Q[2:]) / 2]) ** 2
    assert torch.allclose(found, (expected / expected.sum(1, keepdim=True)), atol=1e-6)


def test_dividemix_keeps_a_moving_average_of_losses() -> None:
    method: Any = METHODS["dividemix"]
    run = running("dividemix", P, Q, done=0.0)
    run.device = torch.device("cpu")
    method.begin(run, None)
    assert number(method.loss(run, batch())) == close(float(-P[:, 0].log().mean() - Q[:, 0].log().mean()))
    assert torch.allclose(run.memory["losses"][1], -Q[:, 0].log(), atol=1e-6)
    run.networks[1].logits.data = P.log()
    method.loss(run, batch())
    assert torch.allclose(run.memory["losses"][1], (-Q[:, 0].log() - P[:, 0].log()) / 2, atol=1e-6)


@pytest.mark.parametrize(("done", "rise"), [(0.25, 0.0), (0.4375, 0.5), (0.8, 1.0)])
def test_dividemix_weighs_its_three_terms(done: float, rise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dividemix, "_beta", lambda alpha: 1.0)  # pictures are then not mixed
    method: Any = METHODS["dividemix"]
    run = running("dividemix", done=done)
    target = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.4, 0.6]])
    labelled = torch.tensor([True, True, False])
    found = method._mixed(run, run.networks[0], torch.zeros(3, 1, 16, 16), target, labelled)
    cross = (-P[0, 0].log() - 0.5 * (P[1, 0] * P[1, 1]).log()) / 2
    square = ((P[2] - target[2]) ** 2).mean()
    even = -(P.mean(0) * 2).log().mean()
    assert number(found) == close(float(cross + 5 * rise * square + even))


def test_sam_takes_the_gradient_at_the_worst_place_nearby() -> None:
    # For w²/2 at w = 2 the worst place within rho is w + rho: a step of 0.1 goes to 2 - 0.1 (2 + rho).
    method: Any = METHODS["sam"]
    weight = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    network = torch.nn.Module()
    network.weight = weight
    optimiser = torch.optim.SGD([weight], lr=0.1)
    run = SimpleNamespace(networks=[network], optimiser=optimiser, options={"rho": 0.05})
    quadratic = type("Quadratic", (type(method),), {"loss": lambda self, run, batch: weight**2 / 2})()
    assert quadratic.update(run, batch()) == close(2.0)
    assert float(weight.detach()) == close(2 - 0.1 * 2.05)
