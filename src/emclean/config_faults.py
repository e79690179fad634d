"""Faults of a configuration that no single value shows: combinations, addresses, files that are not there."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from emclean.config_keys import PRETRAINED, ActiveClean, ActiveKeys, Detector


def consistency_faults(config: ActiveClean) -> list[str]:
    """Combinations of keys that cannot work together, and what can be named but is not there yet."""
    pool, test, expert = config.data.pool, config.data.test, config.expert
    people, own = expert.kind == "label_studio", bool(pool.images)
    untold = own and not expert.truth
    table = (
        (own and not pool.crowd, "data.pool.crowd: needed with data.pool.images (COCO JSON or CSV)"),
        (pool.crowd and not own, "data.pool.images: needed with data.pool.crowd"),
        (test.images and not test.truth, "data.test.truth: needed with data.test.images"),
        (test.truth and not test.images, "data.test.images: needed with data.test.truth"),
        (
            untold and not people,
            "expert.truth: the simulated expert needs a truth file (COCO JSON) for your own images; "
            "for people who answer in Label Studio give expert.kind=label_studio",
        ),
        (
            expert.truth and not own,
            "expert.truth: simulated pictures bring their own truth; leave it out, or give data.pool.images",
        ),
        (
            test.images and test.truth and not own,
            "data.test.images: simulated pictures bring their own test set; leave data.test.images and "
            "data.test.truth out, or give data.pool.images",
        ),
        (config.baselines and untold and people, "baselines: the full-expert ceiling needs expert.truth"),
        (
            people and config.label_service == "in_process",
            "label_service: people answer in Label Studio; use label_service=label_studio",
        ),
        (
            config.data.pool.labels is not None or config.data.test.labels is not None,
            "data.*.labels: for task=classes; boxes take data.pool.crowd and data.test.truth",
        ),
        (
            config.task == "classes",
            "task: 'classes' has a configuration of its own (load_active reads either)",
        ),
    )
    found = [fault for broken, fault in table if broken]
    return found + detector_faults(config.detector) + service_faults(config)


def detector_faults(detector: Detector) -> list[str]:
    """Settings of the detector with which no training of the loop could start."""
    family, batch, workers = detector.family, detector.batch, detector.workers
    compact = family == "compact"
    table = (
        (
            not compact and not family.startswith(("fcos_", "retinanet_")),
            f"detector.family: {family!r} cannot weigh labels or ignore areas, which the loop needs; "
            "use compact, fcos_* or retinanet_*",
        ),
        (
            not compact and detector.init == PRETRAINED,
            "detector.init: the shipped weights are the compact detector's; "
            f"with {family!r} use detector.init=null or a local file",
        ),
        (
            batch < workers,
            f"detector.batch: {batch} crops are too few for {workers} workers; give at least one to each",
        ),
    )
    return [fault for broken, fault in table if broken]


DATABASE = re.compile(r"(sqlite:///|(postgresql|mysql|mssql)(\+\w+)?:/)/.+")
"""Addresses of databases that MLflow uses without a server; a SQLite file is given by its absolute path."""


def service_faults(config: ActiveKeys) -> list[str]:
    """Addresses that are none, and what must come with them; a wrong one may hold a secret: not shown."""
    given = config.services
    remote = config.label_service == "label_studio" and given.label_studio
    there = given.label_studio_documents_there
    table = (
        (
            given.label_studio and not _is_http(given.label_studio),
            "services.label_studio: not an address; give http://host:port",
        ),
        (
            remote and not given.label_studio_token_file,
            "services.label_studio_token_file: needed with services.label_studio (file of an access token)",
        ),
        (
            remote and not given.label_studio_documents,
            "services.label_studio_documents: needed with services.label_studio "
            "(the folder from which it shows local files)",
        ),
        (
            there is not None and not given.label_studio,
            "services.label_studio_documents_there: only with services.label_studio; leave it out",
        ),
        (
            there is not None and not there.startswith("/"),
            "services.label_studio_documents_there: not a full path; "
            "give LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT of that server",
        ),
    )
    found = [fault for broken, fault in table if broken]
    return found + host_faults(given.serve_host) + mlflow_faults(given.mlflow)


def host_faults(host: str) -> list[str]:
    """Why no model can be served there: give a name or IPv4 address; of this machine's own, the usual one."""
    named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", host)
    if named and (not host.startswith("127.") or host == "127.0.0.1"):
        return []
    fix = "give 127.0.0.1 for this machine alone; for others 0.0.0.0, an IPv4 address or a name"
    return [f"services.serve_host: {fix}"]


def mlflow_faults(address: str | None) -> list[str]:
    """What is wrong with the address of MLflow."""
    if address is None or _is_http(address) or DATABASE.fullmatch(address):
        return []
    if address.startswith("sqlite:"):
        fix = "give sqlite:////folder/mlflow.db, with four slashes"
        return [f"services.mlflow: a database file needs its absolute path; {fix}"]
    return ["services.mlflow: not an address; give http://host:port or sqlite:////folder/mlflow.db"]


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return address.startswith(("http://", "https://")) and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


PATH_KEYS = ("data.pool.images", "data.pool.crowd", "data.test.images", "data.test.truth", "expert.truth")
"""What must be there; a URI is asked only when it is read."""

TOKEN_FILE, DOCUMENTS = "services.label_studio_token_file", "services.label_studio_documents"
"""A file and a folder that must be there, on this machine."""


def path_faults(values: Mapping[str, Any], here: Path, keys: Sequence[str] = PATH_KEYS) -> list[str]:
    """Paths (``keys``) that do not exist, or that are relative where the job's folder is a temporary copy."""
    workspace, init = values.get("workspace") or "workspace", _look_up(values, "detector.init")
    faults = [_workspace_fault(workspace, here), _init_fault(init, here)]
    faults += [_tables_fault(values.get("tables"), here)]
    faults += [_path_fault(key, path, here) for key in keys for path in _each(_look_up(values, key))]
    faults += [_local_fault(key, _look_up(values, key), here) for key in (TOKEN_FILE, DOCUMENTS)]
    return [fault for fault in faults if fault is not None]


def _workspace_fault(value: Any, here: Path) -> str | None:
    # one slash: what is left of a URI that went through a Path
    if isinstance(value, str) and re.match(r"[\w+.-]{2,}:/", value):
        return f"workspace: {value!r} is a URI; give a folder that every node reaches (tables may be a URI)"
    return _relative_fault("workspace", value, here) or unusable_folder("workspace", here / str(value))


def unusable_folder(key: str, folder: Path) -> str | None:
    """Why a folder cannot be made or written to, or None."""
    known = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not known.is_dir():
        return f"{key}: {str(folder)!r} cannot be a folder, since {str(known)!r} is a file"
    if not os.access(known, os.W_OK | os.X_OK):
        return f"{key}: {str(folder)!r} cannot be written to (no right to write in {str(known)!r})"
    return None


def _tables_fault(value: Any, here: Path) -> str | None:
    if not isinstance(value, str) or "://" in value:
        return None
    if re.match(r"[\w+.-]{2,}:/", value):
        return f"tables: {value!r} is neither a folder nor a URI; a URI has two slashes (s3://bucket/folder)"
    return _relative_fault("tables", value, here)


def _each(value: Any) -> list[Any]:
    """The paths under a key that takes one or several."""
    return value if isinstance(value, list) else [value]


def _local_fault(key: str, value: Any, here: Path) -> str | None:
    if not isinstance(value, str):
        return None
    if fault := _relative_fault(key, value, here):
        return fault
    is_there = (here / value).is_dir() if key == DOCUMENTS else (here / value).is_file()
    kind = "folder" if key == DOCUMENTS else "file"
    return None if is_there else f"{key}: {str(here / value)!r} is not a {kind}"


def _init_fault(value: Any, here: Path) -> str | None:
    if not isinstance(value, str) or value == PRETRAINED:
        return None
    if fault := _relative_fault("detector.init", value, here):
        return fault
    if (here / value).is_file():
        return None
    fix = f"use {PRETRAINED}, null or a local safetensors file"
    return f"detector.init: {str(here / value)!r} is not a file; {fix}"


def _path_fault(key: str, value: Any, here: Path) -> str | None:
    if not isinstance(value, str) or "://" in value:
        return None
    if not value:
        return f"{key}: empty; give a path, or leave it out"
    if fault := _relative_fault(key, value, here):
        return fault
    return None if (here / value).exists() else f"{key}: {str(here / value)!r} does not exist"


def _relative_fault(key: str, value: Any, here: Path) -> str | None:
    uploaded = "working_dir_files" in here.parts
    if not uploaded or not isinstance(value, str) or Path(value).is_absolute():
        return None
    return f"{key}: {value!r} is relative inside an uploaded working directory; use an absolute path"


def _look_up(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
