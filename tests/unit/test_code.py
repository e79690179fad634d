import re

from emclean import __version__
from emclean.loop import code


def test_a_checkout_tells_its_commit(tmp_path, monkeypatch):
    code.code_version.cache_clear()
    assert re.fullmatch(rf"{re.escape(__version__)}(\+[0-9a-f]{{7,}}(\.dirty)?)?", code.code_version())


def test_without_git_the_version_stands_alone(tmp_path, monkeypatch):
    code.code_version.cache_clear()
    monkeypatch.setattr(code, "__file__", str(tmp_path / "src" / "emclean" / "loop" / "code.py"))
    assert code.code_version() == __version__
    code.code_version.cache_clear()
