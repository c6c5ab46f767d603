"""Our side of the comparison, measured in this process: the whole sweep, and inference alone on its windows."""

import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detection.imagery.reader import read_windows
from detection.imagery.scene import open_scene
from detection.imagery.windows import WindowShape, plan_windows
from detection.models import Model
from detection.sweep import SweepOptions, sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run."""

    seconds: float
    windows: int
    objects: int


def measure_sweep(image: Path, model: Model, *, is_fitted: bool) -> Measured:
    """From the path of a file to observations: opening, hashing, reading, inference, ownership, georeference."""
    options = SweepOptions(is_fitted=is_fitted, any_resolution=True)
    started = time.perf_counter()
    (result,) = sweep([image], model, options)
    seconds = time.perf_counter() - started
    return Measured(seconds=seconds, windows=result.windows, objects=len(result.observations))


def windows_in_memory(image: Path, model: Model) -> NDArray[np.float32]:
    """(n, 3, side, side) float32, the windows of the fitted plan as the network takes them."""
    scene = open_scene(image)
    asked = model.card.input
    shape = WindowShape(
        window_px=asked.window_px,
        margin_px=asked.margin_px,
        ground_resolution_m=asked.ground_resolution_m,
    )
    plan = plan_windows(scene, shape, is_fitted=True)
    parts = []
    for block in plan.blocks:
        seen = [plan.windows[index].seen for index in block]
        parts.append(read_windows(scene, (), seen, asked.window_px)[0])
    return np.concatenate(parts).astype(np.float32) / np.float32(255)


class BareInference:
    """Two things only: windows that lie in memory, and ``session.run``; one session and thread a core."""

    def __init__(self, model: Model, windows: NDArray[np.float32]) -> None:
        self._model = model
        self._windows = windows
        self._sessions = threading.local()
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def measure(self) -> Measured:
        """One pass over all windows."""
        started = time.perf_counter()
        list(self._pool.map(self._run, range(len(self._windows))))
        seconds = time.perf_counter() - started
        return Measured(seconds=seconds, windows=len(self._windows), objects=0)

    def _run(self, index: int) -> None:
        session = getattr(self._sessions, "session", None)
        if session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = onnxruntime.InferenceSession(
                str(self._model.path), options, providers=["CPUExecutionProvider"]
            )
            self._sessions.session = session
        session.run(None, {session.get_inputs()[0].name: self._windows[index : index + 1]})


def peak_rss_mib() -> float:
    """Most memory that this process ever held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
