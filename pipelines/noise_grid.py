"""Compare methods of learning from noisy labels: methods x noises x rates x seeds, each cell on its own.

    ray job submit -- python pipelines/noise_grid.py --config FILE
    python pipelines/noise_grid.py data.train.images=IMAGES data.train.truth=TRUTH.json \\
      data.test.images=IMAGES data.test.truth=TEST.json methods='[crowd, graded]' rates='[0.1, 0.3]'
    python pipelines/noise_grid.py task=classes data.train.images=FOLDER data.train.labels=LABELS.csv

Errors are planted into the truth of the training pictures; every method learns from the noisy labels, and
its model is measured on the test pictures: a detector of boxes, or with ``task=classes`` a classifier.
Without data it simulates pictures. Every key of the configuration has a default and may be given as
``key=value`` (values in YAML form); ``docs/usage.md`` lists them. Cells are trials of Ray Tune, each on one
core; the job joins the Ray at ``RAY_ADDRESS``, or starts one on this machine and ends it again. A finished
cell is kept by its content and never run again: a grid that was stopped goes on, and a method or rate that
is added costs its own cells only.

Exit: 0 finished (failed cells are listed, and tried again next time); where every cell failed, the code of
the fault; 2 configuration, 3 data, 4 a service. The last line on standard output is ``summary: PATH``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from emclean import entry
from emclean.config import GridKeys, load_grid


def parse(argv: Sequence[str] | None = None) -> GridKeys:
    """The checked configuration of the command line."""
    return entry.configured(__doc__, load_grid, argv)


def run(config: GridKeys) -> tuple[Path, int]:
    """Run every cell that is not on file; print the means; return the summary's path and the exit code."""
    from emclean.loop.console import Console
    from emclean.loop.grid.opening import opened
    from emclean.loop.grid.running import run as run_grid
    from emclean.loop.states import failure_kept
    from emclean.report.text import grid_table

    console = Console()
    console.say(f"run {config.run_name()} in {config.workspace}")
    folder = Path(config.workspace).absolute() / "runs" / config.run_name()
    with failure_kept(folder), opened(config, console) as grid:
        entry.stop_on_sigterm()
        outcome = run_grid(grid)
    console.say(f"report: {outcome.summary.with_name('report.html')}")
    print(grid_table(json.loads(outcome.summary.read_text(encoding="utf-8"))))
    return outcome.summary, outcome.code


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into exit codes."""
    return entry.ended(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
