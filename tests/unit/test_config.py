import pytest
import yaml

from emclean.config import load
from emclean.errors import ConfigError


def test_every_key_has_a_default() -> None:
    assert load().strategy == "discrepancy"


def test_all_faults_come_in_one_report(tmp_path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, ["bogus=1", "budget.rounds=many", "data.pool.images=/does/not/exist", "no-equals"])
    report = str(caught.value)
    assert len(caught.value.faults) == 4
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


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["data.pool.images=."], "data.pool.crowd: needed"),
        (["expert.kind=label_studio", "label_service=in_process"], "people answer in Label Studio"),
        (["data.pool.images=.", "data.pool.crowd=."], "expert.truth: the simulated expert needs"),
    ],
)
def test_combinations_that_cannot_work_are_named(overrides, fault) -> None:
    with pytest.raises(ConfigError, match=fault):
        load(None, overrides)
