"""Scenes as pictures on web maps: tiles of the grid WebMercatorQuad, and previews."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rio_tiler.errors import TileOutsideBounds
from rio_tiler.io import Reader
from rio_tiler.models import ImageData

from detection.errors import SceneUnreadable, SceneWithoutCrs
from detection.imagery.bands import bands_of, stretch_of
from detection.imagery.raster import gdal_settings, open_raster
from detection.imagery.scene import georeference_of

SIZES_PX = (256, 512)
_LOOKED_AT_PX = 512
"""Side of the small picture from which the stretch of deep pixels is taken, the same for all tiles of a scene."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """``rgb``: (3, side, side) uint8; ``mask``: (side, side) whether a pixel was surveyed."""

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    def under(self, other: "Picture") -> "Picture":
        """This one where the other has nothing."""
        return Picture(rgb=np.where(other.mask, other.rgb, self.rgb), mask=self.mask | other.mask)

    def encoded(self, form: str) -> bytes:
        """As ``PNG``, ``WEBP`` or ``JPEG``; what was not surveyed is transparent, in JPEG white."""
        rgb = self.rgb if form != "JPEG" else np.where(self.mask, self.rgb, 255).astype(np.uint8)
        alpha = np.where(self.mask, 0, 255).astype(np.uint8)
        image = ImageData(np.ma.MaskedArray(rgb, np.broadcast_to(alpha > 0, rgb.shape)))
        return bytes(image.render(img_format=form, add_mask=form != "JPEG"))


def tile_of_scene(
    path: Path, tile: tuple[int, int, int], *, scene_px: tuple[int, int], side_px: int = SIZES_PX[0]
) -> Picture | None:
    """A scene's pixels in a tile; None where it has none there.

    Args:
        tile: zoom, column, row.
        scene_px: width and height that the file must have: those of the scene.

    Raises:
        SceneUnreadable, FormatNotAllowed: not a readable raster, or another one than the scene.
        SceneWithoutCrs: nothing in the file says where its pixels lie.
    """
    zoom, column, row = tile

    def read(reader: Reader, indexes: tuple[int, ...]) -> ImageData | None:
        try:
            return reader.tile(column, row, zoom, tilesize=side_px, indexes=indexes)
        except TileOutsideBounds:
            return None

    return _picture(path, scene_px, read)


def preview_of_scene(path: Path, *, scene_px: tuple[int, int], side_px: int = 512) -> Picture:
    """The whole scene, its longer side at most so long."""
    made = _picture(path, scene_px, lambda reader, indexes: reader.preview(max_size=side_px, indexes=indexes))
    assert made is not None
    return made


def _picture(path: Path, scene_px: tuple[int, int], read: Any) -> Picture | None:
    with gdal_settings(path), open_raster(path) as dataset:
        if (dataset.width, dataset.height) != scene_px:
            raise SceneUnreadable("the file is not the scene’s any more", where=str(path))
        if georeference_of(dataset, path, None, allow_unlocated=True)[1] is None:
            raise SceneWithoutCrs("the file does not say where its pixels lie", where=str(path))
        bands = bands_of(dataset)
        with Reader(None, dataset=dataset) as reader:
            image = read(reader, tuple(bands.read))
        if image is None:
            return None
        stored = image.array.data
        if stored.dtype != np.uint8 and bands.palette is None:
            low, high = _stretch(str(path), path.stat().st_mtime_ns, tuple(bands.read))
            stored = np.clip((stored.astype(np.float64) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        return Picture(rgb=np.ascontiguousarray(bands.to_rgb(stored)), mask=image.mask > 0)


@lru_cache(64)
def _stretch(path: str, changed_ns: int, indexes: tuple[int, ...]) -> tuple[float, float]:
    """The stored values to show as darkest and lightest."""
    with gdal_settings(Path(path)), open_raster(Path(path)) as dataset:
        scale = max(dataset.width, dataset.height) / _LOOKED_AT_PX
        shape = (len(indexes), max(1, int(dataset.height / scale)), max(1, int(dataset.width / scale)))
        small = dataset.read(list(indexes), out_shape=shape).reshape(len(indexes), -1)
    return stretch_of(small, np.ones(small.shape[1], bool))
