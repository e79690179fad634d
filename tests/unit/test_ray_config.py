"""The cluster files: what Ray's own checks say of them, and that nothing is open to others by accident."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from loop_jobs import small_job

from emclean.config import load
from emclean.loop.publishing import champion_weights, registered_name

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "cluster").glob("ray-*.yaml"))


@pytest.fixture(scope="module")
def launcher():
    return yaml.safe_load((ROOT / "ray_config.yaml").read_text())


CHECK = """
import json, sys
from ray.autoscaler._private.util import prepare_config, validate_config
for config in json.load(sys.stdin):
    try:
        prepared = prepare_config(config)
        validate_config(prepared)
        print(json.dumps({"max_workers": prepared["max_workers"]}))
    except Exception as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.mark.slow
def test_ray_up_accepts_the_launcher_file_and_would_not_accept_any(launcher):
    """What `ray up` itself checks, in a process of its own, since Ray is kept out of this one."""
    given = json.dumps([launcher, {**launcher, "no_such_key": 1}])
    line = [sys.executable, "-c", CHECK]
    done = subprocess.run(line, input=given, capture_output=True, text=True, check=True)
    accepted, refused = (json.loads(answer) for answer in done.stdout.splitlines())
    assert accepted == {"max_workers": len(launcher["provider"]["worker_ips"])}
    assert "no_such_key" in refused["error"]


def test_every_node_of_the_launcher_asks_for_the_token(launcher):
    assert "~/.ray/auth_token" in launcher["file_mounts"]
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [line for line in launcher[name] if "ray start" in line]
        assert "RAY_AUTH_MODE=token" in start
    assert "--dashboard-host=127.0.0.1" in launcher["head_start_ray_commands"][-1]


def test_there_is_a_manifest_of_each_kind():
    kinds = {yaml.safe_load(path.read_text())["kind"] for path in MANIFESTS}
    assert kinds == {"RayCluster", "RayJob", "RayService"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_ask_for_the_token_and_agree_with_the_image(path):
    content = yaml.safe_load(path.read_text())
    spec = content["spec"]
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    assert content["apiVersion"] == "ray.io/v1"
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text()
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    for pod in pods:
        (container,) = pod["containers"]
        assert container["image"] == "emclean:0.1.0"
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.fixture
def application():
    spec = yaml.safe_load((ROOT / "cluster" / "ray-service.yaml").read_text())["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    return application


def test_the_service_manifest_serves_with_a_token(application):
    assert application["import_path"] == "serving.app:build"
    assert application["args"]["require_token"] is True
    (deployment,) = application["deployments"]
    assert {"version", "weights", "card"} <= set(deployment["user_config"])


def test_the_service_manifest_serves_a_model_from_where_a_job_puts_it(application, tmp_path):
    workspace = application["args"]["workspace"]
    (deployment,) = application["deployments"]
    served = deployment["user_config"]
    job = small_job(tmp_path)
    pool = replace(job.data.pool, categories=tuple(served["card"]["categories"]))
    job = replace(job, data=replace(job.data, pool=pool))
    (tmp_path / "w").write_bytes(b"w")
    version = job.parts.registry.register("k", tmp_path / "w", {}, None)
    put = champion_weights(job, version).relative_to(tmp_path)
    assert (served["version"], served["weights"]) == (version, f"{workspace}/{put}")
    assert served["card"]["name"] == registered_name(pool.categories)


def settings_there(text):
    """The ``key=value`` settings in a text, by key."""
    return dict(word.split("=", 1) for word in text.split() if re.match(r"[a-z][\w.]*=", word))


def job_settings():
    content = yaml.safe_load((ROOT / "cluster" / "ray-job.yaml").read_text())
    return settings_there(content["spec"]["entrypoint"])


def compose_settings():
    return settings_there((ROOT / "cluster" / "compose.yaml").read_text().partition("\nname:")[0])


def test_the_job_manifest_has_every_setting_that_a_job_needs(tmp_path):
    """With the volume claim's content in place, the configuration has no fault."""
    (tmp_path / "secrets").mkdir()
    for name in ("pool", "test", "documents"):
        (tmp_path / name).mkdir()
    for name in ("pool.coco.json", "test.coco.json", "secrets/label_studio"):
        (tmp_path / name).touch()
    given = {key: re.sub("^/data/", f"{tmp_path}/", value) for key, value in job_settings().items()}
    config = load(overrides=[f"{key}={value}" for key, value in given.items()])
    assert config.services.label_studio_documents == str(tmp_path / "documents")


def test_the_settings_named_for_the_composed_services_are_complete(tmp_path):
    (tmp_path / "token").touch()
    known = {"FILE": str(tmp_path / "token"), "FOLDER": str(tmp_path)}
    given = {key: known.get(value, value) for key, value in compose_settings().items()}
    services = load(overrides=[f"{key}={value}" for key, value in given.items()]).services
    assert services.label_studio_documents == str(tmp_path)


def test_all_agree_on_where_label_studio_sees_the_pictures():
    composed = yaml.safe_load((ROOT / "cluster" / "compose.yaml").read_text())["services"]["label-studio"]
    root = composed["environment"]["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"]
    assert any(volume.endswith(f":{root}:ro") for volume in composed["volumes"])
    for given in (job_settings(), compose_settings()):
        assert given["services.label_studio_documents_there"] == root


def test_composed_services_listen_on_loopback_and_hold_no_password():
    content = yaml.safe_load((ROOT / "cluster" / "compose.yaml").read_text())
    ports = [port for service in content["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for service in content["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${")
    assert json.dumps(content).count("CREATE DATABASE") == 2
