"""Reading windows of a scene: 8-bit RGB and which pixels are valid.

``SceneReader`` is the seam: a reader runs in this process today and can run in a sandboxed one, since it is
asked for rectangles and answers with arrays only.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window as RasterWindow

from detection.errors import SceneUnreadable
from detection.imagery.kept import kept
from detection.imagery.raster import gdal_settings, open_raster
from detection.imagery.scene import Scene, declared_by_value
from detection.imagery.validity import Mask
from detection.imagery.windows import Rectangle

RgbPixels = NDArray[np.uint8]
"""(3, rows, columns) uint8."""

#: What the network sees where nothing was surveyed: the grey that YOLO pads with.
NEUTRAL = 114
#: Open files a thread keeps; a mosaic's window touches at most nine.
_OPEN_FILES = 12


class SceneReader(Protocol):
    """Gives rectangles of one scene."""

    def read(self, rectangle: Rectangle) -> tuple[RgbPixels, Mask | None]:
        """Pixels of a rectangle inside the raster, and which are valid; None where all are."""
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


class RasterReader:
    """Reads a scene's file through GDAL, in the thread that made it."""

    def __init__(self, scene: Scene) -> None:
        if scene.path is None:
            raise SceneUnreadable("the scene has no file", where=scene.name)
        self._scene = scene
        self._path = scene.path
        with gdal_settings(self._path):
            self._dataset = open_raster(self._path)
        if (self._dataset.width, self._dataset.height) != scene.size_px:
            raise SceneUnreadable("the file changed since it was opened", where=str(self._path))

    def read(self, rectangle: Rectangle) -> tuple[RgbPixels, Mask | None]:
        """See ``SceneReader``; reads only the bands it needs, and the mask only where cells ask for it."""
        scene = self._scene
        is_full = _is_full(scene, rectangle)
        # What was kept when the scene was opened are its natural colours.
        picture = None if scene.bands.is_infrared else kept(scene.content_hash)
        if picture is not None and (is_full or not (scene.has_mask or scene.bands.alpha)):
            rgb = picture[:, rectangle.y_min : rectangle.y_max, rectangle.x_min : rectangle.x_max]
            return rgb, None if is_full else self._valid(rgb, rgb, None, rectangle)
        alpha = None if is_full else scene.bands.alpha
        bands = [*scene.bands.read, *([] if alpha is None else [alpha])]
        window = RasterWindow(rectangle.x_min, rectangle.y_min, rectangle.width, rectangle.height)
        with gdal_settings(self._path):
            stored = self._dataset.read(bands, window=window)
            mask = None
            if scene.has_mask and not is_full:
                mask = self._dataset.read_masks(1, window=window) > 0
        rgb = scene.bands.to_rgb(stored[: len(scene.bands.read)])
        if is_full:
            return rgb, None
        if alpha is not None:
            mask = stored[-1] > 0
        return rgb, self._valid(rgb, stored[: len(scene.bands.read)], mask, rectangle)

    def _valid(
        self, rgb: RgbPixels, stored: NDArray[Any], mask: Mask | None, rectangle: Rectangle
    ) -> Mask | None:
        """What mask or alpha say, else the nodata value, and the border; None where all is valid."""
        declared = declared_by_value(stored, self._scene.nodata) if mask is None else mask
        border = self._scene.validity.border_mask(rgb, rectangle.x_min, rectangle.y_min)
        return _and(declared, border)

    def close(self) -> None:
        """See ``SceneReader``."""
        self._dataset.close()


class PixelsReader:
    """Reads a scene that lies in memory."""

    def __init__(self, scene: Scene, pixels: RgbPixels) -> None:
        self._scene = scene
        self._pixels = pixels

    def read(self, rectangle: Rectangle) -> tuple[RgbPixels, Mask | None]:
        """See ``SceneReader``."""
        rows = slice(rectangle.y_min, rectangle.y_max)
        return self._pixels[:, rows, rectangle.x_min : rectangle.x_max], None

    def close(self) -> None:
        """See ``SceneReader``."""


def open_reader(scene: Scene) -> SceneReader:
    """A reader of a scene, for the calling thread alone."""
    return RasterReader(scene) if scene.pixels is None else PixelsReader(scene, scene.pixels)


def _is_full(scene: Scene, rectangle: Rectangle) -> bool:
    return scene.validity.is_full(rectangle.x_min, rectangle.y_min, rectangle.width, rectangle.height)


def _and(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


_open_readers = threading.local()


def _reader(scene: Scene) -> SceneReader:
    """The calling thread's reader of a scene; the least recently used one is closed when there are many."""
    readers: OrderedDict[tuple[str, str], SceneReader] = _open_readers.__dict__.setdefault(
        "readers", OrderedDict()
    )
    key = (str(scene.path), scene.content_hash)
    if key not in readers:
        readers[key] = open_reader(scene)
    readers.move_to_end(key)
    while len(readers) > _OPEN_FILES:
        readers.popitem(last=False)[1].close()
    return readers[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Another scene of the mosaic on the same lattice of pixels.

    Attributes:
        offset_px: column and row, in the first scene, of the neighbour's first pixel.
    """

    scene: Scene
    offset_px: tuple[int, int]


def neighbours_of(scene: Scene, others: Sequence[Scene], reach_px: int) -> tuple[Neighbour, ...]:
    """Those of the other scenes whose pixels may fill the margins of a scene's windows.

    They have the same CRS and the same pixels (half a pixel of offset is rounded away) and lie within reach.
    """
    found = []
    for other in others:
        offset = None if other is scene else _offset_px(scene, other)
        if offset is None:
            continue
        gaps = (
            max(offset[axis] - scene.size_px[axis], -offset[axis] - other.size_px[axis]) for axis in (0, 1)
        )
        if max(gaps) < reach_px:
            found.append(Neighbour(scene=other, offset_px=offset))
    return tuple(found)


def _offset_px(scene: Scene, other: Scene) -> tuple[int, int] | None:
    if scene.crs is None or other.crs is None or scene.crs != other.crs:
        return None
    steps = np.array([scene.transform[i] for i in (0, 1, 3, 4)])
    others = np.array([other.transform[i] for i in (0, 1, 3, 4)])
    # A step that differs by 1e-6 drifts half a pixel in 500,000: more than any margin is wide.
    if not np.allclose(steps, others, rtol=0, atol=1e-6 * float(np.abs(steps).max())):
        return None
    column, row = ~scene.transform @ (other.transform.c, other.transform.f)
    return (round(column), round(row))


def read_seen(
    scene: Scene, neighbours: Sequence[Neighbour], seen: Rectangle
) -> tuple[RgbPixels, Mask | None]:
    """Pixels of a rectangle that may reach beyond the raster, and which are valid *in this scene*.

    Ground that the scene does not show is taken from its neighbours, in their order, and is neutral grey
    where they show nothing either.
    """
    inside = _clipped(seen, scene.size_px)
    if inside == seen and _is_full(scene, seen):
        return _reader(scene).read(seen)
    rgb = np.full((3, seen.height, seen.width), NEUTRAL, np.uint8)
    own = np.zeros((seen.height, seen.width), bool)
    _fill(rgb, own, scene, inside, seen, (0, 0))
    shown = own.copy()
    for neighbour in neighbours:
        if shown.all():
            break
        dx, dy = neighbour.offset_px
        moved = Rectangle(seen.x_min - dx, seen.y_min - dy, seen.x_max - dx, seen.y_max - dy)
        part = _clipped(moved, neighbour.scene.size_px)
        _fill(rgb, shown, neighbour.scene, part, seen, (dx, dy))
    return rgb, own


def _clipped(rectangle: Rectangle, size_px: tuple[int, int]) -> Rectangle:
    return Rectangle(
        max(rectangle.x_min, 0),
        max(rectangle.y_min, 0),
        min(rectangle.x_max, size_px[0]),
        min(rectangle.y_max, size_px[1]),
    )


def _fill(
    rgb: RgbPixels,
    shown: Mask,
    scene: Scene,
    part: Rectangle,
    seen: Rectangle,
    offset_px: tuple[int, int],
) -> None:
    """Writes a scene's valid pixels where nothing is shown yet, in place."""
    if part.width <= 0 or part.height <= 0:
        return
    pixels, valid = _reader(scene).read(part)
    left, top = part.x_min + offset_px[0] - seen.x_min, part.y_min + offset_px[1] - seen.y_min
    rows, columns = slice(top, top + part.height), slice(left, left + part.width)
    free = ~shown[rows, columns]
    free = free if valid is None else free & valid
    if free.all():
        rgb[:, rows, columns] = pixels
    else:
        np.copyto(rgb[:, rows, columns], pixels, where=free)
    shown[rows, columns] |= free


def resampled(rgb: RgbPixels, side_px: int) -> RgbPixels:
    """(3, side, side) from (3, rows, columns), by bilinear weights along each axis.

    Reduction uses a triangle filter as wide as it asks for (Pillow's). Enlargement, the common case of a model that
    looks closer than the imagery, is done here: the same to two grey levels, in two thirds of the time.
    """
    rows, columns = rgb.shape[1:]
    if rows > side_px or columns > side_px or min(rows, columns) < 2:
        bands = (Image.fromarray(np.ascontiguousarray(band)) for band in rgb)
        filtered = (band.resize((side_px, side_px), Image.Resampling.BILINEAR) for band in bands)
        return np.stack([np.asarray(band) for band in filtered])
    upper, down = _bilinear(rows, side_px)
    left, across = _bilinear(columns, side_px)
    enlarged = np.empty((3, side_px, side_px), np.uint8)
    for band, out in zip(rgb, enlarged, strict=True):  # by band: the parts stay in the processor's cache
        tall = _between(band[upper], band[upper + 1], down[:, None])
        # Gathering along rows is what costs: both neighbours travel in one 16-bit number.
        pairs = np.take(tall[:, :-1] | tall[:, 1:] << 8, left, axis=1, mode="clip")
        out[...] = _between(pairs & 255, pairs >> 8, across)
    return enlarged


def _bilinear(size: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
    """Per enlarged pixel, the first of its two neighbours and the second's weight in 256ths."""
    at = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    first = np.minimum(np.floor(at), size - 2).astype(np.intp)
    return first, np.rint((at - first) * 256).astype(np.uint16)


def _between(one: NDArray[Any], other: NDArray[Any], weight: NDArray[np.uint16]) -> NDArray[np.uint16]:
    mixed: NDArray[np.uint16] = np.multiply(one, 256 - weight, dtype=np.uint16)
    mixed += np.multiply(other, weight, dtype=np.uint16)
    mixed += np.uint16(127)
    mixed >>= 8
    return mixed


def read_windows(
    scene: Scene,
    neighbours: Sequence[Neighbour],
    seen: Sequence[Rectangle],
    window_px: int,
) -> tuple[RgbPixels, Rectangle, Mask | None]:
    """The windows of one block as the network takes them, read as one strip so that nothing is decoded twice.

    Args:
        seen: rectangles of one row of windows.

    Returns:
        (n, 3, window_px, window_px) uint8; the strip; its pixels that are valid in this scene, None for all.
    """
    strip = Rectangle(
        min(rectangle.x_min for rectangle in seen),
        min(rectangle.y_min for rectangle in seen),
        max(rectangle.x_max for rectangle in seen),
        max(rectangle.y_max for rectangle in seen),
    )
    rgb, valid = read_seen(scene, neighbours, strip)
    windows = np.empty((len(seen), 3, window_px, window_px), np.uint8)
    for number, rectangle in enumerate(seen):
        left = rectangle.x_min - strip.x_min
        part = rgb[:, :, left : left + rectangle.width]
        same = rectangle.width == rectangle.height == window_px
        windows[number] = part if same else resampled(part, window_px)
    return windows, strip, valid
