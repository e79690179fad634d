"""The configuration of a grid: every fault in one report, names that are the same everywhere."""

from typing import get_args

import pytest
from pydantic import ValidationError

from emclean.config import load_grid
from emclean.config_grid import MOST_UNA, GridMethod, GridNoise
from emclean.errors import ConfigError
from emclean.loop.grid.boxes.methods import METHODS
from emclean.science import noise
from emclean.types import NOISE_KINDS
from pipelines import noise_grid


def faults_of(*overrides: str) -> tuple[str, ...]:
    try:
        load_grid(None, overrides)
    except ConfigError as error:
        return error.faults
    return ()


def test_every_key_has_a_default_and_the_entry_takes_settings_in_any_order(tmp_path):
    assert noise_grid.parse([]).task == "boxes"
    file = tmp_path / "grid.yaml"
    file.write_text("rates: [0.1]\nseeds: [0, 1]\n")
    config = noise_grid.parse(["methods=[crowd]", "--config", str(file), "seeds=[7]"])
    assert (config.methods, config.rates, config.seeds) == (("crowd",), (0.1,), (7,))


def test_all_faults_come_in_one_report():
    faults = faults_of("bogus=1", "methods=[crowd, magic]", "rates=[2]", "data.train.images=/not/there", "x")
    assert len(faults) == 7  # the pictures also lack their truth and a test set
    for part in (
        "bogus: unknown key",
        "methods.1",
        "rates.0",
        "'/not/there' does not exist",
        "'x': expected",
    ):
        assert any(part in fault for fault in faults), part


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["trusted_pairs=3"], "trusted_pairs: unknown key of this task; it is for task=classes"),
        (["mirror=true"], "mirror: for task=classes"),
        (["preset=faithful"], "preset: 'faithful' is for task=classes"),
        (["data.train.labels=."], "data.train.labels: for task=classes"),
        (["data.test.labels=."], "data.test.labels: for task=classes"),
        (["data.train.truth=."], "data.train.images: needed with data.train.truth"),
        (["data.test.truth=."], "data.test.images: needed with data.test.truth"),
        (["data.test.images=.", "data.test.truth=."], "data.test.images: simulated pictures bring"),
        (["noise=[una, missed]", "rates=[0.2, 0.6]"], "rates: 'una' takes at most 0.5, got 0.6"),
        (["seeds=[0, 1, 0]"], "seeds: a value stands there twice"),
        (["methods=[]"], "methods: empty; give at least one"),
        (["detector.workers=2"], "detector.workers: has no meaning in a grid"),
        (["detector.family=fcos_resnet18"], "detector.init: the shipped weights are the compact"),
        (["gpu_per_cell=2"], "gpu_per_cell: Input should be less than or equal to 1"),
        (["services.mlflow=sqlite:///x.db"], "services.mlflow: a database file needs its absolute path"),
        (["run=a/b"], "run: not a plain name"),
        (["workspace=s3://bucket/ws"], "workspace: 's3://bucket/ws' is a URI"),
    ],
)
def test_what_cannot_work_is_named(overrides, fault):
    (found,) = faults_of(*overrides)
    assert found.startswith(fault)


def test_the_command_line_ends_with_2_and_every_fault(capsys):
    assert noise_grid.main(["bogus=1", "mirror=true"]) == 2
    said = capsys.readouterr().err
    assert "bogus: unknown key" in said
    assert "mirror: for task=classes" in said


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_grid().methods = ()


def test_the_run_is_named_after_what_decides_its_result():
    assert load_grid().run_name() == load_grid(None, ["compute=inline", "concurrent=1"]).run_name()
    assert load_grid().run_name() != load_grid(None, ["rates=[0.3]"]).run_name()


def test_methods_and_noises_are_those_that_exist():
    assert get_args(GridMethod) == tuple(METHODS)
    assert get_args(GridNoise) == (*NOISE_KINDS, "mixed", "una")
    for name in get_args(GridNoise):
        assert noise.at_rate(name, MOST_UNA, 2) != noise.NoiseRates()
    with pytest.raises(ValueError, match="ratio"):
        noise.at_rate("una", MOST_UNA + 0.01, 1)
