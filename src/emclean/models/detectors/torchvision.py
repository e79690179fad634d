"""torchvision's detectors behind the seam: FCOS, RetinaNet, SSDlite, Faster R-CNN; always from scratch.

Grey input is repeated to three channels, nothing is resized, and nothing is downloaded. Backbones use group
normalisation, because small batches from scratch leave batch statistics unstable (SSDlite keeps its own).
Weights, untrusted boxes and areas to ignore are honoured by FCOS and RetinaNet; the other two choose their
negatives by sampling inside the library, so ``FitJob`` refuses such targets for them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssdlite import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from emclean.models.detectors.base import Detector, as_predictions, ignored, tensors
from emclean.models.spec import DetectorSpec
from emclean.types import Predictions, Target

_FINEST_ANCHOR = 16  # pixels; torchvision's default of 32 suits photographs of 800 pixels
_BETWEEN = -2  # RetinaNet's mark for anchors that match neither well nor badly


class TorchvisionDetector(Detector):
    """Wraps one of torchvision's models; ``first_label`` is what it calls category 0."""

    def __init__(self, spec: DetectorSpec, model: nn.Module, first_label: int) -> None:
        super().__init__(spec)
        self.model = model
        self.model.transform = _AsItIs(spec.image_size, spec.image_size, [0.5] * 3, [0.25] * 3)
        self.first_label = first_label
        self.fixed_size = spec.image_size if spec.family == "ssdlite" else None

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The family's own losses."""
        rows = [tensors(target, images.device) for target in targets]
        for row in rows:
            row["labels"] = row["labels"] + self.first_label
        losses: dict[str, Tensor] = self.model(list(images.expand(-1, 3, -1, -1)), rows)
        return losses

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Predictions]:
        """The family's own answer, thinned out by the family's own rule."""
        height, width = images.shape[-2:]
        answers = self.model(list(images.expand(-1, 3, -1, -1)))
        return [
            as_predictions(a["boxes"], a["labels"] - self.first_label, a["scores"], width, height)
            for a in answers
        ]


class _AsItIs(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalises grey levels and pads to a multiple of 32; resizes nothing."""

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


class _WeighedFCOS(FCOSHead):  # type: ignore[misc]
    """FCOS's losses (arXiv 1904.01355) with a weight per place."""

    def compute_loss(
        self, targets: Any, head_outputs: Any, anchors: Any, matched_idxs: Any
    ) -> dict[str, Tensor]:
        logits = head_outputs["cls_logits"].float()  # [B,P,C]
        deltas = head_outputs["bbox_regression"].float()  # [B,P,4]
        places = torch.stack(anchors)  # [B,P,4]
        boxes, labels, weight, trusted = _all_assigned(targets, anchors, matched_idxs, logits.shape[-1])
        found = labels >= 0
        number = found.sum().clamp(min=1)
        classes = _one_hot(labels, logits.shape[-1]).float()
        focal = sigmoid_focal_loss(logits, classes, reduction="none")
        learnt = found & trusted
        giou = generalized_box_iou_loss(self.box_coder.decode(deltas, places)[learnt], boxes[learnt])
        near = self._centreness(places[learnt], boxes[learnt])
        centre = functional.binary_cross_entropy_with_logits(
            head_outputs["bbox_ctrness"].float().squeeze(-1)[learnt], near, reduction="none"
        )
        return {
            "classification": (focal * weight).sum() / number,
            "bbox_regression": giou.sum() / number,
            "bbox_ctrness": centre.sum() / number,
        }

    def _centreness(self, places: Tensor, boxes: Tensor) -> Tensor:
        left, top, right, bottom = self.box_coder.encode(places, boxes).unbind(dim=-1)
        across = torch.minimum(left, right) / torch.maximum(left, right)
        down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
        return (across * down).clamp(min=0).sqrt()


class _WeighedRetinaNet(RetinaNetHead):  # type: ignore[misc]
    """RetinaNet's focal loss (arXiv 1708.02002) with a weight per anchor, and GIoU for the boxes."""

    def compute_loss(
        self, targets: Any, head_outputs: Any, anchors: Any, matched_idxs: Any
    ) -> dict[str, Tensor]:
        logits = head_outputs["cls_logits"].float()  # [B,P,C]
        deltas = head_outputs["bbox_regression"].float()  # [B,P,4]
        boxes, labels, weight, trusted = _all_assigned(targets, anchors, matched_idxs, logits.shape[-1])
        number = (labels >= 0).sum().clamp(min=1)
        classes = _one_hot(labels, logits.shape[-1]).float()
        focal = sigmoid_focal_loss(logits, classes, reduction="none")
        learnt = (labels >= 0) & trusted
        coder = self.regression_head.box_coder
        guessed = coder.decode_single(deltas[learnt], torch.stack(anchors)[learnt])
        giou = generalized_box_iou_loss(guessed, boxes[learnt])
        return {
            "classification": (focal * weight).sum() / number,
            "bbox_regression": giou.sum() / number + 0.0 * deltas.sum(),
        }


def _all_assigned(
    targets: Any, anchors: Any, matched: Any, n_categories: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``_assigned`` of every image, stacked."""
    images = zip(targets, anchors, matched, strict=True)
    boxes, labels, weight, trusted = zip(*(_assigned(*image, n_categories) for image in images), strict=True)
    return torch.stack(boxes), torch.stack(labels), torch.stack(weight), torch.stack(trusted)


def _assigned(
    target: Any, anchors: Tensor, matched: Tensor, n_categories: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per anchor: box ``[P,4]``, category ``[P]`` (-1 background), loss weights ``[P,C]``, trust ``[P]``."""
    if not len(target["boxes"]):
        boxes, labels = torch.zeros_like(anchors), torch.full_like(matched, -1)
        weight, trusted = torch.ones_like(anchors[:, 0]), torch.zeros_like(matched, dtype=torch.bool)
    else:
        owner = matched.clamp(min=0)
        boxes, trusted = target["boxes"][owner], target["regress"][owner]
        labels = torch.where(matched >= 0, target["labels"][owner], -1)
        weight = torch.where(matched >= 0, target["weights"][owner], 1.0)
    unknown = ignored((anchors[:, :2] + anchors[:, 2:]) / 2, target, n_categories)
    unknown |= (matched == _BETWEEN)[:, None]
    return boxes, labels, torch.where((matched < 0)[:, None] & unknown, 0.0, weight[:, None]), trusted


def _one_hot(labels: Tensor, n_categories: int) -> Tensor:
    """``[..., C]`` rows with a one at the category; background (-1) has none."""
    return functional.one_hot(labels + 1, n_categories + 1)[..., 1:]


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels)


def _pyramid(backbone: str, levels: list[int], extra: nn.Module | None) -> nn.Module:
    pyramid: nn.Module = resnet_fpn_backbone(
        backbone_name=backbone,
        weights=None,
        norm_layer=_norm,
        trainable_layers=5,
        returned_layers=levels,
        extra_blocks=extra,
    )
    return pyramid


def _fcos(spec: DetectorSpec, backbone: str) -> Detector:
    pyramid = _pyramid(backbone, [2, 3, 4], LastLevelP6P7(256, 256))
    head = _WeighedFCOS(256, 1, spec.n_categories)
    return TorchvisionDetector(spec, FCOS(pyramid, spec.n_categories, head=head, **_limits(spec)), 0)


def _retinanet(spec: DetectorSpec, backbone: str) -> Detector:
    pyramid = _pyramid(backbone, [2, 3, 4], LastLevelP6P7(256, 256))
    sides = [_FINEST_ANCHOR * 2**level for level in range(5)]
    sizes = tuple(tuple(int(side * 2 ** (third / 3)) for third in range(3)) for side in sides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    head = _WeighedRetinaNet(256, 9, spec.n_categories, norm_layer=_norm)
    model = RetinaNet(pyramid, spec.n_categories, anchor_generator=anchors, head=head, **_limits(spec))
    return TorchvisionDetector(spec, model, 0)


def _fasterrcnn(spec: DetectorSpec, backbone: str) -> Detector:
    pyramid = _pyramid(backbone, [1, 2, 3, 4], None)
    sizes = tuple((_FINEST_ANCHOR * 2**level,) for level in range(5))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    limits = {f"box_{name}": value for name, value in _limits(spec).items()}
    model = FasterRCNN(pyramid, spec.n_categories + 1, rpn_anchor_generator=anchors, **limits)
    return TorchvisionDetector(spec, model, 1)


def _ssdlite(spec: DetectorSpec, _: str) -> Detector:
    model = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=spec.n_categories + 1, **_limits(spec)
    )
    return TorchvisionDetector(spec, model, 1)


def _limits(spec: DetectorSpec) -> dict[str, Any]:
    return {"score_thresh": spec.score, "nms_thresh": spec.overlap, "detections_per_img": spec.limit}


_FAMILIES: dict[str, Callable[[DetectorSpec, str], Detector]] = {
    "fcos": _fcos,
    "retinanet": _retinanet,
    "fasterrcnn": _fasterrcnn,
    "ssdlite": _ssdlite,
}


def build_family(spec: DetectorSpec) -> Detector:
    """The detector that ``spec.family`` names, as ``method_backbone`` (``ssdlite`` has its own backbone)."""
    method, _, backbone = spec.family.partition("_")
    return _FAMILIES[method](spec, backbone)
