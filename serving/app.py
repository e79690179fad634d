"""Ray Serve's side of the served model: ``serving.app:build`` makes the application from its arguments.

    import_path: serving.app:build
    args: {workspace: /data/workspace, require_token: true, token_file: /run/secrets/serve_token}
    deployments:
    - name: Detector
      user_config: {version: "7", weights: /data/workspace/.../model.safetensors, card: {...}}

A new ``user_config`` swaps the model in the running replicas; no request is dropped.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from emclean.models import engine
from serving.api import Settings, create_api
from serving.model import ModelHolder


@serve.deployment(
    name="Detector",
    num_replicas=2,
    max_ongoing_requests=8,
    max_queued_requests=64,
    ray_actor_options={"num_cpus": 0},  # so that training finds every core free
)
@serve.ingress()
class Replica:
    """One replica: a model holder behind the HTTP interface."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        torch.set_num_threads(1)
        name = serve.get_replica_context().replica_id.unique_id
        told = Settings(**settings)
        session = ray.get_runtime_context().get_session_name()
        figures = Path(told.workspace) / "served" / session
        self._settings = replace(told, replica=name, figures=str(figures))
        self._holder = ModelHolder(engine.load, engine.predict)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(self._holder, self._settings)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take another version; loading happens in a thread, and a failure leaves the old one in place."""
        await asyncio.to_thread(self._holder.take, user_config)


def build(args: dict[str, Any]) -> Application:
    """The application from the ``args`` of a Serve configuration (the fields of ``serving.api.Settings``)."""
    application: Application = Replica.bind(args)  # type: ignore[attr-defined]  # set by serve.deployment
    return application
