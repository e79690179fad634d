"""The networks have the shapes and the symmetry that their specification says."""

import pytest
import torch

from emclean.models.classifiers.nets import build
from emclean.models.classifiers.spec import FAMILIES, ClassifierSpec


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 2, 32), (3, 5, 48)])
def test_pictures_become_logits(family: str, channels: int, classes: int, size: int) -> None:
    model = build(ClassifierSpec(family, classes, size, channels, width=4)).eval()
    assert model(torch.rand(3, channels, size, size)).shape == (3, classes)


def test_the_basic_network_is_the_sources() -> None:
    model = build(ClassifierSpec("basic", size=128))
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    dense = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert [c.out_channels for c in convolutions] == [64, 64]
    assert [d.out_features for d in dense] == [64, 2]
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.5]
    assert [d.in_features for d in dense] == [64 * 30 * 30, 64]  # convolutions without padding


def test_the_network_for_co_teaching_is_88_times_smaller() -> None:
    basic, pooled = (
        sum(p.numel() for p in build(ClassifierSpec(family, size=128)).parameters())
        for family in ("basic", "pooled")
    )
    assert round(basic / pooled) == 88


def test_the_compact_network_is_small() -> None:
    assert sum(p.numel() for p in build(ClassifierSpec()).parameters()) < 200_000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mirror_image_has_its_logits_swapped_in_training_and_in_use(family: str) -> None:
    torch.manual_seed(0)
    model = build(ClassifierSpec(family, size=32, mirror=True, width=4))
    images = torch.rand(6, 1, 32, 32)
    for module in model.modules():  # dropped at random, which two passes do not share
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for training in (True, False):
        model.train(training)
        straight, mirrored = model(images), model(images.flip(-1))
        assert torch.allclose(straight, mirrored.flip(-1), atol=1e-5)
        assert float((straight[:, 0] - straight[:, 1]).abs().max().detach()) > 1e-4


def test_without_the_switch_a_mirror_image_is_another_picture() -> None:
    torch.manual_seed(0)
    model = build(ClassifierSpec(size=32, width=4))
    images = torch.rand(6, 1, 32, 32)
    assert not torch.allclose(model(images), model(images.flip(-1)).flip(-1), atol=1e-3)
