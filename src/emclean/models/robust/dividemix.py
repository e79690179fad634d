"""DivideMix (Li et al. 2020, arXiv 2002.07394, algorithm 1 and equations 3 to 12)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from emclean.models.classifiers.nets import Classifier
from emclean.models.robust.base import Batch, Method, Run, Stage, logits_of, settings
from emclean.models.robust.mixture import small_component


class DivideMix(Method):
    """Two networks tell each other which labels to believe; the rest is learnt from without its labels.

    After a ``warm`` share of plain training, a mixture of two Gaussians over each network's losses gives the
    probability w that a label is right, anew at every epoch. For the OTHER network a label with w > 0.5 is
    refined to w y + (1 - w) p with its own prediction p; the rest get the mean prediction of both. Targets
    are sharpened by ``temperature``, pictures mixed in pairs (``alpha``); squared error on what is unlabelled
    has the weight ``unlabelled``, which rises from 0 to its full height over the half of the training after
    the warm-up; a last term keeps the mean prediction near even.

    Ours: the losses are those of training steps, as moving averages, which spares a pass over all pictures
    at every epoch; both networks learn at every step, where the paper trains them in turns; labelled and
    unlabelled pictures come as the batch has them. ``views`` is the paper's M.
    """

    name = "dividemix"
    networks = 2
    options = settings(warm=0.25, temperature=0.5, alpha=4.0, unlabelled=5.0, views=1, memory=0.5)

    def begin(self, run: Run, stage: Stage) -> None:
        """No losses yet, every label as good as the next."""
        n = len(run.labels)
        run.memory["losses"] = torch.full((2, n), torch.nan, device=run.device)
        run.memory["clean"] = torch.full((2, n), 0.5, device=run.device)
        run.memory["divided"] = torch.zeros((), dtype=torch.int64)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Plain training at first, then the mixed losses of both networks."""
        if run.done < run.options["warm"]:
            return self._plain(run, batch)
        if int(run.epoch) + 1 > int(run.memory["divided"]):
            run.memory["divided"] = torch.tensor(int(run.epoch) + 1)
            self._divide(run)
        views = [batch.images, *(run.view(batch.index) for _ in range(int(run.options["views"]) - 1))]
        said = _said(run.networks, views)  # [2,B,K]
        self._remember(run, batch, [_losses(some.clamp(min=1e-7).log(), batch.labels) for some in said])
        pictures = torch.cat(views)
        terms = []
        for number, network in enumerate(run.networks):
            believed = run.memory["clean"][1 - number, batch.index].masked_fill(batch.trusted, 1.0)
            target = self._targets(run, batch, believed, said, number)
            times = len(views)
            labelled = (believed > 0.5).repeat(times)
            terms.append(self._mixed(run, network, pictures, target.repeat(times, 1), labelled))
        return torch.stack(terms).sum()

    def _plain(self, run: Run, batch: Batch) -> Tensor:
        logs = [logits_of(network, batch.images).log_softmax(1) for network in run.networks]
        losses = [_losses(some, batch.labels) for some in logs]
        self._remember(run, batch, losses)
        return torch.stack([some.mean() for some in losses]).sum()

    def _remember(self, run: Run, batch: Batch, losses: list[Tensor]) -> None:
        for number, new in enumerate(losses):
            old = run.memory["losses"][number, batch.index]
            share = run.options["memory"]
            mean = torch.where(old.isnan(), new, share * old + (1 - share) * new)
            run.memory["losses"][number, batch.index] = mean.detach()

    def _divide(self, run: Run) -> None:
        run.memory["clean"] = torch.stack([small_component(losses) for losses in run.memory["losses"]])

    def _targets(self, run: Run, batch: Batch, believed: Tensor, said: Tensor, number: int) -> Tensor:
        """Sharpened targets ``[B,K]``: refined labels where they are believed, else what both say."""
        given = functional.one_hot(batch.labels, run.n_classes).to(said.dtype)
        weight = believed[:, None]
        target = torch.where(weight > 0.5, weight * given + (1 - weight) * said[number], said.mean(0))
        sharp = target.clamp(min=1e-7) ** (1 / run.options["temperature"])
        return sharp / sharp.sum(1, keepdim=True)

    def _mixed(
        self, run: Run, network: nn.Module, pictures: Tensor, target: Tensor, labelled: Tensor
    ) -> Tensor:
        share = _beta(run.options["alpha"])
        other = torch.randperm(len(pictures), device=pictures.device)
        logits = logits_of(network, share * pictures + (1 - share) * pictures[other])
        wanted = share * target + (1 - share) * target[other]
        p, logs = logits.softmax(1), logits.log_softmax(1)
        cross = -(wanted * logs).sum(1)
        square = ((p - wanted) ** 2).mean(1)
        number = labelled.sum().clamp(min=1), (~labelled).sum().clamp(min=1)
        warm = run.options["warm"]
        rise = min(1.0, 2 * (run.done - warm) / max(1 - warm, 1e-9))
        loss = (cross * labelled).sum() / number[0]
        loss = loss + run.options["unlabelled"] * rise * (square * ~labelled).sum() / number[1]
        return loss - (p.mean(0).clamp(min=1e-7) * run.n_classes).log().mean()

    def kept(self, run: Run) -> Tensor | None:
        """Probability that the label is right, mean of both networks."""
        return run.memory["clean"].mean(0)


@torch.no_grad()
def _said(networks: list[Classifier], views: list[Tensor]) -> Tensor:
    """Each network's mean probabilities over the views, ``[2,B,K]``."""
    found = []
    for network in networks:
        network.eval()
        found.append(torch.stack([network(view).softmax(1) for view in views]).mean(0))
        network.train()
    return torch.stack(found)


def _losses(logs: Tensor, labels: Tensor) -> Tensor:
    return functional.nll_loss(logs, labels, reduction="none")


def _beta(alpha: float) -> float:
    """The larger part of a draw from Beta(alpha, alpha)."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    return max(share, 1 - share)
