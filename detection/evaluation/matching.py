"""Which detection is which labelled object.

Two ways, for two figures: by falling score, each detection taking the best object still free
(``match_by_score``: average precision, as COCO has it), and one-to-one at a fixed threshold with as
many and as good pairs as possible (``match_one_to_one``: precision and recall). Pixels in, indices out.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detection.evaluation.labels import Boxes

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Candidate pairs of detections and objects.

    Attributes:
        detection, truth: (k,) indices.
        likeness: (k,) 0..1: intersection over union, or for points 1 − distance / reach.
    """

    detection: Indices
    truth: Indices
    likeness: NDArray[np.float64]

    def at_least(self, minimum: float) -> "Pairs":
        """The pairs at or above a likeness."""
        kept = self.likeness >= minimum
        return Pairs(detection=self.detection[kept], truth=self.truth[kept], likeness=self.likeness[kept])


def overlapping(detected: Boxes, truth: Boxes) -> Pairs:
    """All pairs of boxes that share ground, with their intersection over union.

    Args:
        detected, truth: (n, 4) and (m, 4); x_min, y_min, x_max, y_max in the same pixels.
    """
    if not len(detected) or not len(truth):
        return _no_pairs()
    tree = shapely.STRtree(rectangles(truth))
    first, second = tree.query(rectangles(detected), predicate="intersects")
    likeness = _iou(detected[first], truth[second])
    kept = likeness > 0
    return Pairs(detection=first[kept], truth=second[kept], likeness=likeness[kept])


def within_reach(detected: Boxes, points: Boxes, reach_px: float) -> Pairs:
    """All pairs of a detection's centre and a labelled point that lie within ``reach_px``."""
    if not len(detected) or not len(points):
        return _no_pairs()
    centres, places = _centres(detected), _centres(points)
    tree = shapely.STRtree(np.atleast_1d(np.asarray(shapely.points(places), dtype=np.object_)))
    near = tree.query(shapely.points(centres), predicate="dwithin", distance=reach_px)
    first, second = np.asarray(near, dtype=np.int64)
    distance = np.linalg.norm(centres[first] - places[second], axis=1)
    return Pairs(detection=first, truth=second, likeness=1 - distance / reach_px)


def rectangles(boxes: Boxes) -> NDArray[np.object_]:
    """(n,) polygons of (n, 4) boxes."""
    return np.atleast_1d(np.asarray(shapely.box(*boxes.T), dtype=np.object_))


def match_one_to_one(pairs: Pairs) -> tuple[Indices, Indices]:
    """The one-to-one choice of pairs with the greatest number, then the greatest likeness.

    Solved exactly, apart for each group of detections and objects that hang together.

    Returns:
        Indices of matched detections and, in the same order, of their objects.
    """
    if not len(pairs.detection):
        return pairs.detection, pairs.truth
    offset = int(pairs.detection.max()) + 1
    size = offset + int(pairs.truth.max()) + 1
    graph = coo_array(
        (np.ones(len(pairs.detection)), (pairs.detection, pairs.truth + offset)), shape=(size, size)
    )
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[pairs.detection], kind="stable")
    borders = np.flatnonzero(np.diff(group[pairs.detection][order])) + 1
    chosen = [_assign(pairs, members) for members in np.split(order, borders)]
    kept = np.concatenate(chosen)
    return pairs.detection[kept], pairs.truth[kept]


def match_by_score(pairs: Pairs, scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """For each detection the object it takes, by falling score; −1 for none.

    Each takes the most alike object still free (ties: the lower index), as COCO's evaluation does.
    """
    taken_by = np.full(len(scores), -1, dtype=np.int64)
    candidates: dict[int, list[tuple[float, int]]] = {}
    for detection, truth, likeness in zip(
        pairs.detection.tolist(), pairs.truth.tolist(), pairs.likeness.tolist(), strict=True
    ):
        candidates.setdefault(detection, []).append((-likeness, truth))
    free = set(pairs.truth.tolist())
    for detection in np.argsort(-scores, kind="stable").tolist():
        for _, truth in sorted(candidates.get(detection, ())):
            if truth in free:
                free.remove(truth)
                taken_by[detection] = truth
                break
    return taken_by


def _assign(pairs: Pairs, members: Indices) -> Indices:
    """Exact assignment within one group; returns the members chosen."""
    if len(members) == 1:
        return members
    rows, row_of = np.unique(pairs.detection[members], return_inverse=True)
    columns, column_of = np.unique(pairs.truth[members], return_inverse=True)
    # A pair is worth more than any gain in likeness elsewhere: number first, likeness second.
    worth = np.zeros((len(rows), len(columns)))
    worth[row_of, column_of] = 1 + pairs.likeness[members] / (len(members) + 1)
    which = np.full(worth.shape, -1, dtype=np.int64)
    which[row_of, column_of] = members
    row, column = linear_sum_assignment(worth, maximize=True)
    chosen = which[row, column]
    kept: Indices = chosen[chosen >= 0]
    return kept


def _iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    union = _areas(a) + _areas(b) - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def _areas(boxes: Boxes) -> NDArray[np.float64]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _centres(boxes: Boxes) -> NDArray[np.float64]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _no_pairs() -> Pairs:
    empty = np.empty(0, dtype=np.int64)
    return Pairs(detection=empty, truth=empty, likeness=np.empty(0))
