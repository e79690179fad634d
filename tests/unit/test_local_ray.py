"""What ends when a Ray of one's own is stopped; a small program stands for its head node."""

import contextlib
import os
import subprocess
import sys

import pytest

from emclean.distributed import local

HEAD = """
import subprocess, sys, time
for session in (False, True):  # an agent of its own, and somebody in a session of theirs
    line = [sys.executable, "-c", "import time; time.sleep(60)"]
    print(subprocess.Popen(line, start_new_session=session, stdout=subprocess.DEVNULL).pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def started(tmp_path):
    """The head, its agent's and the stranger's process ids with the moments they began."""
    child = subprocess.Popen([sys.executable, "-c", HEAD], stdout=subprocess.PIPE, start_new_session=True)
    others = [int(child.stdout.readline()) for _ in range(2)]
    child.stdout.close()
    head = local.Head(child.pid, local.born(child.pid), "a", "d", "l", str(tmp_path / "ray"))
    yield head, *((pid, local.born(pid)) for pid in others)
    for pid in (child.pid, *others):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    child.wait()


def test_stopping_waits_for_the_agents_and_ends_nobody_else(started):
    head, agent, stranger = started
    assert local.lives(*agent)
    local.stop(head, patience_s=0.4)
    assert not local.lives(head.pid, head.born)
    assert not local.lives(*agent)
    assert local.lives(*stranger)


def test_a_head_whose_id_is_anothers_by_now_costs_nobody_their_life(started):
    head, agent, _ = started
    local.stop(local.Head(head.pid, "1", "a", "d", "l", head.folder), patience_s=0.1)
    assert local.lives(head.pid, head.born)
    assert local.lives(*agent)
