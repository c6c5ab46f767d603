"""Small pieces of ground cut out of a scene's file, for people to look at."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.windows import Window as RasterWindow

from detection.errors import SceneUnreadable, SceneWithoutCrs
from detection.imagery.bands import bands_of, stretch_of
from detection.imagery.raster import gdal_settings, open_raster
from detection.imagery.scene import georeference_of

_OUTSIDE = 24
"""Grey of what lies beyond the raster's edge."""
_LARGEST_PX = 2_048
"""Side of the largest crop: more is not seen on a sheet, and would be read for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A square of a scene. ``rgb``: (side, side, 3) uint8; ``origin_px``: column and row of its upper left corner.

    Ground beyond the raster's edge is dark. ``ground_resolution_m``: metres a pixel, as the caller said.
    """

    rgb: NDArray[np.uint8]
    origin_px: tuple[int, int]
    ground_resolution_m: float

    def within(self, box_px: tuple[float, ...]) -> tuple[float, float, float, float]:
        """A box of the scene in pixels of the crop: x_min, y_min, x_max, y_max."""
        column, row = self.origin_px
        x_min, y_min, x_max, y_max = box_px
        return x_min - column, y_min - row, x_max - column, y_max - row


def pixel_of(path: Path, lon_lat: tuple[float, float]) -> tuple[float, float]:
    """Column and row of a place in EPSG:4326 in a raster; maybe beyond its edge.

    Raises:
        SceneUnreadable, FormatNotAllowed: not a readable raster.
        SceneWithoutCrs: nothing in the file says where its pixels lie.
    """
    with gdal_settings(path), open_raster(path) as dataset:
        transform, crs = georeference_of(dataset, path, None, allow_unlocated=True)
    if crs is None:
        raise SceneWithoutCrs("the file does not say where its pixels lie", where=str(path))
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(*lon_lat)
    column, row = ~transform @ (x, y)
    return float(column), float(row)


def cut_out(
    path: Path,
    centre_px: tuple[float, float],
    *,
    side_m: float,
    ground_resolution_m: float,
    size_px: tuple[int, int] | None = None,
) -> Crop:
    """A square of ground around a pixel.

    Args:
        centre_px: column and row.
        side_m: side of the square on the ground.
        ground_resolution_m: metres a pixel.
        size_px: width and height that the raster must have: that of the scene; None: any.

    Raises:
        SceneUnreadable, FormatNotAllowed: not a readable raster, or of another size.
    """
    side_px = min(max(1, ceil(side_m / ground_resolution_m)), _LARGEST_PX)
    left, top = (round(middle - side_px / 2) for middle in centre_px)
    with gdal_settings(path), open_raster(path) as dataset:
        width, height = dataset.width, dataset.height
        if size_px is not None and (width, height) != size_px:
            raise SceneUnreadable(
                f"the file is {width} × {height} pixels now, the scene {size_px[0]} × {size_px[1]}",
                where=str(path),
            )
        columns = max(left, 0), min(left + side_px, width)
        rows = max(top, 0), min(top + side_px, height)
        rgb = np.full((side_px, side_px, 3), _OUTSIDE, np.uint8)
        if columns[0] < columns[1] and rows[0] < rows[1]:
            window = RasterWindow(columns[0], rows[0], columns[1] - columns[0], rows[1] - rows[0])
            seen = _read(dataset, window)
            rgb[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = seen
    return Crop(rgb=rgb, origin_px=(left, top), ground_resolution_m=ground_resolution_m)


def _read(dataset: object, window: RasterWindow) -> NDArray[np.uint8]:
    """(rows, columns, 3); deep pixels are stretched over what the window holds."""
    bands = bands_of(dataset)
    stored = dataset.read(list(bands.read), window=window)  # type: ignore[attr-defined]  # rasterio has no types
    if stored.dtype != np.uint8 and bands.palette is None:
        flat = stored.reshape(len(stored), -1)
        low, high = stretch_of(flat, np.ones(flat.shape[1], bool))
        stored = np.clip((stored.astype(np.float64) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(bands.to_rgb(stored), 0, -1))
