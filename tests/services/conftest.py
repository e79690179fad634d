"""A real Label Studio for the tests of this folder, started once."""

import os
import struct
import zlib
from pathlib import Path

import label_studio_copies
import pytest

from emclean.errors import LabelServiceError
from emclean.stores.label_studio import LabelStudioService, LocalPictures, server
from emclean.types import ImageRecord, Suggestion, TaskSpec

ADVICE = "no Label Studio found: run `make setup-services`, or name its command in EMCLEAN_LABEL_STUDIO"


def png(width: int, height: int, shade: int = 128) -> bytes:
    """An even grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([shade]) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def render(record: ImageRecord) -> bytes:
    """A picture of the right size for any record."""
    return png(record.width, record.height)


def suggestion(name: str, box: tuple[float, float, float, float], grade: str = "clean") -> Suggestion:
    """A suggestion of category deposit."""
    return Suggestion(name, box, "deposit", 0.75, grade, "as the test says")


def question(key: str, value: float = 0.0, blind: bool = False) -> TaskSpec:
    """A task with two suggestions in a picture of 320 x 240 pixels."""
    image = ImageRecord(key.split("/")[1], "/nowhere", f"{key.split('/')[1]}.png", 320, 240)
    shown = (suggestion("s#1", (20, 30, 80, 90)), suggestion("s#2", (200, 100, 260, 160), "missed"))
    return TaskSpec(key, image, shown, blind=blind, value=value)


class LabelStudio:
    """The server of these tests, which one of them ends and starts again."""

    def __init__(self, folder: Path, command: Path):
        self._folder, self._command = folder, command
        self.server = server.start(folder, executable=command, progress=print)

    @property
    def url(self) -> str:
        """Its address, the same after a restart."""
        return self.server.url

    @property
    def credentials(self) -> Path:
        """The file with its account."""
        return self.server.credentials

    def stop(self) -> None:
        """End it by its process id."""
        server.stop(self.server.pid)

    def restart(self) -> None:
        """Start it again at the same address."""
        port = int(self.url.rsplit(":", 1)[1])
        self.server = server.start(self._folder, port=port, executable=self._command, progress=print)

    def service(self, title: str, url: str = "", timeout: float = 60.0) -> LabelStudioService:
        """A service with a project of this title for the category deposit."""
        pictures = LocalPictures(self.server.document_root, render=render)
        service = LabelStudioService(url or self.url, self.server.token(), pictures, timeout)
        service.ensure_project(title, ["deposit"], "Mark every deposit.")
        return service


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory):
    """A running Label Studio; where it is not installed, CI fails and other machines skip."""
    try:
        command = server.find_executable()
    except LabelServiceError:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(ADVICE)
    folder = tmp_path_factory.mktemp("label-studio")
    running = LabelStudio(folder, command)
    label_studio_copies.keep(folder)
    yield running
    running.stop()
