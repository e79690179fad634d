"""Early-learning regularisation (Liu et al. 2020, arXiv 2007.00151, equations 6 and 9)."""

import torch
from torch import Tensor
from torch.nn import functional

from emclean.models.robust.base import Batch, Method, Run, Stage, logits_of, settings

_EDGE = 1e-4


class EarlyLearning(Method):
    """CE + ``weight`` mean log(1 - <p, t>), t being the moving average of a picture's own predictions.

    The second term pulls towards what the network said of the picture early on, before it learnt wrong
    labels by heart. ``memory`` is the share of t that stays at each visit.
    """

    name = "elr"
    options = settings(weight=3.0, memory=0.7)

    def begin(self, run: Run, stage: Stage) -> None:
        """No memory yet."""
        run.memory["targets"] = torch.zeros((len(run.labels), run.n_classes), device=run.device)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Cross-entropy and the pull."""
        logits = logits_of(run.networks[0], batch.images)
        p = logits.softmax(1).clamp(_EDGE, 1 - _EDGE)
        old = run.memory["targets"][batch.index]
        said = p.detach() / p.detach().sum(1, keepdim=True)
        target = run.options["memory"] * old + (1 - run.options["memory"]) * said
        run.memory["targets"][batch.index] = target
        pull = (1 - (p * target).sum(1)).log().mean()
        return functional.cross_entropy(logits, batch.labels) + run.options["weight"] * pull
