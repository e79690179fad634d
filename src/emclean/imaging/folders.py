"""A folder of pictures, asked by the names that a label file uses."""

from pathlib import PurePosixPath

import fsspec
import numpy as np
from numpy.typing import NDArray

from emclean.errors import DataError, ImageError
from emclean.imaging import readers


class Folder:
    """A folder (or URI) of pictures, found by the name in the label file or by its last part."""

    def __init__(self, place: str) -> None:
        try:
            fs, root = fsspec.core.url_to_fs(str(place))
            there = fs.exists(root)
        except (OSError, ValueError, ImportError) as cause:
            raise DataError(
                f"the folder cannot be opened: {cause}.", str(place), "Check the path."
            ) from cause
        if not there:
            raise DataError("there is no such folder.", str(place), "Check the path.")
        self._fs, self._root = fs, root.rstrip("/")
        self._tails: dict[str, list[str]] | None = None

    def read(self, file_name: str, size: tuple[int | None, int | None] = (None, None)) -> NDArray[np.uint8]:
        """The grey pixels ``[H,W]`` of one image.

        Raises ``ImageError`` where it is not there, cannot be read, or is not of the ``size`` (width,
        height) that its labels are for.
        """
        name = file_name.replace("\\", "/").removeprefix("./")
        path = f"{self._root}/{name}"
        if not self._fs.exists(path):
            path = self._by_tail(name)
        pixels = readers.read(self._fs.unstrip_protocol(path), name).pixels
        height, width = pixels.shape
        if size[0] is not None and size != (width, height):
            said = f"{size[0]} x {size[1]}"
            raise ImageError(f"the label file says {said} px, the picture has {width} x {height}.", name)
        return readers.to_grey8(pixels)

    def _by_tail(self, name: str) -> str:
        if self._tails is None:
            self._tails = {}
            for path in self._fs.find(self._root):
                self._tails.setdefault(PurePosixPath(path).name, []).append(path)
        alike = self._tails.get(PurePosixPath(name).name, [])
        if len(alike) != 1:
            raise ImageError("the label file names it, the folder does not hold it.", name)
        return alike[0]
