"""A run as a job of Ray: submitted, followed again, stopped; what is kept of it lies in the run's folder."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emclean.errors import ComputeError, ConfigError, ServiceError
from emclean.loop.states import is_locked, write_atomically

SUBMITTED = "submitted.yaml"
"""The configuration of a submitted run, kept in its folder for ``emclean resume``."""

JOB = "job.json"
"""Ray's name of the run's newest job."""

PIPELINES = ("active_clean", "noise_grid", "analyze_micrographs")
"""What can be submitted, the main job first."""

Write = Callable[[str], None]


def keep(folder: Path, pipeline: str, values: Mapping[str, Any]) -> None:
    """Keep what a run is submitted with, so that it can be submitted again from any folder."""
    kept = {"pipeline": pipeline, "folder": str(Path.cwd()), "configuration": dict(values)}
    _write_yaml(folder / SUBMITTED, kept)


def refuse_twice(folder: Path) -> None:
    """Refuse to submit a run that a job works on."""
    if is_locked(folder):
        fix = f"Its log: {_command('logs', folder)}. Stop it: {_command('stop', folder)}."
        raise ServiceError("a job works on this run already.", folder.name, fix)


def _command(verb: str, folder: Path) -> str:
    """An ``emclean`` command about the run in ``<workspace>/runs/<run>``, that works from any folder."""
    return shlex.join(["emclean", verb, folder.name, "--workspace", str(folder.parent.parent)])


def tables_of(workspace: Path, run: str) -> str:
    """Where the run's tables are: as its kept configuration says, else in the workspace."""
    import yaml

    submitted = workspace / "runs" / run / SUBMITTED
    kept = yaml.safe_load(submitted.read_text(encoding="utf-8")) if submitted.exists() else {}
    tables = str(kept.get("configuration", {}).get("tables") or workspace / "tables")
    return tables if "://" in tables else str(Path(kept.get("folder", ".")) / tables)


def dashboard_of(workspace: Path) -> tuple[str, Path | None]:
    """The dashboard of the workspace's Ray and the folder with its token, or the environment's and None."""
    from emclean import services

    ours = services.addresses(workspace).dashboard
    dashboard = ours or os.environ.get("RAY_API_SERVER_ADDRESS")
    if dashboard is None:
        raise ComputeError("no Ray runs for this workspace.", str(workspace), "Start it: emclean up.")
    return dashboard, services.home(workspace) if ours else None


def submit(workspace: Path, folder: Path, wait: bool, write: Write) -> int:
    """Submit the kept run, follow its log where ``wait``, and return its exit code."""
    from emclean.distributed import jobs

    dashboard, home = dashboard_of(workspace)
    (folder / JOB).unlink(missing_ok=True)
    return _left_alone(
        folder,
        lambda: jobs.run(
            dashboard,
            _entrypoint(folder),
            home=home,
            variables=passed_on(os.environ),
            wait=wait,
            write=write,
            taken=lambda job: write_atomically(folder / JOB, json.dumps({"submission": job})),
            go_on=_go_on(folder),
        ),
    )


def _entrypoint(folder: Path) -> str:
    import yaml

    from emclean.distributed import jobs, session

    kept = yaml.safe_load((folder / SUBMITTED).read_text(encoding="utf-8"))
    settings = folder / "configuration.yaml"
    _write_yaml(settings, kept["configuration"])
    script = session.code_root() / "pipelines" / f"{kept.get('pipeline', PIPELINES[0])}.py"
    return jobs.command([sys.executable, str(script), "--config", str(settings)], Path(kept["folder"]))


def _write_yaml(file: Path, values: Mapping[str, Any]) -> None:
    """Write settings for their owner alone: an address among them may hold a password."""
    import yaml

    write_atomically(file, yaml.safe_dump(values, sort_keys=False), private=True)


def _go_on(folder: Path) -> str:
    return f"Go on with: {_command('resume', folder)}"


def _left_alone(folder: Path, followed: Callable[[], int]) -> int:
    """What ``followed`` returns; Ctrl-C ends the following, not the job, and says so."""
    try:
        return followed()
    except KeyboardInterrupt:
        if not (folder / JOB).exists():
            raise
        print(
            f"\nthe job goes on. Its log: {_command('logs', folder)}\nStop it: {_command('stop', folder)}",
            file=sys.stderr,
        )
        return 130


def follow(workspace: Path, folder: Path, write: Write) -> int:
    """The log of the run's newest job from its beginning, and its exit code."""
    from emclean.distributed import jobs

    job = _job(folder)
    dashboard, home = dashboard_of(workspace)
    return _left_alone(
        folder, lambda: jobs.follow(dashboard, job, home=home, write=write, go_on=_go_on(folder))
    )


def stop(workspace: Path, folder: Path, write: Write) -> None:
    """Stop the run's newest job and wait until it has ended; one that has ended already is no fault."""
    from emclean.distributed import jobs

    job = _job(folder)
    dashboard, home = dashboard_of(workspace)
    write(f"stopping {job}; it may take a minute to save its state …\n")
    stopped = jobs.stop(dashboard, job, home=home)
    write(f"{'stopped' if stopped else 'it had ended already'}. {_go_on(folder)}\n")


def _job(folder: Path) -> str:
    try:
        return str(json.loads((folder / JOB).read_text(encoding="utf-8"))["submission"])
    except (OSError, ValueError, KeyError) as error:
        fault = f"no job of a run {folder.name!r} was submitted from this workspace (see emclean status)"
        raise ConfigError([fault], str(folder)) from error


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What a job should know of our environment: our own settings, but no secret."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("EMCLEAN_") and "TOKEN" not in name
    }
