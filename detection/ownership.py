"""One object, one window: what several windows say about the same ground becomes one list of boxes.

Each object belongs to the window whose core holds its centre. Two windows at a border may disagree about the
centre by some pixels, so that both own the object, or neither; and a crown longer than the margin is seen
whole by none. Boxes of different windows are the same object when they agree on the ground that both windows
saw. Pure; all coordinates are native pixels of one scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from detection.imagery.windows import Rectangle, Window

#: Boxes of two windows are one object when, on the ground both saw, they overlap by this much (IoU).
SAME_OBJECT_IOU = 0.45


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Detections of some windows whose centre lies in, or just outside, the window's core.

    Attributes:
        corners: (n, 4) float32 x_min, y_min, x_max, y_max in native pixels of the scene.
        window: (n,) int32 index into the plan's windows.
        is_cut: (n,) whether the box touches the edge of its window, beyond which the picture goes on.
        is_valid: (n,) whether the centre's pixel was surveyed in this scene.
    """

    corners: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_index: NDArray[np.int16]
    window: NDArray[np.int32]
    is_cut: NDArray[np.bool_]
    is_valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)

    def taken(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Candidates":
        """Those chosen by index or mask."""
        return Candidates(**{name: getattr(self, name)[which] for name in COLUMNS})


COLUMNS = ("corners", "scores", "class_index", "window", "is_cut", "is_valid")


def joined(parts: Sequence[Candidates]) -> Candidates:
    """All candidates of several blocks, in order."""
    return Candidates(
        corners=np.concatenate([np.empty((0, 4), np.float32), *(part.corners for part in parts)]),
        scores=np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)]),
        class_index=np.concatenate([np.empty(0, np.int16), *(part.class_index for part in parts)]),
        window=np.concatenate([np.empty(0, np.int32), *(part.window for part in parts)]),
        is_cut=np.concatenate([np.empty(0, bool), *(part.is_cut for part in parts)]),
        is_valid=np.concatenate([np.empty(0, bool), *(part.is_valid for part in parts)]),
    )


def own(candidates: Candidates, windows: Sequence[Window], scene_px: tuple[int, int]) -> Candidates:
    """Each object of a scene once, in plan order and row by row within a window.

    Args:
        windows: the whole plan.
        scene_px: columns, rows; objects whose centre lies outside belong to another scene.
    """
    cores = _sides([window.core for window in windows])
    owned = _centre_inside(candidates.corners, cores[candidates.window])
    result = _one_per_object(candidates, owned, windows, cores)
    scene = np.array([[0, 0, scene_px[0], scene_px[1]]])
    inside = _centre_inside(result.corners, scene) & result.is_valid
    order = np.lexsort((result.corners[:, 0], result.corners[:, 1], result.window))
    return result.taken(order[inside[order]])


def _sides(rectangles: Sequence[Rectangle]) -> NDArray[np.int64]:
    """(n, 4) x_min, y_min, x_max, y_max."""
    sides = [(r.x_min, r.y_min, r.x_max, r.y_max) for r in rectangles]
    return np.array(sides, np.int64).reshape(-1, 4)


def _centre_inside(corners: NDArray[np.float32], sides: NDArray[np.int64]) -> NDArray[np.bool_]:
    left, top, right, bottom = corners.astype(np.float64).T
    x, y = (left + right) / 2, (top + bottom) / 2
    inside: NDArray[np.bool_] = (
        (sides[:, 0] <= x) & (x < sides[:, 2]) & (sides[:, 1] <= y) & (y < sides[:, 3])
    )
    return inside


def _one_per_object(
    candidates: Candidates,
    owned: NDArray[np.bool_],
    windows: Sequence[Window],
    cores: NDArray[np.int64],
) -> Candidates:
    """The boxes that stand for their objects: joined where windows cut them, as sure as their owners."""
    one, other = _same_object_pairs(candidates, windows)
    partners: dict[int, list[int]] = {}
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        partners.setdefault(a, []).append(b)
        partners.setdefault(b, []).append(a)
    lonely = owned.copy()
    lonely[list(partners)] = False
    # Whole boxes before cut ones, then the owner's, then the surer; the rest only breaks ties.
    rank = np.lexsort(
        (candidates.corners[:, 0], candidates.window, -candidates.scores, ~owned, candidates.is_cut)
    )
    place = np.empty(len(rank), np.intp)
    place[rank] = np.arange(len(rank))
    corners, scores = candidates.corners.copy(), candidates.scores.copy()
    taken: set[int] = set()
    chosen = np.flatnonzero(lonely).tolist()
    for first in sorted(partners, key=place.__getitem__):
        if first in taken:
            continue
        others = [index for index in partners[first] if index not in taken]
        taken.update(others)
        score = _score_of(first, others, owned, candidates, cores)
        if score is None:
            continue
        chosen.append(first)
        scores[first] = score
        if candidates.is_cut[first] and others:
            together = candidates.corners[[first, *others]]
            corners[first] = [*together[:, :2].min(axis=0), *together[:, 2:].max(axis=0)]
    return replace(candidates, corners=corners, scores=scores).taken(np.array(chosen, np.intp))


def _score_of(
    first: int,
    others: list[int],
    owned: NDArray[np.bool_],
    candidates: Candidates,
    cores: NDArray[np.int64],
) -> np.float32 | None:
    """How sure the owner of the ground is; None where no owner saw the object, who saw that ground best.

    An object that each of two windows puts into the other's core is as sure as the less sure of them. So a sweep with
    a low threshold, cut at a higher one afterwards, is the sweep with the higher one: thresholds are chosen that way.
    """
    seen = np.array([first, *others])
    owners = seen[owned[seen]]
    if owners.size:
        surest: np.float32 = candidates.scores[owners].max()
        return surest
    cores_of_others = cores[candidates.window[others]]
    vouching = _centre_inside(candidates.corners[[first] * len(others)], cores_of_others)
    if not vouching.any():
        return None
    surest_other: np.float32 = candidates.scores[np.array(others)[vouching]].max()
    return min(np.float32(candidates.scores[first]), surest_other)


def _same_object_pairs(
    candidates: Candidates, windows: Sequence[Window]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of one class from different windows that agree on the ground both windows saw."""
    seen = _sides([window.seen for window in windows])
    boxes: Any = shapely.box(*candidates.corners.astype(np.float64).T)
    tree = shapely.STRtree(boxes)
    one, other = tree.query(boxes)
    different = (
        (one < other)
        & (candidates.window[one] != candidates.window[other])
        & (candidates.class_index[one] == candidates.class_index[other])
    )
    one, other = one[different], other[different]
    of_one, of_other = seen[candidates.window[one]], seen[candidates.window[other]]
    shared = np.concatenate(
        [
            np.maximum(of_one[:, :2], of_other[:, :2]),
            np.minimum(of_one[:, 2:], of_other[:, 2:]),
        ],
        axis=1,
    )
    same = (
        _iou(
            _clipped(candidates.corners[one], shared),
            _clipped(candidates.corners[other], shared),
        )
        >= SAME_OBJECT_IOU
    )
    return one[same], other[same]


def _clipped(corners: NDArray[np.float32], sides: NDArray[np.int64]) -> NDArray[np.float64]:
    lower = np.maximum(corners[:, :2], sides[:, :2])
    return np.concatenate([lower, np.maximum(np.minimum(corners[:, 2:], sides[:, 2:]), lower)], axis=1)


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) intersection over union of n pairs; 0 where both are empty."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(one[:, 2:] - one[:, :2], axis=1) + np.prod(other[:, 2:] - other[:, :2], axis=1)
    ratio: NDArray[np.float64] = shared / np.maximum(areas - shared, 1e-9)
    return ratio
