"""How a submitted job ended, told by what Ray says of it."""

from types import SimpleNamespace

import pytest

from emclean.distributed import jobs
from emclean.errors import ComputeError


class Status(str):
    """Ray's word for how a job stands."""

    __slots__ = ()

    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self in ("STOPPED", "SUCCEEDED", "FAILED")


class Client:
    """A cluster that tells of one job, its states one after the other."""

    def __init__(self, *states, code=None, message=""):
        self.states, self.code, self.message, self.stopped = list(states), code, message, []

    def get_job_info(self, submission):
        if not self.states:
            raise RuntimeError("Request failed with status code 404: no such job")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return SimpleNamespace(status=Status(state), driver_exit_code=self.code, message=self.message)

    def stop_job(self, submission):
        self.stopped.append(submission)
        return True

    async def tail_job_logs(self, submission):
        yield "2026-11-23 06:55:23,100\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
        yield "\x1b[36m(raylet)\x1b[0m: 8 PYTHON worker processes have been started on node\na line\n"


@pytest.fixture
def cluster(monkeypatch):
    """Lets every call meet the given client, without waiting."""

    def use(client):
        monkeypatch.setattr(jobs, "_client", lambda dashboard: client)
        monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
        return client

    return use


def ended(cluster, client, said=lambda text: None):
    cluster(client)
    return jobs.follow("http://d", "job-1", home=None, write=said, go_on="Go on with: emclean resume r.")


@pytest.mark.parametrize(
    ("state", "code", "told"),
    [("SUCCEEDED", 0, 0), ("FAILED", 3, 3), ("FAILED", 130, 130), ("STOPPED", None, 130)],
)
def test_the_log_is_followed_and_the_jobs_own_code_told(cluster, state, code, told):
    said = []
    assert ended(cluster, Client("RUNNING", state, code=code), said.append) == told
    assert "".join(said) == "a line\n"  # Ray's own lines are left out


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (137, "SIGKILL"), (-15, "SIGTERM"), (-99, "99")])
def test_a_killed_job_says_so_and_how_to_go_on(cluster, code, name):
    with pytest.raises(ComputeError, match=rf"job-1: the job was killed \(.*{name}") as caught:
        ended(cluster, Client("FAILED", code=code))
    assert str(caught.value).endswith("Go on with: emclean resume r.")
    assert caught.value.exit_code == 4


def test_a_job_that_ray_has_forgotten_is_named(cluster):
    with pytest.raises(ComputeError, match=r"job-1: Ray tells nothing of this job .*404"):
        ended(cluster, Client())


def test_stopping_waits_until_the_job_has_ended(cluster):
    client = cluster(Client("RUNNING", "RUNNING", "STOPPED"))
    assert jobs.stop("http://d", "job-1", home=None)
    assert (client.stopped, client.states) == (["job-1"], ["STOPPED"])


def test_a_job_that_has_ended_is_not_stopped(cluster):
    client = cluster(Client("SUCCEEDED"))
    assert not jobs.stop("http://d", "job-1", home=None)
    assert client.stopped == []
