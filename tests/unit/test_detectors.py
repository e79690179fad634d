"""The detector seam: every family trains and answers; losses honour weights, trust and areas to ignore."""

import numpy as np
import pytest
import torch

from emclean.models.detectors import build
from emclean.models.detectors.compact import Compact, balanced
from emclean.models.spec import FAMILIES, DetectorSpec, FitJob
from emclean.types import Target

SMALL = 64
BOXES = np.array([[4.0, 6.0, 30.0, 34.0], [36.0, 30.0, 60.0, 62.0]])


def torchvision(*names):
    """Families of torchvision, whose import alone takes seconds: tests of the slow tier."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


WEIGHING = ("compact", *torchvision("fcos_resnet18", "retinanet_resnet18"))
ALL = (*WEIGHING, *torchvision("ssdlite", "fasterrcnn_resnet18"))


@pytest.fixture(scope="module")
def detectors():
    """Small detectors by family, each made once, when first asked for."""
    return Made()


class Made(dict):
    def __missing__(self, family):
        torch.manual_seed(0)
        self[family] = build(DetectorSpec(family, 2, image_size=SMALL, width=16, score=0.005))
        return self[family]


@pytest.fixture
def images():
    return torch.rand(2, 1, SMALL, SMALL, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def total(detector, images, *targets):
    detector.train()
    return sum(detector(images, list(targets)).values())


@torch.no_grad()
def box_loss(detector, image, regress):
    detector.train()
    losses = detector(image, [Target(BOXES, [0, 1], regress=regress)])
    return float(sum(value for name, value in losses.items() if "box" in name))


@pytest.mark.parametrize("family", ALL)
def test_gradients_are_finite_with_and_without_objects(detectors, images, family):
    detector = detectors[family]
    for target in (Target(BOXES, [0, 1]), Target(np.zeros((0, 4)), [])):
        detector.zero_grad()
        loss = sum(detector.train()(images, [target, Target(np.zeros((0, 4)), [])]).values())
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in detector.parameters())
        moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.parameters())
        assert moved or not len(target)  # SSD samples its negatives in proportion to the objects


@pytest.mark.parametrize("family", ALL)
def test_answers_are_sound(detectors, images, family):
    detector = detectors[family].eval()
    answers = detector.detect(images)
    assert len(answers) == 2
    for answer in answers:
        assert len(answer) <= detector.spec.limit
        assert (np.diff(answer.scores) <= 1e-6).all()
        assert answer.boxes.min(initial=0) >= 0
        assert answer.boxes.max(initial=0) <= SMALL
        assert set(answer.categories.tolist()) <= {0, 1}


@pytest.mark.parametrize("family", WEIGHING)
def test_batch_equals_singles(detectors, images, family):
    detector = detectors[family].eval()
    together = detector.detect(images)
    alone = [detector.detect(image[None])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.boxes[:5], b.boxes[:5], atol=0.05)


@pytest.mark.parametrize("family", WEIGHING)
def test_weight_scales_classification(detectors, images, family):
    full, half, none = (
        total(detectors[family], images[:1], Target(BOXES, [0, 1], [w, w])) for w in (1.0, 0.5, 1e-9)
    )
    assert full > half > none


@pytest.mark.parametrize("family", WEIGHING)
def test_untrusted_boxes_are_not_regressed(detectors, images, family):
    detector = detectors[family]
    both, one = (box_loss(detector, images[:1], [True, flag]) for flag in (True, False))
    assert both != pytest.approx(one)
    assert box_loss(detector, images[:1], [False, False]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("family", WEIGHING)
def test_ignored_area_has_no_negative_loss(detectors, images, family):
    detector = detectors[family].train()
    empty = np.zeros((0, 4))
    everywhere = [[-99.0, -99.0, 999.0, 999.0]]
    assert total(detector, images[:1], Target(empty, [], ignore=everywhere)) == pytest.approx(0, abs=1e-6)
    corner = Target(empty, [], ignore=[[0, 0, 32, 32]])
    assert 0 < total(detector, images[:1], corner) < total(detector, images[:1], Target(empty, []))


@pytest.mark.parametrize("family", WEIGHING)
def test_area_ignored_for_one_category_is_background_for_the_other(detectors, images, family):
    detector = detectors[family].train()
    empty, everywhere = np.zeros((0, 4)), [[-99.0, -99.0, 999.0, 999.0]]
    one, other, both, neither = (
        total(detector, images[:1], Target(empty, [], ignore=areas, ignore_categories=of))
        for areas, of in ((everywhere, [0]), (everywhere, [1]), (2 * everywhere, [0, 1]), (empty, []))
    )
    assert both == pytest.approx(0, abs=1e-6)
    assert min(one, other) > 0
    assert one + other == pytest.approx(float(neither), rel=1e-4)


@pytest.mark.parametrize("family", WEIGHING)
def test_object_inside_an_ignored_area_still_counts(detectors, images, family):
    detector = detectors[family].train()
    target = Target(BOXES, [0, 1], ignore=[[0, 0, SMALL, SMALL]])
    assert total(detector, images[:1], target) > 0.1


@pytest.mark.parametrize("family", ["ssdlite", "fasterrcnn_resnet18"])
def test_families_that_cannot_weigh_say_so(family):
    target = Target(BOXES, [0, 0], ignore=[[0, 0, 9, 9]])
    with pytest.raises(ValueError, match=f"{family} cannot honour weights"):
        FitJob(DetectorSpec(family), ("a.npy",), (target,), out="somewhere")


def test_compact_takes_any_size(detectors):
    detector = detectors["compact"].eval()
    for shape in ((8, 8), (33, 70), (100, 41)):
        answer = detector.detect(torch.rand(1, 1, *shape))[0]
        assert answer.boxes[:, 2].max(initial=0) <= shape[1]
        assert answer.boxes[:, 3].max(initial=0) <= shape[0]


def test_compact_reads_back_what_its_loss_wants():
    """The decoder undoes the encoder: maps that the loss likes best are read as the target's boxes."""
    detector = Compact(DetectorSpec("compact", 2, width=8, score=0.3))
    logits = torch.full((1, 2, 16, 16), -8.0)
    sides = torch.zeros(1, 4, 16, 16)
    for category, box in zip((0, 1), BOXES, strict=True):
        x, y = (int((box[i] + box[i + 2]) / 2 // 4) for i in (0, 1))
        logits[0, category, y, x] = 8.0
        middle = np.array([x, y, x, y]) * 4.0 + 2.0
        sides[0, :, y, x] = torch.log(torch.tensor(np.abs(box - middle) / 16.0))
    detector.heat, detector.sides = (torch.nn.Identity() for _ in range(2))
    replies = iter((logits, sides))
    detector.head = torch.nn.Identity()
    detector.network = torch.nn.Identity()
    detector.heat.forward = detector.sides.forward = lambda _: next(replies)
    found = detector.detect(torch.zeros(1, 1, SMALL, SMALL))[0]
    order = np.argsort(found.categories)
    np.testing.assert_allclose(found.boxes[order], BOXES, atol=1e-3)
    assert (found.scores > 0.99).all()


def test_unknown_family_is_named():
    with pytest.raises(ValueError, match=r"family: expected one of compact, .* got 'yolo'"):
        DetectorSpec("yolo")


def test_spec_survives_json():
    spec = DetectorSpec("fcos_resnet34", 3, scales=(0.5, 1.0))
    assert DetectorSpec.from_json(spec.to_json()) == spec
    assert len(set(FAMILIES)) == len(FAMILIES) == 10


def test_a_rare_category_keeps_its_share_of_the_loss():
    alone, among_many = (balanced(torch.tensor(counts)) for counts in ([4, 0], [4, 36]))
    assert alone[0] == pytest.approx(4)  # a single category is divided by its number
    assert among_many[0] == pytest.approx((4 * 40) ** 0.5)  # not by 40
    assert among_many[1] == pytest.approx((36 * 40) ** 0.5)
    assert balanced(torch.tensor([0, 100]))[0] == pytest.approx((100 * 5) ** 0.5)
    assert balanced(torch.tensor([0, 0])).tolist() == [1, 1]
