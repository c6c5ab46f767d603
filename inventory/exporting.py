"""The inventory as a file for other programs: GeoJSON, GeoPackage, FlatGeobuf, GeoParquet, CSV.

By default a file holds what is listed, so that its rows are the count. Rows are read and written some
thousands at a time: memory does not grow with the city. Its tiles as a file: ``tile_archives.py``.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa
import shapely

from detection.errors import CallerError, UnknownName
from detection.taxonomy import ClassKind, shipped_taxonomy
from inventory.counting import classes_asked
from inventory.domain.places import City
from inventory.feature_files import BYTE_ORDER_MARK, FileForm, NotWritten, csv_text, write_features
from inventory.feature_tables import POINT, TIME, Layer
from inventory.store import cities, exports
from inventory.store.database import Connection, Database, Patience
from inventory.store.exports import AssetFilter, AssetRow
from inventory.store.states import end_of_day

STATUSES = ("present", "doubtful", "gone", "rejected")


class ExportFormat(StrEnum):
    """The formats, as ``--format`` names them."""

    GEOJSON = "geojson"
    GPKG = "gpkg"
    FLATGEOBUF = "flatgeobuf"
    GEOPARQUET = "geoparquet"
    CSV = "csv"
    PMTILES = "pmtiles"


TABLES = tuple(form for form in ExportFormat if form is not ExportFormat.PMTILES)
"""Formats with a row for each asset."""
_SUFFIXES = {
    ".geojson": ExportFormat.GEOJSON,
    ".json": ExportFormat.GEOJSON,
    ".gpkg": ExportFormat.GPKG,
    ".fgb": ExportFormat.FLATGEOBUF,
    ".parquet": ExportFormat.GEOPARQUET,
    ".geoparquet": ExportFormat.GEOPARQUET,
    ".csv": ExportFormat.CSV,
    ".pmtiles": ExportFormat.PMTILES,
}

_FILE_FORMS = {
    ExportFormat.GPKG: FileForm.GPKG,
    ExportFormat.FLATGEOBUF: FileForm.FLATGEOBUF,
    ExportFormat.GEOPARQUET: FileForm.PARQUET,
}

_FIELDS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "class": pa.string(),
    "status": pa.string(),
    "listed": pa.bool_(),
    "verified": pa.bool_(),
    "review": pa.bool_(),
    "probability": pa.float32(),
    "score": pa.float32(),
    "position_error_m": pa.float32(),
    "width_m": pa.float32(),
    "height_m": pa.float32(),
    "hits": pa.int32(),
    "first_seen": TIME,
    "last_seen": TIME,
    "first_missed": TIME,
    "evidence_kind": pa.string(),
    "evidence": pa.string(),
    "evidence_at": TIME,
    "survey": pa.string(),
    "scene": pa.string(),
    "model": pa.string(),
    "model_version": pa.string(),
    "source": pa.string(),
    "licence": pa.string(),
    "attribution": pa.string(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    city: str
    file: Path
    format: ExportFormat
    assets: int
    as_of: date
    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    """Classes of the city that move, for which nobody asked."""


def format_of(file: Path, given: ExportFormat | None) -> ExportFormat:
    """The format given, else that of the file's suffix.

    Raises:
        CallerError: neither tells.
    """
    found = given or _SUFFIXES.get(file.suffix.lower())
    if found is None:
        raise CallerError(
            f"the file's name does not tell the format ({file.suffix or 'no suffix'})",
            where=str(file),
            do=f"Say --format: {', '.join(ExportFormat)}.",
        )
    return found


def export_assets(
    database: Database,
    city_code: str,
    file: Path,
    form: ExportFormat,
    *,
    classes: Sequence[str] | None = None,
    area: str | None = None,
    as_of: date | None = None,
    statuses: Sequence[str] | None = None,
) -> Exported:
    """Writes assets with all that is public about them; an earlier file is replaced once all is written.

    Args:
        form: one of ``TABLES``.
        classes: those exported; None: all that the city counts of what stands.
        area: code of an area whose assets alone are wanted.
        as_of: a local date of the city, meaning its end; None: today there.
        statuses: any of these, listed or not; None: what is listed, which is the count.

    Raises:
        UnknownName: no such city, class, area or status.
        CallerError: the file cannot be written.
    """
    for status in statuses or ():
        if status not in STATUSES:
            raise UnknownName(f"no status “{status}”", do=f"Statuses: {', '.join(STATUSES)}.")
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        city = cities.get_city(connection, city_code)
        day = as_of or datetime.now(ZoneInfo(city.time_zone)).date()
        names, stock = _asked(connection, city, classes)
        versions = cities.areas_as_of(connection, city, day)
        wanted = AssetFilter(
            as_of=end_of_day(day, city.time_zone),
            classes=names,
            statuses=statuses,
            areas=None if area is None else _of_code(connection, city, area, day),
        )
        levels = list(dict.fromkeys(version.level for version in versions))
        written = _write(exports.stream_assets(connection, city, wanted), levels, file, form)
    return Exported(
        city=city.code,
        file=file,
        format=form,
        assets=written,
        as_of=day,
        classes=tuple(names),
        left_out=tuple(stock),
    )


def _asked(connection: Connection, city: City, classes: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The classes of a file and, where none was named, those of the city that it leaves out: what moves has no ids
    that last (R10), and stands in a file only where somebody asks for it, or nothing else is counted."""
    names = classes_asked(connection, city, classes)
    known = shipped_taxonomy().classes
    mobile = [name for name in names if name in known and known[name].kind is ClassKind.MOBILE]
    if classes is not None or len(mobile) == len(names):
        return names, []
    return [name for name in names if name not in mobile], mobile


def _of_code(connection: Connection, city: City, code: str, day: date) -> list[int]:
    versions = cities.areas_as_of(connection, city, day)
    found = [version.id for version in versions if version.code == code]
    if not found:
        codes = ", ".join([version.code for version in versions][:20]) or "none"
        raise UnknownName(f"no area “{code}” in {city.code} on {day.isoformat()}", do=f"Areas: {codes}.")
    return found


# --- writing -------------------------------------------------------------------------------------------------


def _write(batches: Iterable[list[AssetRow]], levels: list[str], file: Path, form: ExportFormat) -> int:
    layer = Layer(name="assets", fields=_field_types(levels), geometry_type=POINT)
    counted = _Counted(batches)
    unfinished = file.with_name(f".part-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        if form is ExportFormat.GEOJSON:
            _write_geojson(counted, levels, unfinished)
        elif form is ExportFormat.CSV:
            _write_csv(counted, layer, unfinished)
        else:
            made = (_batch(rows, layer) for rows in counted)
            write_features(
                pa.RecordBatchReader.from_batches(layer.schema, made), _FILE_FORMS[form], unfinished
            )
        unfinished.replace(file)
    except (OSError, NotWritten) as error:
        raise CallerError(
            f"cannot be written: {getattr(error, 'strerror', None) or error}",
            where=str(file),
            do="Name another place with -o.",
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return counted.rows


class _Counted:
    """Batches on their way, and how many rows they had."""

    def __init__(self, batches: Iterable[list[AssetRow]]) -> None:
        self._batches = batches
        self.rows = 0

    def __iter__(self) -> Iterator[list[AssetRow]]:
        for rows in self._batches:
            self.rows += len(rows)
            yield rows


def area_field(level: str) -> str:
    """The field that holds the code of an asset's area of a level."""
    return f"area_{level}"


def _field_types(levels: Iterable[str]) -> dict[str, pa.DataType]:
    return _FIELDS | {area_field(level): pa.string() for level in levels}


def _batch(rows: Sequence[AssetRow], layer: Layer) -> pa.RecordBatch:
    points = shapely.to_wkb(shapely.points([(row.lon, row.lat) for row in rows]))
    return layer.batch([_with_areas(row) for row in rows], list(points))


def _with_areas(row: AssetRow) -> dict[str, Any]:
    return row.values | {area_field(level): code for level, code in row.areas.items()}


def _write_geojson(batches: Iterable[list[AssetRow]], levels: list[str], file: Path) -> None:
    """RFC 7946, one feature a line; 7 decimals of a degree are a centimetre."""
    separator = b""
    absent = dict.fromkeys(map(area_field, levels))
    with file.open("wb") as out:
        out.write(b'{"type":"FeatureCollection","features":[\n')
        for rows in batches:
            for row in rows:
                point = {"type": "Point", "coordinates": [round(row.lon, 7), round(row.lat, 7)]}
                feature = {"type": "Feature", "id": row.values["id"], "geometry": point}
                feature["properties"] = _shortened(row.values | absent | _with_areas(row))
                out.write(separator + orjson.dumps(feature))
                separator = b",\n"
        out.write(b"\n]}\n")


def _write_csv(batches: Iterable[list[AssetRow]], layer: Layer, file: Path) -> None:
    """With a byte order mark, which spreadsheets need to see UTF-8."""
    with file.open("w", encoding="utf-8", newline="") as out:
        out.write(BYTE_ORDER_MARK + csv_text([layer.csv_header]))
        for rows in batches:
            out.write(csv_text(_csv_row(row, layer) for row in rows))


def _csv_row(row: AssetRow, layer: Layer) -> list[Any]:
    values = _shortened(_with_areas(row))
    return [*(values.get(name) for name in layer.fields), round(row.lon, 7), round(row.lat, 7)]


def _shortened(properties: dict[str, Any]) -> dict[str, Any]:
    """Numbers as they were measured: stored with four bytes, they have seven digits."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in properties.items()
    }
