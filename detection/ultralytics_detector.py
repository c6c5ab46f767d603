"""Any weights that ultralytics can load (``.pt``), through the optional extra ``train``.

A ``.pt`` is a pickle: loading it runs whatever code its author put in. It is refused unless the caller says
that it is trusted. Slower than ONNX, and needs torch; for trying models before exporting them.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.detector import Boxes, Windows, merge_overlapping
from detection.errors import MissingExtra, ModelError, ModelUntrusted
from detection.models import Model

#: More boxes than anchors of a window exist: ultralytics' own limit of 300 would lose objects.
_NO_LIMIT = 100_000


class UltralyticsDetector:
    """A ``.pt`` with the thresholds and classes of its card."""

    def __init__(self, model: Model, thresholds: NDArray[np.float32], *, is_trusted: bool = False) -> None:
        self._card = model.card
        self._where = str(model.path)
        self._thresholds = thresholds
        self._network = _load(model.path, is_trusted=is_trusted)
        names = tuple(self._network.names.values())
        if names != model.card.output.classes:
            raise ModelError(
                f"the network names {len(names)} classes ({', '.join(names[:5])}…), the card "
                f"{', '.join(model.card.output.classes)}",
                where=self._where,
                do="Correct classes in card.toml.",
            )

    def detect(self, windows: Windows) -> list[Boxes]:
        """See ``Detector``."""
        # ultralytics takes numpy pictures as blue, green, red.
        pictures = [np.ascontiguousarray(window[..., ::-1]) for window in windows]
        results = self._network.predict(
            pictures,
            imgsz=self._card.input.window_px,
            conf=float(self._thresholds.min()),
            iou=1.0,
            max_det=_NO_LIMIT,
            verbose=False,
            device="cpu",
        )
        return [self._boxes(result.boxes) for result in results]

    def _boxes(self, found: Any) -> Boxes:
        boxes = Boxes(
            corners=found.xyxy.numpy().astype(np.float32),
            scores=found.conf.numpy().astype(np.float32),
            class_index=found.cls.numpy().astype(np.int16),
        )
        boxes = boxes.taken(boxes.scores >= self._thresholds[boxes.class_index])
        return merge_overlapping(boxes, self._card.output.merge_iou)


def class_names(path: Path, *, is_trusted: bool) -> tuple[str, ...]:
    """The classes that a ``.pt`` names.

    Raises:
        ModelUntrusted, MissingExtra, ModelError: as ``UltralyticsDetector``.
    """
    return tuple(_load(path, is_trusted=is_trusted).names.values())


def _load(path: Path, *, is_trusted: bool) -> Any:
    if not is_trusted:
        raise ModelUntrusted(
            "this file runs its author's code when it is loaded",
            where=str(path),
            do="If you trust where it comes from, say so: --trust-model.",
        )
    # Read when ultralytics is imported: no look for updates, no installing of packages, no telemetry.
    os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "0")
    try:
        from ultralytics import YOLO
    except ImportError as error:
        raise MissingExtra(
            "“.pt” networks need ultralytics, which is not installed",
            where=str(path),
            do="pip install 'urban-inventory[train]', or export the network to ONNX.",
        ) from error
    try:
        return YOLO(str(path), task="detect")
    except Exception as error:  # whatever a stranger's pickle raises
        raise ModelError(f"the network cannot be loaded: {error}", where=str(path)) from error
