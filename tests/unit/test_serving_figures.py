"""What the replicas of the served model have counted together, told by any of them."""

import asyncio
import os

import httpx
import pytest
from fastapi import FastAPI

from serving.api import Settings, create_api
from serving.figures import ALIVE_S, Figures, Told, text
from serving.metrics import BUCKETS, Counts, Metrics
from serving.model import ModelHolder


def replica(name: str, folder=None) -> FastAPI:
    """A replica that holds no model: its requests count all the same."""
    settings = Settings(require_token=False, replica=f"app#{name}", figures=str(folder) if folder else None)
    return create_api(ModelHolder(None, None), settings)


async def answers(app: FastAPI, *paths: str) -> list[str]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as caller:
        return [(await caller.get(path)).text for path in paths]


def ask(app: FastAPI, *paths: str) -> str:
    return asyncio.run(answers(app, *paths))[-1]


def test_any_replica_tells_the_figures_of_all(tmp_path):
    folder = tmp_path / "served" / "now"
    first, second = replica("a", folder), replica("b", folder)

    async def live() -> str:
        """As a server does: start, answer, end."""
        async with first.router.lifespan_context(first):
            await answers(first, "/v1/model", "/v1/model")
            while not list(folder.glob("*.json")):
                await asyncio.sleep(0.01)
            return (await answers(second, "/metrics"))[-1]

    assert "\nemclean_replicas 2\n" in asyncio.run(live())
    told = ask(second, "/v1/model", "/metrics")
    assert 'emclean_requests_total{path="/v1/model",status="503"} 3\n' in told
    assert "\nemclean_request_seconds_count 4\n" in told  # and one for the figures before
    assert "\nemclean_replicas 1\n" in told  # the first has ended; what it counted stays


def test_a_replica_that_was_killed_is_not_counted_as_living(tmp_path):
    Figures(tmp_path / "now", "a").write(Told(Counts(detections=5, swaps=1), "3"))
    asked = replica("b", tmp_path / "now")
    assert 'emclean_model_loaded{model_version="3"} 1\n' in ask(asked, "/metrics")
    file = tmp_path / "now" / "a.json"
    os.utime(file, (0, file.stat().st_mtime - ALIVE_S - 1))
    told = ask(asked, "/metrics")
    assert "\nemclean_detections_total 5\n" in told
    assert "\nemclean_swaps_total 1\n" in told
    assert "\nemclean_replicas 1\n" in told
    assert "model_version" not in told


def test_figures_of_an_earlier_ray_do_not_count_and_go_in_time(tmp_path):
    old, newer = tmp_path / "old" / "a.json", tmp_path / "newer" / "a.json"
    for file in (old, newer):
        file.parent.mkdir()
        file.write_text("{}")
    os.utime(old, (0, 0))
    assert "\nemclean_replicas 1\n" in ask(replica("a", tmp_path / "now"), "/metrics")
    assert (old.parent.exists(), newer.exists()) == (False, True)


def test_one_application_alone_shares_nothing():
    assert 'path="/v1/model",status="503"} 1\n' in ask(replica("a"), "/v1/model", "/metrics")


def test_figures_that_cannot_be_written_are_said(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    figures = Figures(tmp_path / "file" / "below", "a")
    figures.write(Told(Counts(), ""))
    assert "cannot be written" in caplog.text
    assert list(figures.others()) == []


def test_the_histogram_counts_upwards():
    metrics = Metrics()
    for seconds in (BUCKETS[0], 0.2, 99.0):
        metrics.request("/a b", 200, seconds)
    lines = text([Told(metrics.counts(0, 0), "")] * 2).splitlines()
    counts = [int(line.rpartition(" ")[2]) for line in lines if "_bucket" in line]
    assert counts == [2, 2, 4, *[4] * (len(BUCKETS) - 3), 6]
    assert 'emclean_requests_total{path="/a b",status="200"} 6' in lines
    assert float(lines[lines.index("emclean_request_seconds_count 6") - 1].split()[1]) == pytest.approx(198.5)
