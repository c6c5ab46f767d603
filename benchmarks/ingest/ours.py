"""Our side of the comparison, measured in this process: the whole sweep, and inference alone on its windows."""

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from math import floor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detection.imagery.reader import read_windows
from detection.imagery.scene import Scene, open_scene
from detection.imagery.windows import WindowPlan, WindowShape, plan_windows
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeShape:
    """A window in pixels of the image, and the side at which the network takes it."""

    native_px: int
    margin_px: int
    window_px: int


def window_shape(image: Path, model: Model) -> NativeShape:
    """What a slice must be to show what our windows show."""
    _, plan = _fitted_plan(image, model)
    native, asked = plan.native_px[0], model.card.input
    margin = floor(asked.margin_px * native / asked.window_px)
    return NativeShape(native_px=native, margin_px=margin, window_px=asked.window_px)


def _fitted_plan(image: Path, model: Model) -> tuple[Scene, WindowPlan]:
    scene = open_scene(image)
    asked = model.card.input
    shape = WindowShape(
        window_px=asked.window_px,
        margin_px=asked.margin_px,
        ground_resolution_m=asked.ground_resolution_m,
    )
    return scene, plan_windows(scene, shape, is_fitted=True)


def windows_in_memory(image: Path, model: Model) -> NDArray[np.float32]:
    """(n, 3, side, side) float32, the windows of the fitted plan as the network takes them."""
    scene, plan = _fitted_plan(image, model)
    parts = []
    for block in plan.blocks:
        seen = [plan.windows[index].seen for index in block]
        parts.append(read_windows(scene, (), seen, model.card.input.window_px)[0])
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


def rss_of_sweep(image: Path, model: Model) -> float:
    """Most memory, in MiB, that one sweep holds in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_sweep_and_weigh, image, model).result()


def _sweep_and_weigh(image: Path, model: Model) -> float:
    measure_sweep(image, model, is_fitted=False)
    # Not ru_maxrss, which a new process inherits from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kibibytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kibibytes) / 1024
