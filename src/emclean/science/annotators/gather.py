"""Whose box is about which object: the overlapping labels of several annotators as one table of draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emclean.boxes import centre, match
from emclean.science.consensus import weighted_boxes_fusion
from emclean.types import Bools, Floats, Ints, Labels

FUSE = 0.4
"""From this IoU boxes of different annotators may show the same object; experts' median IoU is about 0.8."""


@dataclass(frozen=True, eq=False)
class Crowd:
    """Images that several annotators labelled.

    ``labels`` hold all boxes of an image with ``annotators`` saying whose each is; ``looked [I, A]`` who was
    shown which image (a person who drew nothing there counts as having missed what there is); ``truths`` an
    expert's labels of some images, by index.
    """

    labels: tuple[Labels, ...]
    names: tuple[str, ...]
    looked: Bools
    truths: Mapping[int, Labels]

    def who(self, image: int) -> Ints:
        """The annotator ``[N]`` of each box of an image, as an index into ``names``."""
        index = {name: i for i, name in enumerate(self.names)}
        return np.array([index[name] for name in self.labels[image].annotators], dtype=np.int64)


def crowd(
    labels: Sequence[Labels],
    seen: Sequence[Sequence[str]] | None = None,
    truths: Mapping[int, Labels] | None = None,
) -> Crowd:
    """Check and bring together; without ``seen`` an annotator looked at the images with a box of theirs."""
    if any("" in image.annotators for image in labels):
        raise ValueError("annotators: expected a name for every box, got an empty one")
    if seen is not None and len(seen) != len(labels):
        raise ValueError(f"seen: expected {len(labels)} images, got {len(seen)}")
    shown = [set(seen[i] if seen is not None else ()) | set(x.annotators) for i, x in enumerate(labels)]
    names = tuple(sorted(set().union(*shown)))
    looked = np.array([[name in mine for name in names] for mine in shown], dtype=np.bool_)
    known = dict(truths or {})
    if wrong := [i for i in known if not 0 <= i < len(labels)]:
        raise ValueError(f"truths: expected indices of the {len(labels)} images, got {wrong}")
    return Crowd(tuple(labels), names, looked.reshape(len(labels), len(names)), known)


@dataclass(frozen=True, eq=False)
class Draws:
    """Every box (B of them, all images after another) and the candidate object (J of them) that it is about.

    ``image [J]`` of each candidate; ``sides [J,2]`` the width and height that offsets are measured in;
    ``known [J]`` whether an expert settled it, then ``real [J]`` with ``place [J,4]`` and ``called [J]``
    where it is an object. ``candidate``, ``annotator``, ``category`` ``[B]`` and ``place_of [B,4]`` describe
    the boxes; places are ``centre x / width, centre y / height, log width, log height``.
    """

    image: Ints
    sides: Floats
    known: Bools
    real: Bools
    place: Floats
    called: Ints
    candidate: Ints
    annotator: Ints
    category: Ints
    place_of: Floats

    def __len__(self) -> int:
        return len(self.image)


def to_places(boxes: Floats, sides: Floats) -> Floats:
    """Boxes ``[N,4]`` as centre in units of ``sides [N,2]`` and log size."""
    return np.concatenate([centre(boxes) / sides, np.log(boxes[:, 2:] - boxes[:, :2])], axis=1)


def from_places(places: Floats, sides: Floats) -> Floats:
    """The inverse of :func:`to_places`."""
    middle, half = places[:, :2] * sides, np.exp(places[:, 2:]) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def _claims(boxes: Floats, who: Ints, targets: Floats, threshold: float) -> Ints:
    """The target ``[N]`` of each box or -1: every annotator gives each target at most one box."""
    owner = np.full(len(boxes), -1, dtype=np.int64)
    for a in np.unique(who):
        mine = np.flatnonzero(who == a)
        rows, cols = match(boxes[mine], targets, threshold)
        owner[mine[rows]] = cols
    return owner


def _fused(boxes: Floats, who: Ints, weights: Floats) -> Floats:
    """Boxes of several annotators fused whatever their category, weighed by reliability."""
    sources = [
        (boxes[who == a], np.ones(int((who == a).sum())), np.zeros(int((who == a).sum()), np.int64))
        for a in np.unique(who)
    ]
    fused = weighted_boxes_fusion(sources, FUSE, weights[np.unique(who)].tolist())
    return np.asarray(fused.boxes)


def associate(boxes: Floats, who: Ints, weights: Floats, known: Floats) -> tuple[Floats, Ints]:
    """Candidates ``[K,4]``, the ``known`` ones first, and the candidate ``[N]`` of each box.

    What is left after the known objects is fused, and every annotator's boxes are matched one to one with
    the result; second boxes on the same object go round again and become candidates of their own.
    """
    owner = _claims(boxes, who, known, FUSE) if len(known) else np.full(len(boxes), -1, dtype=np.int64)
    targets = known
    while (owner < 0).any():
        left = np.flatnonzero(owner < 0)
        fused = _fused(boxes[left], who[left], weights)
        found = _claims(boxes[left], who[left], fused, FUSE / 2)
        if (found < 0).all():  # a mean can lie off all its members
            fused, found = boxes[left], np.arange(len(left))
        used, inverse = np.unique(found[found >= 0], return_inverse=True)
        owner[left[found >= 0]] = len(targets) + inverse
        targets = np.concatenate([targets, fused[used]])
    return targets, owner


def _joined(columns: Sequence[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *columns])


def gather(given: Crowd, weights: Floats) -> Draws:
    """All images' boxes and candidates; ``weights [A]`` is how much each annotator counts in the fusion."""
    targets: list[Floats] = [np.zeros((0, 4))]
    image, real, called, owners, whos = (list[Ints]() for _ in range(5))
    total = 0
    for i, labels in enumerate(given.labels):
        truth = given.truths.get(i, Labels.empty())
        who = given.who(i)
        found, owner = associate(labels.boxes, who, weights, truth.boxes)
        targets.append(found)
        owners.append(owner + total)
        whos.append(who)
        image.append(np.full(len(found), i, dtype=np.int64))
        real.append((np.arange(len(found)) < len(truth)).astype(np.int64))
        called.append(np.concatenate([truth.categories, np.zeros(len(found) - len(truth), np.int64)]))
        total += len(found)
    boxes = np.concatenate(targets)
    sides = boxes[:, 2:] - boxes[:, :2]
    of, which = _joined(owners), _joined(image)
    places = np.concatenate([np.zeros((0, 4)), *(x.boxes for x in given.labels)])
    return Draws(
        image=which,
        sides=sides,
        known=np.isin(which, list(given.truths)),
        real=_joined(real) > 0,
        place=to_places(boxes, sides),
        called=_joined(called),
        candidate=of,
        annotator=_joined(whos),
        category=_joined([x.categories for x in given.labels]),
        place_of=to_places(places, sides[of]),
    )
