"""Every key of ``pipelines/analyze_micrographs.py``: type, range, default; what cannot work together."""

from typing import Annotated, Literal

from pydantic import Field

from emclean.config_faults import host_faults, mlflow_faults
from emclean.config_keys import JobKeys, Section

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[float, Field(ge=0)]


class AnalysisSimulated(Section):
    """The simulated micrographs used when ``data.images`` is not set.

    Each share in ``lefts`` is a sample of ``images`` micrographs of ``size`` px a side.
    """

    lefts: tuple[Share, ...] = (0.02, 0.3)
    images: int = Field(3, ge=1)
    size: int = Field(1024, ge=256)


class AnalysisData(Section):
    """The micrographs, and particles with clean labels.

    ``samples`` is a CSV ``image,sample``; without it the folder below ``images`` in which a picture lies is
    its sample. ``labels`` is a CSV ``image,label[,group]`` with the labels left, right, unusable, for the
    cut-outs in the folder ``particles``; without it ``simulated_particles`` are simulated.
    """

    images: str | None = None
    samples: str | None = None
    particles: str | None = None
    labels: str | None = None
    simulated_particles: int = Field(500, ge=60)
    simulate: AnalysisSimulated = AnalysisSimulated()


class Segmentation(Section):
    """How particles are found.

    ``method``: ``otsu`` (brighter than the ground), ``laplacian`` (brighter than its surroundings, for
    uneven ground) or ``unet`` (a network, whose ``weights`` are given, or which is trained on simulated
    micrographs for ``steps``); ``dark`` particles on bright ground. ``length_nm`` is a particle's usual
    length, null to measure it; ``pixel_size_nm`` is for files that do not tell theirs. ``debris`` and
    ``cluster`` are the areas, in units of the usual one, below and above which an object is set aside;
    ``solidity`` the least share of its convex hull that it fills; ``neck`` how wide, in units of the thinner
    part, the neck between two parts of one particle is at least. ``window`` is the side in px of what is
    worked on at a time.
    """

    method: Literal["otsu", "laplacian", "unet"] = "otsu"
    weights: str | None = None
    steps: int = Field(200, ge=1)
    dark: bool = False
    smooth: float = Field(1.5, gt=0, le=20)
    length_nm: float | None = Field(None, gt=0)
    pixel_size_nm: float | None = Field(None, gt=0)
    debris: float = Field(0.3, ge=0, lt=1)
    cluster: float = Field(2.2, gt=1)
    solidity: float = Field(0.8, ge=0, le=1)
    neck: float = Field(0.75, gt=0, le=1)
    window: int = Field(2048, ge=128)


class Handedness(Section):
    """The two classifiers: which particles show their hand, and which hand it is.

    ``weights`` (left is class 0) and ``usable_weights`` (usable is class 1) are files of weights; what is not
    given is trained for ``steps`` on pictures of ``size`` px. ``usable_from`` is the probability from which
    on a particle counts as usable. ``confusion`` are counts with clean labels for weights of your own: left
    called left, left called right, right called left, right called right; or nine, those of left, right and
    unusable particles in turn, each called left, called right, set aside.
    """

    weights: str | None = None
    usable_weights: str | None = None
    confusion: tuple[Count, ...] | None = None
    family: Literal["compact", "basic"] = "compact"
    size: int = Field(64, ge=16, multiple_of=16)
    steps: int = Field(240, ge=1)
    batch: int = Field(64, ge=2)
    lr: float = Field(2e-3, gt=0)
    usable_from: Share = 0.5


class Labelling(Section):
    """Cut-outs that are written for people to label: how many ``particles``, and the share of them that is
    drawn at ``random``, so that their labels may count mistakes; the others are the least sure ones."""

    particles: int = Field(200, ge=0)
    random: Share = 0.6


class AnalysisServices(Section):
    """Addresses of the neighbours; what is not given is taken from ``emclean up`` in the workspace."""

    mlflow: str | None = None
    serve_host: str = "127.0.0.1"
    serve_port: int = Field(8000, ge=0, le=65535)


class AnalyzeMicrographs(JobKeys):
    """The configuration of ``pipelines/analyze_micrographs.py``; without any key it simulates micrographs.

    ``confidence`` is that of the intervals; ``concurrent`` bounds the windows at work at once; with ``serve``
    the newest analysis that was promoted is served.
    """

    prefix = "analysis"
    neutral = ("services", "compute", "concurrent", "serve", "labelling")

    task: Literal["boxes", "classes"] = "classes"
    seed: int = Field(0, ge=0)
    data: AnalysisData = AnalysisData()
    segmentation: Segmentation = Segmentation()
    classifier: Handedness = Handedness()
    labelling: Labelling = Labelling()
    confidence: float = Field(0.95, gt=0, lt=1)
    compute: Literal["ray", "inline"] = "ray"
    concurrent: int | None = Field(None, ge=1)
    serve: bool = False
    services: AnalysisServices = AnalysisServices()


ANALYSIS_PATHS = (
    "data.images",
    "data.samples",
    "data.particles",
    "data.labels",
    "segmentation.weights",
    "classifier.weights",
    "classifier.usable_weights",
)
"""What must be there; a URI is asked only when it is read."""


def analysis_faults(config: AnalyzeMicrographs) -> list[str]:
    """Combinations of keys that cannot work together."""
    data, classifier = config.data, config.classifier
    table = (
        (config.task == "boxes", "task: handedness is about classes; leave it out"),
        (data.samples and not data.images, "data.images: needed with data.samples"),
        (data.labels and not data.particles, "data.particles: needed with data.labels (their folder)"),
        (data.particles and not data.labels, "data.labels: needed with data.particles (CSV image,label)"),
        (
            classifier.confusion and not classifier.weights,
            "classifier.confusion: only with classifier.weights; what is trained here is tested here",
        ),
        (
            classifier.confusion is not None and len(classifier.confusion) not in (4, 9),
            "classifier.confusion: expected four or nine counts",
        ),
        (
            config.segmentation.weights and config.segmentation.method != "unet",
            "segmentation.weights: only with segmentation.method=unet",
        ),
        (not data.simulate.lefts, "data.simulate.lefts: empty; give at least one share"),
    )
    found = [fault for broken, fault in table if broken]
    return found + host_faults(config.services.serve_host) + mlflow_faults(config.services.mlflow)
