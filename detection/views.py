"""One window looked at several times, turned, mirrored and from farther away; what the looks agree on is fused.

A network is not quite the same to a turned picture. The mean over looks is steadier, above all on ground unlike that
trained on, and costs a network's run each (``CardInput.views``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detection.detector import Boxes, Detector, Windows, iou_matrix, joined, merge_overlapping

#: Boxes of two looks that overlap by this much (IoU) are one object.
_SAME_OBJECT_IOU = 0.55
#: Looks are fused down to this score whatever the threshold, so that a threshold can be chosen afterwards.
LOWEST_SCORE = 0.01
#: Level of the border around a smaller picture, as in training.
_GREY = 114


@dataclass(frozen=True, slots=True)
class View:
    """Mirrored left to right if so said, made smaller by ``scale``, then turned anticlockwise."""

    quarter_turns: int
    is_mirrored: bool
    scale: float

    def of(self, windows: Windows) -> Windows:
        """The windows as this look sees them, the same size."""
        shown = windows[:, :, ::-1] if self.is_mirrored else windows
        if self.scale != 1:
            shown = _smaller(shown, self.scale)
        turned: Windows = np.ascontiguousarray(np.rot90(shown, self.quarter_turns, axes=(1, 2)))
        return turned

    def undone(self, corners: NDArray[np.float32], side: int) -> NDArray[np.float32]:
        """(n, 4) boxes of this look as boxes of the window."""
        left, top, right, bottom = corners.T
        for _ in range(self.quarter_turns):
            left, top, right, bottom = side - bottom, left, side - top, right
        left, top, right, bottom = (edge / np.float32(self.scale) for edge in (left, top, right, bottom))
        if self.is_mirrored:
            left, right = side - right, side - left
        return np.stack([left, top, right, bottom], axis=1).astype(np.float32)


#: Each prefix of 2, 4 or 8 holds as many at full size as smaller ones.
VIEWS = tuple(
    View(quarter_turns, is_mirrored, 0.8 if is_mirrored else 1.0)
    for quarter_turns in (0, 2, 1, 3)
    for is_mirrored in (False, True)
)


class SeveralViews:
    """A detector that lets another look at each window several times."""

    def __init__(
        self, detector: Detector, thresholds: NDArray[np.float32], *, views: int, iou: float
    ) -> None:
        self._detector = detector
        self._thresholds = thresholds
        self._views = VIEWS[:views]
        self._iou = iou

    def detect(self, windows: Windows) -> list[Boxes]:
        """See ``Detector``."""
        side = windows.shape[1]
        looks = [self._detector.detect(view.of(windows)) for view in self._views]
        return [
            self._fused(
                [
                    Boxes(
                        corners=view.undone(boxes.corners, side),
                        scores=boxes.scores,
                        class_index=boxes.class_index,
                    )
                    for view, boxes in zip(self._views, of_window, strict=True)
                ]
            )
            for of_window in zip(*looks, strict=True)
        ]

    def _fused(self, looks: Sequence[Boxes]) -> Boxes:
        boxes = merge_overlapping(fused(looks), self._iou)
        return boxes.taken(boxes.scores >= self._thresholds[boxes.class_index])


def fused(looks: Sequence[Boxes]) -> Boxes:
    """The boxes of several looks as one: corners averaged by score, scores averaged over all looks.

    From the surest box on, each takes the nearest box of its class from each other look; a look without one counts as
    a score of 0 (weighted boxes fusion, Solovyev et al. 2021, with the mean over all looks).
    """
    boxes = joined(looks)
    look = np.repeat(np.arange(len(looks)), [len(one) for one in looks])
    one, other = _same_objects(boxes, look)
    begins = np.searchsorted(one, np.arange(len(boxes) + 1))
    left = np.ones(len(boxes), bool)
    chosen: list[int] = []
    corners, scores = boxes.corners.copy(), boxes.scores.copy()
    for first in np.argsort(-boxes.scores, kind="stable").tolist():
        if not left[first]:
            continue
        near = other[begins[first] : begins[first + 1]]
        near = near[left[near]]
        _, nearest = np.unique(look[near], return_index=True)
        members = np.concatenate([[first], near[nearest]])
        left[members] = False
        weights = boxes.scores[members]
        corners[first] = np.average(boxes.corners[members], axis=0, weights=weights)
        scores[first] = weights.sum() / len(looks)
        chosen.append(first)
    return Boxes(corners=corners, scores=scores, class_index=boxes.class_index).taken(
        np.array(chosen, np.intp)
    )


def _same_objects(boxes: Boxes, look: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of boxes of one class from two looks that are one object, by the first; the nearest second one first.

    In steps of 1,024 boxes: a window with thousands of objects costs no gigabytes.
    """
    found = []
    for start in range(0, len(boxes), 1024):
        step = slice(start, start + 1024)
        overlap = iou_matrix(boxes.corners[step], boxes.corners)
        overlap[(boxes.class_index[step, None] != boxes.class_index) | (look[step, None] == look)] = 0
        one, other = np.nonzero(overlap >= _SAME_OBJECT_IOU)
        order = np.lexsort((-overlap[one, other], one))
        found.append((one[order] + start, other[order]))
    none = np.empty(0, np.intp)
    return np.concatenate([none, *(pair[0] for pair in found)]), np.concatenate(
        [none, *(pair[1] for pair in found)]
    )


def _smaller(windows: Windows, scale: float) -> Windows:
    side = windows.shape[1]
    size = round(side * scale)
    made = np.full_like(windows, _GREY)
    for number, window in enumerate(windows):
        picture = Image.fromarray(np.ascontiguousarray(window))
        made[number, :size, :size] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    return made
