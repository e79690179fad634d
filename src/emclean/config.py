"""Configuration at the door: a YAML file and ``key=value`` overrides become one frozen, checked value.

Components never take a configuration; the entry hands them plain arguments. Every fault (unknown key, wrong
type, missing file) is collected and raised as one :class:`~emclean.errors.ConfigError`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from emclean.config_active_classes import ACTIVE_CLASS_PATHS, ActiveClasses, active_class_faults
from emclean.config_analysis import ANALYSIS_PATHS, AnalyzeMicrographs, analysis_faults
from emclean.config_classes import CLASS_PATHS, ClassGrid, class_faults
from emclean.config_faults import PATH_KEYS, consistency_faults, path_faults
from emclean.config_grid import GRID_PATHS, GridKeys, NoiseGrid, grid_faults
from emclean.config_keys import PRETRAINED, ActiveClean, ActiveKeys, Family, NoisePreset, Section
from emclean.errors import ConfigError

__all__ = [
    "PRETRAINED", "ActiveClasses", "ActiveClean", "ActiveKeys", "AnalyzeMicrographs", "ClassGrid", "Family",
    "GridKeys", "NoiseGrid", "NoisePreset", "Section", "load", "load_active", "load_analysis",
    "load_classes", "load_grid", "override", "read_yaml",
]  # fmt: skip

Model = TypeVar("Model", bound=Section)

UNKNOWN = "unknown key"

OTHER_TASK: Mapping[type[Section], type[Section]] = {
    ClassGrid: NoiseGrid,
    NoiseGrid: ClassGrid,
    ActiveClasses: ActiveClean,
    ActiveClean: ActiveClasses,
}
"""Where a key may belong that a job of this task does not have."""

ALIKE = 0.8
"""How alike (difflib's ratio) a name must be to an unknown one to be proposed in its place."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; :class:`ConfigError` when there is none, or a key is given twice."""
    content, faults = _mapping(path)
    if faults:
        raise ConfigError(faults, str(path))
    return content


def _mapping(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """The mapping in a YAML file (a repeated key's last value), and the keys given twice."""
    try:
        content, faults = _parsed(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"cannot read the file: {error.strerror}"], str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"not valid YAML: {error}"], str(path)) from error
    if content is None:
        return {}, faults
    if not isinstance(content, dict):
        raise ConfigError([f"expected keys and values, got {type(content).__name__}"], str(path))
    return content, faults


def _parsed(text: str) -> tuple[Any, list[str]]:
    """What a YAML text says, and its keys given twice, of which YAML would silently take the last."""
    return yaml.safe_load(text), list(_repeated(yaml.compose(text, yaml.SafeLoader), "", set()))


def _repeated(node: yaml.Node | None, path: str, seen: set[int]) -> Iterator[str]:
    """A fault for each key that its mapping gave before; ``seen``: ids of nodes met (anchors repeat them)."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item, path, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = f"{path}{key.value}", key.start_mark.line + 1
        if name in lines:
            yield f"{name}: given twice, in line {lines[name]} and again in line {line}"
        lines[name] = line
        yield from _repeated(value, f"{name}.", seen)


def override(values: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """``values`` with ``a.b=value`` overrides (values in YAML form), and the faults found on the way."""
    merged: dict[str, Any] = json.loads(json.dumps(values, default=str))
    faults = []
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            faults.append(f"{item!r}: expected key=value")
            continue
        try:
            value, repeated = _parsed(text)
        except yaml.YAMLError:
            faults.append(f"{key}: {text!r} is not valid YAML")
            continue
        faults += [f"{key}.{fault}" for fault in repeated]
        if not _place(merged, key.strip().split("."), value):
            faults.append(f"{key}: a part of this key holds a value, not a section")
    return merged, faults


def _place(tree: dict[str, Any], path: Sequence[str], value: Any) -> bool:
    for name in path[:-1]:
        branch = tree.setdefault(name, {})
        if not isinstance(branch, dict):
            return False
        tree = branch
    tree[path[-1]] = value
    return True


def load_active(file: str | Path | None = None, overrides: Sequence[str] = ()) -> ActiveKeys:
    """Read, merge and check the configuration of ``active_clean``; every fault in one report.

    Its ``task`` decides which keys there are: those of :class:`ActiveClean`, or of :class:`ActiveClasses`.
    """
    given, _ = override(_mapping(file)[0] if file else {}, overrides)
    if given.get("task") == "classes":
        return load_classes(file, overrides)
    return load(file, overrides)


def load(file: str | Path | None = None, overrides: Sequence[str] = ()) -> ActiveClean:
    """Read, merge and check the configuration of the active loop over boxes."""
    return _load(ActiveClean, file, overrides, PATH_KEYS, consistency_faults)


def load_classes(file: str | Path | None = None, overrides: Sequence[str] = ()) -> ActiveClasses:
    """Read, merge and check the configuration of the active loop over classes."""
    return _load(ActiveClasses, file, overrides, ACTIVE_CLASS_PATHS, active_class_faults)


def load_grid(file: str | Path | None = None, overrides: Sequence[str] = ()) -> GridKeys:
    """Read, merge and check the configuration of ``noise_grid``; every fault in one report.

    Its ``task`` decides which keys there are: those of :class:`NoiseGrid`, or of :class:`ClassGrid`.
    """
    given, _ = override(_mapping(file)[0] if file else {}, overrides)
    if given.get("task") == "classes":
        return _load(ClassGrid, file, overrides, CLASS_PATHS, class_faults)
    return _load(NoiseGrid, file, overrides, GRID_PATHS, grid_faults)


def load_analysis(file: str | Path | None = None, overrides: Sequence[str] = ()) -> AnalyzeMicrographs:
    """Read, merge and check the configuration of ``analyze_micrographs``; every fault in one report."""
    return _load(AnalyzeMicrographs, file, overrides, ANALYSIS_PATHS, analysis_faults)


def _load(
    model: type[Model],
    file: str | Path | None,
    overrides: Sequence[str],
    paths: Sequence[str],
    combined: Callable[[Model], list[str]],
) -> Model:
    given, repeated = _mapping(file) if file else ({}, [])
    values, faults = override(given, overrides)
    faults = repeated + faults
    config, wrong = _checked(model, values)
    faults += list(wrong.values())
    faults += path_faults(values, Path.cwd(), paths)
    # a key that had to be left out may be why another fault shows; of an unknown key, the one that was meant
    meant = [_meant(model, key) if f"{key}: {UNKNOWN}" in fault else key for key, fault in wrong.items()]
    missing = [key for key in meant if key]
    faults += [fault for fault in combined(config) if not _names_one_of(missing, fault)]
    if faults:
        raise ConfigError(faults, str(file or "configuration"))
    return config


def _checked(model: type[Model], values: Mapping[str, Any]) -> tuple[Model, dict[str, str]]:
    """The configuration, and the faults by key; a key at fault takes its default, so that checks go on."""
    try:
        return model.model_validate(values), {}
    except ValidationError as error:
        entries = error.errors()
    wrong = {".".join(str(part) for part in entry["loc"]): _fault(model, entry) for entry in entries}
    sound = deepcopy(dict(values))
    for entry in entries:
        _drop(sound, entry["loc"])
    return model.model_validate(sound), wrong


def _drop(tree: dict[Any, Any], path: Sequence[int | str]) -> None:
    """Remove what ``path`` leads to (an item of a list takes the list along), and keys that are no text."""
    if path[1:] and isinstance(tree.get(path[0]), dict):
        return _drop(tree[path[0]], path[1:])
    for key in [key for key in tree if key == path[0] or not isinstance(key, str)]:
        del tree[key]


def _fault(model: type[Section], entry: Any) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        other = OTHER_TASK.get(model)
        if other and key in _keys(other):
            return f"{key}: {UNKNOWN} of this task; it is for task={other.model_fields['task'].default}"
        meant = _meant(model, key)
        return f"{key}: {UNKNOWN}" + (f"; did you mean {meant}?" if meant else "")
    return f"{key}: {entry['msg'].removeprefix('Value error, ')} (got {entry['input']!r})"


def _meant(model: type[Section], unknown: str) -> str:
    """The key that an unknown one is probably meant for: alike as a whole, or as its last word; or none."""
    known = list(_keys(model))
    if alike := get_close_matches(unknown, known, 1, ALIKE):
        return alike[0]
    last = [key.rpartition(".")[2] for key in known]
    alike = get_close_matches(unknown.rpartition(".")[2], last, 1, ALIKE)
    return known[last.index(alike[0])] if alike and last.count(alike[0]) == 1 else ""


def _keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Every key of a section and of those within it, its sections' own names included."""
    for name, info in section.model_fields.items():
        yield prefix + name
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _keys(inner, f"{prefix}{name}.")


def _names_one_of(keys: Iterable[str], fault: str) -> bool:
    """Whether a fault speaks of one of the keys, or of a key in one of these sections."""
    named = re.findall(r"\w+(?:\.\w+)*", fault)
    return any(f"{name}.".startswith(f"{key}.") for key in keys for name in named)
