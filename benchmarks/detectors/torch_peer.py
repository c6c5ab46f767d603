"""One window through ultralytics and torch, or through a RetinaNet; run in the peers' environment.

Usage: torch_peer.py ultralytics|retinanet WEIGHTS NETWORK_PX SCORE THREADS

WEIGHTS as for ``ingest/sahi_peer.py``. The RetinaNet is DeepForest's architecture (ResNet-50 with feature pyramid) with
random weights, for time alone. Says one line when it is ready (warm), then measures 20 windows for every line it reads.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "0"
sys.path.insert(0, str(Path(__file__).parents[1] / "ingest"))

import numpy as np
import torch

_WINDOWS = 20


def ultralytics_predictor(weights, side, score):
    """Ultralytics' own way from a picture to boxes."""
    from sahi_peer import load

    network = load(weights)
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    return lambda: network.predict(picture, imgsz=side, conf=score, verbose=False, device="cpu")


def retinanet_predictor(side):
    """Torchvision's RetinaNet, from a picture to boxes."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    network = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=side, max_size=side
    )
    network.eval()
    picture = torch.rand(3, side, side)

    def predict():
        with torch.inference_mode():
            return network([picture])

    return predict


def main():
    kind, weights, side, score, threads = sys.argv[1:]
    predict = (
        ultralytics_predictor(weights, int(side), float(score))
        if kind == "ultralytics"
        else retinanet_predictor(int(side))
    )
    predict()
    torch.set_num_threads(int(threads))
    predict()
    windows = _WINDOWS if kind == "ultralytics" else 3
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(windows):
            predict()
        print(json.dumps({"seconds": (time.perf_counter() - started) / windows}), flush=True)


main()
