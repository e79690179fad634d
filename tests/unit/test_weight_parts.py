"""Several files of weights as one: bit by bit, always alike, and nothing else is taken for it."""

import pytest

from emclean.errors import DataError
from emclean.models.parts import pack, unpack
from emclean.models.spec import SHIPPED


def test_every_file_comes_back_as_it_was_and_the_whole_is_always_the_same(tmp_path):
    (tmp_path / "small").write_bytes(b"any bytes \x00\xff")
    files = {"hand": SHIPPED, "usable": tmp_path / "small"}
    pack(tmp_path / "new" / "one.safetensors", files)
    pack(tmp_path / "two.safetensors", dict(reversed(files.items())))
    one, two = ((tmp_path / name).read_bytes() for name in ("new/one.safetensors", "two.safetensors"))
    assert one == two
    found = unpack(tmp_path / "two.safetensors", tmp_path)
    assert {name: file.read_bytes() for name, file in found.items()} == {
        name: file.read_bytes() for name, file in files.items()
    }
    assert {file.parent for file in found.values()} == {tmp_path}


def test_other_weights_hold_no_parts(tmp_path):
    (tmp_path / "text").write_text("nothing")
    for file in (SHIPPED, tmp_path / "text", tmp_path / "none"):
        with pytest.raises(DataError, match="not usable as the weights of an analysis"):
            unpack(file, tmp_path)
