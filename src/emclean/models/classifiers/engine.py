"""Classifiers on disk and at work: ``save``, ``load``, ``predict``.

A file of weights holds one network or several; several answer with the mean of their probabilities.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from emclean.errors import DataError
from emclean.models.classifiers.augment import Pictures, as_floats
from emclean.models.classifiers.nets import Classifier, build
from emclean.models.classifiers.spec import ClassifierSpec, Ints
from emclean.models.files import whole

_FORMAT = "emclean-classifier-1"


class Ensemble(nn.Module):
    """Networks of one specification; pictures ``[B,C,S,S]`` in 0-1 to the mean of their probabilities."""

    def __init__(self, spec: ClassifierSpec, networks: Sequence[Classifier]) -> None:
        super().__init__()
        self.spec = spec
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities ``[B,K]``."""
        return torch.stack([network(images).softmax(1) for network in self.networks]).mean(0)


def save(
    path: Path,
    spec: ClassifierSpec,
    states: Sequence[Mapping[str, Tensor]],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the networks' states under the final name only when whole; ``facts`` join the metadata."""
    metadata = {**(facts or {}), "spec": spec.to_json(), "format": _FORMAT, "networks": str(len(states))}
    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, state in enumerate(states)
        for name, value in state.items()
    }
    with whole(path) as draft:
        save_file(tensors, draft, metadata)


def read(path: str | Path) -> tuple[ClassifierSpec, list[dict[str, Tensor]], dict[str, str]]:
    """Specification, one state per network, and all metadata of a file of weights."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            facts = dict(stream.metadata() or {})
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
        spec, number = ClassifierSpec.from_json(facts["spec"]), int(facts["networks"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        advice = "Give a .safetensors file that emclean wrote for a classifier."
        raise DataError(f"not usable as classifier weights ({error})", str(path), advice) from error
    states: list[dict[str, Tensor]] = [{} for _ in range(number)]
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        states[int(first)][rest] = value
    return spec, states, facts


def load(weights: str | Path) -> Ensemble:
    """The classifier stored in a file of weights, ready to predict."""
    spec, states, _ = read(weights)
    networks = [build(spec) for _ in states]
    try:
        for network, state in zip(networks, states, strict=True):
            network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"the weights do not fit a {spec.family} classifier ({error})", str(weights)
        ) from error
    return Ensemble(spec, networks).eval()


@torch.no_grad()
def probabilities(
    model: Ensemble, pictures: Pictures, device: torch.device, index: Tensor | None = None, batch: int = 256
) -> Tensor:
    """Probabilities ``[n,K]`` of the pictures at these places (all where None), on the processor.

    ``model`` is left in the state in which it predicts.
    """
    model.eval()
    index = torch.arange(len(pictures)) if index is None else index.cpu()
    parts = [torch.zeros((0, model.spec.n_classes))]
    for start in range(0, len(index), batch):
        images = pictures(index[start : start + batch])
        parts.append(model(as_floats(images.to(device))).cpu())
    return torch.cat(parts)


def predict(
    weights: str | Path | Ensemble, pictures: NDArray[Any], rows: Ints | None = None, batch: int = 256
) -> NDArray[np.float64]:
    """Probabilities ``[n,K]`` of ``rows`` (all where None) of uint8 pictures ``[N,H,W]`` or ``[N,H,W,3]``.

    ``weights`` may also be a model that ``load`` returned, on whichever device it is.
    """
    model = weights if isinstance(weights, Ensemble) else load(weights)
    rows = np.arange(len(pictures)) if rows is None else np.asarray(rows, np.int64)
    device = next(model.parameters()).device
    parts = [np.zeros((0, model.spec.n_classes))]
    for start in range(0, len(rows), 16 * batch):  # however many there are, few are held at a time
        some = Pictures(pictures, rows[start : start + 16 * batch], model.spec.size, model.spec.channels)
        parts.append(probabilities(model, some, device, batch=batch).double().numpy())
    return np.concatenate(parts)
