"""The digest of a training: it follows the content of its files, and reads each of them once."""

import dataclasses
import os
import time

import numpy as np
import pytest

from emclean.models import spec
from emclean.models.spec import DetectorSpec, FitJob
from emclean.types import Target


@pytest.fixture
def job(tmp_path):
    picture = tmp_path / "picture.npy"
    write(picture, 3)
    return FitJob(DetectorSpec(), (str(picture),), (Target([], []),), out=str(tmp_path / "out"), init=None)


def write(picture, value, age_s=60.0):
    np.save(picture, np.full((4, 4), value, np.uint8))
    then = time.time() - age_s
    os.utime(picture, (then, then))


@pytest.fixture
def reads(monkeypatch):
    """The paths that were read, in order."""
    read, seen = spec._read_digest, []
    monkeypatch.setattr(spec, "_read_digest", lambda path: seen.append(path) or read(path))
    return seen


def test_a_file_that_stays_is_read_once(job, reads):
    other = dataclasses.replace(job, seed=1)
    assert job.digest() == job.digest() != other.digest() == other.digest()
    assert reads == list(job.pictures)


def test_a_file_that_changed_gives_another_digest(job, reads):
    before = job.digest()
    write(job.pictures[0], 4, age_s=30)
    assert job.digest() != before
    write(job.pictures[0], 3, age_s=10)
    assert job.digest() == before
    assert len(reads) == 3


def test_a_change_within_one_tick_of_the_clock_is_seen(job):
    write(job.pictures[0], 3, age_s=0)
    found = os.stat(job.pictures[0])
    before = job.digest()
    np.save(job.pictures[0], np.full((4, 4), 4, np.uint8))
    os.utime(job.pictures[0], ns=(found.st_atime_ns, found.st_mtime_ns))
    assert os.stat(job.pictures[0]).st_mtime_ns == found.st_mtime_ns
    assert job.digest() != before


def test_what_is_remembered_has_a_bound():
    assert 0 < spec._kept_digest.cache_info().maxsize < 1e6
