"""What every route that takes a picture shares: its bytes out of a request, refusals, a preview."""

import base64
import io
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import UploadFile

from serving import schemas

RAW = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that are no form of files: curl gives the second to everything that it is not told."""

PREVIEW_SIDE = 1600
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem} for status in (401, 404, 413, 415, 422, 503)
}

UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Refusal(Exception):
    """A request that is answered with a :class:`~serving.schemas.Problem`."""

    def __init__(self, status: int, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fix = status, code, message, fix


def preview(pixels: NDArray[np.uint8]) -> str:
    """A PNG data URI of a picture ``[H,W]`` or ``[H,W,3]``, made smaller where it is large."""
    buffer = io.BytesIO()
    Image.fromarray(reduced(pixels)).save(buffer, "PNG")
    return data_uri(buffer.getvalue())


def reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with no side longer than :data:`PREVIEW_SIDE`."""
    image = Image.fromarray(pixels)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return np.asarray(image, dtype=np.uint8)


def data_uri(png: bytes) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


async def picture_bytes(request: Request) -> bytes:
    """The picture in a request: the body itself, or the first file of a multipart form."""
    kind = request.headers.get("content-type", "application/octet-stream").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        data = await _first_file(request)
    elif kind.startswith("image/") or kind in RAW:
        data = await request.body()
    else:
        fix = "Send a form, or bytes as image/png, image/jpeg, image/tiff or application/octet-stream."
        raise Refusal(415, "unsupported_media_type", f"{kind} is not a picture.", fix)
    if not data:
        raise Refusal(422, "empty", "The request holds no picture.", "Send the file's bytes.")
    return data


async def _first_file(request: Request) -> bytes:
    async with request.form(max_files=1, max_fields=16) as form:
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read()
    return b""
