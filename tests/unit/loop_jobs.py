"""A small job with neighbours in memory, for tests of the loop."""

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np

from emclean.config import load
from emclean.loop.console import Console
from emclean.loop.ingest import Ingested
from emclean.loop.job import Job, Parts, RunData
from emclean.stores.fakes import FolderRegistry, InMemoryLabelService, InMemoryTracker
from emclean.stores.tables import Tables
from emclean.types import ImageRecord, Labels

BOX = (10.0, 10.0, 30.0, 30.0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def small_job(folder, ids=("a", "b", "c"), **parts):
    """A job over images with one crowd label each; ``parts`` replace neighbours."""
    records = tuple(ImageRecord(i, f"/{i}.png", f"{i}.png", 100, 80) for i in ids)
    crowd = {i: Labels(np.array([BOX]), np.zeros(1, np.int64), (f"crowd-{i}",)) for i in ids}
    data = RunData(Ingested(records, crowd, ("deposit", "vesicle"), ()), None, crowd)
    given = {
        "tables": Tables(str(folder / "tables")),
        "service": InMemoryLabelService(),
        "tracker": InMemoryTracker(),
        "registry": FolderRegistry(folder / "registry"),
        "compute": SimpleNamespace(),
        "console": Console(),
        "swap": None,
        "expert_program": None,
        "addresses": {"MLflow": "http://mlflow"},
        "now": lambda: NOW,
    }
    return Job(load(), "run", folder, Parts(**{**given, **parts}), data)
