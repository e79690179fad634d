"""MLflow model registry: each model once by its key, aliases ``champion`` and ``previous``, no pickle.

A model carries the part of this package that reads pictures and runs detectors, so that it loads where the
package is not installed; what it needs from others stands in its ``requirements.txt``, as MLflow expects.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emclean.errors import TrackingError
from emclean.stores.tracking import (
    KEY_TAG,
    MlflowTracker,
    absolute,
    connect,
    errors,
    public,
    quoted,
    tolerant,
)

CHAMPION, PREVIOUS = "champion", "previous"
WEIGHTS, CARD = "weights.safetensors", "card.json"

CARRIED = ("__init__.py", "boxes.py", "errors.py", "types.py", "imaging", "models")
"""The parts of this package that a model needs to load and to predict."""

CARRIED_TOO = {"analysis": ("science", "loop", "loop/__init__.py", "loop/analysis")}
"""What a model of a task needs of it as well."""

NEEDED = (
    "fsspec",
    "imagecodecs",
    "numpy",
    "pillow",
    "safetensors",
    "scipy",
    "tifffile",
    "torch",
    "torchvision",
)
"""The libraries that those parts import."""

NEEDED_TOO = {"analysis": ("pyarrow", "scikit-image")}


class MlflowRegistry:
    """The registry on MLflow: a server or, as ``sqlite:////…``, a database without one."""

    def __init__(self, uri: str, name: str = "emclean-detector") -> None:
        self.uri, self.name = absolute(uri), name

    def __repr__(self) -> str:
        return f"MlflowRegistry({public(self.uri)!r}, {self.name!r})"

    def register(self, key: str, weights: Path, card: Mapping[str, Any], run_id: str | None) -> str:
        """Register the model once by its key; return its version.

        The files go to the run ``run_id``, or to a run of their own in the experiment ``emclean-models``.
        """
        known = self._version_of(key)
        if known is not None:
            return known
        run_id = run_id or MlflowTracker(self.uri, "emclean-models").run(f"model {key}", key)
        with errors(self.uri), TemporaryDirectory() as folder:
            client = connect(self.uri)
            place = f"model-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
            client.log_artifacts(run_id, str(build(Path(folder), weights, card)), place)
            source = f"{client.get_run(run_id).info.artifact_uri.rstrip('/')}/{place}"
            tolerant(
                lambda: client.create_registered_model(self.name),
                lambda: client.get_registered_model(self.name),
            )
            tags = {KEY_TAG: key}
            made = client.create_model_version(self.name, source, run_id, tags, await_creation_for=30)
            return str(made.version)

    def promote(self, version: str) -> None:
        """Point ``champion`` at this version and ``previous`` at the one before."""
        old = self.champion()
        if old == version:
            return
        with errors(self.uri):
            client = connect(self.uri)
            client.get_model_version(self.name, version)
            if old is not None:
                client.set_registered_model_alias(self.name, PREVIOUS, old)
            client.set_registered_model_alias(self.name, CHAMPION, version)

    def champion(self) -> str | None:
        """The version that is served, or None."""
        return self.alias(CHAMPION)

    def alias(self, alias: str) -> str | None:
        """The version that an alias points at, or None."""
        from mlflow.exceptions import MlflowException

        with errors(self.uri):
            try:
                aliases = connect(self.uri).get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        return str(aliases[alias]) if alias in aliases else None

    def card(self, version: str) -> Mapping[str, Any]:
        """The model card of a version: spec, categories, label revision, metrics."""
        with TemporaryDirectory() as folder:
            path = self._download(version, CARD, Path(folder))
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def fetch(self, version: str, folder: Path) -> Path:
        """Copy a version's weights into ``folder``; return the file."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as part:
            got = self._download(version, WEIGHTS, Path(part))
            os.replace(got, folder / WEIGHTS)  # never half a file under the final name
        return folder / WEIGHTS

    def uri_of(self, version: str) -> str:
        """The address under which MLflow loads the version."""
        return f"models:/{self.name}/{version}"

    def _version_of(self, key: str) -> str | None:
        wanted = f"name = {quoted(self.name)} AND tags.`{KEY_TAG}` = {quoted(key)}"
        with errors(self.uri):
            found = connect(self.uri).search_model_versions(wanted)
        versions = sorted(int(v.version) for v in found if v.tags.get(KEY_TAG) == key)
        return str(versions[0]) if versions else None

    def _download(self, version: str, name: str, folder: Path) -> Path:
        with errors(self.uri):
            source = connect(self.uri).get_model_version_download_uri(self.name, version)
            from mlflow.artifacts import download_artifacts

            path = download_artifacts(
                artifact_uri=f"{source}/artifacts/{name}", dst_path=str(folder), tracking_uri=self.uri
            )
        return Path(path)


def build(folder: Path, weights: Path, card: Mapping[str, Any]) -> Path:
    """Write MLflow's model folder below ``folder``: code, weights, card and requirements, no pickle."""
    if not Path(weights).is_file():
        raise TrackingError(f"there are no weights at {weights}", "model registry", "Train the model first.")
    task = str(card.get("task"))
    needed = (*NEEDED, *NEEDED_TOO.get(task, ()))
    shutil.copyfile(weights, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(dict(card), indent=1, sort_keys=True), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow advises about type hints, its own and the model code's
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path=str(folder / "model"),
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"weights": str(folder / WEIGHTS), "card": str(folder / CARD)},
            code_paths=[str(_carried(folder / "emclean", CARRIED_TOO.get(task, ())))],
            pip_requirements=[f"{name}=={installed(name).split('+')[0]}" for name in needed],
        )
    return folder / "model"


def _carried(folder: Path, more: Sequence[str]) -> Path:
    """Copy the parts of this package that a model needs, less shipped weights, caches and the simulator."""
    package, wanted = Path(__file__).parents[1], {*CARRIED, *more}
    parted = {package / name for name in wanted if any(other.startswith(f"{name}/") for other in wanted)}
    unused = shutil.ignore_patterns("__pycache__", "simulate", "weights")

    def others(at: str, names: list[str]) -> set[str]:
        if Path(at) != package and Path(at) not in parted:
            return unused(at, names)
        return {name for name in names if (Path(at) / name).relative_to(package).as_posix() not in wanted}

    return Path(shutil.copytree(package, folder, ignore=others))
