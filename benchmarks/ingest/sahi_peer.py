"""SAHI with ultralytics and torch, run in the peers' environment; speaks lines of JSON with the benchmark.

Usage: sahi_peer.py WEIGHTS IMAGE SLICE_PX MARGIN_PX NETWORK_PX SCORE THREADS

WEIGHTS is a ``.pt``, or one of our ONNX exports, whose weights are put back into the network they came from. THREADS
is a number, or ``default`` for what ultralytics sets. Says one line when it is ready (warm), then measures one
sliced prediction for every line it reads.
"""

import json
import os
import sys
import time

os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "0"

import torch
from sahi import AutoDetectionModel
from sahi.predict import get_sliced_prediction
from sahi.slicing import get_slice_bboxes
from sahi.utils.cv import read_image_as_pil
from ultralytics import YOLO

_SCALES = {16: "n", 32: "s", 64: "m", 96: "x"}  # channels of the first convolution


def load(weights):
    """A YOLO model of the weights."""
    return YOLO(weights) if weights.endswith(".pt") else from_onnx(weights)


def from_onnx(path):
    """The torch network of an unsimplified ultralytics export, every weight put back by name."""
    import ast

    import onnx
    from onnx import numpy_helper
    from ultralytics.nn.tasks import DetectionModel

    exported = onnx.load(path)
    # Large weights are kept in 16 bits under another name, and cast back when the network is loaded.
    weights = {
        tensor.name.removesuffix("_half"): numpy_helper.to_array(tensor).astype("float32")
        if tensor.name.endswith("_half")
        else numpy_helper.to_array(tensor)
        for tensor in exported.graph.initializer
    }
    metadata = {entry.key: entry.value for entry in exported.metadata_props}
    names = ast.literal_eval(metadata["names"])
    scale = _SCALES[weights["model.0.conv.weight"].shape[0]]
    yolo = YOLO(f"yolo26{scale}.yaml")
    network = DetectionModel(f"yolo26{scale}.yaml", nc=len(names), verbose=False)
    network.end2end = False  # the head that was exported, merged by ultralytics' NMS
    network = network.eval().fuse(verbose=False)
    reshape(network, weights)
    state = network.state_dict()
    known = {name: value for name, value in weights.items() if name.startswith("model.") and name in state}
    unknown = [name for name in state if name not in known and not name.endswith("num_batches_tracked")]
    if unknown:
        raise SystemExit(f"the export lacks weights: {unknown[:5]}")
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in known.items()})
    network.names = names
    yolo.model = network
    return yolo


def reshape(network, weights):
    """Gives convolutions the export's shapes: a head kept from training with more classes is wider inside."""
    for name, old in list(network.named_modules()):
        weight = weights.get(f"{name}.weight")
        if not isinstance(old, torch.nn.Conv2d) or weight is None or weight.shape == tuple(old.weight.shape):
            continue
        groups = weight.shape[0] if old.groups > 1 else 1
        new = torch.nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            old.kernel_size,
            old.stride,
            old.padding,
            groups=groups,
            bias=old.bias is not None,
        )
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, new)


def main():
    weights, image, window, margin, network_px, score, threads = sys.argv[1:]
    window, margin = int(window), int(margin)
    model = AutoDetectionModel.from_pretrained(
        model_type="ultralytics",
        model=load(weights),
        confidence_threshold=float(score),
        device="cpu",
        image_size=int(network_px),
    )

    def predict(picture):
        return get_sliced_prediction(
            picture,
            model,
            slice_height=window,
            slice_width=window,
            overlap_height_ratio=2 * margin / window,
            overlap_width_ratio=2 * margin / window,
            perform_standard_pred=False,
            verbose=0,
        )

    import numpy as np

    predict(np.zeros((window, window, 3), np.uint8))  # ultralytics sets its own threads on the first call
    if threads != "default":
        torch.set_num_threads(int(threads))
    predict(np.zeros((window, window, 3), np.uint8))
    overlap = 2 * margin / window
    height, width = read_image_as_pil(image).size[::-1]
    slices = get_slice_bboxes(
        height, width, window, window, overlap_height_ratio=overlap, overlap_width_ratio=overlap
    )
    print(json.dumps({"threads": torch.get_num_threads(), "windows": len(slices)}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        found = predict(image)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "objects": len(found.object_prediction_list)}), flush=True)


if __name__ == "__main__":
    main()
