"""Networks in ONNX; by default onnxruntime computes them, on the CPU in float32 (``providers``).

One window at a time: the answer is the same bit for bit whatever the number of workers and threads and however
windows are batched, and on a CPU batches gain nothing. Four heads are understood; other modules see boxes only.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detection.detector import Boxes, Windows, merge_overlapping, no_boxes
from detection.errors import ModelError
from detection.models import Model
from detection.providers import Provider, load_network, onnx_session

_Output = NDArray[np.float32]


class OnnxDetector:
    """A YOLO export: ``one-to-many`` (1, 4 + classes, anchors), ``objectness`` (1, anchors, 5 + classes) or
    ``end-to-end`` (1, rows, 6); or ``retinanet`` (1, rows, 5 + classes): corners, score, classes."""

    def __init__(
        self,
        model: Model,
        thresholds: NDArray[np.float32],
        *,
        provider: Provider = Provider.CPU,
        threads: int = 1,
    ) -> None:
        self._card = model.card
        self._where = str(model.path)
        self._thresholds = thresholds
        self._network = load_network(model.path, provider, threads=threads)
        side = model.card.input.window_px
        self._check_input(side)
        self._buffer = np.empty((1, 3, side, side), np.float32)

    def detect(self, windows: Windows) -> list[Boxes]:
        """See ``Detector``."""
        return [self._detect_one(np.moveaxis(window, -1, 0)) for window in windows]

    def _detect_one(self, bands: NDArray[np.uint8]) -> Boxes:
        np.multiply(bands, np.float32(1 / 255), out=self._buffer[0], dtype=np.float32)
        output: _Output = self._network.run(self._buffer)
        self._check_output(output)
        if self._card.output.head == "end-to-end":
            return self._without_head_limit(output[0])
        if self._card.output.head == "retinanet":
            boxes = decode_retinanet(output[0], self._thresholds)
            return merge_overlapping(boxes, self._card.output.merge_iou)
        anchors = output[0]
        if self._card.output.head == "objectness":
            anchors = without_objectness(anchors)
        boxes = decode_one_to_many(anchors, self._thresholds)
        return merge_overlapping(boxes, self._card.output.merge_iou)

    def _without_head_limit(self, rows: _Output) -> Boxes:
        boxes = decode_end_to_end(rows, self._thresholds)
        if len(boxes) == len(rows):
            raise ModelError(
                f"a window holds more objects than the {len(rows)} that the network can name",
                where=self._where,
                do="Export it with the one-to-many head, or with a larger max_det.",
            )
        return boxes

    def _check_input(self, side: int) -> None:
        shape = self._network.input_shape
        fixed = [size for size in shape[1:] if isinstance(size, int)]
        if len(shape) != 4 or any(size not in (3, side) for size in fixed):
            raise ModelError(
                f"the network takes {list(shape)}, the card says windows of {side} px", where=self._where
            )

    def _check_output(self, output: _Output) -> None:
        classes = len(self._card.output.classes)
        axis, wanted = {
            "end-to-end": (2, 6),
            "objectness": (2, 5 + classes),
            "retinanet": (2, 5 + classes),
            "one-to-many": (1, 4 + classes),
        }[self._card.output.head]
        if output.ndim != 3 or output.shape[axis] != wanted:
            raise ModelError(
                f"the network answers {output.shape}; a {self._card.output.head} head of "
                f"{classes} classes has {wanted} along axis {axis}",
                where=self._where,
                do="Correct head or classes in card.toml.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """What an ONNX file says of itself; a size that is not fixed stands as 640, ultralytics' default."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    metadata: dict[str, str]


def describe_network(path: Path) -> NetworkFacts:
    """Shapes and metadata of an ONNX file.

    Raises:
        ModelError: it cannot be loaded.
    """
    session = onnx_session(path)
    shapes = [
        tuple(size if isinstance(size, int) else 640 for size in end.shape)
        for end in (session.get_inputs()[0], session.get_outputs()[0])
    ]
    return NetworkFacts(
        input_shape=shapes[0],
        output_shape=shapes[1],
        metadata=dict(session.get_modelmeta().custom_metadata_map),
    )


def decode_one_to_many(output: _Output, thresholds: NDArray[np.float32]) -> Boxes:
    """Boxes above their class's threshold, unmerged, each anchor with its best class.

    Args:
        output: (4 + classes, anchors): centre x, centre y, width, height in window pixels, then scores.
        thresholds: (classes,).
    """
    scores = output[4:]
    # Nearly all anchors fall here, on one cheap comparison, before anything else is computed.
    candidates = np.flatnonzero((scores >= thresholds[:, None]).any(axis=0))
    if candidates.size == 0:
        return no_boxes()
    found = output[:, candidates]
    best = found[4:].argmax(axis=0)
    best_score = found[4:][best, np.arange(candidates.size)]
    centre_x, centre_y, width, height = found[:4]
    half_width, half_height = width / 2, height / 2
    corners = np.stack(
        [
            centre_x - half_width,
            centre_y - half_height,
            centre_x + half_width,
            centre_y + half_height,
        ],
        axis=1,
    )
    sized = (best_score >= thresholds[best]) & (width > 0) & (height > 0)
    boxes = Boxes(corners=corners, scores=best_score, class_index=best.astype(np.int16))
    return boxes.taken(sized)


def without_objectness(rows: _Output) -> _Output:
    """(4 + classes, anchors) from (anchors, 5 + classes) of YOLO before v8: the score is objectness × class."""
    return np.ascontiguousarray(np.concatenate([rows[:, :4], rows[:, 4:5] * rows[:, 5:]], axis=1).T)


def decode_retinanet(rows: _Output, thresholds: NDArray[np.float32]) -> Boxes:
    """Boxes above their class's threshold from (n, 5 + classes): corners, the score, then which class is greatest."""
    class_index = rows[:, 5:].argmax(axis=1)
    above = rows[:, 4] >= thresholds[class_index]
    return Boxes(
        corners=np.ascontiguousarray(rows[above, :4]),
        scores=np.ascontiguousarray(rows[above, 4]),
        class_index=class_index[above].astype(np.int16),
    )


def decode_end_to_end(rows: _Output, thresholds: NDArray[np.float32]) -> Boxes:
    """Boxes above their class's threshold from (n, 6) corners, score, class; the network merged them."""
    class_index = rows[:, 5].astype(np.int16)
    scores = rows[:, 4]
    known = (class_index >= 0) & (class_index < len(thresholds))
    above = known & (scores >= thresholds[np.where(known, class_index, 0)])
    return Boxes(
        corners=np.ascontiguousarray(rows[above, :4]),
        scores=scores[above],
        class_index=class_index[above],
    )
