"""Large SEM micrographs → particles → handedness → the population's left-to-right ratio.

    ray job submit -- python pipelines/analyze_micrographs.py --config FILE
    python pipelines/analyze_micrographs.py data.images=MICROGRAPHS \\
      data.particles=CUTOUTS data.labels=LABELS.csv

Particles are found window by window (a picture is never read as a whole), turned upright, set aside where
their pose shows no hand, and classified. The left share of each picture and sample is corrected for the
mistakes that the classifier makes on clean labels, with an interval. Without any argument it simulates
micrographs and labels. Every key of the configuration has a default and may be given as ``key=value``
(values in YAML form); ``docs/usage.md`` lists them. Windows are streamed by Ray Data over the Ray at
``RAY_ADDRESS``, or one that is started on this machine and ended again. A finished window is kept by its
content and never worked through again: an analysis that was stopped goes on, pictures that are added cost
their own windows.

Exit: 0 finished (pictures set aside are listed); 2 configuration, 3 data, 4 a service. The last line on
standard output is ``summary: PATH``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from emclean import entry
from emclean.config import AnalyzeMicrographs, load_analysis


def parse(argv: Sequence[str] | None = None) -> AnalyzeMicrographs:
    """The checked configuration of the command line."""
    return entry.configured(__doc__, load_analysis, argv)


def run(config: AnalyzeMicrographs) -> tuple[Path, int]:
    """Work through every window that is not on file; print the shares; return the summary's path and 0."""
    from emclean.loop.analysis.opening import opened
    from emclean.loop.analysis.running import run as run_analysis
    from emclean.loop.console import Console
    from emclean.loop.states import failure_kept
    from emclean.report.analysis_text import analysis_table

    console = Console()
    console.say(f"run {config.run_name()} in {config.workspace}")
    folder = Path(config.workspace).absolute() / "runs" / config.run_name()
    with failure_kept(folder), opened(config, console) as analysis:
        entry.stop_on_sigterm()
        outcome = run_analysis(analysis)
    console.say(f"report: {outcome.summary.with_name('report.html')}")
    print(analysis_table(json.loads(outcome.summary.read_text(encoding="utf-8"))))
    return outcome.summary, outcome.code


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn errors into exit codes."""
    return entry.ended(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
