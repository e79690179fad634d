"""A small analysis of untrained networks, as it is registered, and a micrograph for it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from emclean.imaging import simulate
from emclean.imaging.segmentation import Settings
from emclean.loop.analysis.picture import Way
from emclean.models.classifiers import engine
from emclean.models.classifiers.nets import build
from emclean.models.classifiers.spec import ClassifierSpec
from emclean.models.parts import pack
from emclean.models.segmenters import engine as segmenters
from emclean.models.segmenters.spec import SegmenterSpec
from emclean.models.segmenters.unet import UNet
from emclean.science.population import Confusion


def classifier(folder: Path, name: str, mirror: bool) -> Path:
    """An untrained classifier of hands (``mirror``) or usable poses."""
    torch.manual_seed(1)
    spec = ClassifierSpec("compact", size=16, mirror=mirror, width=4)
    engine.save(folder / f"{name}.safetensors", spec, [build(spec).state_dict()])
    return folder / f"{name}.safetensors"


def unet(folder: Path) -> Path:
    """A U-Net that finds nothing."""
    network = UNet(SegmenterSpec(width=8, levels=1))
    nothing = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    segmenters.save(folder / "unet.safetensors", network.spec, nothing)
    return folder / "unet.safetensors"


def analysis(folder: Path) -> tuple[Path, dict[str, Any]]:
    """One file of weights, and the card."""
    hand, usable = classifier(folder, "hand", True), classifier(folder, "usable", False)
    pack(folder / "analysis.safetensors", {"hand": hand, "usable": usable})
    truth, wrong = np.repeat([0, 1], 40), np.tile([0] * 9 + [1], 8)
    confusion = Confusion.of(truth, truth ^ wrong, True)
    way = Way(Settings(), 0.1, 2048, None, None, confusion, 0.95)
    return folder / "analysis.safetensors", {**way.card(), "name": "emclean-analysis"}


def micrograph(side: int = 260) -> bytes:
    """A simulated micrograph as TIFF."""
    pixels = simulate.scene(3, (side, side), simulate.Recipe(zoom=0.35, density=24)).whole()[0]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(pixels))
    return buffer.getvalue()
