"""Files of features for other programs: FlatGeobuf and GeoPackage by GDAL, GeoParquet, CSV.

Batches come one after the other and are written as they come: memory does not grow with the number of rows, but
for the index of a FlatGeobuf, which GDAL makes at the end.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from pyproj import CRS

from inventory.feature_tables import GEOMETRY

BYTE_ORDER_MARK = "\ufeff"
# What a spreadsheet takes for the beginning of a formula (WE4); the wide forms are those of East Asian input.
_FORMULA = tuple("=+-@\t\r\n\0＝＋－＠")
_ROWS_A_GROUP = 100_000
"""Rows of a group of a Parquet file: small groups compress badly and are slow to read."""


class FileForm(StrEnum):
    """Formats that are written as a whole, since they end with an index or begin with a total."""

    FLATGEOBUF = "flatgeobuf"
    GPKG = "gpkg"
    PARQUET = "parquet"


_DRIVERS = {FileForm.FLATGEOBUF: "FlatGeobuf", FileForm.GPKG: "GPKG"}


class NotWritten(Exception):
    """The file cannot be written: the disk is full, or GDAL says no."""


def write_features(batches: pa.RecordBatchReader, form: FileForm, out: Path | io.BytesIO) -> None:
    """Writes batches of a layer (its schema's metadata name it) as one file, without rows too.

    Raises:
        NotWritten: what GDAL or the system said.
    """
    try:
        if form is FileForm.PARQUET:
            _write_parquet(batches, out)
        else:
            _write_by_gdal(batches, _DRIVERS[form], out)
    except OSError as error:
        raise NotWritten(error.strerror or str(error)) from error


def _write_by_gdal(batches: pa.RecordBatchReader, driver: str, out: Path | io.BytesIO) -> None:
    # Here, not above: GDAL takes a while to load, which most commands need not wait for.
    import pyogrio
    from pyogrio.errors import DataSourceError

    said = batches.schema.metadata
    try:
        pyogrio.write_arrow(
            batches,
            out,
            layer=said[b"layer"].decode(),
            driver=driver,
            geometry_name=GEOMETRY,
            geometry_type=said[b"geometry_type"].decode(),
            crs="EPSG:4326",
        )
    except DataSourceError as error:
        raise NotWritten(str(error)) from error


def _write_parquet(batches: pa.RecordBatchReader, out: Path | io.BytesIO) -> None:
    """GeoParquet 1.1: WKB, longitude first, the CRS written out."""
    kind = batches.schema.metadata[b"geometry_type"].decode()
    column = {"encoding": "WKB", "geometry_types": [kind], "crs": CRS.from_epsg(4326).to_json_dict()}
    geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    schema = batches.schema.with_metadata({"geo": json.dumps(geo)})
    with pyarrow.parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for group in _groups(batches):
            writer.write_table(pa.Table.from_batches(group, batches.schema).cast(schema))


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(len(one) for one in group) >= _ROWS_A_GROUP:
            yield group
            group = []
    if group:
        yield group


def csv_text(rows: Iterable[Sequence[Any]], *, spreadsheet: bool = True) -> str:
    """Lines of a CSV by RFC 4180.

    Args:
        spreadsheet: texts that a spreadsheet would take for formulas are made harmless (WE4).
    """
    lines = io.StringIO(newline="")
    # Texts quoted, numbers not: a negative number stays one.
    table = csv.writer(lines, quoting=csv.QUOTE_NONNUMERIC)
    cell = _harmless_cell if spreadsheet else _cell
    table.writerows([cell(value) for value in row] for row in rows)
    return lines.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else value


def _harmless_cell(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return _cell(value)
