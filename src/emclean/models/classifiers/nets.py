"""The networks: ``build(spec)`` gives a :class:`Classifier` from pictures to logits."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from emclean.models.classifiers.spec import ClassifierSpec

_WIDTHS = {"compact": 32, "basic": 64, "pooled": 64}
_DENSE, _DROPOUT, _POOLED_DROPOUT = 64, 0.5, 0.25  # the source's


class Classifier(nn.Module):
    """Pictures ``[B,C,S,S]`` in 0-1 to logits ``[B,K]``; mirror-equivariant where its specification says so.

    With ``mirror`` the logits are (z(x) + swap z(flip x)) / 2, which a flip of x swaps exactly, so that
    softmax gives p(flip x) = 1 - p(x) whatever the weights.
    """

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        self.spec = spec
        self.net = _FAMILIES[spec.family](spec)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B,K]``."""
        if not self.spec.mirror:
            return self._logits(images)
        both = torch.cat([images, images.flip(-1)])  # one pass, so that both share a batch's statistics
        straight, mirrored = self._logits(both).chunk(2)
        return (straight + mirrored.flip(-1)) / 2

    def _logits(self, images: Tensor) -> Tensor:
        given = (images - 0.5) * 4.0 if self.spec.family == "compact" else images  # the source's are in 0-1
        logits: Tensor = self.net(given.contiguous(memory_format=torch.channels_last))
        return logits.float()


def build(spec: ClassifierSpec) -> Classifier:
    """A classifier with fresh weights, drawn from torch's generator."""
    model = Classifier(spec)
    model.to(memory_format=torch.channels_last)
    return model


def _convolution(ins: int, outs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    """x + norm(conv(x)), then ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.change(x))


def _compact(spec: ClassifierSpec) -> nn.Module:
    """Four halvings down to ``size / 16``, residual layers at the last three, mean pooling, one linear layer.

    0.14 M weights at the width of 32.
    """
    width = spec.width or _WIDTHS["compact"]
    return nn.Sequential(
        _convolution(spec.channels, width // 2, 2),
        _convolution(width // 2, width, 2),
        _Residual(width),
        _convolution(width, 2 * width, 2),
        _Residual(2 * width),
        _convolution(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, spec.n_classes),
    )


def _basic(spec: ClassifierSpec) -> nn.Module:
    """The source's network: twice (3x3 convolution to 64, ReLU, max-pool), dense 64, dropout 0.5, softmax.

    Convolutions without padding, ReLU after the dense layer, weights by Glorot's rule and biases of 0, as
    its code has them (Keras); it sees grey as three equal channels, here as one. 3.7 M weights at 128 px.
    """
    width = spec.width or _WIDTHS["basic"]
    side = ((spec.size - 2) // 2 - 2) // 2
    net = nn.Sequential(
        nn.Conv2d(spec.channels, width, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(width * side * side, _DENSE),
        nn.ReLU(inplace=True),
        nn.Dropout(_DROPOUT),
        nn.Linear(_DENSE, spec.n_classes),
    )
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return net


def _pooled(spec: ClassifierSpec) -> nn.Module:
    """The source's network for co-teaching: both convolutions padded and normalised, mean pooling, linear 64,
    dropout 0.25, linear.

    0.04 M weights. Its code also drops in use, which makes answers random; here dropout is of training alone.
    """
    width = spec.width or _WIDTHS["pooled"]
    return nn.Sequential(
        nn.Conv2d(spec.channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, _DENSE),
        nn.Dropout(_POOLED_DROPOUT),
        nn.Linear(_DENSE, spec.n_classes),
    )


_FAMILIES = {"compact": _compact, "basic": _basic, "pooled": _pooled}
