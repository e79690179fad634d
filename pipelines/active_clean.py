"""Clean crowd labels with as little of an expert's time as possible: the main job.

    ray job submit -- python pipelines/active_clean.py --config pipelines/configs/active_clean.yaml
    python pipelines/active_clean.py data.pool.images=IMAGES data.pool.crowd=CROWD.json ...

Without any argument it simulates pictures and an expert. Every key of the configuration has a default and
may be given as ``key=value`` (values in YAML form); ``docs/usage.md`` lists them. The job joins the Ray at
``RAY_ADDRESS``, or starts one on this machine and ends it again. It may be killed at any moment: submitted
again with the same configuration it goes on where it was.

Exit: 0 finished or waiting for experts, 2 configuration, 3 data, 4 a service. The last line on standard
output is ``summary: PATH``.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from emclean.config import ActiveClean, load
from emclean.errors import EmcleanError, ServiceError


class Stopped(KeyboardInterrupt):
    """The job was asked to end (``ray job stop``, Ctrl-C)."""


def parse(argv: Sequence[str] | None = None) -> ActiveClean:
    """The checked configuration of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with the job's configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    arguments = parser.parse_intermixed_args(argv)
    return load(arguments.config, arguments.overrides)


def stop(number: int, frame: FrameType | None) -> None:
    """Turn the signal into an exception, so that everything that was opened is closed."""
    raise Stopped


def run(config: ActiveClean) -> str:
    """Run the job to its end or until it waits for experts; return the path of its summary."""
    from emclean.loop.build import opened
    from emclean.loop.console import Console
    from emclean.loop.controller import run as run_job
    from emclean.report.text import rounds_table

    console = Console()
    console.say(f"run {config.run_name()} in {config.workspace}")
    with opened(config, console) as job:
        signal.signal(signal.SIGTERM, stop)  # after Ray has started: it sets a handler of its own
        outcome = run_job(job)
    console.say(f"{outcome.status}; report: {outcome.summary.with_name('report.html')}")
    print(rounds_table(json.loads(outcome.summary.read_text(encoding="utf-8"))))
    return str(outcome.summary)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into exit codes."""
    try:
        summary = run(parse(argv))
    except EmcleanError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, ServiceError):
            print("Nothing is lost: submit the job again to go on.", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped: submit the job again to go on where it was", file=sys.stderr)
        return 130
    print(f"summary: {summary}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
