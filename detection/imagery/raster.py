"""Opening rasters safely: the only place where GDAL is given a file name.

A file passes three gates: its first bytes name one of three formats, GDAL may use that format's driver
alone, and the opened dataset may refer to no other file. What the pixels mean is not known here.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from detection.errors import FormatNotAllowed, SceneUnreadable, UrbanInventoryError

#: GDAL's settings for every read. No look at neighbouring files (a ``.ovr`` or ``.aux.xml`` may redirect a
#: read), no remote access, and a cache of 64 MB: the default is 5 % of memory (1.4 GiB against 0.3 GiB
#: while streaming 40,000 × 40,000 pixels).
GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_CACHEMAX": 64,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DRIVER_PATH": "disable",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "CPL_VSIL_CURL_HEADER_FILE_KVP_ENABLED": "NO",
    "PROJ_NETWORK": "OFF",
    # A JPEG's EXIF orientation is a matter of viewing; world files speak of the stored rows.
    "JPEG_APPLY_EXIF_ORIENTATION": "NO",
}

#: Rasters beyond this are refused before a pixel is read: 141,000 × 141,000, five days of inference.
MAX_PIXELS = 20_000_000_000
MAX_BANDS = 512

_WORLD_FILE_SUFFIXES = {
    "GTiff": (".tfw", ".tifw", ".tiffw", ".wld"),
    "JPEG": (".jgw", ".jpgw", ".jpegw", ".wld"),
    "PNG": (".pgw", ".pngw", ".wld"),
}


class Format(StrEnum):
    """The formats that are read, named as their GDAL drivers are."""

    GEOTIFF = "GTiff"
    JPEG = "JPEG"
    PNG = "PNG"


_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"II*\x00", Format.GEOTIFF),
    (b"MM\x00*", Format.GEOTIFF),
    (b"II+\x00", Format.GEOTIFF),
    (b"MM\x00+", Format.GEOTIFF),
    (b"\xff\xd8\xff", Format.JPEG),
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
)

_KNOWN_BUT_REFUSED: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"^\s*(<\?xml[^>]*>\s*)?<VRTDataset"), "a VRT, which only points to other files"),
    (re.compile(rb"^(\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51)"), "a JPEG 2000"),
    (re.compile(rb"^(\x00\x01\x00\x00|ecw|NITF|\x65\x02)"), "an ECW or NITF"),
    (re.compile(rb"^RIFF....WEBP", re.DOTALL), "a WebP"),
    (re.compile(rb"^EHFA_HEADER_TAG"), "an Erdas IMG"),
    (re.compile(rb"^SQLite format 3"), "a GeoPackage or MBTiles"),
    (re.compile(rb"^(CDF|\x89HDF)"), "a NetCDF or HDF"),
    (re.compile(rb"^msid"), "a MrSID"),
    (re.compile(rb"^(GIF8|BM)"), "a GIF or BMP"),
    (re.compile(rb"^....ftyp(heic|heix|mif1|avif)", re.DOTALL), "a HEIC or AVIF"),
)
_REFUSED_SUFFIXES = {
    ".ecw": "an ECW",
    ".jp2": "a JPEG 2000",
    ".j2k": "a JPEG 2000",
    ".vrt": "a VRT, which only points to other files",
    ".sid": "a MrSID",
    ".img": "an Erdas IMG",
    ".ntf": "a NITF",
    ".nc": "a NetCDF",
    ".gpkg": "a GeoPackage",
}


def sniff_format(path: Path) -> Format:
    """The format that the first bytes of a file name, whatever its suffix says.

    Raises:
        SceneUnreadable: no such file, or not an image.
        FormatNotAllowed: a raster of another format; says how to convert it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise SceneUnreadable(
            f"the file cannot be read: {error.strerror or error}", where=str(path), do="Check the path."
        ) from error
    for magic, file_format in _MAGIC:
        if head.startswith(magic):
            return file_format
    refused = next((name for pattern, name in _KNOWN_BUT_REFUSED if pattern.match(head)), None)
    refused = refused or (_REFUSED_SUFFIXES.get(path.suffix.lower()) if head else None)
    if refused:
        raise FormatNotAllowed(
            f"this is {refused}; GeoTIFF, JPEG and PNG are read", where=str(path), do=_convert(path)
        )
    raise SceneUnreadable(
        "this is not an image" if head else "the file is empty",
        where=str(path),
        do="Give a GeoTIFF, or a JPEG or PNG with a world file.",
    )


def _convert(path: Path) -> str:
    target = path.with_suffix(".tif").name
    target = target if target != path.name else f"converted-{target}"
    return f"Convert it: gdal_translate -of GTiff -co TILED=YES -co COMPRESS=DEFLATE {path.name} {target}"


def open_raster(path: Path, *, overview: int | None = None) -> Any:
    """A rasterio dataset of a local file. Use it inside ``gdal_settings``; not safe across threads.

    Args:
        overview: the file's own reduced picture of this number (``overview_factors``), as if it were the raster.

    Raises:
        SceneUnreadable: missing, damaged, too large, or referring to other files.
        FormatNotAllowed: not a GeoTIFF, JPEG or PNG.
    """
    file_format = sniff_format(path)
    dataset = _opened(path, file_format, "NONE")
    if overview is None:
        return dataset
    # Only now, since the first look showed that the overviews lie in no other file.
    dataset.close()
    return _opened(path, file_format, f"{overview}only")


def overview_factors(path: Path) -> tuple[int, ...]:
    """How many times smaller each reduced picture in a GeoTIFF is; empty for other formats.

    Raises:
        SceneUnreadable, FormatNotAllowed: as ``open_raster``.
    """
    file_format = sniff_format(path)
    if file_format is not Format.GEOTIFF:
        return ()
    _opened(path, file_format, "NONE").close()
    with _opened(path, file_format, None) as dataset:
        return tuple(dataset.overviews(1))


def _opened(path: Path, file_format: Format, overview_level: str | None) -> Any:
    # An absolute path of an existing file: never a name that GDAL would read as /vsicurl/, GTIFF_DIR: or XML.
    name = str(path.resolve(strict=True))
    options = {"OVERVIEW_LEVEL": overview_level} if file_format is Format.GEOTIFF and overview_level else {}
    try:
        with warnings.catch_warnings():
            # A file without position is a finding of ours, with its own message.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(name, driver=file_format.value, sharing=False, **options)
    except RasterioError as error:
        raise _unreadable(path, error) from error
    try:
        _check(dataset, path, name)
    except UrbanInventoryError:
        dataset.close()
        raise
    return dataset


def _check(dataset: Any, path: Path, name: str) -> None:
    # With OVERVIEW_LEVEL=NONE a redirected overview is neither opened nor listed; its tag gives it away.
    redirected = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if redirected or [str(Path(file).resolve()) for file in dataset.files] != [name]:
        raise SceneUnreadable("the file refers to other files", where=str(path), do=_convert(path))
    if dataset.width * dataset.height > MAX_PIXELS:
        raise SceneUnreadable(
            f"{dataset.width} × {dataset.height} pixels are more than {MAX_PIXELS:,}",
            where=str(path),
            do="Cut it into several files and give them together.",
        )
    if dataset.count > MAX_BANDS:
        raise SceneUnreadable(
            f"{dataset.count} bands are more than {MAX_BANDS}",
            where=str(path),
            do=f"Keep red, green and blue: gdal_translate -b 1 -b 2 -b 3 {path.name} rgb-{path.name}",
        )
    if dataset.count == 0:
        raise SceneUnreadable("the file holds no image band", where=str(path))
    if "complex" in dataset.dtypes[0]:
        raise SceneUnreadable("complex numbers are no picture", where=str(path))


def _unreadable(path: Path, error: Exception) -> SceneUnreadable:
    detail = str(error.__cause__ or error).strip().splitlines()
    return SceneUnreadable(
        f"the image is damaged or cut off ({detail[0] if detail else 'no reason given'})",
        where=str(path),
        do="Copy or export it again, and compare the file's size with the original.",
    )


@contextmanager
def gdal_settings(path: Path | None = None) -> Iterator[None]:
    """GDAL's settings for the reads inside; its errors leave as errors of the tree, naming ``path``."""
    try:
        with rasterio.Env(**GDAL_OPTIONS):
            yield
    except RasterioError as error:
        raise _unreadable(path or Path("raster"), error) from error


def read_world_file(path: Path, file_format: Format) -> Affine | None:
    """The transform in the world file beside an image, or None where there is none.

    Six numbers, read by ourselves: GDAL is kept from looking at neighbouring files. They give the centre
    of the first pixel; the transform returned gives its corner.

    Raises:
        SceneUnreadable: a world file that is not six numbers.
    """
    for suffix in _WORLD_FILE_SUFFIXES[file_format.value]:
        for candidate in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
            if candidate.is_file():
                return _parse_world_file(candidate)
    return None


def _parse_world_file(path: Path) -> Affine:
    try:
        numbers: Sequence[float] = [float(word) for word in path.read_text(encoding="ascii")[:4096].split()]
        a, d, b, e, centre_x, centre_y = numbers
    except ValueError as error:
        raise SceneUnreadable("the world file does not hold six numbers", where=str(path)) from error
    return Affine(a, b, centre_x, d, e, centre_y) @ Affine.translation(-0.5, -0.5)
