"""The sweep: imagery and a model in, observations out; streamed, overlapped, and in bounded memory.

Reader threads decode blocks of windows ahead of the network, results return in plan order, and what several
windows say about one object becomes one observation. A block is the unit of work: pure, picklable,
idempotent, so it goes through any ``concurrent.futures.Executor``, and a finished one is kept on disk until
its survey is stored.
"""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from detection import ownership
from detection.detector import Boxes, Detector, build_detector
from detection.imagery.georeference import centres_lon_lat, position_errors_m, sizes_m
from detection.imagery.inspect import check_resolution
from detection.imagery.kept import forget
from detection.imagery.reader import Neighbour, neighbours_of, read_windows
from detection.imagery.scene import Scene, in_infrared, open_scene
from detection.imagery.validity import Mask
from detection.imagery.windows import (
    Rectangle,
    Window,
    WindowPlan,
    WindowShape,
    plan_windows,
)
from detection.models import Model
from detection.ownership import Candidates
from detection.providers import AcceptedProviders, Provider
from detection.tuning import SpeedMemory

#: A box this near (in window pixels) to its window's edge is taken as cut by it.
_CUT_PX = 3.0
#: Raise it when blocks come out different for the same scene, model and options: checkpoints and settings
#: follow.
_METHOD = 3


_LEAST_WINDOWS_TO_MEASURE = 100
"""Fewer take less time than measuring would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """How to sweep. Only the first four can change a result.

    Attributes:
        threshold_override: one lowest score for all classes instead of the card's.
        grid_offset_px: shifts the grid of windows against the ground, in the network's pixels.
        is_fitted: as few windows as cover the scene, from its corner, instead of the grid on the ground.
        any_resolution: also outside the range of the model's card.
        workers: blocks computed at once; None: as fast as was measured, else one a core.
        is_trusted: the model's file may run its author's code.
        provider: what computes the network.
        accepted: where it is written which providers passed with which models; None: not asked, as for the test itself.
        threads: of each worker.
        speed: what is known of this machine's speed; None: nothing is measured.
    """

    threshold_override: float | None = None
    grid_offset_px: tuple[int, int] = (0, 0)
    is_fitted: bool = False
    any_resolution: bool = False
    workers: int | None = None
    is_trusted: bool = False
    provider: Provider = Provider.CPU
    accepted: AcceptedProviders | None = None
    threads: int = 1
    speed: SpeedMemory | None = None


def settings_key(model: Model, options: SweepOptions) -> str:
    """A short hash of all that decides what a scene yields, model included; workers and executors do not."""
    card = model.card
    told = (
        _METHOD,
        card.sha256,
        card.input.model_dump_json(exclude={"colours", "views"}),
        card.output.model_dump_json(),
        sorted(card.threshold.items()),
        options.threshold_override,
        options.grid_offset_px,
        options.is_fitted,
        # Beside the defaults only, whose surveys are older than the choice.
        *([card.input.colours] if card.input.colours != "natural" else []),
        *([f"{card.input.views} views"] if card.input.views != 1 else []),
        *([options.provider.value] if options.provider is not Provider.CPU else []),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observations:
    """Detections in the city, as columns; in plan order of the windows, row by row within each.

    Attributes:
        lon_lat: (n, 2) float64 degrees EPSG:4326, centre of the object's box on the ground; NaN for scenes
            that lie nowhere.
        size_m: (n, 2) float32 width, height in metres of ground.
        error_m: (n,) float32 standard error of position, metres of ground.
        score: (n,) float32, 0 to 1.
        class_index: (n,) int16 into ``classes``.
        box_px: (n, 4) float32 x_min, y_min, x_max, y_max in the scene's native pixels, y down.
    """

    lon_lat: NDArray[np.float64]
    size_m: NDArray[np.float32]
    error_m: NDArray[np.float32]
    score: NDArray[np.float32]
    class_index: NDArray[np.int16]
    classes: tuple[str, ...]
    box_px: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepResult:
    """What one scene yielded.

    Attributes:
        surveyed: ground that was looked at, MultiPolygon in EPSG:4326, may be empty.
        seconds: from the start of the sweep to this scene's last block.
    """

    observations: Observations
    surveyed: BaseGeometry
    windows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a sweep is; ``area_m2`` is the ground looked at so far."""

    windows_done: int
    windows_total: int
    area_m2: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockTask:
    """One block of windows: everything needed to compute it anywhere."""

    scene: Scene
    neighbours: tuple[Neighbour, ...]
    model: Model
    threshold_override: float | None
    is_trusted: bool
    provider: Provider
    threads: int
    window_px: int
    disagreement_px: int
    windows: tuple[Window, ...]


def sweep(
    scenes: Sequence[Scene | Path],
    model: Model,
    options: SweepOptions | None = None,
    *,
    executor: Executor | None = None,
    checkpoints: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[SweepResult]:
    """Runs a model over scenes; several given together are one mosaic, whose seams no object notices.

    Args:
        executor: computes the blocks (processes, a Dask client's ``get_executor()``); None: threads of this
            process. The result is the same. At most two blocks a worker are under way.
        checkpoints: folder where finished blocks are kept; a sweep that was killed goes on from them.

    Returns:
        One result a scene, in order.

    Raises:
        SceneTooCoarse: a scene's ground resolution lies outside the model's range.
        SceneUnusable: a scene cannot be read.
        ModelError: the model cannot answer.
        Conflict: the model has not passed its accuracy test with the provider.
    """
    options = options or SweepOptions()
    if options.accepted is not None:
        options.accepted.require(model, options.provider)
    started = time.monotonic()
    opened = [scene if isinstance(scene, Scene) else open_scene(scene) for scene in scenes]
    for scene in opened:
        if not options.any_resolution:
            check_resolution(scene, model.card)
    if model.card.input.colours == "infrared":
        opened = [in_infrared(scene) for scene in opened]
    sweeps = [_plan(scene, opened, model, options) for scene in opened]
    total = sum(len(one.plan.windows) for one in sweeps)
    if executor is None:
        options = _at_full_speed(options, model, total)
    report = _Reporter(progress, total)
    results = []
    workers = options.workers or _workers_of(executor)
    with _submitter(executor, workers) as submit:
        outcomes = _in_order(_blocks(sweeps, checkpoints, model, options), submit, 2 * workers)
        for one in sweeps:
            parts = []
            for block in one.plan.blocks:
                parts.append(next(outcomes))
                report(one, block)
            results.append(_result(one, parts, model, time.monotonic() - started))
    for scene in opened:
        forget(scene.content_hash)
    return results


def _at_full_speed(options: SweepOptions, model: Model, windows: int) -> SweepOptions:
    """The options with the fastest workers and threads; measured once, and not for a few windows."""
    if options.workers is not None or options.speed is None or model.path.suffix != ".onnx":
        return options
    if windows < _LEAST_WINDOWS_TO_MEASURE:
        return options
    fastest = options.speed.fastest(model, options.provider)
    return replace(options, workers=fastest.workers, threads=fastest.threads)


# --- planning ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _SceneSweep:
    scene: Scene
    neighbours: tuple[Neighbour, ...]
    plan: WindowPlan


def _plan(scene: Scene, mosaic: Sequence[Scene], model: Model, options: SweepOptions) -> _SceneSweep:
    asked = model.card.input
    reach = 2 * round(asked.window_px * asked.ground_resolution_m / min(scene.pixel_ground_m))
    neighbours = neighbours_of(scene, mosaic, reach)
    shape = WindowShape(
        window_px=asked.window_px,
        margin_px=asked.margin_px,
        ground_resolution_m=asked.ground_resolution_m,
    )
    plan = plan_windows(
        scene,
        shape,
        grid_offset_px=options.grid_offset_px,
        has_neighbours=bool(neighbours),
        is_fitted=options.is_fitted and not neighbours,
    )
    return _SceneSweep(scene=scene, neighbours=neighbours, plan=plan)


_Job = tuple[BlockTask, Path | None]


def _blocks(
    sweeps: Sequence[_SceneSweep], checkpoints: Path | None, model: Model, options: SweepOptions
) -> Iterator[_Job]:
    for one in sweeps:
        folder = checkpoints / _checkpoint_key(one, model, options) if checkpoints else None
        for block in one.plan.blocks:
            task = BlockTask(
                scene=one.scene,
                neighbours=one.neighbours,
                model=model,
                threshold_override=options.threshold_override,
                is_trusted=options.is_trusted,
                provider=options.provider,
                threads=options.threads,
                window_px=one.plan.window_px,
                disagreement_px=one.plan.disagreement_px,
                windows=one.plan.windows[block.start : block.stop],
            )
            yield task, folder / f"{block.start:07d}-{block.stop:07d}.npz" if folder else None


def _checkpoint_key(one: _SceneSweep, model: Model, options: SweepOptions) -> str:
    # Margins come from the neighbours: the same scene in another mosaic is another computation.
    told = [one.scene.content_hash, settings_key(model, options)]
    told += [f"{near.scene.content_hash}{near.offset_px}" for near in one.neighbours]
    return hashlib.sha256("|".join(told).encode()).hexdigest()[:32]


# --- computing a block ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pixels:
    windows: NDArray[np.uint8]
    strip: Rectangle
    valid: Mask | None


def read_block(task: BlockTask) -> _Pixels:
    """Decodes and resamples the windows of a block."""
    windows, strip, valid = read_windows(
        task.scene, task.neighbours, [window.seen for window in task.windows], task.window_px
    )
    return _Pixels(windows=windows, strip=strip, valid=valid)


def detect_block(task: BlockTask, pixels: _Pixels) -> Candidates:
    """Runs the network over the windows of a block."""
    with _detectors.lent(task) as detector:
        answers = detector.detect(np.moveaxis(pixels.windows, 1, -1))
    return ownership.joined(
        [
            _candidates(task, window, boxes, pixels)
            for window, boxes in zip(task.windows, answers, strict=True)
        ]
    )


def survey_block(task: BlockTask) -> Candidates:
    """Reads and detects: one task for an executor, wherever it runs."""
    return detect_block(task, read_block(task))


class _Detectors:
    """The idle detectors of this process: as many as ever worked at once, for the model used last.

    Making a session costs as much as several windows, so it outlives the sweep and the thread that made it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: object = None
        self._idle: list[Detector] = []

    @contextmanager
    def lent(self, task: BlockTask) -> Iterator[Detector]:
        """One for the time of a block; two blocks never share one."""
        key = (task.model.card, str(task.model.path), task.threshold_override, task.provider, task.threads)
        detector = self._take(key) or build_detector(
            task.model,
            threshold_override=task.threshold_override,
            is_trusted=task.is_trusted,
            provider=task.provider,
            threads=task.threads,
        )
        yield detector
        with self._lock:
            if self._key == key:
                self._idle.append(detector)

    def _take(self, key: object) -> Detector | None:
        with self._lock:
            if self._key != key:
                self._key, self._idle = key, []
            return self._idle.pop() if self._idle else None


_detectors = _Detectors()


def _candidates(task: BlockTask, window: Window, boxes: Boxes, pixels: _Pixels) -> Candidates:
    seen, scene = window.seen, task.scene
    scale = np.array([seen.width, seen.height] * 2, np.float32) / np.float32(task.window_px)
    corners = boxes.corners * scale + np.array([seen.x_min, seen.y_min] * 2, np.float32)
    is_cut = _is_cut(corners, window, task, scale)
    if not task.neighbours:
        corners = np.clip(corners, 0, np.array([*scene.size_px] * 2, np.float32))
    x, y = (corners[:, 0] + corners[:, 2]) / 2, (corners[:, 1] + corners[:, 3]) / 2
    near = window.core.grown(task.disagreement_px)
    kept = (near.x_min <= x) & (x < near.x_max) & (near.y_min <= y) & (y < near.y_max)
    return Candidates(
        corners=corners,
        scores=boxes.scores,
        class_index=boxes.class_index,
        window=np.full(len(boxes), window.index, np.int32),
        is_cut=is_cut,
        is_valid=_on_valid_pixel(x, y, scene.size_px, pixels),
    ).taken(kept)


def _is_cut(
    corners: NDArray[np.float32], window: Window, task: BlockTask, scale: NDArray[np.float32]
) -> NDArray[np.bool_]:
    seen = window.seen
    columns, rows = task.scene.size_px
    alone = not task.neighbours
    # Where the window ends with the raster and no neighbour goes on, nothing was cut off.
    goes_on = np.array(
        [
            not (alone and seen.x_min <= 0),
            not (alone and seen.y_min <= 0),
            not (alone and seen.x_max >= columns),
            not (alone and seen.y_max >= rows),
        ]
    )
    sides = np.array([seen.x_min, seen.y_min, seen.x_max, seen.y_max], np.float32)
    touches = np.abs(corners - sides) <= _CUT_PX * scale
    cut: NDArray[np.bool_] = (touches & goes_on).any(axis=1)
    return cut


def _on_valid_pixel(
    x: NDArray[np.float32], y: NDArray[np.float32], size_px: tuple[int, int], pixels: _Pixels
) -> NDArray[np.bool_]:
    """Whether the pixel under each point was surveyed; points outside the raster are judged when owned."""
    outside = (x < 0) | (y < 0) | (x >= size_px[0]) | (y >= size_px[1])
    if pixels.valid is None:
        return np.ones(len(x), bool)
    rows, columns = pixels.valid.shape
    column = np.clip(np.floor(x).astype(np.intp) - pixels.strip.x_min, 0, columns - 1)
    row = np.clip(np.floor(y).astype(np.intp) - pixels.strip.y_min, 0, rows - 1)
    valid: NDArray[np.bool_] = outside | pixels.valid[row, column]
    return valid


# --- running blocks ---------------------------------------------------------------------------------

_Submit = Callable[[BlockTask], "Future[Candidates]"]


@contextmanager
def _submitter(executor: Executor | None, workers: int) -> Iterator[_Submit]:
    if executor is not None:
        chosen = executor
        yield lambda task: chosen.submit(survey_block, task)
        return
    readers = ThreadPoolExecutor(1 + workers // 8, thread_name_prefix="sweep-read")
    networks = ThreadPoolExecutor(workers, thread_name_prefix="sweep-infer")
    try:
        yield lambda task: networks.submit(_detect_read, task, readers.submit(read_block, task))
    finally:
        # An interrupted sweep ends after the blocks under way; finished ones are kept.
        networks.shutdown(wait=True, cancel_futures=True)
        readers.shutdown(wait=True, cancel_futures=True)


def _detect_read(task: BlockTask, pixels: "Future[_Pixels]") -> Candidates:
    return detect_block(task, pixels.result())


def _workers_of(executor: Executor | None) -> int:
    if executor is not None:
        client = getattr(executor, "_client", None)  # dask.distributed's executor
        if client is not None:
            return sum(client.ncores().values()) or 1
        known = getattr(executor, "_max_workers", None)
        if known:
            return int(known)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(jobs: Iterator[_Job], submit: _Submit, in_flight: int) -> Iterator[Candidates]:
    """Results in the jobs' order; finished blocks come from their checkpoints and are not computed."""
    waiting: deque[tuple[Path | None, Candidates | Future[Candidates]]] = deque()
    under_way = 0
    for task, checkpoint in jobs:
        finished = _load(checkpoint) if checkpoint else None
        waiting.append((checkpoint, submit(task) if finished is None else finished))
        under_way += finished is None
        while waiting and (under_way >= in_flight or len(waiting) > 8 * in_flight):
            under_way -= isinstance(waiting[0][1], Future)
            yield _awaited(*waiting.popleft())
    while waiting:
        yield _awaited(*waiting.popleft())


def _awaited(checkpoint: Path | None, outcome: Any) -> Candidates:
    if isinstance(outcome, Candidates):
        return outcome
    candidates: Candidates = outcome.result()
    if checkpoint:
        _save(checkpoint, candidates)
    return candidates


def _save(path: Path, candidates: Candidates) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    with unfinished.open("wb") as file:
        np.savez(file, **{field.name: getattr(candidates, field.name) for field in fields(candidates)})
    unfinished.replace(path)


def _load(path: Path) -> Candidates | None:
    """A finished block; None where there is none, or where it cannot be read and is computed again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return Candidates(**{name: stored[name] for name in ownership.COLUMNS})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


# --- results ----------------------------------------------------------------------------------------


class _Reporter:
    """Adds up what is done and tells the caller."""

    def __init__(self, progress: Callable[[Progress], None] | None, total: int) -> None:
        self._progress = progress
        self._state = Progress(windows_done=0, windows_total=total, area_m2=0.0)

    def __call__(self, one: _SceneSweep, block: range) -> None:
        cores = (one.plan.windows[index].core for index in block)
        pixels = sum(core.width * core.height for core in cores)
        self._state = replace(
            self._state,
            windows_done=self._state.windows_done + len(block),
            area_m2=self._state.area_m2 + pixels * one.scene.ground_resolution_m**2,
        )
        if self._progress:
            self._progress(self._state)


def _result(one: _SceneSweep, parts: Sequence[Candidates], model: Model, seconds: float) -> SweepResult:
    owned = ownership.own(ownership.joined(parts), one.plan.windows, one.scene.size_px)
    return SweepResult(
        observations=_observations(owned, one.scene, model),
        surveyed=one.scene.surveyed(),
        windows=len(one.plan.windows),
        seconds=seconds,
    )


def _observations(owned: Candidates, scene: Scene, model: Model) -> Observations:
    classes = model.card.output.classes
    size_m = sizes_m(owned.corners, scene)
    return Observations(
        lon_lat=centres_lon_lat(owned.corners, scene),
        size_m=size_m,
        error_m=position_errors_m(size_m, owned.class_index, classes, model.card.evidence),
        score=owned.scores,
        class_index=owned.class_index,
        classes=classes,
        box_px=owned.corners,
    )
