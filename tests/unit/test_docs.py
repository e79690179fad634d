"""What the documents promise is there: files, commands, keys, targets, configurations."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from emclean import cli, config
from emclean.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CONFIGS = sorted((ROOT / "pipelines" / "configs").rglob("*.yaml"))
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
COMMANDS = sorted(next(a.choices for a in cli.parser()._actions if a.choices))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "code", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text)
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def keys(section: type[config.Section], prefix: str = "") -> Iterator[tuple[str, object]]:
    for field, info in section.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, config.Section):
            yield from keys(inner, f"{prefix}{field}.")
        else:
            yield prefix + field, info.get_default()


def test_the_file_of_defaults_says_the_defaults():
    file = ROOT / "pipelines" / "configs" / "active_clean.yaml"
    assert config.load(file) == config.load()


MICROGRAPHS = USAGE.partition("## Micrographs")[2].partition("## Checks and tests")[0]
GRIDS = USAGE.partition("## Noise grid")[2].partition("## Commands")[0]
GRID, _, CLASSES = GRIDS.partition("### A grid over classes")
OF_CLASSES = USAGE.partition("## Classes")[2].partition("## Noise grid")[0]
SHARED = "detector."  # a grid's page points to these keys


@pytest.mark.parametrize(("key", "default"), list(keys(config.ActiveClean)))
def test_every_key_stands_in_the_usage_page_with_its_default(key, default):
    assert_told(USAGE, key, default)


@pytest.mark.parametrize(
    ("key", "default"),
    [pair for pair in keys(config.ActiveClasses) if pair not in list(keys(config.ActiveClean))],
)
def test_every_key_of_classes_that_boxes_do_not_have_alike_stands_in_their_section(key, default):
    assert_told(OF_CLASSES, key, default)


@pytest.mark.parametrize(
    ("key", "default"), [pair for pair in keys(config.NoiseGrid) if not pair[0].startswith(SHARED)]
)
def test_every_key_of_a_grid_stands_in_its_section_with_its_default(key, default):
    assert_told(GRID, key, default)


@pytest.mark.parametrize(("key", "default"), list(keys(config.ClassGrid)))
def test_every_key_of_a_grid_over_classes_stands_in_its_section_with_its_default(key, default):
    assert_told(CLASSES, key, default)


@pytest.mark.parametrize(("key", "default"), list(keys(config.AnalyzeMicrographs)))
def test_every_key_of_an_analysis_stands_in_its_section_with_its_default(key, default):
    assert_told(MICROGRAPHS, key, default)


def assert_told(page, key, default):
    row = re.search(rf"^\| `{re.escape(key)}` \| (.+?) \| .+ \|$", page, flags=re.MULTILINE)
    assert row, f"docs/usage.md: add a row for `{key}`"
    if default is None:
        assert "`" not in row[1].replace("`emclean up`", "")
    else:
        told = yaml.safe_load(row[1].strip("`"))
        assert (tuple(told) if isinstance(told, list) else told) == default


def test_the_usage_page_names_no_key_that_is_gone():
    known = {key for key, _ in keys(config.ActiveClean)}
    table = USAGE.split("## Configuration")[1].split("## Result")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)) - known == set()
    own = set(re.findall(r"^\| `([^`]+)` \|", OF_CLASSES, flags=re.MULTILINE))
    assert own - {key for key, _ in keys(config.ActiveClasses)} == set()
    grid = set(re.findall(r"^\| `([^`]+)` \|", GRID, flags=re.MULTILINE))
    assert grid - {key for key, _ in keys(config.NoiseGrid)} == set()
    classes = set(re.findall(r"^\| `([^`]+)` \|", CLASSES, flags=re.MULTILINE))
    assert classes - {key for key, _ in keys(config.ClassGrid)} == set()
    analysis = set(re.findall(r"^\| `([^`]+)` \|", MICROGRAPHS, flags=re.MULTILINE))
    assert analysis - {key for key, _ in keys(config.AnalyzeMicrographs)} == set()


@pytest.mark.parametrize("file", CONFIGS, ids=name)
def test_shipped_configurations_are_valid(file):
    assert [fault for fault in faults(file) if not fault.endswith("does not exist")] == []


def faults(file: Path) -> tuple[str, ...]:
    loaders = {"noise_grid": config.load_grid, "analyze_micrographs": config.load_analysis}
    job = next((name for name in loaders if file.stem.startswith(name)), "")
    try:
        loaders.get(job, config.load)(file)
    except ConfigError as error:
        return error.faults
    return ()


def test_there_are_configurations():
    assert CONFIGS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command):
    assert re.search(rf"^\| `emclean {command}` \| .+ \|$", USAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code in (0, None)
    assert len(capsys.readouterr().out.splitlines()) > 2


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page):
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert phony
    named = re.findall(r"(?:^ {4}|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(named) - set(phony[1].split()) == set()


@pytest.mark.parametrize("page", ["README.md", "docs/usage.md", "docs/running.md"])
def test_the_environment_is_activated_before_the_first_command(page):
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    first = next(k for k, line in enumerate(lines) if re.match(r" *emclean (up|submit)\b", line))
    assert any(line.strip().startswith(". .venv/bin/activate") for line in lines[:first])


def test_nobody_is_told_to_install_a_package_that_is_not_published():
    places = [*PAGES, *(ROOT / "src").rglob("*.py")]
    found = [name(f) for f in places if re.search(r"install '?emclean", f.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "folder",
    ["emps", "bccd", "vnc", "expert_box_raters", "glomerulus", "galaxy_handedness", "right_hands",
     "cifar10n_cat_dog"],
)  # fmt: skip
def test_the_data_of_the_results_are_described(folder, emclean_data):
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{folder}` \| ([^|]+) \|", page, flags=re.MULTILINE)
    assert row
    for file in re.findall(r"`([^`]+)`", row[1]):
        assert (emclean_data / folder / file).exists(), file


def test_nothing_speaks_of_one_machine():
    """A path of the machine on which something was written helps nobody else."""
    forbidden = re.compile(r"(?<![\w}>])/(wor" + "k|roo" + "t|opt/py" + "pi)/")
    folders = ("src", "pipelines", "serving", "cluster", "benchmarks", "scripts", "tests", "docs", ".ci")
    kinds = frozenset(".py .md .yaml .yml .toml .txt .sh .html .css .js .json .cfg".split()) | {""}
    files = [f for folder in folders for f in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    texts = [f for f in files if f.is_file() and f.suffix in kinds and f.name != "LICENSE"]
    assert len(texts) > 50
    beside = re.compile(r"\.\./shared" + "/data")  # only the script of continuous integration looks there
    told = {name(f): f.read_text(encoding="utf-8", errors="replace") for f in texts}
    assert [file for file, text in told.items() if forbidden.search(text)] == []
    assert {file for file, text in told.items() if beside.search(text)} - {".ci/run"} == set()
