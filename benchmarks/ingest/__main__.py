"""``python -m benchmarks.ingest --json``: imagery to observations, side by side with bare inference and SAHI.

All take the same image file, the same windows and overlap (the fitted plan has SAHI's windows), and the same weights.
Everything is warm; rounds are interleaved, so that a noisy machine is noisy for all; the best of five counts.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import onnxruntime

from benchmarks.ingest.ours import (
    BareInference,
    Measured,
    measure_sweep,
    rss_of_sweep,
    window_shape,
    windows_in_memory,
)
from benchmarks.peers import Peer, fastest, peers_python, thread_settings
from detection.models import Model, ModelRegistry

_HERE = Path(__file__).parent


class Sahi:
    """SAHI on the whole image, with the windows that we look through."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.threads: int = peer.ready["threads"]

    def measure(self) -> Measured:
        """One sliced prediction."""
        answer = self._peer.measure()
        return Measured(
            seconds=answer["seconds"], windows=self._peer.ready["windows"], objects=answer["objects"]
        )

    def close(self) -> None:
        """Ends its process."""
        self._peer.close()


def sahi_with(python: Path, weights: Path, image: Path, model: Model, threads: str) -> Peer:
    """SAHI's process; ``threads`` is a number or ``default``."""
    shape = window_shape(image, model)
    score = min(model.card.threshold.values())
    return Peer(
        python,
        _HERE / "sahi_peer.py",
        *(weights, image, shape.native_px, shape.margin_px, shape.window_px, score, threads),
    )


def sahi_at_its_best(python: Path, weights: Path, image: Path, model: Model) -> Sahi:
    """The fastest of some thread settings."""
    ways = [sahi_with(python, weights, image, model, str(threads)) for threads in thread_settings()]
    return Sahi(fastest(ways))


def best_of(rounds: int, sides: dict[str, Callable[[], Measured]]) -> dict[str, list[Measured]]:
    """Each side's runs, interleaved."""
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, measure in sides.items():
            runs[name].append(measure())
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return runs


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    shared = Path(os.environ.get("URBAN_INVENTORY_SHARED", Path(__file__).parents[3] / "shared"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    default = shared / "datasets" / "trees-campo-grande" / "ortho.tif"
    parser.add_argument("--image", type=Path, default=default)
    parser.add_argument("--model", default="trees-aerial", help="name, card.toml or its folder")
    parser.add_argument("--weights", type=Path, help="the same network as .pt; else rebuilt from the ONNX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers-python", type=Path, help="use this environment instead of the locked one")
    parser.add_argument("--without-peers", action="store_true", help="only against bare inference")
    return parser.parse_args(given)


def main() -> None:
    """Measures and prints."""
    given = arguments_of()
    model = ModelRegistry([]).find(given.model)
    image = given.image.resolve()
    bare = BareInference(model, windows_in_memory(image, model))
    sides: dict[str, Callable[[], Measured]] = {
        "ours": lambda: measure_sweep(image, model, is_fitted=True),
        "ours_grid": lambda: measure_sweep(image, model, is_fitted=False),
        "bare": bare.measure,
    }
    peers: dict[str, Sahi] = {}
    if not given.without_peers:
        python = given.peers_python or peers_python("peers")
        weights = given.weights or model.path
        peers["sahi"] = sahi_at_its_best(python, weights, image, model)
        peers["sahi_default"] = Sahi(sahi_with(python, weights, image, model, "default"))
        sides |= {name: peer.measure for name, peer in peers.items()}
    for measure in sides.values():
        measure()
    runs = best_of(given.rounds, sides)
    for peer in peers.values():
        peer.close()
    result = report(runs, peers, rss_of_sweep(image, model), image, model)
    print(json.dumps(result) if given.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


def report(
    runs: dict[str, list[Measured]], peers: dict[str, Sahi], rss: float, image: Path, model: Model
) -> dict[str, object]:
    """One flat object; ``vs_…`` is throughput of ours ÷ theirs on the same windows."""
    best = {name: min(run.seconds for run in of_side) for name, of_side in runs.items()}
    ours, grid = runs["ours"][0], runs["ours_grid"][0]
    result: dict[str, object] = {"vs_bare_inference": round(best["bare"] / best["ours"], 3)}
    for name in peers:
        result[f"vs_{name}"] = round(best[name] / best["ours"], 3)
    result["peak_rss_mib"] = round(rss)
    # The grid on the ground cuts a lone image into more windows; by the window it must be as fast.
    per_window = (best["bare"] / runs["bare"][0].windows) / (best["ours_grid"] / grid.windows)
    result["vs_bare_inference_grid_on_ground"] = round(per_window, 3)
    result |= {f"{name}_seconds": round(seconds, 3) for name, seconds in best.items()}
    result |= {
        f"{name}_median_seconds": round(median(run.seconds for run in of_side), 3)
        for name, of_side in runs.items()
    }
    result |= {f"{name}_threads": peer.threads for name, peer in peers.items()}
    result |= {f"{name}_windows": runs[name][0].windows for name in peers}
    result |= {f"{name}_objects": of_side[0].objects for name, of_side in runs.items() if name != "bare"}
    result |= {
        "windows": ours.windows,
        "windows_grid_on_ground": grid.windows,
        "image": image.name,
        "model": f"{model.card.name} {model.card.version}",
        "onnxruntime": onnxruntime.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
    }
    return result


if __name__ == "__main__":
    main()
