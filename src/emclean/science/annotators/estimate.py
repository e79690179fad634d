"""Consensus boxes of several annotators, and how far each of them can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emclean.boxes import match, paired_iou
from emclean.science.annotators.gather import FUSE, Crowd, Draws, crowd, from_places, gather, to_places
from emclean.science.annotators.model import Beliefs, Parameters, Priors, Table, iterate, start, table
from emclean.types import Floats, Labels, Predictions

_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Annotator:
    """How one annotator labels.

    ``miss`` share of the objects in the ``images`` shown on which no box of theirs lies (IoU >= 0.5);
    ``spurious`` share of their ``boxes`` that lie on no object so (second boxes on one included);
    ``misplaced`` what both hold in common, the share of the objects drawn whose box lies too far off;
    ``bias [4]`` and ``sigma [4]`` mean and spread of centre x and y (in object sides) and of log width and
    height; ``confusion [K,K]`` what they call an object (column) of a true category (row). NaN where nothing
    was seen that tells.
    """

    name: str
    images: int
    boxes: int
    miss: float
    spurious: float
    misplaced: float
    bias: Floats
    sigma: Floats
    confusion: Floats


@dataclass(frozen=True, eq=False)
class Estimate:
    """The annotators, and for each image the fused boxes with the probability of each to be an object.

    An image with an expert's labels has these, at probability 1.
    """

    annotators: tuple[Annotator, ...]
    fused: tuple[Predictions, ...]

    def labels(self, least: float = 0.5) -> tuple[Labels, ...]:
        """The boxes that are objects with at least this probability, as labels."""
        sure = [f.above(least) for f in self.fused]
        return tuple(Labels(s.boxes, s.categories) for s in sure)


def estimate(
    labels: Sequence[Labels],
    n_categories: int,
    seen: Sequence[Sequence[str]] | None = None,
    truths: Mapping[int, Labels] | None = None,
    priors: Priors | None = None,
) -> Estimate:
    """Fuse overlapping labels of several annotators while learning how each of them labels.

    ``labels`` of an image hold the boxes of all annotators (``Labels.annotators``), ``seen`` names those who
    were shown it, ``truths`` are an expert's labels of some images by index. Boxes are brought together by
    weighted boxes fusion, the model is iterated, and both once more with the annotators' weights.
    """
    given, beliefs_of = crowd(labels, seen, truths), priors or Priors()
    n = len(given.names)
    weights = np.ones(n)
    draws = gather(given, weights)
    t = table(draws, given.looked, n_categories)
    p, beliefs = iterate(t, start(t, beliefs_of), beliefs_of)
    for _ in range(_ROUNDS - 1):
        weights = p.seen * (1 - _spurious(t, beliefs)) / np.sqrt(p.variance.mean(axis=1))
        again = gather(given, np.maximum(weights / max(float(weights.max(initial=0.0)), 1e-9), 1e-3))
        settled = len(again) == len(draws) and bool((again.candidate == draws.candidate).all())
        draws, t = again, table(again, given.looked, n_categories)
        p, beliefs = iterate(t, p, beliefs_of)
        if settled:
            break
    return Estimate(_annotators(given, t, p, beliefs), _images(given, draws, beliefs))


def _spurious(t: Table, beliefs: Beliefs) -> Floats:
    """The share ``[A]`` of each annotator's boxes that show nothing; 0 for one who drew none."""
    d, n = t.draws, t.drew.shape[1]
    empty = np.bincount(d.annotator, 1 - beliefs.real[d.candidate], n)
    return np.asarray(empty / np.maximum(np.bincount(d.annotator, minlength=n), 1))


def _misplaced(t: Table, p: Parameters, beliefs: Beliefs) -> Floats:
    """The share ``[A]`` of each annotator's objects whose box is off the others' consensus (IoU < 0.5).

    Half a misplaced box in twenty is added, so that few boxes do not show certainty.
    """
    d, n = t.draws, t.drew.shape[1]
    mass = np.divide(1.0, beliefs.variance, out=np.zeros_like(beliefs.variance), where=beliefs.variance > 0)
    of, own = d.candidate, 1 / p.variance[d.annotator]
    settled = (d.known & d.real)[of]
    told = settled | (t.drew.sum(axis=1) > 1)[of]
    rest = np.where(settled[:, None], np.inf, mass[of] - own)
    others = beliefs.place[of] - (own / np.maximum(rest, 1e-9)) * (
        d.place_of - p.bias[d.annotator] - beliefs.place[of]
    )
    sides = d.sides[of][told]
    off = paired_iou(from_places(others[told], sides), from_places(d.place_of[told], sides)) < 0.5
    weight, who = beliefs.real[of][told], d.annotator[told]
    return np.asarray((np.bincount(who, weight * off, n) + 0.5) / (np.bincount(who, weight, n) + 20.0))


def _annotators(given: Crowd, t: Table, p: Parameters, beliefs: Beliefs) -> tuple[Annotator, ...]:
    spurious, placed = _spurious(t, beliefs), 1 - _misplaced(t, p, beliefs)
    boxes = np.bincount(t.draws.annotator, minlength=len(given.names))
    return tuple(
        Annotator(
            name,
            int(given.looked[:, a].sum()),
            int(boxes[a]),
            float(1 - p.seen[a] * placed[a]),
            float(1 - (1 - spurious[a]) * placed[a]),
            float(1 - placed[a]),
            p.bias[a],
            np.sqrt(p.variance[a]),
            p.confusion[a],
        )
        for a, name in enumerate(given.names)
    )


def _images(given: Crowd, draws: Draws, beliefs: Beliefs) -> tuple[Predictions, ...]:
    """The candidates of each image, surest first; where an expert settled it, only the objects."""
    boxes = from_places(beliefs.place, draws.sides)
    fused = []
    for i in range(len(given.labels)):
        mine = np.flatnonzero((draws.image == i) & (~draws.known | draws.real))
        mine = mine[np.argsort(-beliefs.real[mine], kind="stable")]
        called = beliefs.category[mine].argmax(axis=1).astype(np.int64) if len(mine) else mine
        fused.append(Predictions(boxes[mine], called, beliefs.real[mine]))
    return tuple(fused)


def measured(
    labels: Sequence[Labels],
    truths: Sequence[Labels],
    n_categories: int,
    seen: Sequence[Sequence[str]] | None = None,
) -> tuple[Annotator, ...]:
    """How each annotator labels where the truth of every image is known: counted, without any model.

    Boxes and objects are matched one to one at IoU 0.5, whatever their category.
    """
    if len(labels) != len(truths):
        raise ValueError(f"truths: expected {len(labels)} images, got {len(truths)}")
    given = crowd(labels, seen)
    return tuple(_counted(given, truths, a, n_categories) for a in range(len(given.names)))


def _counted(given: Crowd, truths: Sequence[Labels], a: int, k: int) -> Annotator:
    objects = boxes = drawn = 0
    offsets: list[Floats] = [np.zeros((0, 4))]
    confusion = np.zeros((k, k))
    shown = np.flatnonzero(given.looked[:, a])
    for i in shown:
        mine, truth = given.labels[i].take(given.who(int(i)) == a), truths[i]
        rows, cols = match(mine.boxes, truth.boxes, 0.5)
        sides = (truth.boxes[:, 2:] - truth.boxes[:, :2])[cols]
        offsets.append(to_places(mine.boxes[rows], sides) - to_places(truth.boxes[cols], sides))
        np.add.at(confusion, (truth.categories[cols], mine.categories[rows]), 1.0)
        drawn += max(len(match(mine.boxes, truth.boxes, FUSE / 2)[0]), len(rows))
        objects, boxes = objects + len(truth), boxes + len(mine)
    off = np.concatenate(offsets)
    none = np.full(4, np.nan)
    with np.errstate(invalid="ignore"):
        shares = confusion / confusion.sum(axis=1, keepdims=True)
    return Annotator(
        given.names[a],
        len(shown),
        boxes,
        1 - len(off) / objects if objects else float("nan"),
        1 - len(off) / boxes if boxes else float("nan"),
        (drawn - len(off)) / drawn if drawn else float("nan"),
        off.mean(axis=0) if len(off) else none,
        off.std(axis=0) if len(off) else none,
        shares,
    )
