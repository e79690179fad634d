"""Which Label Studio a job works with: its command, its files, and where it sees the pictures."""

import pytest

from emclean.config import load
from emclean.errors import LabelServiceError
from emclean.loop import build, neighbours
from emclean.loop.console import Console
from emclean.stores.label_studio import LabelStudioService, server


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without Label Studio: a current folder and one where emclean lies, both empty."""
    for name in ("here", "root", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("EMCLEAN_LABEL_STUDIO", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(server, "_ROOT", tmp_path / "root")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def installed(folder):
    command = folder / ".venv-label-studio" / "bin" / "label-studio"
    command.parent.mkdir(parents=True)
    command.touch()
    return command


def test_emclean_lies_where_its_setup_was_run():
    assert (server._ROOT / "pyproject.toml").is_file()


def test_without_a_label_studio_the_way_to_one_is_told(bare):
    with pytest.raises(LabelServiceError) as caught:
        server.find_executable()
    assert str(caught.value) == (
        "label-studio: Label Studio's command was not found. Set it up with `make setup-services`, "
        "or name the executable in EMCLEAN_LABEL_STUDIO."
    )


def test_it_is_found_from_every_folder(bare):
    beside_emclean = installed(bare / "root")
    assert server.find_executable() == beside_emclean
    here = installed(bare / "here")
    assert server.find_executable() == here


@pytest.mark.parametrize("there", ["/label-studio/files", None])
def test_the_storage_is_where_the_server_sees_it(tmp_path, there):
    (tmp_path / "token").write_text("token")
    given = {"": "http://127.0.0.1:9", "_token_file": tmp_path / "token", "_documents": tmp_path}
    given |= {"_documents_there": there} if there else {}
    config = load(overrides=[f"services.label_studio{key}={value}" for key, value in given.items()])
    with neighbours.find(config, tmp_path / "w", Console()) as near:
        service, _ = build._label_service(config, tmp_path / "w", "run", near)
    assert isinstance(service, LabelStudioService)
    assert service._pictures.stored_at == f"{there or tmp_path}/pictures"
