"""The inventory as a file for other programs: GeoJSON, GeoPackage, GeoParquet, CSV.

By default a file holds what is listed, so that its rows are the count. Rows are read and written some
thousands at a time: memory does not grow with the city.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pyarrow
import pyarrow.parquet
import pyogrio
import shapely
from pyogrio.errors import DataSourceError
from pyproj import CRS

from detection.errors import CallerError, UnknownName
from inventory.counting import classes_asked
from inventory.domain.places import City
from inventory.store import cities, exports
from inventory.store.database import Connection, Database, Patience
from inventory.store.exports import AssetFilter, AssetRow
from inventory.store.states import end_of_day

STATUSES = ("present", "doubtful", "gone", "rejected")


class ExportFormat(StrEnum):
    """The formats, as ``--format`` names them."""

    GEOJSON = "geojson"
    GPKG = "gpkg"
    GEOPARQUET = "geoparquet"
    CSV = "csv"


_SUFFIXES = {
    ".geojson": ExportFormat.GEOJSON,
    ".json": ExportFormat.GEOJSON,
    ".gpkg": ExportFormat.GPKG,
    ".parquet": ExportFormat.GEOPARQUET,
    ".geoparquet": ExportFormat.GEOPARQUET,
    ".csv": ExportFormat.CSV,
}

_TIME = pyarrow.timestamp("us", tz="UTC")
_FIELDS: dict[str, pyarrow.DataType] = {
    "id": pyarrow.string(),
    "class": pyarrow.string(),
    "status": pyarrow.string(),
    "listed": pyarrow.bool_(),
    "verified": pyarrow.bool_(),
    "review": pyarrow.bool_(),
    "probability": pyarrow.float32(),
    "score": pyarrow.float32(),
    "position_error_m": pyarrow.float32(),
    "width_m": pyarrow.float32(),
    "height_m": pyarrow.float32(),
    "hits": pyarrow.int32(),
    "first_seen": _TIME,
    "last_seen": _TIME,
    "first_missed": _TIME,
    "evidence_kind": pyarrow.string(),
    "evidence": pyarrow.string(),
    "evidence_at": _TIME,
    "survey": pyarrow.string(),
    "scene": pyarrow.string(),
    "model": pyarrow.string(),
    "model_version": pyarrow.string(),
    "source": pyarrow.string(),
    "licence": pyarrow.string(),
    "attribution": pyarrow.string(),
}

# What a spreadsheet takes for the beginning of a formula (WE4); the wide forms are those of East Asian input.
_FORMULA = tuple("=+-@\t\r\n\0＝＋－＠")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    city: str
    file: Path
    format: ExportFormat
    assets: int
    as_of: date
    classes: tuple[str, ...]


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
        classes: those exported; None: all that the city counts.
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
        names = classes_asked(connection, city, classes)
        versions = cities.areas_as_of(connection, city, day)
        wanted = AssetFilter(
            as_of=end_of_day(day, city.time_zone),
            classes=names,
            statuses=statuses,
            areas=None if area is None else _of_code(connection, city, area, day),
        )
        levels = list(dict.fromkeys(version.level for version in versions))
        written = _write(exports.stream_assets(connection, city, wanted), levels, file, form)
    return Exported(city=city.code, file=file, format=form, assets=written, as_of=day, classes=tuple(names))


def _of_code(connection: Connection, city: City, code: str, day: date) -> list[int]:
    versions = cities.areas_as_of(connection, city, day)
    found = [version.id for version in versions if version.code == code]
    if not found:
        codes = ", ".join([version.code for version in versions][:20]) or "none"
        raise UnknownName(f"no area “{code}” in {city.code} on {day.isoformat()}", do=f"Areas: {codes}.")
    return found


# --- writing -------------------------------------------------------------------------------------------------


def _write(batches: Iterable[list[AssetRow]], levels: list[str], file: Path, form: ExportFormat) -> int:
    write = {
        ExportFormat.GEOJSON: _write_geojson,
        ExportFormat.GPKG: _write_gpkg,
        ExportFormat.GEOPARQUET: _write_geoparquet,
        ExportFormat.CSV: _write_csv,
    }[form]
    unfinished = file.with_name(f".part-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        written = write(batches, levels, unfinished)
        unfinished.replace(file)
    except (OSError, DataSourceError) as error:
        raise CallerError(
            f"cannot be written: {getattr(error, 'strerror', None) or error}",
            where=str(file),
            do="Name another place with -o.",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _properties(row: AssetRow, levels: Iterable[str]) -> dict[str, Any]:
    return row.values | {area_field(level): row.areas.get(level) for level in levels}


def area_field(level: str) -> str:
    """The field that holds the code of an asset's area of a level."""
    return f"area_{level}"


def _write_geojson(batches: Iterable[list[AssetRow]], levels: list[str], file: Path) -> int:
    """RFC 7946, one feature a line; 7 decimals of a degree are a centimetre."""
    written = 0
    with file.open("wb") as out:
        out.write(b'{"type":"FeatureCollection","features":[\n')
        for row in _each(batches):
            point = {"type": "Point", "coordinates": [round(row.lon, 7), round(row.lat, 7)]}
            feature = {"type": "Feature", "id": row.values["id"], "geometry": point}
            feature["properties"] = _shortened(_properties(row, levels))
            out.write((b",\n" if written else b"") + orjson.dumps(feature))
            written += 1
        out.write(b"\n]}\n")
    return written


def _write_csv(batches: Iterable[list[AssetRow]], levels: list[str], file: Path) -> int:
    """With a byte order mark, which spreadsheets need to see UTF-8; texts cannot become formulas (WE4)."""
    written = 0
    fields = _field_types(levels)
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        # Texts quoted, numbers not: a negative number stays one.
        table = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
        table.writerow([_harmless(name) for name in (*fields, "lon", "lat")])
        for row in _each(batches):
            properties = _shortened(_properties(row, levels))
            place = [round(row.lon, 7), round(row.lat, 7)]
            table.writerow([*(_cell(properties[name]) for name in fields), *place])
            written += 1
    return written


def _write_gpkg(batches: Iterable[list[AssetRow]], levels: list[str], file: Path) -> int:
    # Here, not above: pandas takes half a second to load, which most commands need not wait for.
    import geopandas

    written = 0
    for rows in _at_least_one(batches):
        frame = _table(rows, levels).to_pandas()
        points = shapely.points([(row.lon, row.lat) for row in rows] or np.empty((0, 2)))
        placed = geopandas.GeoDataFrame(frame, geometry=points, crs="EPSG:4326")
        pyogrio.write_dataframe(
            placed, file, layer="assets", driver="GPKG", geometry_type="Point", append=written > 0
        )
        written += len(rows)
    return written


def _write_geoparquet(batches: Iterable[list[AssetRow]], levels: list[str], file: Path) -> int:
    """GeoParquet 1.1: points as WKB, longitude first, the CRS written out."""
    column = {"encoding": "WKB", "geometry_types": ["Point"], "crs": CRS.from_epsg(4326).to_json_dict()}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    schema = _schema(levels).append(pyarrow.field("geometry", pyarrow.binary()))
    schema = schema.with_metadata({"geo": json.dumps(geo)})
    written = 0
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as out:
        for rows in batches:
            points = shapely.to_wkb(shapely.points([(row.lon, row.lat) for row in rows]))
            table = _table(rows, levels).append_column("geometry", pyarrow.array(points, pyarrow.binary()))
            out.write_table(table.cast(schema))
            written += len(rows)
    return written


def _field_types(levels: Iterable[str]) -> dict[str, pyarrow.DataType]:
    return _FIELDS | {area_field(level): pyarrow.string() for level in levels}


def _schema(levels: Iterable[str]) -> pyarrow.Schema:
    return pyarrow.schema(list(_field_types(levels).items()))


def _table(rows: Sequence[AssetRow], levels: list[str]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist([_properties(row, levels) for row in rows], schema=_schema(levels))


def _each(batches: Iterable[list[AssetRow]]) -> Iterator[AssetRow]:
    for rows in batches:
        yield from rows


def _at_least_one(batches: Iterable[list[AssetRow]]) -> Iterator[list[AssetRow]]:
    """An empty batch where there is none: a file without rows still has its fields."""
    nothing = True
    for rows in batches:
        nothing = False
        yield rows
    if nothing:
        yield []


def _shortened(properties: dict[str, Any]) -> dict[str, Any]:
    """Numbers as they were measured: stored with four bytes, they have seven digits."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in properties.items()
    }


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    return _harmless(value) if isinstance(value, str) else value


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
