"""Several files of weights as one, bit by bit: an analysis is registered and deployed as a single file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from emclean.errors import DataError
from emclean.models.files import whole

TASK = "analysis"
"""The ``task`` in the model card of an analysis."""

_FORMAT = "emclean-parts-1"


def pack(path: Path, files: Mapping[str, str | Path]) -> None:
    """Write ``files`` of weights into one safetensors file, under their names; the same in, the same out."""
    tensors = {name: torch.from_numpy(np.fromfile(file, np.uint8)) for name, file in sorted(files.items())}
    with whole(path) as draft:
        save_file(tensors, draft, {"format": _FORMAT})


def unpack(path: str | Path, folder: Path) -> dict[str, Path]:
    """Write every file that ``path`` holds into ``folder``, as it was; return them by their names."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            if (stream.metadata() or {}).get("format") != _FORMAT:
                raise ValueError("it holds no files of weights")
            parts = {name: stream.get_tensor(name).numpy() for name in stream.keys()}
    except (OSError, SafetensorError, ValueError) as error:
        advice = "Give a file that emclean registered for an analysis."
        raise DataError(f"not usable as the weights of an analysis ({error})", str(path), advice) from error
    written = {}
    for name, content in parts.items():
        written[name] = folder / f"{Path(name).name}.safetensors"
        content.tofile(written[name])
    return written
