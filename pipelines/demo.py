"""The demonstration: the whole job on real services on this machine, on simulated pictures.

    make demo                 # or: python pipelines/demo.py
    make demo ARGS=--keep     # leave Label Studio, MLflow and the served model up, to look around

Starts Ray, Label Studio and MLflow on loopback, submits the main job with ``pipelines/configs/demo.yaml``,
and ends with the table of rounds and the addresses. What was trained before is not trained again.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from emclean import cli, services
from emclean.errors import EmcleanError

CONFIG = Path(__file__).parent / "configs" / "demo.yaml"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the services up")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/demo"), help="(%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over demo.yaml")
    return parser.parse_intermixed_args(argv)


def fresh_name(workspace: Path) -> str:
    """The name of the first demonstration run that is not finished."""
    number = 1
    while (workspace / "runs" / f"demo-{number}" / "summary.json").exists():
        number += 1
    return f"demo-{number}"


def show(workspace: Path, run: str) -> None:
    """Print where everything is; the job itself has printed the table of rounds."""
    folder = workspace.absolute() / "runs" / run
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    at = services.addresses(workspace)
    served = summary["served"] or {}
    print(f"\nLabel Studio  {at.label_studio}")
    print(f"MLflow        {at.mlflow}")
    print(f"Served model  {served.get('url')} (version {served.get('model_version')})")
    print(f"Report        {folder / 'report.html'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Start the services, run the job, show the result, stop the services."""
    given = parse(argv)
    since, run = time.monotonic(), fresh_name(given.workspace)
    submit = ["submit", "--workspace", str(given.workspace), "--config", str(CONFIG), f"run={run}"]
    try:
        services.up(given.workspace, say=lambda line: print(line, flush=True))
        code = cli.main([*submit, *given.overrides])
        if code == 0:
            show(given.workspace, run)
    except EmcleanError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    finally:
        if not given.keep:
            services.down(given.workspace, say=lambda line: print(line, flush=True))
    minutes = (time.monotonic() - since) / 60
    stay = f"stop them with: emclean down --workspace {given.workspace}"
    print(f"{minutes:.1f} minutes; " + (stay if given.keep else "--keep leaves the services up"))
    return code


if __name__ == "__main__":
    sys.exit(main())
