"""The plan: which windows of a scene the network is given, and which ground each of them owns.

A window is a core (the ground it owns) and a margin (context). Cores tile the surveyed ground exactly once.
Along each axis the borders between cores lie at multiples of the stride counted from the origin of the
scene's CRS, so cutting or cropping a file moves no interior window. Pixels are not read here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor

import numpy as np

from detection.imagery.scene import Scene

#: Scenes this close to the model's ground resolution are read as they are: resampling would blur more than it
#: mends.
NATIVE_WITHIN = 0.05
#: Window sides in native pixels are multiples of this, so that two files of one flight, whose ground
#: resolution differs in the fifth digit, get the same windows.
_SIDE_STEP = 8
#: The coarsest step of YOLO's heads. A network answers a little differently when the picture moves by less; windows
#: that begin at multiples of it on the ground see all ground alike, however the grid or the file is cut.
NETWORK_STRIDE_PX = 32
#: Files of one flight differ by whole pixels and rounding errors, and must round alike also where their pixels lie
#: half a pixel off the grid.
_BELOW_HALF = 0.4999
#: Share of the margin by which the two windows at a border may disagree about an object's centre.
DISAGREEMENT = 0.5
#: Bytes of decoded native pixels that one block may hold, and that one row of windows may keep in GDAL's
#: cache.
_BLOCK_BYTES = 32_000_000


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Whole pixels of a scene, half-open, y down; may reach beyond the raster."""

    x_min: int
    y_min: int
    x_max: int
    y_max: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.x_max - self.x_min

    @property
    def height(self) -> int:
        """Rows."""
        return self.y_max - self.y_min

    def contains(self, x: float, y: float) -> bool:
        """Whether a point lies inside; the left and upper sides belong to it, the others do not."""
        return self.x_min <= x < self.x_max and self.y_min <= y < self.y_max

    def grown(self, by: int) -> "Rectangle":
        """The same with each side moved outwards."""
        return Rectangle(self.x_min - by, self.y_min - by, self.x_max + by, self.y_max + by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One view for the network: what it sees and what it owns, in native pixels of the scene."""

    index: int
    seen: Rectangle
    core: Rectangle


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowShape:
    """The network's window: side and margin in its own pixels, and the ground that a pixel covers."""

    window_px: int
    margin_px: int
    ground_resolution_m: float

    @property
    def stride_px(self) -> int:
        """Side of a core."""
        return self.window_px - 2 * self.margin_px


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """All windows of a scene in plan order, and how they are cut into blocks.

    Attributes:
        native_px: side of a window in native pixels (columns, rows): equal to ``window_px`` without
        resampling. disagreement_px: how far outside a core, in native pixels, a centre may lie to be
        reconsidered. blocks: ranges of window indices; each lies in one row of windows, without gaps.
    """

    window_px: int
    native_px: tuple[int, int]
    disagreement_px: int
    windows: tuple[Window, ...]
    blocks: tuple[range, ...]

    @property
    def is_native(self) -> bool:
        """Whether pixels go to the network as they are in the file."""
        return self.native_px == (self.window_px, self.window_px)


@dataclass(frozen=True, slots=True)
class _Span:
    """One axis of a window: core and what is seen, half-open."""

    core: tuple[int, int]
    seen: tuple[int, int]


def plan_windows(
    scene: Scene,
    shape: WindowShape,
    *,
    grid_offset_px: tuple[int, int] = (0, 0),
    has_neighbours: bool = False,
    is_fitted: bool = False,
) -> WindowPlan:
    """The windows that cover the surveyed ground of a scene.

    Args:
        grid_offset_px: shifts the borders between cores, in the network's pixels.
        has_neighbours: other scenes continue the picture beyond the raster. Then windows stay where the grid
            has them, and those that own ground just beyond the raster are planned too: both
            scenes see the same windows along their common edge. Otherwise windows are moved
            inside the raster, for context instead of padding, and cores end at its edge.
        is_fitted: as few windows as cover the raster, anchored to its corner instead of to the ground.
    """
    native = _native_sides(scene, shape)
    spans = tuple(
        _spans(scene, shape, axis, native[axis], grid_offset_px[axis], has_neighbours, is_fitted)
        for axis in (0, 1)
    )
    panel, run = _layout(scene, native)
    windows: list[Window] = []
    blocks: list[range] = []
    limit = max(1, min(run, len(spans[0]) * len(spans[1]) // 32))
    if scene.block_px[0] >= scene.size_px[0]:
        limit = run  # a file in strips: each strip is decoded once a row
    for first in range(0, len(spans[0]), panel):
        for down in spans[1]:
            row = list(_windows_of_row(scene, spans[0][first : first + panel], down, has_neighbours))
            for stretch in _without_gaps(row):
                for part in _even_parts(stretch, limit):
                    blocks.append(range(len(windows), len(windows) + len(part)))
                    windows += [
                        Window(index=len(windows) + n, seen=seen, core=core)
                        for n, (_, seen, core) in enumerate(part)
                    ]
    scale = max(native) / shape.window_px
    return WindowPlan(
        window_px=shape.window_px,
        native_px=native,
        disagreement_px=round(DISAGREEMENT * shape.margin_px * scale),
        windows=tuple(windows),
        blocks=tuple(blocks),
    )


def _native_sides(scene: Scene, shape: WindowShape) -> tuple[int, int]:
    ratios = [shape.ground_resolution_m / metres for metres in scene.pixel_ground_m]
    if all(abs(ratio - 1) <= NATIVE_WITHIN for ratio in ratios):
        return (shape.window_px, shape.window_px)
    columns, rows = (max(1, round(shape.window_px * ratio / _SIDE_STEP)) * _SIDE_STEP for ratio in ratios)
    return (columns, rows)


def _spans(
    scene: Scene,
    shape: WindowShape,
    axis: int,
    native: int,
    offset_px: int,
    has_neighbours: bool,
    is_fitted: bool,
) -> tuple[_Span, ...]:
    size = scene.size_px[axis]
    scale = native / shape.window_px
    margin = floor(shape.margin_px * scale)
    if is_fitted:
        return _fitted_spans(size, native, margin)
    stride = shape.stride_px * scale
    ground = _ground_phase(scene, axis)
    lattice = _Lattice(ground - margin, _lattice_step(shape) * scale)
    grown = round(DISAGREEMENT * margin) if has_neighbours else 0
    borders = _borders((ground + offset_px * scale) % stride, stride, -grown, size + grown)
    if has_neighbours:
        cores = list(pairwise(borders))
        origins = [lattice.nearest(start - margin) for start, _ in cores]
    else:
        inner = [border for border in borders[1:-1] if margin < border < size - margin]
        cores = list(pairwise([0, *inner, size]))
        origins = [_origin_inside(core, lattice, native, margin, size) for core in cores]
    return tuple(_Span(core, (origin, origin + native)) for core, origin in zip(cores, origins, strict=True))


@dataclass(frozen=True, slots=True)
class _Lattice:
    """Where windows may begin along one axis: every ``step`` native pixels from ``phase``, rounded to pixels."""

    phase: float
    step: float

    def nearest(self, at: float) -> int:
        return self._point(floor((at - self.phase) / self.step + 0.5))

    def at_or_below(self, at: int) -> int:
        return self._point(floor((at - self.phase) / self.step + 1e-6))

    def at_or_above(self, at: int) -> int:
        return self._point(ceil((at - self.phase) / self.step - 1e-6))

    def _point(self, number: int) -> int:
        return floor(self.phase + number * self.step + _BELOW_HALF)


def _lattice_step(shape: WindowShape) -> int:
    # Half a step may be taken from a margin; narrow margins have none to spare.
    return NETWORK_STRIDE_PX if shape.margin_px >= NETWORK_STRIDE_PX else 1


def _origin_inside(core: tuple[int, int], lattice: _Lattice, native: int, margin: int, size: int) -> int:
    """Where the window of a core begins in a raster that nothing continues: inside it, to a step of the lattice."""
    start, stop = core
    if start == 0:
        origin = lattice.at_or_below(0)
        return origin if origin + native >= stop else 0
    origin = lattice.nearest(start - margin)
    reaches_edge = stop == size or origin + native > size
    return lattice.at_or_above(size - native) if reaches_edge else origin


def _ground_phase(scene: Scene, axis: int) -> float:
    """Column (row) at which the CRS's coordinate is zero; 0 for rotated rasters and without CRS."""
    transform = scene.transform
    if scene.crs is None or transform.b or transform.d:
        return 0.0
    return -transform.c / transform.a if axis == 0 else -transform.f / transform.e


def _borders(phase: float, stride: float, start: int, stop: int) -> list[int]:
    """Borders of the cores that meet [start, stop), rounded to pixels; the outer two enclose it."""
    first = floor((start - phase) / stride) - 1
    last = ceil((stop - phase) / stride) + 1
    borders = [floor(phase + n * stride + _BELOW_HALF) for n in range(first, last + 1)]
    below = max(n for n, border in enumerate(borders) if border <= start)
    above = min(n for n, border in enumerate(borders) if border >= stop)
    return borders[below : above + 1]


def _fitted_spans(size: int, native: int, margin: int) -> tuple[_Span, ...]:
    stride = native - 2 * margin
    count = max(1, ceil((size - native) / stride) + 1)
    origins = [max(0, min(n * stride, size - native)) for n in range(count)]
    borders = [0, *(origin + margin for origin in origins[1:]), size]
    return tuple(
        _Span((a, b), (origin, origin + native))
        for a, b, origin in zip(borders, borders[1:], origins, strict=False)
    )


_Placed = tuple[int, Rectangle, Rectangle]


def _windows_of_row(
    scene: Scene, across: tuple[_Span, ...], down: _Span, has_neighbours: bool
) -> Iterator[_Placed]:
    """(column of the grid, seen, core) of the windows that may own valid pixels."""
    grown = round(DISAGREEMENT * (down.core[0] - down.seen[0])) if has_neighbours else 0
    for number, span in enumerate(across):
        core = Rectangle(span.core[0], down.core[0], span.core[1], down.core[1])
        near = core.grown(max(grown, 0))
        if scene.validity.is_void(near.x_min, near.y_min, near.width, near.height):
            continue
        yield number, Rectangle(span.seen[0], down.seen[0], span.seen[1], down.seen[1]), core


def _without_gaps(row: list[_Placed]) -> list[list[_Placed]]:
    cuts = [n for n in range(1, len(row)) if row[n][0] != row[n - 1][0] + 1]
    starts = [0, *cuts] if row else []
    return [row[a:b] for a, b in zip(starts, [*cuts, len(row)], strict=True)] if row else []


def _even_parts(row: list[_Placed], limit: int) -> list[list[_Placed]]:
    count = ceil(len(row) / limit)
    edges = np.linspace(0, len(row), count + 1).round().astype(int)
    return [row[a:b] for a, b in pairwise(edges)]


def _layout(scene: Scene, native: tuple[int, int]) -> tuple[int, int]:
    """Windows a row of a panel, and at most a block.

    A panel is as wide as GDAL's cache can hold two rows of the file's blocks, so each is decoded once; a file
    in strips is one panel, its rows read whole.
    """
    pixel_bytes = len(scene.bands.read) * np.dtype(scene.dtype).itemsize
    if scene.block_px[0] >= scene.size_px[0]:
        whole = ceil(scene.size_px[0] / native[0]) * 4 + 4
        return whole, whole
    rows = native[1] + 2 * scene.block_px[1]
    panel = max(1, _BLOCK_BYTES // (pixel_bytes * rows * native[0]))
    run = max(1, min(8, _BLOCK_BYTES // (pixel_bytes * native[0] * native[1])))
    return max(panel, run), run
