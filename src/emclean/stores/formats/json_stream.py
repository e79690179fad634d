"""Reads the lists of a JSON file of any size element by element, and tells where in the file each one stands.

Only a window of the file is in memory. The standard decoder does the reading, so that everything that
``json.loads`` takes is taken here too, NaN included: one such number must not cost the whole file.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from emclean.errors import LabelError

WINDOW = 1 << 20
"""Bytes read at a time."""

LARGEST = 1 << 26
"""An element or single value of more bytes than this (64 MiB) is taken for a damaged file."""

_SPACES = " \t\n\r"
_AFTER = _SPACES + ",:]}"  # what may follow a value; a number cut off within ends before something else
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODE = json.JSONDecoder().raw_decode
_BOM = b"\xef\xbb\xbf"


Element = tuple[str, Any, int, int]
"""One element: its list's key (empty for a file that is a list), its value, its first and last byte."""


def _end_of_space(text: str, at: int) -> int:
    """Where the next character that is no space stands, or the text's end."""
    if text[at : at + 1] not in _SPACES:
        return at
    found = _SPACE.match(text, at)
    return found.end() if found else at


class JsonStream:
    """The lists at the top of a JSON file, or the list that the file is.

    ``sections`` maps every key at the top to the first and last byte (exclusive) of its value, once
    ``elements`` has passed it; ``top`` is the file's first character, ``{`` or ``[``.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.sections: dict[str, tuple[int, int]] = {}
        self._file, self._where = file, where
        # Latin-1 makes one character of each byte, so that places in the text are places in the file;
        # text beyond ASCII is decoded again as the UTF-8 that it is.
        self._text, self._at, self._base = "", 0, 0
        self._plain, self._done = True, False
        file.seek(0)
        if file.read(len(_BOM)) == _BOM:
            self._base = len(_BOM)
        file.seek(self._base)
        self.top = self._next()

    def elements(self) -> Iterator[Element]:
        """Every element of every list at the top, in the file's order."""
        if self.top == "[":
            yield from self._list("")
        elif self.top == "{":
            yield from self._object()
        else:
            raise LabelError("not JSON.", self._where, "Give a COCO JSON file.")
        if self._next():
            raise self._fault("more follows after its end")

    def _object(self) -> Iterator[Element]:
        self._at += 1
        if self._next() == "}":
            self._at += 1
            return
        while True:
            key = self._value("")[1]
            if not isinstance(key, str):
                raise self._fault("a key is not text")
            self._expect(":")
            if self._next() == "[":
                yield from self._list(key)
            else:
                self.sections[key] = self._value("")[2:]
            if self._expect(",}") == "}":
                return
            if self._next() != '"':
                raise self._fault("a key is missing")

    def _list(self, key: str) -> Iterator[Element]:
        start = self._base + self._at
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            more = True
            while more:
                yield from self._quickly(key)
                yield self._value(key)
                more = self._expect(",]") == ","
        self.sections[key] = start, self._base + self._at

    def _quickly(self, key: str) -> Iterator[Element]:
        """The elements that the window holds whole, as long as a comma and another one follow."""
        text, base, at = self._text, self._base, _end_of_space(self._text, self._at)
        try:
            while self._plain:
                value, end = _DECODE(text, at)
                comma = end if text[end] == "," else _end_of_space(text, end)
                following = _end_of_space(text, comma + 1)
                if text[comma] != "," or following >= len(text):
                    return
                yield key, value, base + at, base + end
                self._at = at = following
        except (ValueError, IndexError, RecursionError):
            return  # at the window's edge, or damaged: the careful way finds out

    def _expect(self, wanted: str) -> str:
        found = self._next()
        if not found or found not in wanted:
            raise self._fault(f"expected {' or '.join(wanted)}, got {found or 'the end of the file'}")
        self._at += 1
        return found

    def _next(self) -> str:
        """The next character that is no space, or an empty string at the end of the file."""
        while True:
            self._at = _end_of_space(self._text, self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self, key: str) -> Element:
        """The value that begins here; a number at the window's edge is read again with what follows it."""
        self._next()
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
                whole = self._text[end : end + 1] in _AFTER or end - self._at > LARGEST
                if (whole and end < len(self._text)) or not self._more():
                    break
            except RecursionError as cause:
                raise self._fault("nested too deeply") from cause
            except ValueError as cause:
                if len(self._text) - self._at > LARGEST or not self._more():
                    raise self._fault(f"not JSON: {cause}") from cause
        start, self._at = self._at, end
        if not self._plain and not self._text[start:end].isascii():
            value = self._utf8(self._text[start:end])
        return key, value, self._base + start, self._base + end

    def _utf8(self, text: str) -> Any:
        try:
            return json.loads(text.encode("latin-1").decode("utf-8"))
        except ValueError as cause:
            raise self._fault("not a text file in UTF-8") from cause

    def _more(self) -> bool:
        """Move the window on to where reading is, and let it grow by at least as much as it holds then."""
        rest = self._text[self._at :]
        data = b"" if self._done else self._file.read(max(WINDOW, len(rest)))
        if not data:
            self._done = True
            return False
        self._base += self._at
        self._text, self._at = rest + data.decode("latin-1"), 0
        self._plain = self._text.isascii()
        return True

    def _fault(self, what: str) -> LabelError:
        place = f"{self._where}: byte {self._base + self._at}"
        return LabelError(f"{what}.", place, "Give a whole COCO JSON file.")
