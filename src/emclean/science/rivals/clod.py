"""A cluster score in the manner of CLOD, confident learning for object detection (arXiv 2211.13993).

Written from the description: labels and predictions of an image that overlap form clusters; a cluster's
given class is its label's, or nothing; its predicted class distribution is compared with the given class by
confident learning (thresholds: the mean probability of each class where it is given, arXiv 1911.00068), and
its label's place with where the predictions lie. Details that the description leaves open are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emclean.boxes import iou, paired_iou
from emclean.science.grading.evidence import Evidence
from emclean.science.rivals.base import OVERLAP, Suspicion, n_categories, normalised
from emclean.types import Bools, Floats, Ints, Predictions


@dataclass(frozen=True, eq=False)
class _Clusters:
    """The clusters of one image that matter: ``given [G]`` class of each (the last one: nothing).

    The first N belong to the labels, in order; the others hold predictions only. ``table [G, n+1]`` is the
    predicted distribution, ``placed [N]`` the IoU of label and predicted place (1 where nothing is
    predicted, since then there is no place to compare), ``candidates`` the predictions of the others.
    """

    given: Ints
    table: Floats
    placed: Floats
    candidates: Predictions


def _components(boxes: Floats) -> Ints:
    """The connected component ``[B]`` of each box in the graph of overlaps with IoU >= 0.5."""
    rows, cols = np.nonzero(iou(boxes, boxes) >= OVERLAP)
    graph = coo_array((np.ones(len(rows)), (rows, cols)), shape=(len(boxes), len(boxes)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _distribution(component: Ints, k: int, found: Predictions, n: int) -> Floats:
    """The class distribution ``[k, n+1]`` of each component: its best score of each class, then nothing."""
    table = np.zeros((k, n + 1))
    np.maximum.at(table, (component, found.categories), found.scores)
    table[:, n] = 1 - table[:, :n].max(axis=1)
    return normalised(table)


def _places(component: Ints, k: int, found: Predictions) -> Floats:
    """The mean box ``[k,4]`` of each component's predictions, weighted by score; NaN without any."""
    weight = np.maximum(found.scores, 1e-9)
    sums = np.stack([np.bincount(component, weight * c, k) for c in found.boxes.T], axis=1)
    mass = np.bincount(component, weight, k)[:, None]
    return np.asarray(np.divide(sums, mass, out=np.full((k, 4), np.nan), where=mass > 0))


def _clusters(evidence: Evidence, n: int) -> _Clusters:
    labels, found = evidence.labels, evidence.reference
    component = _components(np.concatenate([labels.boxes, found.boxes]))
    k = int(component.max(initial=-1)) + 1
    of_label, of_found = component[: len(labels)], component[len(labels) :]
    table, place = _distribution(of_found, k, found, n), _places(of_found, k, found)
    best = np.full(k, -1, dtype=np.int64)
    order = np.argsort(found.scores, kind="stable")
    best[of_found[order]] = order  # the last writer is the surest
    alone = np.setdiff1d(of_found, of_label)
    return _Clusters(
        np.concatenate([labels.categories, np.full(len(alone), n, dtype=np.int64)]),
        np.concatenate([table[of_label], table[alone]]),
        np.nan_to_num(paired_iou(labels.boxes, place[of_label]), nan=1.0),  # 1 where nothing was found
        found.take(best[alone]),
    )


def _thresholds(clusters: Sequence[_Clusters], n: int) -> Floats:
    """The mean probability ``[n+1]`` of each class where it is given; one half where it never is."""
    sums, counts = np.zeros(n + 1), np.zeros(n + 1)
    for c in clusters:
        own = c.table[np.arange(len(c.given)), c.given]
        sums += np.bincount(c.given, own, n + 1)
        counts += np.bincount(c.given, minlength=n + 1)
    return np.asarray(np.divide(sums, counts, out=np.full(n + 1, 0.5), where=counts > 0))


def _flagged(cluster: _Clusters, limit: Floats) -> Bools:
    """Which clusters ``[G]`` are confidently of another class than given."""
    confident = np.where(cluster.table >= limit, cluster.table, -1.0)
    sure = confident.max(axis=1) > 0
    return np.asarray(sure & (confident.argmax(axis=1) != cluster.given))


def _judge(cluster: _Clusters, limit: Floats, place: float) -> Suspicion:
    """Errors: half of one less the margin of the given class, or for a label its misplacement if larger."""
    at, n = np.arange(len(cluster.given)), len(cluster.placed)
    own = cluster.table[at, cluster.given]
    others = cluster.table.copy()
    others[at, cluster.given] = -1.0
    error = (1 - own + others.max(axis=1, initial=-1.0)) / 2
    misplaced = 1 - cluster.placed
    wrong = _flagged(cluster, limit)
    labels = np.maximum(error[:n], misplaced)
    flagged = wrong[:n] | (cluster.placed < place)
    called = others[:n, :-1].max(axis=1, initial=0.0)
    return Suspicion(
        float(labels[flagged].sum() + error[n:][wrong[n:]].sum()),
        labels,
        cluster.candidates,
        error[n:],
        {"shifted": misplaced, "spurious": cluster.table[:n, -1], "mislabelled": called},
    )


def clod(evidences: Sequence[Evidence]) -> list[Suspicion]:
    """An image's score is the sum of the errors of its flagged clusters."""
    n = n_categories(evidences)
    clusters = [_clusters(evidence, n) for evidence in evidences]
    placed = np.concatenate([np.zeros(0), *(c.placed for c in clusters)])
    place = min(float(placed.mean()) if len(placed) else OVERLAP, OVERLAP)
    limit = _thresholds(clusters, n)
    return [_judge(c, limit, place) for c in clusters]
