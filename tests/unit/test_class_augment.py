"""Pictures are read, brought to size and varied as they should be."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from emclean.errors import DataError
from emclean.models.classifiers import augment
from emclean.models.classifiers.augment import Pictures, as_floats, fit_size, open_pictures, vary
from emclean.models.classifiers.spec import ClassRecipe

STILL = ClassRecipe(rotate=0, zoom=(1, 1), half_turns=False)
ROWS = np.array([4, 1, 2])


def ramp() -> torch.Tensor:
    """One picture ``[1,1,16,16]`` whose value tells the place."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return ((16 * y + x) / 255)[None, None]


def test_rows_are_read_in_their_order() -> None:
    source = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((6, 16, 16), np.uint8)
    found = Pictures(source, ROWS, 16, 1)(torch.tensor([0, 2, 2]))
    assert found.shape == (3, 1, 16, 16)
    assert found.dtype == torch.uint8
    assert found[:, 0, 3, 3].tolist() == [4, 2, 2]


def test_what_is_too_large_to_keep_is_read_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(0).integers(0, 256, (6, 40, 30, 3), dtype=np.uint8)
    kept = Pictures(source, ROWS, 16, 3)
    monkeypatch.setattr(augment, "_KEPT", 0)
    read = Pictures(source, ROWS, 16, 3)
    assert kept.kept is not None
    assert read.kept is None
    places = torch.tensor([2, 0])
    assert torch.equal(kept(places), read(places))
    assert read(places).shape == (2, 3, 16, 16)


def test_shrinking_keeps_the_mean_and_the_size_stays_where_it_fits() -> None:
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 64, 1), dtype=np.uint8))
    small = fit_size(pixels, 16)
    assert abs(small.float().mean() - pixels.float().mean()) < 1
    assert torch.equal(fit_size(pixels, 64)[:, 0], pixels[..., 0])


@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8), np.float32), np.zeros((2, 8), np.uint8)])
def test_other_arrays_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8"):
        Pictures(wrong, np.array([0]), 16, 1)


def test_colours_and_rows_must_fit() -> None:
    source = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(DataError, match=r"1 channel"):
        Pictures(source, np.array([0]), 16, 1)
    with pytest.raises(DataError, match="of 2 pictures"):
        Pictures(source, np.array([0, 2]), 16, 3)


def test_a_file_that_is_no_picture_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pictures.npy"
    path.write_text("no")
    with pytest.raises(DataError, match=r"pictures\.npy"):
        open_pictures(str(path))


def test_nothing_to_vary_gives_the_picture_itself() -> None:
    images = ramp()
    assert vary(images, STILL) is images


def test_a_half_turn_turns_exactly_and_half_of_the_time() -> None:
    torch.manual_seed(0)
    images = ramp().expand(200, 1, 16, 16)
    found = vary(images, ClassRecipe(rotate=0, zoom=(1, 1), half_turns=True))
    turned = (found - images.flip(-1).flip(-2)).abs().amax((1, 2, 3)) < 1e-4
    kept = (found - images).abs().amax((1, 2, 3)) < 1e-4
    assert bool((turned ^ kept).all())
    assert 70 < int(turned.sum()) < 130


def test_a_flip_mirrors_left_and_right_only() -> None:
    torch.manual_seed(0)
    images = ramp().expand(50, 1, 16, 16)
    found = vary(images, ClassRecipe(rotate=0, zoom=(1, 1), half_turns=False, flip=True))
    mirrored = (found - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    kept = (found - images).abs().amax((1, 2, 3)) < 1e-4
    assert bool((mirrored ^ kept).all())
    assert 0 < int(mirrored.sum()) < 50


def test_without_a_flip_the_hand_of_a_picture_is_kept() -> None:
    torch.manual_seed(0)
    recipe = ClassRecipe(rotate=180, zoom=(0.7, 1.3), half_turns=True, shift=0.1)
    moves = augment._moves(500, recipe, torch.device("cpu"))
    assert bool((torch.linalg.det(moves[:, :, :2]) > 0).all())


def test_zoom_turn_and_shift_stay_in_their_ranges() -> None:
    torch.manual_seed(0)
    recipe = ClassRecipe(rotate=5, zoom=(0.7, 1.3), half_turns=False, shift=0.1)
    moves = augment._moves(2000, recipe, torch.device("cpu"))
    scale = 1 / torch.linalg.det(moves[:, :, :2]).sqrt()
    angle = torch.atan2(moves[:, 1, 0], moves[:, 0, 0]).abs() * 180 / math.pi
    assert 0.699 < float(scale.min()) < 0.72
    assert 1.28 < float(scale.max()) < 1.301
    assert 4.9 < float(angle.max()) < 5.001
    assert 0.19 < float(moves[:, :, 2].abs().max()) <= 0.2  # of a picture that spans -1 to 1


def test_what_comes_into_view_continues_the_border() -> None:
    torch.manual_seed(0)
    images = torch.full((8, 1, 16, 16), 0.25)
    found = vary(images, ClassRecipe(zoom=(0.5, 0.6), rotate=20))
    assert torch.allclose(found, images, atol=1e-6)


def test_floats_are_from_0_to_1() -> None:
    assert as_floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
