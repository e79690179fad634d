"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412, equations 2 and 3)."""

import torch
from torch import Tensor, nn

from emclean.models.robust.base import Batch, Method, Run, parameters, settings


class SharpnessAware(Method):
    """Cross-entropy, its gradient taken at w + ``rho`` g / |g|, the worst place nearby, and applied at w.

    Every step costs two. The statistics of the norms follow the first pass only.
    """

    name = "sam"
    options = settings(rho=0.05)

    def update(self, run: Run, batch: Batch) -> float:
        """Climb, take the gradient there, come back, descend."""
        loss = self._gradient(run, batch)
        trained = [p for p in parameters(run.networks) if p.grad is not None]
        moves = self._climb(trained, run.options["rho"])
        norms = [m for network in run.networks for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        _momentum(norms, 0.0)
        self._gradient(run, batch)
        _momentum(norms, 0.1)
        with torch.no_grad():
            for parameter, move in zip(trained, moves, strict=True):
                parameter.sub_(move)
        run.optimiser.step()
        return loss

    def _gradient(self, run: Run, batch: Batch) -> float:
        loss = self.loss(run, batch)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    @torch.no_grad()
    def _climb(self, trained: list[nn.Parameter], rho: float) -> list[Tensor]:
        """Move to the worst place nearby; return the move."""
        gradients = [p.grad for p in trained if p.grad is not None]
        length = torch.stack([gradient.norm() for gradient in gradients]).norm().clamp(min=1e-12)
        moves = [gradient * (rho / length) for gradient in gradients]
        for parameter, move in zip(trained, moves, strict=True):
            parameter.add_(move)
        return moves


def _momentum(norms: list[nn.BatchNorm2d], value: float) -> None:
    for norm in norms:
        norm.momentum = value
