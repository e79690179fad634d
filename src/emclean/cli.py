"""``emclean``: start the neighbours, submit jobs, go on with them, look at what came out.

Everything heavy is imported by the command that needs it, so that the help comes at once.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from emclean import __version__
from emclean.errors import ConfigError, DataError, EmcleanError
from emclean.loop.submitting import PIPELINES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = _parsed(arguments)
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        _check_workspace(getattr(given, "workspace", None))
        return command(given)
    except EmcleanError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _check_workspace(workspace: Path | None) -> None:
    """Refuse a folder that no command could work in."""
    if workspace is None:
        return
    from emclean.config_faults import unusable_folder

    fault = unusable_folder("--workspace", workspace)
    if fault:
        raise ConfigError([fault], "command line")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse alone takes no ``key=value`` after an option that follows one."""
    top = parser()
    given, left = top.parse_known_args(arguments)
    if left and (not hasattr(given, "overrides") or any(word.startswith("-") for word in left)):
        top.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        given.overrides = [*given.overrides, *left]
    return given


def parser() -> argparse.ArgumentParser:
    """The command line: one parser per command."""
    top = argparse.ArgumentParser(prog="emclean", description=__doc__.splitlines()[0].replace("`", ""))
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_services(commands)
    _add_jobs(commands)
    _add_results(commands)
    _add_predict(commands)
    _add_audit(commands)
    return top


def _new(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    workspace: Path | None = Path("workspace"),
    place: str = "folder of tables, models and runs (%(default)s)",
) -> Any:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(command=run)
    command.add_argument("--workspace", type=Path, default=workspace, help=place)
    return command


def _add_services(commands: Any) -> None:
    only = {
        "nargs": "*",
        "metavar": "NAME",
        "default": (),
        "help": "ray, label_studio, mlflow (default: all)",
    }
    command = _new(
        commands, "up", up, "Start Ray, Label Studio and MLflow on this machine, or find them running."
    )
    command.add_argument("names", **only)
    command.add_argument("--cpus", type=int, help="cores that Ray may use (default: all)")
    command = _new(commands, "down", down, "Stop what `up` started in this workspace, and nothing else.")
    command.add_argument("names", **only)
    _new(commands, "status", status, "Show which services run and how far each run has come.")


def _add_jobs(commands: Any) -> None:
    text = "Submit a job to Ray, follow its log, and return its exit code."
    place = "folder of tables, models and runs (default: as the configuration says, else workspace)"
    command = _new(commands, "submit", submit, text, None, place)
    command.add_argument("--config", metavar="FILE", help="YAML file with the job's configuration")
    more = "which job (%(default)s, the main one)"
    command.add_argument("--pipeline", choices=PIPELINES, default=PIPELINES[0], help=more)
    command.add_argument("--no-wait", action="store_true", help="return as soon as the job is taken")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    text = "Submit a run again with the configuration it was submitted with; it goes on where it was."
    command = _new(commands, "resume", resume, text)
    command.add_argument("run", metavar="RUN", help="the run's name (see emclean status)")
    command.add_argument("--no-wait", action="store_true", help="return as soon as the job is taken")
    text = "Follow the log of a run's job from its beginning, and return the job's exit code."
    _new(commands, "logs", logs, text).add_argument("run", metavar="RUN", help="the run's name")
    text = "Stop a run's job, which saves its state; submitted again, the run goes on where it was."
    _new(commands, "stop", stop, text).add_argument("run", metavar="RUN", help="the run's name")


def _add_results(commands: Any) -> None:
    command = _new(commands, "report", report, "Print where a run's report is, or open it in the browser.")
    command.add_argument("run", metavar="RUN", nargs="?", help="the run's name (default: the newest)")
    command.add_argument("--open", action="store_true", help="open it in the browser")
    text = "Write a run's labels as they stand to a COCO JSON file, with where each of them comes from."
    command = _new(commands, "export", export, text)
    command.add_argument("run", metavar="RUN", help="the run's name (see emclean status)")
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file to write")
    more = "boxes that no expert answered for in their likelier version: better, but unchecked"
    command.add_argument("--likely", action="store_true", help=more)
    command.add_argument("--tables", metavar="URI", help="the run's tables (default: as it was submitted)")
    text = "Remove a run that no job works on: its folder, and its rows of the tables."
    command = _new(commands, "remove", remove, text)
    command.add_argument("run", metavar="RUN", help="the run's name (see emclean status)")
    more = "also a run that experts have answered for: their answers go with it"
    command.add_argument("--with-answers", action="store_true", help=more)
    text = "Let a simulated expert answer Label Studio's tasks from a truth file."
    command = _new(commands, "expert", expert, text)
    command.add_argument("--truth", type=Path, required=True, help="the right labels (COCO JSON or CSV)")
    more = (
        "further options of the simulated expert, after --  (`emclean expert --truth F -- --help` lists them)"
    )
    command.add_argument("options", nargs="*", metavar="OPTION", help=more)


def _add_predict(commands: Any) -> None:
    text = "Search the pictures of a label file with a detector, and write COCO results, as audit reads them."
    command = _new(commands, "predict", predict, text, place="folder of runs (%(default)s)")
    command.add_argument("labels", metavar="LABELS", help="COCO JSON that lists pictures and categories")
    command.add_argument("--images", metavar="DIR", required=True, help="folder of the pictures")
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file to write")
    more = "a run of this workspace (its newest model), a file of weights, or %(default)s"
    command.add_argument("--model", metavar="NAME", default="pretrained", help=more)


def _add_audit(commands: Any) -> None:
    text = "Find wrong labels by a detector's predictions alone: no cluster, no training, no workspace."
    command = commands.add_parser("audit", help=text, description=text)
    command.set_defaults(command=audit)
    command.add_argument("labels", metavar="LABELS", help="the labels to judge (COCO JSON)")
    command.add_argument("predictions", metavar="PREDICTIONS", help="a detector's results on the same images")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write into")
    command.add_argument("--images", metavar="DIR", help="folder of the pictures: the worst are drawn")
    more = "right labels of some or all images (COCO JSON): calibrates the probabilities"
    command.add_argument("--truth", metavar="FILE", help=more)
    numbers: tuple[tuple[str, Any, Any, str], ...] = (
        ("--precision", float, 0.95, "precision that automatic corrections must reach"),
        ("--confident", float, 0.2, "score from which a prediction may propose an object"),
        ("--top", int, 100, "instances listed in the page"),
        ("--pictures", int, 12, "images and instances drawn in the page, of each"),
        ("--seed", int, 0, "draws the images that calibrate, where there are many"),
    )
    for name, kind, default, words in numbers:
        command.add_argument(name, type=kind, default=default, metavar="N", help=f"{words} (%(default)s)")
    more = "do not judge the labels of images that no prediction names"
    command.add_argument("--skip-unpredicted", action="store_true", help=more)


def up(given: argparse.Namespace) -> int:
    """Start the neighbours and print where they are."""
    from emclean import services

    running = services.up(given.workspace, given.names or services.NAMES, num_cpus=given.cpus, say=_say)
    print()
    for name, service in running.items():
        print(f"{services.TITLES[name]:<13} {service.url}")
    if "label_studio" in running:
        print(f"{'':<13} account and password: {running['label_studio'].facts['credentials']}")
    if "ray" in running:
        print(f"{'':<13} RAY_ADDRESS={running['ray'].facts['address']}, its token is in {_ray_token(given)}")
    return 0


def _ray_token(given: argparse.Namespace) -> Path:
    from emclean import services

    return services.home(given.workspace) / "ray_token"


def _say(line: str) -> None:
    print(line, flush=True)


def down(given: argparse.Namespace) -> int:
    """Stop the neighbours by their process ids."""
    from emclean import services

    services.down(given.workspace, given.names or services.NAMES, _say)
    return 0


def status(given: argparse.Namespace) -> int:
    """Print a table of services and one of runs."""
    from emclean import services
    from emclean.loop import overview

    known = services.read(given.workspace)
    rows = [("SERVICE", "STATE", "PID", "ADDRESS")]
    for name in services.NAMES:
        service = known.get(name)
        state = "not started" if service is None else "running" if service.alive else "ended"
        pid, url = (str(service.pid), service.url) if service else ("", "")
        rows.append((services.TITLES[name], state, pid, url))
    _table([*rows, *_served_row(given.workspace)])
    folders = overview.run_folders(given.workspace)
    if folders:
        print()
        _table([overview.HEAD, *map(overview.row, folders)])
    remarks = [line for folder in folders for line in overview.remarks(folder)]
    if remarks:
        print("", *remarks, sep="\n")
    return 0


def _served_row(workspace: Path) -> list[tuple[str, ...]]:
    """The model that a run of this workspace served last, and whether it answers now."""
    from emclean.loop import overview

    served = overview.served(workspace)
    if not served:
        return []
    state = "running" if overview.answers(served["url"]) else "ended"
    return [(f"Model {served['model_version']}", state, "", served["url"])]


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def submit(given: argparse.Namespace) -> int:
    """Check the configuration here, keep it with the run, and submit the job."""
    import shutil

    from emclean.config import load, load_analysis, load_grid, override, read_yaml
    from emclean.loop import submitting

    overrides = [f"workspace={json.dumps(str(given.workspace))}"] if given.workspace else []
    overrides += given.overrides
    checks = {"noise_grid": load_grid, "analyze_micrographs": load_analysis}
    config = checks.get(given.pipeline, load)(given.config, overrides)
    values, _ = override(read_yaml(given.config) if given.config else {}, overrides)
    values |= {"run": config.run_name(), "workspace": str(Path(config.workspace).absolute())}
    folder = Path(config.workspace).absolute() / "runs" / config.run_name()
    submitting.refuse_twice(folder)
    is_new = not folder.exists()
    submitting.keep(folder, given.pipeline, values)
    try:
        return submitting.submit(Path(config.workspace), folder, not given.no_wait, _write)
    finally:
        if is_new and not (folder / submitting.JOB).exists():  # no cluster has heard of it
            shutil.rmtree(folder)


def resume(given: argparse.Namespace) -> int:
    """Submit a run again with what was kept of it."""
    from emclean.loop import overview, submitting

    folder = given.workspace.absolute() / "runs" / given.run
    if not (folder / submitting.SUBMITTED).exists():
        known = ", ".join(path.name for path in overview.run_folders(given.workspace)) or "none"
        fix = f"Give the name of a submitted run ({known}), or --workspace."
        raise ConfigError([f"no run {given.run!r} was submitted from this workspace. {fix}"], "resume")
    submitting.refuse_twice(folder)
    return submitting.submit(given.workspace, folder, not given.no_wait, _write)


def logs(given: argparse.Namespace) -> int:
    """Follow the log of a run's job, from its beginning."""
    from emclean.loop import submitting

    return submitting.follow(given.workspace, given.workspace.absolute() / "runs" / given.run, _write)


def stop(given: argparse.Namespace) -> int:
    """Stop a run's job; submitted again, the run goes on."""
    from emclean.loop import submitting

    submitting.stop(given.workspace, given.workspace.absolute() / "runs" / given.run, _write)
    return 0


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def report(given: argparse.Namespace) -> int:
    """Print or open a run's report."""
    from emclean.loop import overview

    names = [folder.name for folder in overview.run_folders(given.workspace)]
    run = given.run or (names[-1] if names else "")
    file = given.workspace.absolute() / "runs" / run / "report.html"
    if not run or not file.exists():
        when = "A report is written when a run begins to wait for people, and when it ends."
        fix = f"Runs here: {', '.join(names) or 'none'}. {when}"
        raise DataError("there is no report yet.", str(file), fix)
    print(file)
    if given.open:
        import webbrowser

        webbrowser.open(file.as_uri())
    return 0


def export(given: argparse.Namespace) -> int:
    """Write a run's labels to a file."""
    from emclean.loop.export import export_run
    from emclean.loop.submitting import tables_of
    from emclean.stores.tables import Tables

    place = given.tables or tables_of(given.workspace.absolute(), given.run)
    print(export_run(Tables(place), given.run, given.out, given.likely))
    return 0


def remove(given: argparse.Namespace) -> int:
    """Remove a run."""
    from emclean.loop.removing import remove as take_out

    rows = take_out(given.workspace.absolute(), given.run, given.with_answers)
    print(f"removed {given.run} and its {rows} label events; models, MLflow and Label Studio keep theirs")
    return 0


def predict(given: argparse.Namespace) -> int:
    """Search pictures, write what was found, and name what could not be read."""
    from emclean.loop import predicting
    from emclean.loop.console import Console
    from emclean.report.text import plural

    model = predicting.weights_of(given.model, given.workspace)
    done = predicting.predict_folder(given.labels, given.images, model, given.out, Console(sys.stderr))
    for line in done.unread:
        _tell(f"set aside: {line}")
    print(f"{plural(done.found, 'object')} in {plural(done.pictures, 'picture')}: {given.out}")
    return 0 if done.pictures else DataError.exit_code


def audit(given: argparse.Namespace) -> int:
    """Judge labels by predictions; print the worst, write the rest."""
    from emclean import audit
    from emclean.audit.text import table

    names = ("precision", "confident", "top", "pictures", "seed", "skip_unpredicted")
    settings = audit.Settings(**{name: getattr(given, name) for name in names})
    place = (given.labels, given.predictions, given.out, given.images, given.truth)
    print(table(audit.audit(*place, settings=settings, say=_tell)))
    return 0


def _tell(line: str) -> None:
    """How far it is, apart from the result."""
    print(line, file=sys.stderr, flush=True)


def expert(given: argparse.Namespace) -> int:
    """Run the simulated expert against this workspace's Label Studio."""
    from emclean import services, simulated_expert

    at = services.addresses(given.workspace)
    if at.label_studio is None or at.label_studio_token_file is None:
        raise DataError(
            "no Label Studio runs for this workspace.", str(given.workspace), "Start it: emclean up."
        )
    place = ["--url", at.label_studio, "--token-file", str(at.label_studio_token_file)]
    return simulated_expert.main([*place, "--truth", str(given.truth), *given.options])


if __name__ == "__main__":
    sys.exit(main())
