"""Bulk rows as columns, by COPY: in, straight or through a staging table where SQL must carry them on, and out."""

import io
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql
from psycopg.copy import LibpqWriter, QueuedLibpqWriter, Writer
from pyarrow import csv
from sqlalchemy import Connection, Table, select, text

from inventory.domain.evidence import NEVER
from inventory.store.schema import job_number

_POINT_WITH_SRID = 0x20000001
_ROWS_AT_ONCE = 20_000


def next_job(connection: Connection) -> int:
    """A number that keeps this writer's staged rows apart from any other's."""
    return int(connection.execute(select(job_number.next_value())).scalar_one())


def draw_numbers(connection: Connection, sequence: str, count: int) -> NDArray[np.int64]:
    """So many new numbers of one of our sequences, rising."""
    # As one array: a row a number costs three seconds for a million.
    drawn = connection.execute(
        _DRAW, {"sequence": f"urban_inventory.{sequence}", "count": count}
    ).scalar_one()
    return np.array(drawn, np.int64)


_DRAW = text(
    "SELECT coalesce(array_agg(nextval(CAST(:sequence AS regclass))), '{}') FROM generate_series(1, :count)"
)


def copy_rows(
    connection: Connection, table: Table, columns: Mapping[str, Any], *, partition: int | None = None
) -> None:
    """Appends rows given as columns of equal length (arrays, or one value for all rows).

    None and NaN become NULL; see ``instants`` for times.

    Args:
        partition: the city whose rows all are: then they go straight into its partition, past the table's triggers.
    """
    rows = max((len(column) for column in columns.values() if _is_column(column)), default=0)
    if rows == 0:
        return
    arrays = {
        name: _array(column) if _is_column(column) else pa.repeat(pa.scalar(column), rows)
        for name, column in columns.items()
    }
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT CSV)").format(
        sql.Identifier(str(table.schema), table.name if partition is None else f"{table.name}_{partition}"),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
    )
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    whole = pa.table(arrays)
    with driver.cursor() as cursor, cursor.copy(statement, writer=_writer(cursor, rows)) as copy:
        for begin in range(0, rows, _ROWS_AT_ONCE):
            lines = io.BytesIO()
            csv.write_csv(whole.slice(begin, _ROWS_AT_ONCE), lines, csv.WriteOptions(include_header=False))
            copy.write(lines.getbuffer())


def _writer(cursor: psycopg.Cursor[Any], rows: int) -> Writer:
    """For many rows one that hands over in a thread of its own: the next are written while the server reads."""
    return QueuedLibpqWriter(cursor) if rows > _ROWS_AT_ONCE else LibpqWriter(cursor)


def read_rows(
    connection: Connection, query: str, parameters: Mapping[str, Any], columns: Mapping[str, pa.DataType]
) -> dict[str, NDArray[Any]]:
    """The rows of a query as columns.

    Args:
        query: SQL with ``%(name)s`` for parameters, which the driver quotes: COPY takes none of its own.
        columns: name and type of each, in order; NULL is not expected but in timestamps (``NEVER``) and
            float32 (NaN).
    """
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    lines = io.BytesIO()
    statement = f"COPY ({query}) TO STDOUT (FORMAT CSV)".encode()
    with driver.cursor() as cursor, cursor.copy(statement, dict(parameters)) as copy:
        for part in copy:
            lines.write(part)
    if not lines.tell():
        return {name: _as_array(pa.chunked_array([], type=kind)) for name, kind in columns.items()}
    lines.seek(0)
    table = csv.read_csv(
        lines,
        read_options=csv.ReadOptions(column_names=list(columns)),
        convert_options=csv.ConvertOptions(
            column_types=dict(columns),
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
        ),
    )
    return {name: _as_array(table[name]) for name in columns}


def _as_array(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.int64()).fill_null(NEVER).to_numpy())
    return np.array(column.to_numpy())


def instants(micros: NDArray[np.int64]) -> pa.Array:
    """Microseconds since 1970 as timestamps with a zone; ``NEVER`` becomes NULL."""
    return pa.array(micros, type=pa.timestamp("us", tz="UTC"), mask=np.asarray(micros) == NEVER)


def numbers(values: NDArray[np.int64]) -> pa.Array:
    """Row numbers; −1 becomes NULL."""
    return pa.array(values, type=pa.int64(), mask=np.asarray(values) < 0)


def points(lon_lat: NDArray[np.float64]) -> pa.Array:
    """(n, 2) longitude, latitude as geometries of EPSG:4326: EWKB in hexadecimal, as COPY takes it."""
    ewkb = np.empty(
        len(lon_lat), dtype=[("order", "u1"), ("type", "<u4"), ("srid", "<u4"), ("x", "<f8"), ("y", "<f8")]
    )
    ewkb["order"], ewkb["type"], ewkb["srid"] = 1, _POINT_WITH_SRID, 4326
    ewkb["x"], ewkb["y"] = lon_lat[:, 0], lon_lat[:, 1]
    signs = np.frombuffer(ewkb.tobytes().hex().encode(), f"S{2 * ewkb.itemsize}")
    return pa.array(signs).cast(pa.string())


def _is_column(value: Any) -> bool:
    return isinstance(value, np.ndarray | pa.Array | pa.ChunkedArray | list)


def _array(column: Any) -> pa.Array:
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return column
    return pa.array(column, from_pandas=True)
