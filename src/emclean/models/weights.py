"""Weights on disk: safetensors whose metadata hold the detector's specification."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emclean.errors import DataError
from emclean.models.detectors import Detector, build
from emclean.models.files import whole
from emclean.models.spec import PRETRAINED, SHIPPED, DetectorSpec

_HEAT = "heat."  # the compact detector's only parameters that depend on the categories


def save(
    path: Path, spec: DetectorSpec, state: Mapping[str, Tensor], facts: Mapping[str, str] | None = None
) -> None:
    """Write a detector's state under its final name only when it is whole; ``facts`` join the metadata."""
    metadata = {**(facts or {}), "spec": spec.to_json(), "format": "emclean-detector-1"}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole(path) as draft:
        save_file(tensors, draft, metadata)


def read(path: str | Path) -> tuple[DetectorSpec, dict[str, Tensor], dict[str, str]]:
    """Specification, state in float32, and all metadata of a file of weights."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            facts = dict(stream.metadata() or {})
            state = {name: stream.get_tensor(name) for name in stream.keys()}
        spec = DetectorSpec.from_json(facts["spec"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        advice = "Give a .safetensors file that emclean wrote."
        raise DataError(f"not usable as detector weights ({error})", str(path), advice) from error
    return spec, {name: _full(value) for name, value in state.items()}, facts


def load(weights: str | Path) -> Detector:
    """The detector stored in a file of weights (``"pretrained"``: the shipped one), ready to predict."""
    spec, state, _ = read(SHIPPED if str(weights) == PRETRAINED else weights)
    detector = build(spec)
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"the weights do not fit a {spec.family} detector ({error})", str(weights)) from error
    detector.to(memory_format=torch.channels_last)
    return detector.eval()


def start(detector: Detector, init: str | None) -> None:
    """Give ``detector`` its first weights: none, the shipped ones, another detector's, or a bare state.

    A detector for other categories passes on everything but its heat map, which is spread from one category
    to all, or averaged first where there were several. Files ending in ``.pth`` or ``.pt`` hold a bare state
    (for instance a torchvision model's or backbone's); what fits by name and shape is taken.
    """
    if init is None:
        return
    if str(init).endswith((".pt", ".pth")):
        _start_bare(detector, str(init))
        return
    path = SHIPPED if init == PRETRAINED else Path(init)
    spec, state, _ = read(path)
    if spec.family != detector.spec.family:
        advice = "Start from None, or from weights of the same family."
        raise DataError(f"holds a {spec.family} detector, wanted {detector.spec.family}", str(path), advice)
    if spec.n_categories != detector.spec.n_categories:
        state = _spread(state, detector)
    _fill(detector, state, str(path))


def _full(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _spread(state: dict[str, Tensor], detector: Detector) -> dict[str, Tensor]:
    """The state for another number of categories: heads that depend on it are averaged, or drawn afresh."""
    wanted = detector.state_dict()
    spread = {}
    for name, value in state.items():
        if name.startswith(_HEAT):
            value = value.mean(dim=0, keepdim=True).expand_as(wanted[name]).clone()
        spread[name] = value if value.shape == wanted[name].shape else wanted[name]
    return spread


def _fill(detector: Detector, state: dict[str, Tensor], path: str) -> None:
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        advice = "Use the specification that the weights were trained with."
        raise DataError(f"the weights do not fit the detector ({error})", path, advice) from error


def _start_bare(detector: Detector, path: str) -> None:
    state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = detector.state_dict()
    found = {}
    for prefix in ("", "model.", "model.backbone.", "model.backbone.body."):
        named = {prefix + name: value for name, value in state.items()}
        found.update({k: v for k, v in named.items() if k in wanted and wanted[k].shape == v.shape})
    if not found:
        advice = "Give a state of the same family or of its backbone."
        raise DataError(f"no tensor in it fits a {detector.spec.family} detector", path, advice)
    detector.load_state_dict({**wanted, **found})
