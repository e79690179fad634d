"""The rules of this test suite hold: no silent skip in CI, and fast tests that stay on this machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import importlib
import os
import socket

import pytest


def test_without_data(emclean_data):
    pass


def test_without_a_tool():
    pytest.skip("the tool is missing")


@pytest.mark.skip(reason="not today")
def test_put_off():
    pass


@pytest.mark.xfail(reason="known", strict=True)
def test_known_fault():
    assert False


def test_no_network():
    with pytest.raises(RuntimeError, match="wants to reach 192.0.2.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_no_ray():
    with pytest.raises(ImportError):
        importlib.import_module("ray")


def test_no_settings():
    assert "EMCLEAN_X" not in os.environ
"""


@pytest.mark.parametrize(
    ("ci", "counts"),
    [("", "4 passed, 3 skipped, 1 xfailed"), ("true", "1 failed, 4 passed, 1 skipped, 1 xfailed, 1 error")],
)
def test_skips_are_failures_in_ci_unless_data_is_absent(tmp_path, monkeypatch, ci, counts):
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder.parent)
    (folder / "test_cases.py").write_text(CASES)
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("EMCLEAN_X", "1")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # plugins take longer to load than this to run
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stdout.splitlines()[-1].startswith(counts), done.stdout
    assert done.returncode == (1 if ci else 0)
