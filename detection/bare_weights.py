"""Weights without a card: a model made up from what the file itself says, for trying a network out.

ONNX files made for GeoDeep or the QGIS plug-in Deepness say resolution, classes, kind and thresholds in their
metadata; others say their classes at most, and thresholds are guesses. None has evidence, so nothing that they
count has an interval until they are evaluated.
"""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

from detection.errors import CallerError, ModelError
from detection.models import CardInput, CardOutput, Model, ModelCard
from detection.onnx_detector import NetworkFacts, describe_network
from detection.ultralytics_detector import class_names

#: What YOLO programs use where nobody measured anything better.
GUESSED_THRESHOLD = 0.25
_PT_WINDOW_PX = 640
_HEADS: dict[str, Any] = {
    "YOLO_v8": "one-to-many",
    "YOLO_v9": "one-to-many",
    "YOLO_Ultralytics": "one-to-many",
    "YOLO_v5_or_v7_default": "objectness",
    "YOLO_v6": "objectness",
    "retinanet": "retinanet",
}
"""Kinds of detectors of Deepness and GeoDeep, and the heads they have."""
_PLUGIN_THRESHOLD = 0.3
_PLUGIN_RESOLUTION_CM = 10.0


def model_from_weights(path: Path, ground_resolution_m: float | None, *, is_trusted: bool = False) -> Model:
    """A model for an ``.onnx`` or ``.pt`` file.

    Args:
        ground_resolution_m: metres of ground a pixel that the network wants; None: as its metadata says.
        is_trusted: the caller vouches for a ``.pt``, which runs code when it is loaded.

    Raises:
        CallerError: nothing says the ground resolution.
        ModelError: the file does not say its classes, or is no detector.
        ModelUntrusted, MissingExtra: as ``build_detector``.
    """
    if path.suffix.lower() == ".pt":
        names = class_names(path, is_trusted=is_trusted)
        said: dict[str, Any] = {
            "output": CardOutput(head="one-to-many", classes=names),
            "window_px": _PT_WINDOW_PX,
        }
    else:
        said = _said_by_onnx(path)
    resolution = ground_resolution_m or said.get("ground_resolution_m")
    if resolution is None:
        raise CallerError(
            "nothing says which ground resolution this network wants",
            where=str(path),
            do="Say it in metres a pixel: --model-resolution 0.1; or give a model with a card.",
        )
    output, window_px = said["output"], said["window_px"]
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    card = ModelCard(
        name=card_name(path.stem),
        version="0",
        file=path.name,
        sha256=sha256,
        licence=said.get("licence", "unknown"),
        description=said.get("description", "Weights without a card; thresholds are guessed."),
        input=CardInput(
            ground_resolution_m=resolution,
            range_m=(resolution / 4, resolution * 2),
            window_px=window_px,
            margin_px=said.get("margin_px", window_px // 10),
        ),
        output=output,
        threshold=dict.fromkeys(output.classes, said.get("threshold", GUESSED_THRESHOLD)),
    )
    return Model(card=card, path=path)


def card_name(stem: str) -> str:
    """A file's name as a model's: small letters, digits and hyphens."""
    kept = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in stem.lower())
    return kept.lstrip("-") or "weights"


def _said_by_onnx(path: Path) -> dict[str, Any]:
    network = describe_network(path)
    if "class_names" in network.metadata:
        return _said_for_plugins(path, network)
    try:
        said = ast.literal_eval(network.metadata["names"])
        names = tuple(str(name) for name in (said.values() if isinstance(said, dict) else said))
    except (KeyError, ValueError, SyntaxError) as error:
        raise ModelError(
            "the network does not say its classes", where=str(path), do="Write it a card.toml."
        ) from error
    is_end_to_end = network.output_shape[-1] == 6
    return {
        "window_px": network.input_shape[-1],
        "output": CardOutput(head="end-to-end" if is_end_to_end else "one-to-many", classes=names),
    }


def _said_for_plugins(path: Path, network: NetworkFacts) -> dict[str, Any]:
    """What Deepness and GeoDeep read: each value is JSON, the resolution in centimetres, overlaps in per cent.

    Raises:
        ModelError: no detector, or one with a head that is not known here.
    """
    try:
        told = {key: json.loads(value) for key, value in network.metadata.items() if key in _PLUGIN_KEYS}
        kind = str(told.get("det_type", "YOLO_v5_or_v7_default"))
        names = told["class_names"]
        classes = tuple(str(names[key]) for key in sorted(names, key=int))
        resolution_m = float(told.get("resolution", _PLUGIN_RESOLUTION_CM)) / 100
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the network's metadata cannot be read: {error!r}", where=str(path), do="Write it a card.toml."
        ) from error
    if str(told.get("model_type", "Detector")) != "Detector" or kind not in _HEADS:
        raise ModelError(
            f"this is no detector that can be run here: {told.get('model_type', 'Detector')}, {kind}",
            where=str(path),
            do=f"Kinds known: {', '.join(_HEADS)}.",
        )
    window_px = network.input_shape[-1]
    overlap = float(told.get("tiles_overlap", 20)) / 100
    return {
        "window_px": window_px,
        "margin_px": min(int(window_px * overlap / 2), window_px // 2 - 16),
        "ground_resolution_m": resolution_m,
        "threshold": float(told.get("det_conf", _PLUGIN_THRESHOLD)),
        "output": CardOutput(
            head=_HEADS[kind], classes=classes, merge_iou=float(told.get("det_iou_thresh", 0.5))
        ),
        "description": network.metadata.get("description", "As its own metadata describe it; not evaluated."),
        "licence": network.metadata.get("license", "unknown"),
    }


_PLUGIN_KEYS = {
    "model_type",
    "class_names",
    "resolution",
    "det_type",
    "det_conf",
    "det_iou_thresh",
    "tiles_overlap",
}
