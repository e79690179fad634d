"""MLflow tracking: one run per key, figures logged once, no global MLflow state.

The address is that of a server (``http://…``) or a database (``sqlite:////folder/mlflow.db``), which
needs no server.
"""

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import yaml

from emclean.errors import TrackingError

KEY_TAG = "emclean.key"
LONGEST_PARAM = 500
BATCH_METRICS, BATCH_PARAMS = 900, 90  # MLflow refuses more than 1000 and 100 a call
SECRET_NAME = re.compile(r"token|password|passwd|secret|api_?key|credential", re.IGNORECASE)
T = TypeVar("T")

# MLflow's own defaults wait for minutes when the server is away, report usage to its makers, and print.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


class MlflowTracker:
    """The tracker on MLflow; ``experiment`` is found or created at the first call."""

    def __init__(self, uri: str, experiment: str = "emclean") -> None:
        self.uri, self.experiment = absolute(uri), experiment
        self._found: str | None = None

    def __repr__(self) -> str:
        return f"MlflowTracker({public(self.uri)!r}, {self.experiment!r})"

    def run(
        self, key: str, name: str, parent: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Find or create the run with this unique key; return its id."""
        own = {KEY_TAG: key, **(tags or {})} | ({"mlflow.parentRunId": parent} if parent else {})
        with errors(self.uri):
            client, experiment = connect(self.uri), self._experiment()
            found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = {quoted(key)}", max_results=1)
            if not found:
                created = client.create_run(experiment, tags=own, run_name=name)
                return str(created.info.run_id)
            known = found[0]
            for tag, value in own.items():
                if known.data.tags.get(tag) != value:
                    client.set_tag(known.info.run_id, tag, value)
            return str(known.info.run_id)

    def log(
        self,
        run_id: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        artifacts: Sequence[Path] = (),
        step: int = 0,
    ) -> None:
        """Add figures, settings and files to a run; logging the same again changes nothing.

        A metric has one value per step, which a later call may correct; a param keeps its first value.
        Figures that are not finite are left out. Long settings are shortened, and whole in ``config.yaml``.
        """
        with errors(self.uri):
            client = connect(self.uri)
            known = client.get_run(run_id).data
            fresh = _fresh_metrics(client, run_id, known.metrics, _finite(metrics or {}), step)
            for start in range(0, len(fresh), BATCH_METRICS):
                client.log_batch(run_id, metrics=fresh[start : start + BATCH_METRICS])
            settings = {_plain(name): _hidden(name, str(value)) for name, value in (params or {}).items()}
            _log_params(client, run_id, known.params, settings)
            for path in artifacts:
                log_path(client, run_id, Path(path))

    def finish(self, run_id: str, status: str) -> None:
        """Close a run, and what is still open below it, as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        below = f"tags.`mlflow.parentRunId` = {quoted(run_id)} AND attributes.status = 'RUNNING'"
        with errors(self.uri):
            client = connect(self.uri)
            for child in client.search_runs([self._experiment()], below):
                client.set_terminated(child.info.run_id, status)
            if client.get_run(run_id).info.status != status:
                client.set_terminated(run_id, status)

    def resume(self, run_id: str) -> bool:
        """Open a closed run again as ``RUNNING``; False where there is no such run."""
        with errors(self.uri):
            client = connect(self.uri)
            from mlflow.exceptions import MlflowException

            try:
                info = client.get_run(run_id).info
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return False
            if info.lifecycle_stage == "deleted":
                return False
            if info.status != "RUNNING":
                client.update_run(run_id, status="RUNNING")
            return True

    def address(self, run_id: str) -> str:
        """Where people see the run; the database's address where there is no server."""
        if not self.uri.startswith("http"):
            return public(self.uri)
        with errors(self.uri):
            return f"{public(self.uri)}/#/experiments/{self._experiment()}/runs/{run_id}"

    def _experiment(self) -> str:
        if self._found is None:
            self._found = find_experiment(self.uri, self.experiment)
        return self._found


def absolute(uri: str) -> str:
    """The address without a trailing slash; a database file must be absolute: jobs change their folder."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        raise TrackingError(
            "the database's path is not absolute", uri, "Write sqlite:////folder/mlflow.db with four slashes."
        )
    if not re.match(r"[a-z+0-9]+://", uri):
        raise TrackingError(
            "this is not an MLflow address", uri, "Give http://host:port or sqlite:////folder/mlflow.db."
        )
    return uri.rstrip("/")


def public(uri: str) -> str:
    """The address without user name and password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def quoted(text: str) -> str:
    """A text for MLflow's filter language, which knows no escapes."""
    for mark in ("'", '"'):
        if mark not in text:
            return f"{mark}{text}{mark}"
    raise TrackingError("a key must not hold both kinds of quotes", text, "Give the run a simpler name.")


def connect(uri: str) -> Any:
    """An ``MlflowClient`` for this address; MLflow is imported here, after its settings are in place."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if uri.startswith("sqlite:"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    for noisy in ("mlflow.store.db.utils", "alembic", "mlflow.tracking", "mlflow.store.model_registry"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def find_experiment(uri: str, name: str) -> str:
    """The id of the experiment, created or restored where needed."""
    client = connect(uri)
    known = client.get_experiment_by_name(name)
    if known is None:
        return tolerant(
            lambda: str(client.create_experiment(name, artifact_location=_artifacts(uri, name))),
            lambda: str(client.get_experiment_by_name(name).experiment_id),
        )
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return str(known.experiment_id)


def tolerant(create: Callable[[], T], find: Callable[[], T]) -> T:
    """Create something, or find it where somebody else was faster."""
    from mlflow.exceptions import MlflowException

    try:
        return create()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return find()


def log_path(client: Any, run_id: str, path: Path, under: str | None = None) -> None:
    """Log a file, or a folder under its name."""
    if path.is_dir():
        client.log_artifacts(run_id, str(path), under or path.name)
    elif path.is_file():
        client.log_artifact(run_id, str(path), under)
    else:
        raise TrackingError(f"there is no file {path}", "artifact", "Write it before it is logged.")


@contextmanager
def errors(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into ours, without passwords."""
    try:
        yield
    except Exception as error:
        if not _foreign(error):
            raise
        text = " ".join(str(error).replace(uri, public(uri)).split())
        raise TrackingError(
            f"MLflow did not do as asked: {re.sub(r'//[^/@ ]*@', '//', text)[:400]}",
            public(uri),
            "Is it running? `emclean status` tells, `emclean up` starts it.",
        ) from None


def _foreign(error: Exception) -> bool:
    if isinstance(error, OSError):  # what requests raises is one, too
        return True
    return type(error).__module__.partition(".")[0] in ("mlflow", "sqlalchemy", "urllib3")


def _artifacts(uri: str, experiment: str) -> str | None:
    """Where a database without a server keeps files; MLflow's default would be the job's current folder."""
    if not uri.startswith("sqlite:"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).parent / "artifacts" / _plain(experiment)).as_uri()


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    given = {_plain(name): float(value) for name, value in metrics.items() if value is not None}
    return {name: value for name, value in given.items() if math.isfinite(value)}


def _fresh_metrics(
    client: Any, run_id: str, known: Mapping[str, float], metrics: Mapping[str, float], step: int
) -> list[Any]:
    """The metrics that the run does not hold yet with this value at this step."""
    from mlflow.entities import Metric

    def logged(name: str) -> float | None:
        """The newest value at this step; the history comes in the order of logging."""
        values = [m.value for m in client.get_metric_history(run_id, name) if m.step == step]
        return values[-1] if values else None

    now = int(time.time() * 1000)
    missing = {n: value for n, value in metrics.items() if n not in known or logged(n) != value}
    return [Metric(name, value, now, step) for name, value in missing.items()]


def _log_params(client: Any, run_id: str, known: Mapping[str, str], settings: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    fresh = [Param(n, _short(value)) for n, value in settings.items() if n not in known]
    for start in range(0, len(fresh), BATCH_PARAMS):
        client.log_batch(run_id, params=fresh[start : start + BATCH_PARAMS])
    if any(_short(value) != value for value in settings.values()):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "config.yaml"
            path.write_text(yaml.safe_dump(dict(settings), allow_unicode=True), encoding="utf-8")
            client.log_artifact(run_id, str(path))


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_PARAM else value[: LONGEST_PARAM - 1] + "…"


def _hidden(name: str, value: str) -> str:
    return "…" if value and SECRET_NAME.search(name) else public(value)


def _plain(name: str) -> str:
    """The name with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. /:]", "_", name)
