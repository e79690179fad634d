"""The command lines of the jobs: settings and options in any order."""

from pathlib import Path

from pipelines import active_clean, demo


def test_the_main_job_takes_settings_before_and_after_an_option(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("seed: 2\nbudget: {rounds: 5, seed_images: 9}\n")
    config = active_clean.parse(["seed=1", "--config", str(file), "budget.rounds=1"])
    assert (config.seed, config.budget.rounds, config.budget.seed_images) == (1, 1, 9)


def test_the_demonstration_takes_settings_before_and_after_an_option():
    given = demo.parse(["seed=1", "--workspace", "w", "budget.rounds=1", "--keep"])
    assert given.overrides == ["seed=1", "budget.rounds=1"]
    assert (given.workspace, given.keep) == (Path("w"), True)


def test_no_argument_at_all_is_fine():
    assert active_clean.parse([]).seed == 0
    assert demo.parse([]).overrides == []
