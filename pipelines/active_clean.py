"""Clean labels, boxes or (``task=classes``) classes, with little of an expert's time: the main job.

    ray job submit -- python pipelines/active_clean.py --config pipelines/configs/active_clean.yaml
    python pipelines/active_clean.py data.pool.images=IMAGES data.pool.crowd=CROWD.json ...
    python pipelines/active_clean.py task=classes data.pool.images=IMAGES data.pool.labels=LABELS.csv ...

Without any argument it simulates pictures and an expert. Every key of the configuration has a default and
may be given as ``key=value`` (values in YAML form); ``docs/usage.md`` lists them. The job joins the Ray at
``RAY_ADDRESS``, or starts one on this machine and ends it again. It may be killed at any moment: submitted
again with the same configuration it goes on where it was.

Exit: 0 finished or waiting for experts, 2 configuration, 3 data, 4 a service. The last line on standard
output is ``summary: PATH``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from emclean import entry
from emclean.config import ActiveKeys, load_active


def parse(argv: Sequence[str] | None = None) -> ActiveKeys:
    """The checked configuration of the command line."""
    return entry.configured(__doc__, load_active, argv)


def run(config: ActiveKeys) -> Path:
    """Run the job to its end or until it waits for experts; return the path of its summary."""
    from emclean.loop.build import opened
    from emclean.loop.console import Console
    from emclean.loop.controller import run as run_job
    from emclean.loop.finishing import export_command
    from emclean.loop.states import failure_kept
    from emclean.report.text import next_steps, rounds_table

    console = Console()
    console.say(f"run {config.run_name()} in {config.workspace}")
    folder = Path(config.workspace).absolute() / "runs" / config.run_name()
    with failure_kept(folder), opened(config, console) as job:
        entry.stop_on_sigterm()
        outcome = run_job(job)
    console.say(f"{outcome.status}; report: {outcome.summary.with_name('report.html')}")
    if outcome.status == "waiting":
        console.say(f"when the questions are answered: emclean resume {config.run_name()}")
    summary = json.loads(outcome.summary.read_text(encoding="utf-8"))
    print(rounds_table(summary))
    print(next_steps(summary, export_command(config, config.run_name())))
    return outcome.summary


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into exit codes."""
    return entry.ended(lambda: (run(parse(argv)), 0))


if __name__ == "__main__":
    sys.exit(main())
