"""A finished fit on disk: weights, ``result.json`` and, where there is one, the judgement of the labels."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from emclean.models.classifiers import engine
from emclean.models.classifiers.spec import ClassEvaluation, ClassifierSpec, ClassResult

WEIGHTS = "weights.safetensors"
_RESULT, _JUDGED = "result.json", "judged.npz"
_ARRAYS = ("kept", "probabilities")


def write(
    out: Path, spec: ClassifierSpec, states: Sequence[Mapping[str, Tensor]], result: ClassResult, digest: str
) -> None:
    """Write the result, its JSON last, and drop the checkpoint that is no longer needed."""
    facts = {"digest": digest, "method": result.method}
    engine.save(out / WEIGHTS, spec, states, facts)
    arrays = {name: value for name in _ARRAYS if (value := getattr(result, name)) is not None}
    draft = out / f".{_JUDGED}.{os.getpid()}"
    with open(draft, "wb") as stream:
        np.savez(stream, **arrays)
    os.replace(draft, out / _JUDGED)
    row = {
        "digest": digest,
        "method": result.method,
        "noise_rate": result.noise_rate,
        "history": [vars(line) for line in result.history],
        "seconds": result.seconds,
    }
    draft = out / f".{_RESULT}.{os.getpid()}"
    draft.write_text(json.dumps(row, indent=1))
    os.replace(draft, out / _RESULT)
    (out / "state.pt").unlink(missing_ok=True)


def finished(out: str | Path, digest: str) -> ClassResult | None:
    """The result in ``out`` if it is that of the fit with this digest."""
    folder = Path(out)
    try:
        stored = json.loads((folder / _RESULT).read_text())
        with np.load(folder / _JUDGED) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError):
        return None
    path = folder / WEIGHTS
    if stored.get("digest") != digest or not path.exists():
        return None
    history = tuple(ClassEvaluation(**line) for line in stored["history"])
    return ClassResult(
        str(path), stored["method"], stored["noise_rate"], history, stored["seconds"], **arrays
    )
