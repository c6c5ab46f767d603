"""Trained weights → ONNX that everybody can read.

One-to-many head, one static square window, opset 17, no simplifier: no object is lost to a head's maximum. Weights
are stored in 16 bits. The metadata lets others read it too (ultralytics, geodeep).
"""

import hashlib
import json
import shutil
from pathlib import Path

from detection.errors import ModelError
from detection.training.fit import quiet_ultralytics
from detection.training.recipe import Recipe

OPSET = 17
_LEAST_HALVED = 256
"""Smaller weights are not worth a node."""


def export_onnx(weights: Path, out: Path, recipe: Recipe) -> str:
    """Writes the network as ONNX and returns the file's SHA-256.

    Args:
        weights: a ``.pt`` that ``fit`` has made here; it is a pickle.
        out: the file to write.

    Raises:
        MissingExtra: ultralytics or onnx is not installed.
        ModelError: the export has another shape than the program reads.
    """
    quiet_ultralytics()
    from ultralytics import YOLO

    written = YOLO(str(weights)).export(
        format="onnx",
        imgsz=recipe.window_px,
        opset=OPSET,
        simplify=False,
        dynamic=False,
        batch=1,
        nms=None,  # the one-to-many head, unmerged
        device="cpu",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(str(written), out)
    store_in_half(out)
    describe(out, recipe)
    return sha256_of(out)


def store_in_half(path: Path) -> None:
    """Rounds the weights to 16 bits and keeps them so: half the file, computed in 32 bits as before.

    Each large weight is followed by a cast, which programs fold away when they load the network. Thresholds and
    evidence come after, from the rounded network.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    network = onnx.load(str(path))
    casts = []
    for weight in network.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < _LEAST_HALVED:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *network.graph.node]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
    onnx.checker.check_model(network)
    onnx.save(network, str(path))


def describe(path: Path, recipe: Recipe, threshold: float | None = None) -> None:
    """Writes the recipe's facts into the network's metadata, in geodeep's terms too.

    geodeep reads one square input, ``model_type``, ``det_type`` (quoted JSON), ``class_names``,
    ``resolution`` in centimetres, ``det_conf`` and ``det_iou_thresh``.
    """
    import onnx

    network = onnx.load(str(path))
    output = [axis.dim_value for axis in network.graph.output[0].type.tensor_type.shape.dim]
    if len(output) != 3 or output[1] != 4 + len(recipe.classes):
        raise ModelError(
            f"the export answers {output}, expected (1, {4 + len(recipe.classes)}, anchors)",
            where=str(path),
        )
    facts = {prop.key: prop.value for prop in network.metadata_props}
    facts |= {
        "description": recipe.description,
        "license": recipe.licence,
        "model_type": json.dumps("Detector"),
        "det_type": json.dumps("YOLO_v8"),
        "class_names": json.dumps(dict(enumerate(recipe.classes))),
        "resolution": json.dumps(recipe.ground_resolution_m * 100),
        "det_iou_thresh": json.dumps(recipe.merge_iou),
        "tiles_overlap": json.dumps(round(200 * recipe.margin_px / recipe.window_px, 1)),
        "ground_resolution_m": json.dumps(recipe.ground_resolution_m),
    }
    if threshold is not None:
        facts["det_conf"] = json.dumps(round(threshold, 4))
    onnx.helper.set_model_props(network, facts)
    onnx.save(network, str(path))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
