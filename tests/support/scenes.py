"""Scenes drawn by seeded code: brown ground with squares on it that the test network finds.

Odd ones are made on purpose: in feet, rotated, south-up, with nodata, 16 bits deep, smaller than a window.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.support.networks import SQUARE_PX

TREE = (0, 255, 0)
CAR = (255, 0, 0)
UTM = "EPSG:32612"
ORIGIN = (541_000.0, 4_977_000.0)


def draw_ground(width: int, height: int, *, seed: int = 7) -> NDArray[np.uint8]:
    """(3, height, width) brown with a little noise: nothing on it."""
    noise = np.random.default_rng(seed).integers(-8, 9, (3, height, width))
    return (np.array([70, 60, 50])[:, None, None] + noise).astype(np.uint8)


def draw_squares(
    pixels: NDArray[np.uint8],
    corners: Iterable[tuple[int, int]],
    *,
    colour: tuple[int, int, int] = TREE,
    side_px: int = SQUARE_PX,
) -> NDArray[np.uint8]:
    """The same pixels with a square at each (column, row) of an upper left corner."""
    drawn = pixels.copy()
    for column, row in corners:
        drawn[:, row : row + side_px, column : column + side_px] = np.array(colour)[:, None, None]
    return drawn


def scattered(
    width: int, height: int, *, count: int, seed: int = 11, gap_px: int = 14
) -> list[tuple[int, int]]:
    """Upper left corners of squares that do not touch one another nor the raster's edge."""
    random = np.random.default_rng(seed)
    cells = [
        (column, row)
        for row in range(2, height - gap_px, gap_px)
        for column in range(2, width - gap_px, gap_px)
    ]
    chosen = random.permutation(len(cells))[:count]
    shift = random.integers(0, gap_px - SQUARE_PX - 1, (len(cells), 2))
    return [(cells[n][0] + int(shift[n][0]), cells[n][1] + int(shift[n][1])) for n in chosen]


def write_scene(
    path: Path,
    pixels: NDArray[Any],
    *,
    crs: str | None = UTM,
    transform: Affine | None = None,
    pixel_m: float = 0.1,
    origin: tuple[float, float] = ORIGIN,
    tags: dict[str, str] | None = None,
    mask: NDArray[np.bool_] | None = None,
    **profile: Any,
) -> Path:
    """Writes (bands, rows, columns) as a lossless GeoTIFF, north-up at ``origin`` without a transform."""
    bands, height, width = pixels.shape
    settings: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands,
        "height": height,
        "width": width,
        "dtype": pixels.dtype.name,
        "crs": crs,
        "transform": transform or Affine(pixel_m, 0, origin[0], 0, -pixel_m, origin[1]),
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
    }
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **(settings | profile)) as dataset,
    ):
        dataset.write(pixels)
        if mask is not None:
            dataset.write_mask(mask)
        if tags:
            dataset.update_tags(**tags)
    return path


def make_scene_file(
    path: Path,
    *,
    size_px: tuple[int, int] = (400, 300),
    trees: Iterable[tuple[int, int]] = (),
    cars: Iterable[tuple[int, int]] = (),
    taken_at: str | None = "2026:05:17 10:30:00",
    **options: Any,
) -> Path:
    """A scene with squares at the given upper left corners (column, row); options as for ``write_scene``."""
    pixels = draw_squares(draw_ground(*size_px), trees)
    pixels = draw_squares(pixels, cars, colour=CAR)
    tags = {"TIFFTAG_DATETIME": taken_at} if taken_at else None
    return write_scene(path, pixels, tags=tags, **options)
