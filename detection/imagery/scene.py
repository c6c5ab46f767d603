"""A raster as ground: frozen facts of one image, found by reading it once from end to end.

``open_scene`` tells where the pixels lie, how much ground each covers, which bands are the picture, which
pixels were surveyed, and what the content's hash is (R2). Reading windows is the reader's task.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod
from pyproj import Transformer as ProjTransformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.windows import Window as RasterWindow
from shapely.geometry.base import BaseGeometry

from detection.errors import CallerError, SceneNotProjected, SceneUnusable, SceneWithoutCrs
from detection.imagery.bands import Bands, RasterPixels, bands_of, has_mask, stretch_of
from detection.imagery.kept import BUDGET_BYTES, keep
from detection.imagery.raster import (
    Format,
    gdal_settings,
    open_raster,
    read_world_file,
    sniff_format,
)
from detection.imagery.validity import (
    CellState,
    Mask,
    Validity,
    all_in_cells,
    cell_side_px,
    find_border,
)
from detection.taxonomy import SceneKind

#: Rows that are read and hashed together; halved for rasters so wide that they would fill memory. The pixel
#: hash depends on it, and on nothing else of how a file is cut.
STRIP_ROWS = 512
_STRIP_BYTES = 64_000_000
#: Pixels sampled for a stretch to 8 bits.
_SAMPLE_PIXELS = 1_000_000
_GEOD = Geod(ellps="WGS84")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """One georeferenced image, without its pixels; safe to share and to send to other processes.

    Attributes:
        name: what to call it in messages.
        path: the file; None for pixels in memory.
        size_px: columns, rows.
        transform: pixel corner (column, row) → x, y of ``crs``.
        crs: None for pixels that lie nowhere (evaluation).
        pixel_ground_m: metres of ground along one step of column, and along one step of row.
        taken_at: the file's own date; naive where the file names no offset.
        pixel_hash: of the decoded pixels, whatever their compression and tiling.
        georeference_hash: of CRS, transform and size.
    """

    name: str
    path: Path | None
    size_px: tuple[int, int]
    transform: Affine
    crs: CRS | None
    pixel_ground_m: tuple[float, float]
    ground_resolution_m: float
    bands: Bands
    dtype: str
    nodata: float | None
    has_mask: bool
    block_px: tuple[int, int]
    validity: Validity
    taken_at: datetime | None
    pixel_hash: str
    georeference_hash: str
    kind: SceneKind = SceneKind.NADIR
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def content_hash(self) -> str:
        """What makes this scene itself: pixels and georeference (R2)."""
        return hashlib.sha256(f"{self.pixel_hash}{self.georeference_hash}".encode()).hexdigest()

    @property
    def located_crs(self) -> CRS:
        """The CRS.

        Raises:
            SceneWithoutCrs: the pixels lie nowhere.
        """
        if self.crs is None:
            raise SceneWithoutCrs("nothing says where on earth the pixels lie", where=self.name)
        return self.crs

    def centre_lon_lat(self) -> tuple[float, float]:
        """Longitude and latitude of the centre, degrees, EPSG:4326."""
        width, height = self.size_px
        x, y = self.transform @ (width / 2, height / 2)
        lon, lat = to_lon_lat(self.located_crs, x, y)
        return (lon, lat)

    def surveyed(self) -> BaseGeometry:
        """Ground with valid pixels, a MultiPolygon in EPSG:4326; empty without CRS or valid pixels."""
        if self.crs is None:
            return shapely.MultiPolygon()
        # Straight edges of a projection bend in degrees: a point every 256 px keeps them within centimetres.
        outline = shapely.segmentize(self.validity.outline_px(), 256)
        placed = shapely.transform(outline, self._pixelto_lon_lat)
        return _multipolygon(placed)

    def _pixelto_lon_lat(self, column_row: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = laid_out(self.transform, column_row[:, 0], column_row[:, 1])
        return np.stack(to_lon_lat(self.located_crs, x, y), axis=1)


def open_scene(
    path: Path,
    *,
    crs: str | CRS | None = None,
    kind: SceneKind = SceneKind.NADIR,
    allow_unlocated: bool = False,
    readers: int = 2,
) -> Scene:
    """Reads a raster once from end to end and returns its facts.

    Args:
        crs: where the file has a world file, or a transform, but no CRS.
        kind: from where it was taken.
        allow_unlocated: a file without position becomes a scene without CRS, 1 m a pixel, instead of
            an error; for the pre-flight.
        readers: threads that decode; the answer does not depend on them.

    Raises:
        SceneUnreadable, FormatNotAllowed: not a readable raster of the formats in the list.
        SceneWithoutCrs, SceneNotProjected: nothing, or something impossible, says where the pixels lie.
        CallerError: ``crs`` contradicts the file's own.
    """
    path = Path(path)
    with gdal_settings(path):
        with open_raster(path) as dataset:
            placed = georeference_of(dataset, path, crs, allow_unlocated=allow_unlocated)
            facts = _facts(dataset)
        found, picture = _read_once(path, facts, readers)
    transform, scene_crs = placed
    across, down = _pixel_ground(transform, scene_crs, facts.size_px, path)
    scene = Scene(
        name=path.name,
        path=path.resolve(),
        size_px=facts.size_px,
        transform=transform,
        crs=scene_crs,
        pixel_ground_m=(hypot(*across), hypot(*down)),
        ground_resolution_m=abs(across[0] * down[1] - across[1] * down[0]) ** 0.5,
        bands=found.bands,
        dtype=facts.dtype,
        nodata=facts.nodata,
        has_mask=facts.has_mask,
        block_px=facts.block_px,
        validity=found.validity,
        taken_at=facts.taken_at,
        pixel_hash=found.pixel_hash,
        georeference_hash=_georeference_hash(transform, scene_crs, facts.size_px),
        kind=kind,
    )
    if picture is not None and found.bands == facts.bands:
        keep(scene.content_hash, picture)
    return scene


def scene_from_pixels(
    pixels: NDArray[np.uint8], ground_resolution_m: float, *, name: str = "pixels"
) -> Scene:
    """A scene of an image in memory that lies nowhere, for evaluation.

    Args:
        pixels: (rows, columns, 3) uint8 RGB.
        ground_resolution_m: metres of ground a pixel.

    Raises:
        CallerError: the array is not (rows, columns, 3) uint8.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise CallerError(f"pixels must be (rows, columns, 3) uint8, not {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[:2]
    stored = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    transform = Affine(ground_resolution_m, 0, 0, 0, -ground_resolution_m, 0)
    return Scene(
        name=name,
        path=None,
        size_px=(width, height),
        transform=transform,
        crs=None,
        pixel_ground_m=(ground_resolution_m, ground_resolution_m),
        ground_resolution_m=ground_resolution_m,
        bands=Bands(rgb=(1, 2, 3)),
        dtype="uint8",
        nodata=None,
        has_mask=False,
        block_px=(width, height),
        validity=Validity(size_px=(width, height)),
        taken_at=None,
        pixel_hash=hashlib.sha256(stored.tobytes()).hexdigest(),
        georeference_hash=_georeference_hash(transform, None, (width, height)),
        pixels=stored,
    )


def in_infrared(scene: Scene) -> Scene:
    """The scene shown in near infrared, red, green; pixels in memory are taken to be so already.

    Raises:
        SceneUnusable: it has no band of near infrared.
    """
    if scene.pixels is not None:
        return scene
    bands = scene.bands.infrared()
    if bands is None:
        raise SceneUnusable(
            "this model needs a band of near infrared, and the scene has none",
            where=scene.name,
            do="Give imagery with four bands, or another model.",
        )
    return replace(scene, bands=bands)


def laid_out(
    transform: Affine, column: NDArray[np.float64], row: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of points in pixels; (0, 0) is the first pixel's corner."""
    a, b, c, d, e, f = transform[:6]
    return a * column + b * row + c, d * column + e * row + f


def to_lon_lat(crs: CRS, x: Any, y: Any) -> tuple[Any, Any]:
    """Longitude and latitude (EPSG:4326) of x and y in a CRS, numbers or arrays."""
    lon, lat = ProjTransformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    return lon, lat


def _multipolygon(geometry: BaseGeometry) -> BaseGeometry:
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts)


# --- where the pixels lie ---------------------------------------------------------------------------


def georeference_of(
    dataset: Any, path: Path, given: str | CRS | None, *, allow_unlocated: bool
) -> tuple[Affine, CRS | None]:
    """Transform and CRS of an open raster: its own, else by its world file and the CRS given.

    Raises:
        SceneWithoutCrs, SceneNotProjected, CallerError: as ``open_scene``.
    """
    own = _own_crs(dataset)
    wanted = _given_crs(given)
    if own is not None and wanted is not None and not own.equals(wanted, ignore_axis_order=True):
        raise CallerError(
            f"the file says {own.name}, the command {wanted.name}",
            where=str(path),
            do="Leave the CRS out, or mend the file: gdal_edit.py -a_srs.",
        )
    transform = dataset.transform
    if transform.is_identity:
        transform = read_world_file(path, sniff_format(path)) or transform
    crs = own or wanted
    if transform.is_identity or crs is None:
        if allow_unlocated:
            return Affine(1, 0, 0, 0, -1, 0), None
        raise _unlocated(dataset, path, has_transform=not transform.is_identity)
    if transform.determinant == 0:
        raise SceneNotProjected("the transform lays all pixels on one line", where=str(path))
    return transform, crs


def _unlocated(dataset: Any, path: Path, *, has_transform: bool) -> SceneWithoutCrs:
    if has_transform:
        do = "Name it: --crs EPSG:…"
    elif dataset.gcps[0]:
        do = f"It has ground control points only: gdalwarp -t_srs EPSG:4326 {path.name} placed.tif"
    else:
        do = "Give a GeoTIFF, or a world file beside the image and --crs EPSG:…"
    lacks = "coordinate reference system" if has_transform else "position"
    return SceneWithoutCrs(f"the file has no {lacks}", where=str(path), do=do)


def _own_crs(dataset: Any) -> CRS | None:
    if not dataset.crs:
        return None
    try:
        crs = CRS.from_wkt(dataset.crs.to_wkt())
    except CRSError:
        return None
    # An engineering ("local") CRS is a drawing's, not the earth's.
    return crs if crs.is_projected or crs.is_geographic else None


def _given_crs(given: str | CRS | None) -> CRS | None:
    if given is None or isinstance(given, CRS):
        return given
    try:
        return CRS.from_user_input(given)
    except CRSError as error:
        raise CallerError(f"“{given}” is no CRS", do="Give it as EPSG:number.") from error


def _pixel_ground(
    transform: Affine, crs: CRS | None, size_px: tuple[int, int], path: Path
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Metres (east, north) of one step along the columns, and along the rows, at the scene's centre.

    Measured on the ellipsoid between points 200 px apart around the centre, so units (feet, degrees),
    rotation, oblong pixels and the projection's scale are all in it: at latitude 60 a "metre" of EPSG:3857 is
    half a metre of ground.

    Source: Karney, Algorithms for geodesics, J. Geodesy 87 (2013); by PROJ.
    """
    if crs is None:
        return (abs(transform.a), 0.0), (0.0, abs(transform.e))
    column, row = size_px[0] / 2, size_px[1] / 2
    ends = np.array([(column - 100, row), (column + 100, row), (column, row - 100), (column, row + 100)])
    x, y = laid_out(transform, ends[:, 0], ends[:, 1])
    try:
        lon, lat = to_lon_lat(crs, x, y)
        azimuth, _, metres = _GEOD.inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])
    except (ProjError, ValueError) as error:
        raise _outside_crs(path, crs, x[0], y[0]) from error
    if not (np.isfinite(metres).all() and (metres > 0).all()):
        raise _outside_crs(path, crs, x[0], y[0])
    east = np.sin(np.radians(azimuth)) * metres / 200
    north = np.cos(np.radians(azimuth)) * metres / 200
    return (float(east[0]), float(north[0])), (float(east[1]), float(north[1]))


def _outside_crs(path: Path, crs: CRS, x: float, y: float) -> SceneNotProjected:
    swapped = crs.is_geographic and abs(y) > 90 and abs(x) <= 90
    return SceneNotProjected(
        f"the position ({x:.6g}, {y:.6g}) is not on earth in {crs.name}",
        where=str(path),
        do="Longitude and latitude are swapped: exchange them in the transform."
        if swapped
        else "The CRS and the transform do not belong together: find out the CRS it was made in.",
    )


def _georeference_hash(transform: Affine, crs: CRS | None, size_px: tuple[int, int]) -> str:
    # Twelve digits: the same transform written by two programs differs in the last bits.
    numbers = " ".join(f"{number:.12g}" for number in transform[:6])
    code = crs.to_authority(min_confidence=90) if crs else None
    system = ":".join(code) if code else crs.to_wkt() if crs else "none"
    return hashlib.sha256(f"{system} {numbers} {size_px}".encode()).hexdigest()


# --- what the file says of itself -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    size_px: tuple[int, int]
    count: int
    dtype: str
    nodata: float | None
    has_mask: bool
    block_px: tuple[int, int]
    bands: Bands
    taken_at: datetime | None
    is_random_access: bool


def _facts(dataset: Any) -> _Facts:
    block_rows, block_columns = dataset.block_shapes[0]
    return _Facts(
        size_px=(dataset.width, dataset.height),
        count=dataset.count,
        dtype=np.result_type(*dataset.dtypes).name,
        nodata=dataset.nodata,
        has_mask=has_mask(dataset),
        block_px=(block_columns, block_rows),
        bands=bands_of(dataset),
        taken_at=_taken_at(dataset),
        is_random_access=dataset.driver == Format.GEOTIFF,
    )


def _taken_at(dataset: Any) -> datetime | None:
    """The file's own date: EXIF's original date, else TIFF's DateTime; never the file system's."""
    exif = {**dataset.tags(), **dataset.tags(ns="EXIF")}
    offset = exif.get("EXIF_OffsetTimeOriginal", "")
    found = _date_time(exif.get("EXIF_DateTimeOriginal"), offset)
    return found or _date_time(exif.get("TIFFTAG_DATETIME"), "")


def _date_time(text: str | None, offset: str) -> datetime | None:
    match = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d:\d\d:\d\d)", (text or "").strip())
    if not match:
        return None
    year, month, day, time = match.groups()
    zone = offset.strip() if re.fullmatch(r"[+-]\d\d:\d\d|Z", offset.strip()) else ""
    try:
        return datetime.fromisoformat(f"{year}-{month}-{day}T{time}{zone}")
    except ValueError:  # 0000:00:00 00:00:00 is how cameras say "unknown"
        return None


# --- one pass over all pixels -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    bands: Bands
    validity: Validity
    pixel_hash: str


@dataclass(slots=True, kw_only=True)
class _Part:
    """What was found in some strips of the raster, by their first row (``*_cells``: of the grid of cells)."""

    hashes: dict[int, bytes]
    cells: dict[int, NDArray[np.uint8]]
    black: dict[int, Mask]
    white: dict[int, Mask]
    samples: dict[int, tuple[RasterPixels, Mask]]
    alpha_between: int = 0


def _read_once(path: Path, facts: _Facts, readers: int) -> tuple[_Found, NDArray[np.uint8] | None]:
    """Decodes everything once: hash, validity, sample for the stretch; the picture if it is small and plain.

    Damage anywhere in the file shows here.
    """
    strips = list(_strips(facts))
    shares = min(readers, len(strips), os.cpu_count() or 1) if facts.is_random_access else 1
    bounds = [round(len(strips) * share / shares) for share in range(shares + 1)]
    slices = [strips[a:b] for a, b in pairwise(bounds)]
    picture = _room_for_picture(facts)
    with ThreadPoolExecutor(shares) as pool:
        parts = list(pool.map(lambda mine: _read_strips(path, facts, mine, picture), slices))
    return _summed(facts, parts), picture


def _room_for_picture(facts: _Facts) -> NDArray[np.uint8] | None:
    width, height = facts.size_px
    is_plain = facts.dtype == "uint8" and facts.bands.rgb == (1, 2, 3)
    if not is_plain or 3 * width * height > BUDGET_BYTES:
        return None
    return np.empty((3, height, width), np.uint8)


def _strips(facts: _Facts) -> Iterator[tuple[int, int]]:
    """(first row, rows) of full-width strips. The same for every file of this size and depth."""
    width, height = facts.size_px
    rows = STRIP_ROWS
    while rows > 16 and rows * width * facts.count * np.dtype(facts.dtype).itemsize > _STRIP_BYTES:
        rows //= 2
    for row in range(0, height, rows):
        yield row, min(rows, height - row)


def _read_strips(
    path: Path,
    facts: _Facts,
    strips: list[tuple[int, int]],
    picture: NDArray[np.uint8] | None,
) -> _Part:
    part = _Part(hashes={}, cells={}, black={}, white={}, samples={})
    with gdal_settings(path), open_raster(path) as dataset:
        for row, rows in strips:
            window = RasterWindow(0, row, facts.size_px[0], rows)
            stored = dataset.read(window=window)
            mask = dataset.read_masks(1, window=window) > 0 if facts.has_mask else None
            if picture is not None:
                picture[:, row : row + rows] = stored[:3]
            _look_at_strip(part, facts, stored, mask, row)
    return part


def _look_at_strip(part: _Part, facts: _Facts, stored: RasterPixels, mask: Mask | None, row: int) -> None:
    digest = hashlib.sha256(stored.data)
    if mask is not None:
        digest.update(np.packbits(mask).tobytes())
    part.hashes[row] = digest.digest()
    valid = _declared_valid(part, facts, stored, mask)
    side = cell_side_px(*facts.size_px)
    if valid is not None:
        part.cells[row // side] = all_in_cells(valid, side).astype(np.uint8) + ~all_in_cells(~valid, side)
    shown = stored[[band - 1 for band in facts.bands.read]] if facts.count > 3 else stored
    if not facts.bands.palette and np.issubdtype(stored.dtype, np.integer):
        _look_for_extremes(part, shown, row // side, side)
    if facts.dtype != "uint8":
        step = max(1, round((facts.size_px[0] * facts.size_px[1] / _SAMPLE_PIXELS) ** 0.5))
        rgb = shown[:, ::step, ::step]
        seen = np.ones(rgb.shape[1:], bool) if valid is None else valid[::step, ::step]
        part.samples[row] = (rgb.reshape(len(rgb), -1), seen.ravel())


def _declared_valid(part: _Part, facts: _Facts, stored: RasterPixels, mask: Mask | None) -> Mask | None:
    """What mask, alpha, nodata value or NaN say; None where none of them exists."""
    if facts.bands.alpha is not None:
        alpha = stored[facts.bands.alpha - 1]
        full = np.iinfo(alpha.dtype).max if np.issubdtype(alpha.dtype, np.integer) else 1
        part.alpha_between += int(np.count_nonzero((alpha > 0) & (alpha < full)))
        return np.asarray(alpha > 0)
    if mask is not None:
        return mask
    picture = stored[[band - 1 for band in facts.bands.read]]
    return declared_by_value(picture, facts.nodata)


def declared_by_value(picture: RasterPixels, nodata: float | None) -> Mask | None:
    """Pixels whose bands are not all nodata (or NaN); None where no value means nodata.

    Args:
        picture: (bands, rows, columns), the bands that are shown.
    """
    is_float = np.issubdtype(picture.dtype, np.floating)
    if nodata is None and not is_float:
        return None
    void = np.isnan(picture) if is_float else np.zeros(picture.shape, bool)
    if nodata is not None:
        void |= picture == nodata
    return np.asarray(~void.all(axis=0))


def _look_for_extremes(part: _Part, shown: RasterPixels, cell_row: int, side: int) -> None:
    dark = np.bitwise_or.reduce(shown, axis=0) == 0
    if dark.any():
        part.black[cell_row] = all_in_cells(dark, side)
    bright = np.bitwise_and.reduce(shown, axis=0) == np.iinfo(shown.dtype).max
    if bright.any():
        part.white[cell_row] = all_in_cells(bright, side)


def _summed(facts: _Facts, parts: list[_Part]) -> _Found:
    bands = facts.bands
    between = sum(part.alpha_between for part in parts)
    if bands.alpha is not None and between > 0.5 * facts.size_px[0] * facts.size_px[1]:
        # Programs that write four 8-bit bands mark the fourth as alpha, also when it is near infrared.
        bands = bands.without_alpha(
            f"band {bands.alpha} is marked as transparency but varies like a picture: taken for near infrared"
        )
    if facts.dtype != "uint8" and not bands.palette:
        bands = replace(bands, stretch=_stretch(parts))
    return _Found(
        bands=bands,
        validity=_validity(facts, bands, parts),
        pixel_hash=_pixel_hash(facts, parts),
    )


def _stretch(parts: list[_Part]) -> tuple[float, float]:
    samples = {row: sample for part in parts for row, sample in part.samples.items()}
    ordered = [samples[row] for row in sorted(samples)]
    pixels = np.concatenate([pixels for pixels, _ in ordered], axis=1)
    valid = np.concatenate([seen for _, seen in ordered]) & (pixels != 0).any(axis=0)
    return stretch_of(pixels, valid)


def _pixel_hash(facts: _Facts, parts: list[_Part]) -> str:
    hashes = {row: digest for part in parts for row, digest in part.hashes.items()}
    total = hashlib.sha256(f"{facts.size_px} {facts.count} {facts.dtype} {facts.nodata}".encode())
    total.update(facts.bands.palette or b"")
    for row in sorted(hashes):
        total.update(hashes[row])
    return total.hexdigest()


def _validity(facts: _Facts, bands: Bands, parts: list[_Part]) -> Validity:
    width, height = facts.size_px
    side = cell_side_px(width, height)
    shape = (-(-height // side), -(-width // side))
    cells = np.full(shape, CellState.FULL, np.uint8)
    if bands.alpha == facts.bands.alpha:  # else the states came from a band that is no mask
        for part in parts:
            for row, states in part.cells.items():
                cells[row : row + len(states)] = states
    border, is_white = None, False
    if bands.alpha is None and not facts.has_mask:
        border, is_white, pure = _border(shape, parts)
        if border is not None:
            cells[border & (cells == CellState.FULL)] = CellState.MIXED
            cells[border & pure] = CellState.VOID
    if (cells == CellState.FULL).all():
        return Validity(size_px=(width, height), cell_px=side)
    return Validity(
        size_px=(width, height),
        cell_px=side,
        cells=cells,
        border=border,
        border_is_white=is_white,
    )


def _border(shape: tuple[int, int], parts: list[_Part]) -> tuple[Mask | None, bool, Mask]:
    best: tuple[Mask | None, bool, Mask] = (None, False, np.zeros(shape, bool))
    for is_white in (False, True):
        pure = np.zeros(shape, bool)
        for part in parts:
            for row, found in (part.white if is_white else part.black).items():
                pure[row : row + len(found)] = found
        if pure.any():
            border = find_border(pure, is_white=is_white)
            if border.any() and (best[0] is None or border.sum() > best[0].sum()):
                best = (border, is_white, pure)
    return best
