import pickle
from collections.abc import Iterator

import pytest

from emclean import errors
from emclean.errors import ConfigError, EmcleanError


def tree(root: type[EmcleanError]) -> Iterator[type[EmcleanError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ALL = [cls for cls in tree(EmcleanError) if cls.__module__ == errors.__name__]
PLAIN = [cls for cls in ALL if cls is not ConfigError]


def same(a: EmcleanError, b: EmcleanError) -> bool:
    return type(a) is type(b) and str(a) == str(b) and vars(a) == vars(b)


@pytest.mark.parametrize("cls", PLAIN)
def test_survives_pickle(cls):
    error = cls("the file ends early", "pool/a.png", "Copy it again.")
    assert same(pickle.loads(pickle.dumps(error)), error)


def test_config_error_survives_pickle():
    error = ConfigError(["seed: expected a number", "budget.share: unknown key"], "run.yaml")
    again = pickle.loads(pickle.dumps(error))
    assert same(again, error)
    assert again.faults == error.faults


@pytest.mark.parametrize("cls", PLAIN)
def test_says_what_where_and_what_to_do(cls):
    text = str(cls("the file ends early", "pool/a.png", "Copy it again."))
    assert text == "pool/a.png: the file ends early. Copy it again."
    assert str(cls("the file ends early.", fix="Copy it again.")) == "the file ends early. Copy it again."
    assert str(cls("the file ends early", "pool/a.png")) == "pool/a.png: the file ends early"


def test_place_and_advice_may_be_missing():
    assert str(EmcleanError("it broke")) == "it broke"


def test_config_error_lists_every_fault():
    text = str(ConfigError(["seed: expected a number", "budget.share: unknown key"], "run.yaml"))
    assert text.startswith("run.yaml: 2 fault(s)")
    assert "\n  - seed: expected a number\n  - budget.share: unknown key" in text


@pytest.mark.parametrize("cls", ALL)
def test_is_described_and_has_an_exit_code(cls):
    assert cls.__doc__
    assert cls.exit_code in {1, 2, 3, 4}


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = errors.__doc__ or ""
    assert [cls.__name__ for cls in ALL if cls.__name__ not in drawn] == []


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        ("EmcleanError", 1),
        ("ConfigError", 2),
        ("ImageError", 3),
        ("LabelServiceError", 4),
        ("TrainingError", 1),
    ],
)
def test_exit_codes(cls, code):
    assert getattr(errors, cls).exit_code == code
