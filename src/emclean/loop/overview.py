"""How the runs of a workspace stand, read from their folders alone: what ``emclean status`` shows of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emclean.loop.states import FAILED, WAITING, is_locked

HEAD = ("RUN", "STATE", "PHASE", "ROUND", "SCORE")


def run_folders(workspace: Path) -> list[Path]:
    """The folders of a workspace's runs, the newest last."""
    folders = [path for path in (workspace / "runs").glob("*") if path.is_dir()]
    return sorted(folders, key=lambda path: path.stat().st_mtime)


def row(folder: Path) -> tuple[str, ...]:
    """A run's line under :data:`HEAD`; the score is AP50 or accuracy, an estimated one is marked ``≈``."""
    state, summary = _json(folder / "state.json"), _json(folder / "summary.json")
    phase = str(state.get("phase", "")).lower()
    return folder.name, standing(folder), phase, str(state.get("round", "")), _score(summary)


def standing(folder: Path) -> str:
    """``running``, ``failed``, ``finished``, ``waiting``, or ``stopped``: submitted again, it goes on."""
    if is_locked(folder):
        return "running"
    if (folder / FAILED).exists():
        return "failed"
    return str(_json(folder / "summary.json").get("status") or "stopped")


def _score(summary: dict[str, Any]) -> str:
    final: dict[str, Any] = summary.get("final") or {}
    measured = final.get("accuracy", final.get("ap50"))
    if measured is not None:
        return f"{measured:.3f}"
    rounds: Sequence[dict[str, Any]] = summary.get("rounds") or ()
    said = (rounds[-1].get("estimate") or {}) if rounds else {}
    found = (said.get("accuracy") or said.get("ap50") or {}).get("value")
    return "" if found is None else f"≈{found:.2f}"


def remarks(folder: Path) -> list[str]:
    """What a run's line has no room for: why it failed, where answers are waited for, how many are in."""
    how = standing(folder)
    if how == "failed":
        reason = " ".join(str(_json(folder / FAILED).get("reason", "")).split())
        return [f"{folder.name} failed: {reason}"]
    state, waits = _json(folder / "state.json"), _json(folder / WAITING)
    if how == "finished" or state.get("phase") != "WAIT":
        return []
    if waits.get("round") != state.get("round"):
        return [f"{folder.name} waits for answers"]
    when = "" if how == "running" else f" when the job last looked (emclean resume {folder.name} looks again)"
    return [f"{folder.name} waits for answers at {waits['project']}: {waits['words']}{when}"]


def served(workspace: Path) -> dict[str, Any]:
    """The ``url`` and ``model_version`` that a run of this workspace served last; empty where none did."""
    for folder in reversed(run_folders(workspace)):
        facts = _json(folder / "state.json").get("facts") or _json(folder / "summary.json")
        if facts.get("served"):
            return dict(facts["served"])
    return {}


def answers(url: str) -> bool:
    """Whether something answers at this address, whatever it says."""
    import httpx

    try:
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).status_code < 500
    except httpx.HTTPError:
        return False


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
