import json
import multiprocessing

import pytest

from emclean.errors import DataError, ServiceError
from emclean.loop import states
from emclean.loop.states import Phase, RunState


def test_a_saved_state_comes_back_as_it_was(tmp_path) -> None:
    state = RunState("r", Phase.WAIT, 2, plans=({"tasks": 3},), started_at="2026-01-01").knowing(pool="ab")
    state = state.with_model("final", weights="w").with_model("final", version="3").spent("retrain", 1.5)
    states.save(state, tmp_path / "state.json")
    assert states.load(tmp_path / "state.json", "r") == state
    assert state.models["final"] == {"weights": "w", "version": "3"}


def test_a_run_without_a_state_starts_fresh(tmp_path) -> None:
    assert states.load(tmp_path / "state.json", "new") == RunState("new")


def test_a_broken_state_says_what_to_do(tmp_path) -> None:
    file = tmp_path / "state.json"
    file.write_text(json.dumps({"phase": "NOWHERE"}))
    with pytest.raises(DataError, match="Move this file away"):
        states.load(file, "r")


def test_a_crash_while_saving_leaves_the_old_state(tmp_path, monkeypatch) -> None:
    file = tmp_path / "state.json"
    states.save(RunState("r", Phase.PUSH), file)
    monkeypatch.setattr(states.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        states.save(RunState("r", Phase.WAIT), file)
    assert states.load(file, "r").phase is Phase.PUSH


def _try_lock(folder, queue) -> None:
    try:
        with states.locked(folder):
            queue.put("locked")
    except ServiceError:
        queue.put("refused")


def test_two_jobs_cannot_work_on_one_run(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with states.locked(tmp_path):
        other = context.Process(target=_try_lock, args=(tmp_path, queue))
        other.start()
        assert queue.get(timeout=20) == "refused"
        other.join()
    with states.locked(tmp_path):
        pass
