"""What every network looks like to the rest of the program: windows in, boxes out.

``build_detector`` is the one place that turns a model's file into a detector. Thresholds belong to the
detector, ownership and the ground do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detection.errors import BoxShapeError, ModelError
from detection.models import Model
from detection.providers import Provider

Windows = NDArray[np.uint8]
"""(n, rows, columns, 3) uint8 RGB; a transposed view of band-sequential pixels is welcome."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """What was seen in one window, in the window's pixels.

    Attributes:
        corners: (n, 4) float32; x_min, y_min, x_max, y_max, y down.
        scores: (n,) float32, 0 to 1.
        class_index: (n,) int16 into the card's classes.
    """

    corners: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_index: NDArray[np.int16]

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.corners.shape != (n, 4) or self.class_index.shape != (n,):
            raise BoxShapeError(
                f"{n} scores with boxes {self.corners.shape} and classes {self.class_index.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def taken(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Boxes":
        """Those chosen by index or mask."""
        return Boxes(
            corners=self.corners[which],
            scores=self.scores[which],
            class_index=self.class_index[which],
        )


class Detector(Protocol):
    """A network with its thresholds."""

    def detect(self, windows: Windows) -> list[Boxes]:
        """Boxes at or above the threshold of their class, already merged, one entry a window.

        Raises:
            ModelError: the network cannot answer; never fewer boxes than it has.
        """
        ...


def thresholds_of(model: Model, override: float | None) -> NDArray[np.float32]:
    """(classes,) lowest scores that count: the card's, or one for all."""
    classes = model.card.output.classes
    if override is not None:
        return np.full(len(classes), override, np.float32)
    return np.array([model.card.threshold[name] for name in classes], np.float32)


def build_detector(
    model: Model,
    *,
    threshold_override: float | None = None,
    is_trusted: bool = False,
    provider: Provider = Provider.CPU,
    threads: int = 1,
) -> Detector:
    """The detector for a model's file, by its suffix.

    Args:
        threshold_override: one lowest score for all classes instead of the card's (evaluation).
        is_trusted: the caller vouches for a file that runs code when it is loaded (``.pt``).
        provider: what computes an ONNX network; a ``.pt`` is computed by torch.
        threads: of one detector.

    Raises:
        ModelError: an unknown suffix, or card and network disagree.
        ModelUntrusted: a ``.pt`` nobody vouches for.
        MissingExtra: the library for this file is not installed.
    """
    thresholds = thresholds_of(model, threshold_override)
    if model.card.input.views == 1:
        return _build(model, thresholds, is_trusted=is_trusted, provider=provider, threads=threads)
    from detection.views import LOWEST_SCORE, SeveralViews

    lowest = thresholds_of(model, LOWEST_SCORE)
    once = _build(model, lowest, is_trusted=is_trusted, provider=provider, threads=threads)
    output = model.card.output
    return SeveralViews(once, thresholds, views=model.card.input.views, iou=output.merge_iou)


def _build(
    model: Model,
    thresholds: NDArray[np.float32],
    *,
    is_trusted: bool,
    provider: Provider,
    threads: int,
) -> Detector:
    match model.path.suffix.lower():
        case ".onnx":
            from detection.onnx_detector import OnnxDetector

            return OnnxDetector(model, thresholds, provider=provider, threads=threads)
        case ".pt":
            from detection.ultralytics_detector import UltralyticsDetector

            return UltralyticsDetector(model, thresholds, is_trusted=is_trusted)
        case suffix:
            raise ModelError(
                f"“{suffix}” networks cannot be run",
                where=str(model.path),
                do="Export it to ONNX: yolo export model=… format=onnx.",
            )


def merge_overlapping(boxes: Boxes, iou: float) -> Boxes:
    """Of boxes of one class that overlap by more than ``iou``, the one with the highest score.

    Greedy, class by class. It runs in steps of 1,024 boxes so that a window with thousands of objects costs
    tens of milliseconds and no gigabytes; nothing limits how many remain. Ordered by falling score.
    """
    order = np.lexsort((boxes.corners[:, 1], boxes.corners[:, 0], -boxes.scores))
    ranked = boxes.taken(order)
    # Boxes of different classes never meet when each class is moved to a place of its own.
    span = float(ranked.corners.max(initial=0.0) - ranked.corners.min(initial=0.0)) + 1.0
    apart = ranked.corners + (ranked.class_index.astype(np.float32) * span)[:, None]
    kept = np.empty(0, np.intp)
    for start in range(0, len(ranked), 1024):
        step = np.arange(start, min(start + 1024, len(ranked)))
        if kept.size:
            step = step[~(iou_matrix(apart[step], apart[kept]) > iou).any(axis=1)]
        kept = np.concatenate([kept, step[_greedy(iou_matrix(apart[step], apart[step]) > iou)]])
    return ranked.taken(kept)


def _greedy(overlaps: NDArray[np.bool_]) -> NDArray[np.intp]:
    alive = np.ones(len(overlaps), bool)
    for rank in np.flatnonzero(overlaps.sum(axis=1) > 1):  # the others overlap nothing but themselves
        if alive[rank]:
            alive[rank + 1 :] &= ~overlaps[rank, rank + 1 :]
    return np.flatnonzero(alive)


def iou_matrix(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m) intersection over union of (n, 4) and (m, 4) boxes."""
    x_min, y_min, x_max, y_max = one.T[:, :, None]
    left, top, right, bottom = other.T[:, None, :]
    width = np.minimum(x_max, right)
    width -= np.maximum(x_min, left)
    np.maximum(width, 0, out=width)
    height = np.minimum(y_max, bottom)
    height -= np.maximum(y_min, top)
    np.maximum(height, 0, out=height)
    shared = width * height
    union = (x_max - x_min) * (y_max - y_min) + (right - left) * (bottom - top) - shared
    ratio: NDArray[np.float32] = shared / np.maximum(union, np.float32(1e-9))
    return ratio


def no_boxes() -> Boxes:
    """An empty answer."""
    return Boxes(
        corners=np.empty((0, 4), np.float32),
        scores=np.empty(0, np.float32),
        class_index=np.empty(0, np.int16),
    )


def joined(parts: Sequence[Boxes]) -> Boxes:
    """All boxes of several answers."""
    if not parts:
        return no_boxes()
    return Boxes(
        corners=np.concatenate([part.corners for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        class_index=np.concatenate([part.class_index for part in parts]),
    )
