"""Scenes as pictures on web maps: tiles of the grid WebMercatorQuad, and previews.

What a picture costs is known before a pixel is read: whole blocks are decoded, and a file without reduced pictures
(overviews) has to be read whole to be shown small. What would cost too much is refused, not begun.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, floor, pi
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio import features
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow
from rio_tiler.models import ImageData

from detection.errors import SceneUnreadable, SceneWithoutCrs, TooMuchToRead
from detection.imagery.bands import Bands, RasterPixels, bands_of, has_mask, stretch_of
from detection.imagery.raster import Format, gdal_settings, open_raster, overview_factors
from detection.imagery.scene import declared_by_value, georeference_of, laid_out
from detection.imagery.validity import Mask

SIDES_PX = (256, 512)
MOST_BYTES = 128_000_000
"""Decoded bytes that one picture may need: about a second of one processor. A tile at a scene's own resolution needs
one or two million; without overviews four zooms further out are still within it."""
_HALF_M = 6_378_137.0 * pi
"""Half a side of the square that EPSG:3857 is, metres."""
_SAMPLES_A_SIDE, _SAMPLE_PX = 8, 64
_LOOKS_KEPT = 512
_EDGE_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """``rgb``: (3, rows, columns) uint8; ``mask``: (rows, columns) which pixels were surveyed; ``bytes_read``: at
    most so many were decoded for it."""

    rgb: NDArray[np.uint8]
    mask: Mask
    bytes_read: int = 0

    def under(self, other: "Picture") -> "Picture":
        """This one where the other has nothing."""
        return Picture(
            rgb=np.where(other.mask, other.rgb, self.rgb),
            mask=self.mask | other.mask,
            bytes_read=self.bytes_read + other.bytes_read,
        )

    def encoded(self, form: str) -> bytes:
        """As ``PNG``, ``WEBP`` or ``JPEG``; what was not surveyed is transparent, in JPEG white."""
        rgb = self.rgb if form != "JPEG" else np.where(self.mask, self.rgb, 255).astype(np.uint8)
        image = ImageData(np.ma.MaskedArray(rgb, np.broadcast_to(~self.mask, rgb.shape)))
        return bytes(image.render(img_format=form, add_mask=form != "JPEG"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFile:
    """A scene's file, and what the inventory knows of it.

    Attributes:
        size_px: columns and rows that it must have.
        ground: EPSG:4326, what was surveyed of it; the rest is not shown.
        datum_shift_deg: what its own longitudes and latitudes have too much, near what is shown.
    """

    path: Path
    size_px: tuple[int, int]
    ground: shapely.Geometry
    datum_shift_deg: tuple[float, float] = (0.0, 0.0)


def tile_of_scene(
    file: ShownFile, tile: tuple[int, int, int], *, side_px: int = SIDES_PX[0], most_bytes: int = MOST_BYTES
) -> Picture | None:
    """A scene's pixels in a tile; None where it has none there.

    Args:
        tile: zoom, column, row.
        most_bytes: that may be decoded for it.

    Raises:
        SceneUnreadable, FormatNotAllowed: not a readable raster, or another one than the scene.
        SceneWithoutCrs: nothing in the file says where its pixels lie.
        TooMuchToRead: it would take more than ``most_bytes``.
    """
    surveyed = surveyed_in(file.ground, tile, side_px)
    if not surveyed.any():
        return None
    look = _look_at(file)
    grid = _grid(tile, side_px, file.datum_shift_deg)
    rectangle, pixels_a_pixel = _rectangle(look, grid, side_px)
    if rectangle is None:
        return None
    overview = look.overview_for(pixels_a_pixel)
    cost = look.bytes_of(rectangle, overview)
    if cost > most_bytes:
        raise _too_much(file.path, cost)
    with _opened(file, overview) as dataset:
        scale = Affine.scale(look.size_px[0] / dataset.width, look.size_px[1] / dataset.height)
        with WarpedVRT(
            dataset,
            src_crs=look.crs.to_wkt(),
            src_transform=look.transform @ scale,
            crs="EPSG:3857",
            transform=grid,
            width=side_px,
            height=side_px,
            resampling=Resampling.nearest if look.bands.palette else Resampling.bilinear,
            **look.alpha_options,
        ) as placed:
            # Alpha is the file's own, else the last band, made from its mask or nodata value.
            stored = placed.read([*look.bands.read, look.bands.alpha or placed.count])
    mask = surveyed & (stored[-1] > 0) & np.isfinite(stored).all(axis=0)
    return Picture(rgb=_rgb(look.bands, stored[:-1]), mask=mask, bytes_read=cost) if mask.any() else None


def surveyed_in(ground: shapely.Geometry, tile: tuple[int, int, int], side_px: int) -> Mask:
    """(side, side): which pixels of a tile show surveyed ground, one that it only touches among them."""
    zoom, column, row = tile

    def pixels(lon_lat: NDArray[np.float64]) -> NDArray[np.float64]:
        # Snyder, Map Projections (1987), § 7: Mercator, of the sphere.
        sine = np.sin(np.radians(np.clip(lon_lat[:, 1], -85.06, 85.06)))
        x = (lon_lat[:, 0] + 180) / 360
        y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * pi)
        return np.stack([(x * 2.0**zoom - column) * side_px, (y * 2.0**zoom - row) * side_px], axis=1)

    shown = shapely.clip_by_rect(shapely.transform(ground, pixels), -1, -1, side_px + 1, side_px + 1)
    if shapely.is_empty(shown):
        return np.zeros((side_px, side_px), bool)
    burnt = features.rasterize([shown], out_shape=(side_px, side_px), all_touched=True)
    return np.asarray(burnt > 0)


def preview_of_scene(file: ShownFile, *, side_px: int = 512) -> Picture:
    """The whole scene as it lies in its file, its longer side at most so long.

    Raises:
        SceneUnreadable, FormatNotAllowed, SceneWithoutCrs, TooMuchToRead: as ``tile_of_scene``.
    """
    look = _look_at(file)
    width, height = look.size_px
    shrink = max(1.0, max(width, height) / side_px)
    shape = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    overview = look.overview_for(shrink)
    cost = look.bytes_of((0, 0, width, height), overview)
    if cost > MOST_BYTES:
        raise _too_much(file.path, cost)
    resampling = Resampling.nearest if look.bands.palette else Resampling.average
    with _opened(file, overview) as dataset:
        bands = list(look.bands.read)
        stored = dataset.read(bands, out_shape=(len(bands), *shape), resampling=resampling)
        mask = dataset.dataset_mask(out_shape=shape) > 0
    valid = mask & np.isfinite(stored).all(axis=0) if look.alpha_is_mask else np.ones_like(mask)
    return Picture(rgb=_rgb(look.bands, stored), mask=valid, bytes_read=cost)


# --- what a file is --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What is known of a file before a picture is made of it.

    Attributes:
        bands: with the stretch of deep pixels, the same for all pictures of the file.
        overviews: how many times smaller each reduced picture is.
        block_px: columns and rows that are decoded together.
        bytes_a_pixel: decoded with each pixel, all bands that lie together.
    """

    size_px: tuple[int, int]
    crs: CRS
    transform: Affine
    bands: Bands
    alpha_is_mask: bool
    alpha_options: dict[str, Any]
    overviews: tuple[int, ...]
    block_px: tuple[int, int]
    bytes_a_pixel: int
    is_random_access: bool

    def overview_for(self, pixels_a_pixel: float) -> int | None:
        """The smallest reduced picture that still has a pixel for each that is shown; None: the raster itself."""
        fitting = [n for n, factor in enumerate(self.overviews) if factor <= pixels_a_pixel * 1.01]
        return max(fitting, key=lambda n: self.overviews[n], default=None)

    def bytes_of(self, rectangle: tuple[int, int, int, int], overview: int | None) -> int:
        """At most so many bytes are decoded to read a rectangle of the raster (x_min, y_min, x_max, y_max)."""
        x_min, y_min, x_max, y_max = rectangle
        factor = 1 if overview is None else self.overviews[overview]
        wide, high = self.block_px
        columns = wide * (ceil(x_max / factor / wide) - floor(x_min / factor / wide))
        # JPEG and PNG are decoded from their first row on.
        first = floor(y_min / factor / high) if self.is_random_access else 0
        rows = high * (ceil(y_max / factor / high) - first)
        return columns * rows * self.bytes_a_pixel


def _look_at(file: ShownFile) -> _Look:
    """Raises:
    SceneUnreadable, FormatNotAllowed, SceneWithoutCrs: as ``tile_of_scene``.
    """
    try:
        stamp = file.path.stat()
    except OSError as error:
        raise SceneUnreadable("the file is gone", where=str(file.path)) from error
    look = _looked(file.path, stamp.st_mtime_ns, stamp.st_size)
    if look.size_px != file.size_px:
        raise SceneUnreadable("the file is not the scene’s any more", where=str(file.path))
    return look


@lru_cache(_LOOKS_KEPT)
def _looked(path: Path, _changed_ns: int, _size_bytes: int) -> _Look:
    with gdal_settings(path):
        overviews = overview_factors(path)
        with open_raster(path) as dataset:
            transform, crs = georeference_of(dataset, path, None, allow_unlocated=True)
            if crs is None:
                raise SceneWithoutCrs("the file does not say where its pixels lie", where=str(path))
            bands, rows_columns = bands_of(dataset), dataset.block_shapes[0]
            apart = dataset.driver == Format.GEOTIFF and str(dataset.profile.get("interleave")) == "band"
            together = len(bands.read) + 1 if apart else dataset.count
            look = _Look(
                size_px=(dataset.width, dataset.height),
                crs=crs,
                transform=transform,
                bands=bands,
                alpha_is_mask=True,
                alpha_options=_alpha_options(dataset, bands),
                overviews=overviews,
                block_px=(rows_columns[1], rows_columns[0]),
                bytes_a_pixel=together * max(np.dtype(name).itemsize for name in dataset.dtypes),
                is_random_access=dataset.driver == Format.GEOTIFF,
            )
            is_deep = dataset.dtypes[bands.read[0] - 1] != "uint8" and bands.palette is None
            if not is_deep and bands.alpha is None:
                return look
            sample, alpha = _sample(dataset, look)
    between = float(np.mean((alpha > 0) & (alpha < alpha.max(initial=1))))
    return replace(
        look,
        bands=replace(bands, stretch=stretch_of(sample, alpha > 0)) if is_deep else bands,
        # Programs that write four bands mark the fourth as alpha, also when it is near infrared.
        alpha_is_mask=bands.alpha is None or between <= 0.5,
    )


def _alpha_options(dataset: Any, bands: Bands) -> dict[str, Any]:
    """How the warped picture gets its last band: the file's own alpha, else one made from mask or nodata value."""
    if bands.alpha is not None:
        return {}
    options: dict[str, Any] = {"add_alpha": True}
    if dataset.nodata is not None and not has_mask(dataset):
        # Void is what is void in all bands, as for the sweep: rasterio asks GDAL for that (UNIFIED_SRC_NODATA).
        options["src_nodata"] = dataset.nodata
    return options


def _sample(dataset: Any, look: _Look) -> tuple[RasterPixels, NDArray[Any]]:
    """Stored values, (bands, n), and alpha, (n,), of squares spread over the raster; alpha is 0 for void pixels."""
    width, height = look.size_px
    across, down = (max(1, min(_SAMPLES_A_SIDE, side // _SAMPLE_PX)) for side in (width, height))
    values, alphas = [], []
    for n in range(across * down):
        left = int((width - min(width, _SAMPLE_PX)) * (n % across + 0.5) / across)
        top = int((height - min(height, _SAMPLE_PX)) * (n // across + 0.5) / down)
        window = RasterWindow(left, top, min(width, _SAMPLE_PX), min(height, _SAMPLE_PX))
        rectangle = (left, top, left + int(window.width), top + int(window.height))
        if look.bytes_of(rectangle, None) > MOST_BYTES:
            raise _too_much(Path(dataset.name), look.bytes_of(rectangle, None))
        stored = dataset.read(list(look.bands.read), window=window)
        if look.bands.alpha is not None:
            alpha = dataset.read(look.bands.alpha, window=window)
        else:
            alpha = np.full(stored.shape[1:], 255, np.uint8)
            if has_mask(dataset):
                alpha = dataset.read_masks(1, window=window)
            declared = declared_by_value(stored, dataset.nodata)
            alpha = alpha if declared is None else np.where(declared, alpha, 0)
        values.append(stored.reshape(len(stored), -1))
        alphas.append(alpha.ravel())
    return np.concatenate(values, axis=1), np.concatenate(alphas)


@contextmanager
def _opened(file: ShownFile, overview: int | None) -> Iterator[Any]:
    with gdal_settings(file.path), open_raster(file.path, overview=overview) as dataset:
        yield dataset


def _too_much(path: Path, cost: int) -> TooMuchToRead:
    return TooMuchToRead(
        f"some {cost // 1_000_000:,} million bytes of the file would be read for one picture",
        where=str(path),
        do=f"Add overviews, which change no pixel: gdaladdo -r average {path.name} 4 16 64.",
    )


# --- where a tile lies in it -------------------------------------------------------------------------------------


def _grid(tile: tuple[int, int, int], side_px: int, shift_deg: tuple[float, float]) -> Affine:
    """Pixel of a tile → x, y in EPSG:3857 of the file's own datum."""
    zoom, column, row = tile
    side_m = 2 * _HALF_M / 2**zoom
    west, north = column * side_m - _HALF_M, _HALF_M - row * side_m
    if shift_deg != (0.0, 0.0):
        middle = Transformer.from_crs(3857, 4326, always_xy=True).transform(
            west + side_m / 2, north - side_m / 2
        )
        there = Transformer.from_crs(4326, 3857, always_xy=True).transform(
            middle[0] + shift_deg[0], middle[1] + shift_deg[1]
        )
        west, north = there[0] - side_m / 2, there[1] + side_m / 2
    return Affine(side_m / side_px, 0, west, 0, -side_m / side_px, north)


def _rectangle(look: _Look, grid: Affine, side_px: int) -> tuple[tuple[int, int, int, int] | None, float]:
    """The pixels of the raster that a tile shows (x_min, y_min, x_max, y_max), and how many there are along the side
    of one that is shown; None where the tile shows nothing of it."""
    steps = np.linspace(0, side_px, _EDGE_STEPS)
    columns, rows = (part.ravel() for part in np.meshgrid(steps, steps))
    x, y = laid_out(grid, columns, rows)
    try:
        x, y = Transformer.from_crs(3857, look.crs, always_xy=True).transform(x, y)
    except ProjError:
        return None, 1.0
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None, 1.0
    column, row = laid_out(~look.transform, x[known], y[known])
    # Points that PROJ cannot place are far from the raster.
    area = np.ptp(column) * np.ptp(row) / side_px**2
    width, height = look.size_px
    x_min, x_max = max(0, floor(column.min()) - 2), min(width, ceil(column.max()) + 2)
    y_min, y_max = max(0, floor(row.min()) - 2), min(height, ceil(row.max()) + 2)
    if x_min >= x_max or y_min >= y_max:
        return None, 1.0
    return (x_min, y_min, x_max, y_max), max(1.0, float(area) ** 0.5)


def _rgb(bands: Bands, stored: RasterPixels) -> NDArray[np.uint8]:
    return np.ascontiguousarray(bands.to_rgb(stored))
