"""Detector families behind one seam; ``build`` makes any of them from its specification."""

from emclean.models.detectors.base import Detector
from emclean.models.spec import DetectorSpec

__all__ = ["Detector", "build"]


def build(spec: DetectorSpec) -> Detector:
    """A detector with freshly drawn weights."""
    if spec.family == "compact":
        from emclean.models.detectors.compact import Compact

        return Compact(spec)
    from emclean.models.detectors.torchvision import build_family

    return build_family(spec)
