"""How a job hands a model to Ray Serve: one way for every kind of model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emclean.loop.console import Console
from emclean.seams import Registry

if TYPE_CHECKING:
    from emclean.distributed.session import Session

Swap = Callable[[str, Path, Mapping[str, Any]], str]
"""Serves a model version (number, weights, card) and returns the address."""


def swap_on(joined: "Session", workspace: Path, host: str, port: int, console: Console) -> Swap | None:
    """What serves a model on this Ray; None, with a word to people, where the Ray ends with the job."""
    from emclean.distributed import serve

    if joined.started:
        console.say("nothing is served: this Ray ends with the job (emclean up starts one that stays)")
        return None
    endpoint = serve.Endpoint(joined.dashboard, workspace, host, port)
    if remark := serve.probe(endpoint):  # a taken port is told before hours of work, not after
        console.say(remark)
    return lambda version, weights, card: serve.deploy(endpoint, version, weights, card)


def fetched(registry: Registry, workspace: Path, name: str, version: str) -> Path:
    """The weights of a registered version, in a folder that every replica reaches."""
    return registry.fetch(version, workspace / "models" / "registry" / name / version)


def serve_champion(
    registry: Registry, swap: Swap, workspace: Path, name: str, console: Console
) -> dict[str, str] | None:
    """Serve the champion, whoever trained it; its address and version, None where there is no champion."""
    champion = registry.champion()
    if champion is None:
        return None
    weights = fetched(registry, workspace, name, champion)
    console.say(f"serving version {champion} …")
    url = swap(champion, weights, registry.card(champion))
    console.say(f"version {champion} is served at {url}")
    return {"url": url, "model_version": champion}
