"""``python -m benchmarks.detectors --json``: a detector's speed, side by side with other programs, same weights.

Everything is warm, each peer at its fastest thread setting, rounds interleaved; the best round of each counts. Ratios
are ours ÷ theirs in throughput:

- ``window_vs_bare``: one window, from 8-bit pixels to merged boxes, against the bare network in ONNX Runtime; all
  cores at work.
- ``window_vs_torch``: the same against ultralytics through torch.
- ``ortho_vs_sahi``: a whole ortho, from the file to observations, against SAHI, the windows the same.
- ``ortho_vs_geodeep``: against GeoDeep with the same ONNX file, at the picture's own resolution and with its overlap,
  since it cannot enlarge a picture.
- ``vs_retinanet``: a window against DeepForest's architecture (RetinaNet, ResNet-50; random weights, for time alone).

``…_fast``: with ``provider``, the fastest that passes the model's accuracy test on the ortho on this machine.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.detectors.peers import Peers
from benchmarks.ingest.ours import measure_sweep
from detection.detector import build_detector
from detection.models import Model, ModelRegistry
from detection.providers import Provider, accuracy_of, load_network
from detection.sweep import SweepOptions, sweep
from detection.tuning import Speed, measure_fastest

_WINDOWS = 40


def main() -> None:
    """Measures and prints."""
    given = _arguments()
    model = ModelRegistry([]).find(given.model)
    image = given.image.resolve()
    with Peers(model, image) as peers:
        provider, accuracy = fastest_accepted(model, image)
        native = at_native_resolution(model, image)
        speeds = {one: measure_fastest(model, one) for one in {Provider.CPU, provider}}
        sides: dict[str, Callable[[], float]] = {
            "window": lambda: seconds_a_window(model, Provider.CPU, speeds[Provider.CPU]),
            "window_fast": lambda: seconds_a_window(model, provider, speeds[provider]),
            "bare": lambda: seconds_bare(model, speeds[Provider.CPU]),
            "torch": lambda: peers.torch.measure()["seconds"],
            "retinanet": lambda: peers.retinanet.measure()["seconds"],
            "ortho": lambda: seconds_of_ortho(model, image, Provider.CPU, speeds[Provider.CPU]),
            "ortho_fast": lambda: seconds_of_ortho(model, image, provider, speeds[provider]),
            "ortho_native": lambda: measure_sweep(image, native, is_fitted=False).seconds,
            "sahi": lambda: peers.sahi.measure()["seconds"],
            "geodeep": lambda: peers.geodeep.measure()["seconds"],
        }
        best: dict[str, float] = {}
        for number in range(given.rounds):
            for name, side in sides.items():
                best[name] = min(side(), best.get(name, float("inf")))
            print(f"round {number + 1} of {given.rounds} done", file=sys.stderr)
        threads = peers.threads()
    told = {
        "window_vs_bare": best["bare"] / best["window"],
        "window_vs_torch": best["torch"] / best["window"],
        "window_vs_torch_fast": best["torch"] / best["window_fast"],
        "ortho_vs_sahi": best["sahi"] / best["ortho"],
        "ortho_vs_sahi_fast": best["sahi"] / best["ortho_fast"],
        "ortho_vs_geodeep": best["geodeep"] / best["ortho_native"],
        "vs_retinanet": best["retinanet"] / best["window"],
    }
    result = {
        **{name: round(value, 3) for name, value in told.items()},
        "provider": provider.value,
        "provider_agreed": round(accuracy, 4),
        "seconds": {name: round(value, 4) for name, value in best.items()},
        "threads": threads,
        "model": model.card.name,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
    }
    print(json.dumps(result) if given.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


def seconds_a_window(model: Model, provider: Provider, speed: Speed) -> float:
    """Wall seconds for a window with all cores at work, from 8-bit pixels to merged boxes."""
    side = model.card.input.window_px
    window = np.random.default_rng(0).integers(0, 255, (1, side, side, 3), np.uint8)
    detectors = [
        build_detector(model, provider=provider, threads=speed.threads) for _ in range(speed.workers)
    ]
    return _shared_out([lambda one=one: one.detect(window) for one in detectors])


def seconds_bare(model: Model, speed: Speed) -> float:
    """The same for ``session.run`` alone, on a window that lies in memory as the network takes it."""
    side = model.card.input.window_px
    window = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    networks = [load_network(model.path, threads=speed.threads) for _ in range(speed.workers)]
    return _shared_out([lambda one=one: one.run(window) for one in networks])


def _shared_out(workers: list[Callable[[], object]]) -> float:
    for work in workers:
        work()

    def many(work: Callable[[], object]) -> None:
        for _ in range(_WINDOWS // len(workers)):
            work()

    with ThreadPoolExecutor(len(workers)) as pool:
        started = time.perf_counter()
        list(pool.map(many, workers))
        return (time.perf_counter() - started) / (_WINDOWS // len(workers) * len(workers))


def seconds_of_ortho(model: Model, image: Path, provider: Provider, speed: Speed) -> float:
    """From the path of a file to observations, in SAHI's windows."""
    options = SweepOptions(
        is_fitted=True, any_resolution=True, provider=provider, workers=speed.workers, threads=speed.threads
    )
    started = time.perf_counter()
    sweep([image], model, options)
    return time.perf_counter() - started


def fastest_accepted(model: Model, image: Path) -> tuple[Provider, float]:
    """The fastest provider that is installed and passes the accuracy test, and the share of detections it agrees on."""
    (cpu,) = sweep([image], model, SweepOptions(any_resolution=True))
    seen = [(cpu.observations.box_px, cpu.observations.class_index)]
    best, agreed = Provider.CPU, 1.0
    rate = measure_fastest(model, best).windows_per_s
    for provider in (Provider.OPENVINO, Provider.OPENVINO_BF16):
        (result,) = sweep([image], model, SweepOptions(any_resolution=True, provider=provider))
        accuracy = accuracy_of(seen, [(result.observations.box_px, result.observations.class_index)])
        speed = measure_fastest(model, provider).windows_per_s
        if accuracy.passes and speed > rate:
            best, agreed, rate = provider, accuracy.agreed, speed
    return best, agreed


def at_native_resolution(model: Model, image: Path) -> Model:
    """The model as GeoDeep uses it: windows of the picture's own pixels."""
    from detection.imagery.scene import open_scene

    asked = model.card.input.model_copy(update={"ground_resolution_m": open_scene(image).ground_resolution_m})
    return replace(model, card=model.card.model_copy(update={"input": asked}))


def _arguments() -> argparse.Namespace:
    shared = Path(os.environ.get("URBAN_INVENTORY_SHARED", Path(__file__).parents[3] / "shared"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    default = shared / "datasets" / "trees-campo-grande" / "ortho.tif"
    parser.add_argument("--image", type=Path, default=default)
    parser.add_argument("--model", default="trees-aerial", help="name, card.toml or its folder")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
