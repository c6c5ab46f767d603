"""Laying a picture without position on the ground: a GeoTIFF with the same pixels at a stated place."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from detection.errors import SceneUnreadable
from detection.imagery.raster import gdal_settings, open_raster


def place_picture(
    picture: Path, target: Path, *, crs: str, south_west: tuple[float, float], ground_resolution_m: float
) -> None:
    """Writes the pixels of a picture as a north-up GeoTIFF; an earlier file is replaced at the end.

    Args:
        picture: GeoTIFF, JPEG or PNG; a position of its own is not looked at.
        crs: projected, in metres, as ``EPSG:32612``.
        south_west: x, y of the lower left corner in ``crs``.
        ground_resolution_m: side of a pixel in units of ``crs``.

    Raises:
        SceneUnreadable, FormatNotAllowed: not a readable picture.
    """
    unfinished = target.with_name(f".{target.name}.part")
    with gdal_settings(picture), open_raster(picture) as source:
        pixels = source.read()
        bands, height, width = pixels.shape
        if bands not in (1, 3, 4) or pixels.dtype != np.uint8:
            raise SceneUnreadable(f"{bands} bands of {pixels.dtype} are no plain picture", where=str(picture))
        west, south = south_west
        north = south + height * ground_resolution_m
        profile = {
            "driver": "GTiff",
            "count": bands,
            "height": height,
            "width": width,
            "dtype": "uint8",
            "crs": crs,
            "transform": Affine(ground_resolution_m, 0, west, 0, -ground_resolution_m, north),
            "photometric": "MINISBLACK" if bands == 1 else "RGB",
            "tiled": True,
            "blockxsize": 512,
            "blockysize": 512,
            "compress": "deflate",
            "predictor": 2,
            "zlevel": 1,
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(unfinished, "w", **profile) as placed:
            placed.write(pixels)
    unfinished.replace(target)
