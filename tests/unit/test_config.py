from collections.abc import Iterator
from typing import get_args

import pytest
import yaml

from emclean.config import PRETRAINED, ActiveClean, Family, NoisePreset, Section, load, read_yaml
from emclean.config_faults import DOCUMENTS, PATH_KEYS, TOKEN_FILE
from emclean.errors import ConfigError
from emclean.models import spec
from emclean.science.noise import PRESETS
from emclean.science.selection import STRATEGIES


def faults_of(*overrides: str) -> tuple[str, ...]:
    try:
        load(None, overrides)
    except ConfigError as error:
        return error.faults
    return ()


def test_every_key_has_a_default() -> None:
    assert load().strategy == "discrepancy"


def test_all_faults_come_in_one_report(tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, ["bogus=1", "budget.rounds=many", "data.pool.images=/does/not/exist", "no-equals"])
    report = str(caught.value)
    assert len(caught.value.faults) == 6  # the folder also lacks its labels and its truth
    for part in ("bogus: unknown key", "budget.rounds", "/does/not/exist", "'no-equals': expected key=value"):
        assert part in report
    assert caught.value.exit_code == 2


def test_overrides_win_over_the_file_and_are_yaml(tmp_path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"seed": 3, "budget": {"rounds": 1, "share_of_full": 0.5}}))
    config = load(file, ["budget.rounds=4", "serve=false"])
    assert (config.seed, config.budget.rounds, config.budget.share_of_full, config.serve) == (
        3,
        4,
        0.5,
        False,
    )


def test_values_may_hold_equals_signs() -> None:
    assert load(None, ["workspace=a=b"]).workspace == "a=b"


def test_relative_paths_are_refused_in_an_uploaded_folder(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "working_dir_files" / "package"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="relative inside an uploaded working directory"):
        load()


def test_the_run_is_named_after_what_decides_its_result() -> None:
    assert load().run_name() == load(None, ["wait=exit", "services.poll_s=9"]).run_name()
    assert load().run_name() != load(None, ["seed=1"]).run_name()
    assert load(None, ["run=mine"]).run_name() == "mine"


IMAGES = ("data.pool.images=.", "data.pool.crowd=.")


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["data.pool.images=.", "expert.truth=."], "data.pool.crowd: needed"),
        (["data.pool.crowd=."], "data.pool.images: needed"),
        (["expert.kind=label_studio", "label_service=in_process"], "label_service: people answer"),
        ([*IMAGES], "expert.truth: the simulated expert needs"),
        (["expert.truth=."], "expert.truth: simulated pictures bring their own"),
        (["expert.truth=.", "expert.kind=label_studio"], "expert.truth: simulated pictures bring their own"),
        (["data.test.truth=."], "data.test.images: needed with data.test.truth"),
        (["data.test.images=."], "data.test.truth: needed with data.test.images"),
        (
            ["data.test.images=.", "data.test.truth=."],
            "data.test.images: simulated pictures bring their own test set",
        ),
        ([*IMAGES, "expert.kind=label_studio", "baselines=true"], "baselines: the full-expert ceiling"),
        (["detector.batch=2", "detector.workers=3"], "detector.batch: 2 crops are too few for 3 workers"),
        (["detector.family=fcos_resnet18"], "detector.init: the shipped weights are the compact detector's"),
        (["task=classes"], "task: 'classes' has a configuration of its own"),
    ],
)
def test_combinations_that_cannot_work_are_named(overrides, fault) -> None:
    (found,) = faults_of(*overrides)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("budget.round=3", "budget.round: unknown key; did you mean budget.rounds?"),
        ("budjet.rounds=3", "budjet: unknown key; did you mean budget?"),
        ("rounds=3", "rounds: unknown key; did you mean budget.rounds?"),
        ("image=x", "image: unknown key"),  # of the pool or of the test set
        ("bogus=1", "bogus: unknown key"),
    ],
)
def test_of_an_unknown_key_the_one_that_was_meant_is_named(override, words) -> None:
    assert faults_of(override) == (words,)


def test_a_mistyped_key_or_value_brings_no_second_fault(tmp_path) -> None:
    (found,) = faults_of(*IMAGES, "expert.kind=labelstudio")
    assert found.startswith("expert.kind: Input should be")
    (found,) = faults_of("data.pool.image=.", "data.pool.crowd=.", "expert.kind=label_studio")
    assert found == "data.pool.image: unknown key; did you mean data.pool.images?"


def test_without_an_expert_of_ones_own_people_are_named() -> None:
    (found,) = faults_of(*IMAGES)
    assert found.endswith("give expert.kind=label_studio")


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        (
            "data.simulate.noise=loud",
            "data.simulate.noise: Input should be 'expert_raters', 'una' or 'crowd'",
        ),
        ("seed=-1", "seed: Input should be greater than or equal to 0 (got -1)"),
        ("detector.family=yolo", "detector.family: Input should be 'compact', 'fcos_resnet18'"),
        ("detector.crop=100", "detector.crop: Input should be a multiple of 32 (got 100)"),
        ("detector.scales=[1, 0]", "detector.scales.1: Input should be greater than 0 (got 0)"),
        ("detector.scales=[-0.5]", "detector.scales.0: Input should be greater than 0 (got -0.5)"),
        ("detector.scales=[.nan]", "detector.scales.0: "),
        ("detector.scales=[.inf]", "detector.scales.0: "),
        ("workspace=s3://bucket/ws", "workspace: 's3://bucket/ws' is a URI; give a folder"),
        ("workspace=s3:/bucket/ws", "workspace: 's3:/bucket/ws' is a URI; give a folder"),
    ],
)
def test_values_that_cannot_work_are_named(override, fault) -> None:
    (found,) = faults_of(override)
    assert found.startswith(fault)


@pytest.mark.parametrize("name", ["a/b", "..", ".a", "-a", "a b", "ü", "''", '"a\\n"', "a" * 81])
def test_a_run_that_is_not_a_plain_name_is_refused(name) -> None:
    (found,) = faults_of(f"run={name}")
    assert found.startswith("run: not a plain name; use")


@pytest.mark.parametrize("name", ["a", "Demo-1", "0.5_b", "a" * 80])
def test_plain_run_names_pass(name) -> None:
    assert load(None, [f"run={name!r}"]).run == name


@pytest.mark.parametrize("init", ["missing.safetensors", "pretraned", ".", "s3://bucket/w.safetensors", "''"])
def test_an_init_that_is_no_file_is_refused(init, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = faults_of(f"detector.init={init}")
    assert found.startswith(f"detector.init: '{tmp_path}")
    assert found.endswith("is not a file; use pretrained, null or a local safetensors file")


def test_every_kind_of_init_passes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").touch()
    for init in (PRETRAINED, "null", "w.safetensors", str(tmp_path / "w.safetensors")):
        assert faults_of(f"detector.init={init}") == ()
    assert faults_of("detector.family=retinanet_resnet50", "detector.init=w.safetensors") == ()


def test_a_relative_init_is_refused_in_an_uploaded_folder(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "working_dir_files" / "package"
    folder.mkdir(parents=True)
    (folder / "w.safetensors").touch()
    monkeypatch.chdir(folder)
    (found,) = faults_of(f"workspace={tmp_path}", "detector.init=w.safetensors")
    assert found.startswith("detector.init: 'w.safetensors' is relative")


def test_families_and_presets_are_those_that_exist() -> None:
    assert get_args(Family) == spec.FAMILIES
    assert set(get_args(NoisePreset)) == set(PRESETS)
    assert PRETRAINED == spec.PRETRAINED


@pytest.mark.parametrize("family", spec.FAMILIES)
def test_families_that_cannot_weigh_targets_are_refused(family) -> None:
    faults = faults_of(f"detector.family={family}", "detector.init=null")
    refused = f"detector.family: {family!r} cannot weigh labels"
    assert [fault.startswith(refused) for fault in faults] == [True] * (
        not spec.DetectorSpec(family).weighs_targets
    )


def test_combinations_are_checked_beside_wrong_values() -> None:
    faults = faults_of("seed=-1", "bogus=1", "detector.scales=[0, 0]", "expert.truth=.", "workspace=s3://b/w")
    assert len(faults) == 6
    assert any(fault.startswith("expert.truth: simulated pictures") for fault in faults)


def test_a_key_at_fault_is_not_blamed_twice() -> None:
    (found,) = faults_of("data.pool.images=5", "data.pool.crowd=.")
    assert found.startswith("data.pool.images: Input should be a valid string")


def test_a_section_that_is_a_value_is_one_fault() -> None:
    (found,) = faults_of("detector=5")
    assert found.startswith("detector: Input should be a valid")


def test_people_may_label_simulated_pictures_and_tables_may_be_a_uri() -> None:
    assert faults_of("expert.kind=label_studio", "baselines=true", "tables=s3://bucket/tables") == ()


def test_keys_that_are_no_names_are_faults() -> None:
    faults = faults_of("detector={1: 2, 2020-01-01: 3, null: 4}", "seed=2020-01-01")
    assert len(faults) == 4
    assert sum("Keys should be strings" in fault for fault in faults) == 3


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_may_be_asked_for(name: str) -> None:
    assert load(None, [f"strategy={name}"]).strategy == name


def test_an_unknown_key_hides_no_other_fault() -> None:
    faults = faults_of("pictures=1", "expert.truth=.")
    assert len(faults) == 2


def test_a_section_at_fault_is_not_blamed_twice() -> None:
    (found,) = faults_of("data.pool=5", "expert.truth=.")
    assert found.startswith("data.pool: Input should be a valid")


LABEL_STUDIO = "services.label_studio=http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("services.mlflow=foo", "services.mlflow: not an address"),
        ("services.mlflow=ftp://host/x", "services.mlflow: not an address"),
        ("services.mlflow=http://", "services.mlflow: not an address"),
        ("services.mlflow=http://host:port", "services.mlflow: not an address"),
        ("services.mlflow=sqlite:///mlflow.db", "services.mlflow: a database file needs its absolute path"),
        ("services.mlflow=sqlite:mlflow.db", "services.mlflow: a database file needs its absolute path"),
        ("tables=s3:/bucket/tables", "tables: 's3:/bucket/tables' is neither a folder nor a URI"),
        ("services.label_studio_token_file=missing", "services.label_studio_token_file: '"),
        ("services.label_studio_token_file=.", "services.label_studio_token_file: '"),
        ("services.label_studio_documents=missing", "services.label_studio_documents: '"),
        ("services.label_studio_documents=file", "services.label_studio_documents: '"),
        ("services.label_studio_documents=s3://b/x", "services.label_studio_documents: '"),
    ],
)
def test_addresses_and_places_that_are_none_are_named(override, fault, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (found,) = faults_of(override)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:5000",
        "https://user:word@mlflow.example.org/base",
        "sqlite:////folder/mlflow.db",
        "postgresql://user@host/mlflow",
        "mysql+pymysql://host/mlflow",
    ],
)
def test_every_kind_of_mlflow_address_passes(address) -> None:
    assert faults_of(f"services.mlflow={address}") == ()


def test_a_password_in_an_address_is_not_shown() -> None:
    (found,) = faults_of("services.mlflow=htp://user:hidden@host")
    assert "hidden" not in found


@pytest.mark.parametrize(
    "override",
    [
        "services.mlflow=[http://user:hid@den@host]",
        "services.mlflow=[user:hidden@host]",
        "services.mlflow={http://user:hidden@host: 1}",
        'services.mlflow=[sqlite:///x, "http://user:hid\'den@host/a"]',
        "services.mlflow='http://user:hidden@host",
        "http://user:hidden@host",
        "workspace=https://user:hidden@host/folder",
        "services.poll_s=http://user:hidden@host",
    ],
)
def test_no_fault_shows_a_password(override) -> None:
    faults = faults_of(override)
    assert len(faults) == 1
    assert "hid" not in faults[0]
    assert "***@host" in faults[0]


def test_a_file_that_is_no_yaml_shows_no_password(tmp_path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("services: {mlflow: [http://user:hidden@host}\n")
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load(file)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("value", ["true", "false"])
def test_true_and_false_are_no_numbers(value) -> None:
    keys = [
        "budget.rounds", "budget.minutes", "seed", "services.serve_port", "detector.lr", "cost.open_s",
    ]  # fmt: skip
    faults = faults_of(*(f"{key}={value}" for key in keys), f"detector.scales=[1, {value}]")
    at_fault = {fault.partition(":")[0].removesuffix(".1") for fault in faults}
    assert at_fault == {*keys, "detector.scales"}
    assert f"budget.rounds: true and false are no numbers (got {value.capitalize()})" in faults


def test_whole_numbers_and_switches_are_read_as_before() -> None:
    config = load(
        None, ["budget.rounds=1", "seed='7'", "serve=false", "detector.lr=2e-3", "budget.minutes=3"]
    )
    assert (config.budget.rounds, config.seed, config.serve) == (1, 7, False)
    assert (config.detector.lr, config.budget.minutes) == (0.002, 3.0)
    assert [fault.partition(":")[0] for fault in faults_of("budget.rounds=1.5", "seed=one")] == [
        "seed", "budget.rounds",
    ]  # fmt: skip


def test_several_label_files_of_a_pool_are_a_list(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).touch()
    given = ["data.pool.images=.", "expert.kind=label_studio"]
    both = load(None, [*given, "data.pool.crowd=[a.csv, b.csv]"])
    assert both.data.pool.crowd == ("a.csv", "b.csv")
    assert load(None, [*given, "data.pool.crowd=a.csv"]).data.pool.crowd == "a.csv"
    file = tmp_path / "job.yaml"
    file.write_text("data: {pool: {images: ., crowd: [a.csv, b.csv]}}\nexpert: {kind: label_studio}\n")
    assert load(file) == both
    (found,) = faults_of(*given, "data.pool.crowd=[a.csv, c.csv, s3://b/d.csv]")
    assert found == f"data.pool.crowd: {str(tmp_path / 'c.csv')!r} does not exist"
    for bad in ("[]", "[5]", "5", "{a: b}"):
        (found,) = faults_of(*given, f"data.pool.crowd={bad}")
        assert found.startswith("data.pool.crowd: expected the path of a label file, or a list of them")
    (found,) = faults_of(*given, "data.pool.crowd=[a.csv, '']")
    assert found == "data.pool.crowd: empty; give a path, or leave it out"


def test_a_relative_label_file_in_a_list_is_refused_in_an_uploaded_folder(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "working_dir_files" / "package"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    faults = faults_of(f"workspace={tmp_path}", f"data.pool.crowd=[{tmp_path}, a.csv]")
    assert any(fault.startswith("data.pool.crowd: 'a.csv' is relative") for fault in faults)


def test_a_label_studio_needs_its_token_file_and_its_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").touch()
    token, documents = "services.label_studio_token_file=token", "services.label_studio_documents=."
    assert [fault.partition(":")[0] for fault in faults_of(LABEL_STUDIO)] == [
        "services.label_studio_token_file",
        "services.label_studio_documents",
    ]
    assert len(faults_of(LABEL_STUDIO, token)) == 1
    assert len(faults_of(LABEL_STUDIO, documents)) == 1
    assert faults_of(LABEL_STUDIO, token, documents) == ()
    assert faults_of(LABEL_STUDIO, "label_service=in_process") == ()
    (found,) = faults_of("services.label_studio=localhost:8080", token, documents)
    assert found.startswith("services.label_studio: not an address")


def test_the_folder_as_a_label_studio_elsewhere_sees_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").touch()
    server = (
        LABEL_STUDIO, "services.label_studio_token_file=token", "services.label_studio_documents=.",
    )  # fmt: skip
    there = "services.label_studio_documents_there"
    assert faults_of(*server, f"{there}=/label-studio/files") == ()
    assert [fault.partition(":")[0] for fault in faults_of(*server, f"{there}=files")] == [there]
    (found,) = faults_of(f"{there}=/label-studio/files")
    assert found == f"{there}: only with services.label_studio; leave it out"


@pytest.mark.parametrize(
    "host", ["::1", "'[::1]'", "'::'", "fd00::1", "127.0.0.2", "''", "http://0.0.0.0", "a b"]
)
def test_a_model_is_served_nowhere_that_its_address_could_not_name(host) -> None:
    (found,) = faults_of(f"services.serve_host={host}")
    assert found.startswith("services.serve_host: give 127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "192.0.2.7", "node-1.example.org"])
def test_a_model_is_served_on_these(host) -> None:
    assert faults_of(f"services.serve_host={host}") == ()


def floats(section: type[Section], prefix: str = "") -> Iterator[str]:
    for field, info in section.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from floats(inner, f"{prefix}{field}.")
        elif inner in (float, float | None):
            yield prefix + field


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_no_number_may_be_infinite_or_none(value) -> None:
    keys = list(floats(ActiveClean))
    assert {"detector.lr", "cost.open_s", "budget.minutes", "services.poll_s"} <= set(keys)
    faults = faults_of(*(f"{key}={value}" for key in keys))
    assert sorted(fault.partition(":")[0] for fault in faults) == sorted(keys)


PLACES = (*PATH_KEYS, TOKEN_FILE, DOCUMENTS)


def test_every_place_that_is_missing_comes_in_one_report(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"{key}=missing" for key in (*PLACES, "detector.init")]
    faults = faults_of(*words, LABEL_STUDIO, "services.mlflow=foo", "detector.lr=.nan", "bogus=1")
    keys = {fault.partition(":")[0] for fault in faults}
    assert keys == {*PLACES, "detector.init", "services.mlflow", "detector.lr", "bogus"}
    assert len(faults) == len(keys)


@pytest.mark.parametrize("key", PATH_KEYS)
def test_an_empty_path_is_a_fault(key) -> None:
    assert any(fault.startswith(f"{key}: empty") for fault in faults_of(f"{key}=''"))


@pytest.mark.parametrize("key", [*PLACES, "tables"])
def test_every_relative_place_is_refused_in_an_uploaded_folder(key, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "working_dir_files" / "package"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    refused = f"{key}: '.' is relative inside an uploaded working directory; use an absolute path"
    assert refused in faults_of(f"workspace={tmp_path}", f"{key}=.")


def test_a_workspace_that_cannot_be_a_folder_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for bad in ("file", "file/below"):
        (found,) = faults_of(f"workspace={tmp_path / bad}")
        assert "cannot be a folder" in found
    assert not faults_of(f"workspace={tmp_path / 'new' / 'folder'}")


def test_labels_of_the_other_task_are_refused_by_name() -> None:
    (found,) = faults_of("data.pool.labels=labels.csv")
    assert "task=classes" in found


def test_a_key_given_twice_is_a_fault_beside_all_others(tmp_path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("seed: 1\nbudget:\n  rounds: 2\n  'rounds': 3\nbogus: 1\nseed: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(file, ["serve=perhaps"])
    assert caught.value.exit_code == 2
    first, second, *others = caught.value.faults
    assert first == "budget.rounds: given twice, in line 3 and again in line 4"
    assert second == "seed: given twice, in line 1 and again in line 6"
    assert [fault.split(":")[0] for fault in others] == ["serve", "bogus"]
    with pytest.raises(ConfigError, match="seed: given twice"):
        read_yaml(file)


def test_a_key_given_twice_in_an_override_is_a_fault() -> None:
    (fault,) = faults_of("data.simulate={pool: 10, pool: 4}")
    assert fault == "data.simulate.pool: given twice, in line 1 and again in line 1"


def test_the_same_key_in_two_sections_and_by_an_anchor_is_no_fault(tmp_path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("a: &one {x: 1}\nb: *one\nc: {<<: *one, x: 2}\nd: [{x: 1}, {x: 2}]\n")
    assert read_yaml(file) == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 2}, "d": [{"x": 1}, {"x": 2}]}
