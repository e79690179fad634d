"""Pictures that Label Studio can serve to a browser: 8-bit copies in a folder under its document root."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from emclean.errors import LabelServiceError
from emclean.types import ImageRecord

Render = Callable[[ImageRecord], bytes]

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg"}
_FIX = "Give the label service a `render` that makes 8-bit PNG pictures."


def _suffix(data: bytes, uri: str) -> str:
    for signature, suffix in _SIGNATURES.items():
        if data.startswith(signature):
            return suffix
    raise LabelServiceError("a browser cannot show this picture format", uri, _FIX)


def _as_stored(record: ImageRecord) -> bytes:
    import fsspec

    with fsspec.open(record.uri, "rb") as stream:
        return bytes(stream.read())


@dataclass(frozen=True)
class LocalPictures:
    """Copies pictures into ``document_root/folder`` and tells where the browser finds them.

    ``render`` turns a record into PNG (or JPEG) bytes that browsers can show; without one the file itself is
    copied. ``server_root`` is the document root as the server sees it, where that differs (a container).
    """

    document_root: Path
    folder: str = "pictures"
    render: Render | None = None
    server_root: str = ""

    @property
    def stored_at(self) -> str:
        """The served folder as the server sees it."""
        return str(Path(self.server_root or self.document_root.absolute()) / self.folder)

    def publish(self, record: ImageRecord) -> str:
        """Make the picture available, once, and return its address relative to the server."""
        home = self.document_root / self.folder
        home.mkdir(parents=True, exist_ok=True)
        ready = next(home.glob(f"{record.image_id}.*"), None) or self._copy(record, home)
        return f"/data/local-files/?d={quote(f'{self.folder}/{ready.name}')}"

    def _copy(self, record: ImageRecord, home: Path) -> Path:
        try:
            data = (self.render or _as_stored)(record)
            target = home / f"{record.image_id}{_suffix(data, record.uri)}"
            partial = home / f".{uuid4().hex}"
            partial.write_bytes(data)
            os.replace(partial, target)
        except OSError as error:
            raise LabelServiceError(f"the picture cannot be copied ({error})", record.uri) from error
        return target
