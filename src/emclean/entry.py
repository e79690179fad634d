"""What the entry script of every job does alike: its command line, its signals, its exit codes."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

from emclean.errors import EmcleanError, ServiceError

Config = TypeVar("Config")


class Stopped(KeyboardInterrupt):
    """The job was asked to end (``ray job stop``, Ctrl-C)."""


def configured(
    about: str | None, load: Callable[[str | None, Sequence[str]], Config], argv: Sequence[str] | None
) -> Config:
    """The checked configuration of a command line: ``--config FILE`` and ``key=value``."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML file with the job's configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the file")
    given = parser.parse_intermixed_args(argv)
    return load(given.config, given.overrides)


def stop_on_sigterm() -> None:
    """Turn the signal into an exception, so that everything that was opened is closed.

    To be called after Ray has started: it sets a handler of its own.
    """
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def ended(work: Callable[[], tuple[Path, int]]) -> int:
    """Do the work, which returns its summary's path and exit code; turn errors into exit codes."""
    try:
        summary, code = work()
    except EmcleanError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, ServiceError):
            print("Nothing is lost: submit the job again to go on.", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped: submit the job again to go on where it was", file=sys.stderr)
        return 130
    print(f"summary: {summary}", flush=True)
    return code
