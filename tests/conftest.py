"""What every test shares: real data, a clean environment and no network in fast tiers, honest skips."""

import gc
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Most of what a session imports and collects lives to its end: searching it for garbage costs seconds.
gc.set_threshold(100_000, 50, 50)

# Test processes share the cores: for small arrays threads of their own cost many times what they give. Read
# when numpy and torch are loaded, here and in every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Read once, before any test cleans the environment.
_DATA = os.environ.get("EMCLEAN_DATA", "")
_IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

DATA_ABSENT = "EMCLEAN_DATA is not set to a folder with the test data"

_FAST = ("unit", "contracts")
_CLEANED = ("EMCLEAN_", "RAY_", "MLFLOW_", "LABEL_STUDIO_")


@pytest.hookimpl(optionalhook=True)  # without xdist nobody asks
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole of the tiers that need nothing but this machine's cores; else none."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    alone = config.option.markexpr.startswith(("not ray", "slow and not"))
    return min(2, os.cpu_count() or 1) if whole and alone and not config.option.collectonly else 0


@pytest.fixture(scope="session")
def emclean_data() -> Path:
    """The folder of real test data; without it the test is skipped, everywhere."""
    folder = Path(_DATA)
    if not _DATA or not folder.is_dir():
        pytest.skip(DATA_ABSENT)
    return folder.resolve()


def is_fast(path: Path) -> bool:
    """Whether a test file belongs to the tiers without network, Ray and servers."""
    return any(part in _FAST for part in path.relative_to(Path(__file__).parent).parts)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit and contract tests see no settings of the machine, no network beyond loopback, and no Ray."""
    if is_fast(request.path):
        for name in [name for name in os.environ if name.startswith(_CLEANED)]:
            monkeypatch.delenv(name)
        monkeypatch.setattr(socket.socket, "connect", _connect)
        monkeypatch.setattr(socket.socket, "connect_ex", _connect_ex)
        monkeypatch.setitem(sys.modules, "ray", None)  # `import ray` raises ImportError
        if "torch" in sys.modules:  # for tiny tensors threads cost more than they give
            sys.modules["torch"].set_num_threads(1)


_REAL_CONNECT, _REAL_CONNECT_EX = socket.socket.connect, socket.socket.connect_ex


def _connect(self: socket.socket, address: Any) -> None:
    _only_here(self, address)
    _REAL_CONNECT(self, address)


def _connect_ex(self: socket.socket, address: Any) -> int:
    _only_here(self, address)
    return _REAL_CONNECT_EX(self, address)


def _only_here(used: socket.socket, address: Any) -> None:
    if used.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])
        if host not in ("localhost", "::1") and not host.startswith("127."):
            raise RuntimeError(
                f"a test of the fast tiers wants to reach {host}: use a fake, or mark the test"
            )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """In CI nothing is skipped in silence: only absent data is a reason."""
    outcome: Any = yield
    _strict(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """The same for a whole file that would be skipped."""
    outcome: Any = yield
    _strict(outcome.get_result())


def _strict(report: Any) -> None:
    expected = hasattr(report, "wasxfail")
    if not _IN_CI or not report.skipped or expected:
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if DATA_ABSENT not in reason:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where every test has to run: {reason}"
