"""Packed points and their deltas: exact counts in polygons that read only the ground which the border crosses.

Triggers append an event for each change of the states, in the same transaction and whoever makes it; shared rows are
rewritten only when many have come together, under the city's writer lock. Who changes many states at once holds the
triggers (``held_triggers``) and packs what changed in the same transaction. A count is leaves plus deltas, read in one
snapshot.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

import numpy as np
import psycopg
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from inventory.domain.evidence import NEVER, Integers, to_micros
from inventory.domain.leaves import (
    NO_LEAVES,
    Events,
    Leaves,
    PolygonOverLeaves,
    by_latitude,
    divided,
    morton,
    summed,
    units,
)
from inventory.domain.places import City
from inventory.domain.tally import Counted
from inventory.store.copy import copy_rows, read_rows
from inventory.store.deltas import Counting
from inventory.store.known import KnownCity
from inventory.store.schema import leaf

_PACK_ABOVE = 5_000
_LIST = (
    ("key", "<u8"),
    ("depth", "i1"),
    ("listed", "<i4"),
    ("verified", "<i4"),
    ("oldest", "<i8"),
    ("newest", "<i8"),
)
# Rows, not columns: the bytes of many leaves put together are one array.
_PLACE = np.dtype([("lon", "<i4"), ("lat", "<i4")])
_CHANGE = np.dtype([("at", "<i8"), ("listed", "<i2"), ("verified", "<i2")])


# --- packing ------------------------------------------------------------------------------------------------

_DELTAS = """
    SELECT class, lon, lat, at, listed, verified FROM urban_inventory.leaf_delta WHERE city_id = %(city)s
"""
_DELTA_KINDS: dict[str, pa.DataType] = {
    "class": pa.string(),
    "lon": pa.int64(),
    "lat": pa.int64(),
    "at": pa.timestamp("us", tz="UTC"),
    "listed": pa.int64(),
    "verified": pa.int64(),
}


@contextmanager
def held_triggers(connection: Connection) -> Iterator[None]:
    """Within it no trigger appends deltas: what is written leaves counts as they are, or the writer packs it."""
    hold = text("SELECT set_config('urban_inventory.leaf_deltas', :how, true)")
    connection.execute(hold, {"how": "held"})
    # After an error the transaction is void, and the setting with it.
    yield
    connection.execute(hold, {"how": ""})


def changes_of(states: Counting, lon_lat: NDArray[np.float64], *, sign: int) -> dict[str, NDArray[Any]]:
    """What states (``sign`` 1), or their going (−1), add to the counts at their places: columns for ``pack``.

    Args:
        lon_lat: (n, 2) degrees, as stored.
    """
    rows = np.flatnonzero(states.listed)
    ending = rows[states.valid_to[rows] != NEVER]
    row = np.concatenate([rows, ending])
    signs = sign * np.repeat([1, -1], [len(rows), len(ending)])
    place = units(lon_lat[row])
    return {
        "class": states.class_name[row],
        "lon": place[:, 0],
        "lat": place[:, 1],
        "at": np.concatenate([states.valid_from[rows], states.valid_to[ending]]),
        "listed": signs,
        "verified": signs * states.verified[row],
    }


def pack(connection: Connection, city: City, changes: Sequence[dict[str, NDArray[Any]]] = ()) -> None:
    """Moves changes that no delta tells of, and the deltas once they are many, into leaves.

    Under the city's writer lock.
    """
    parameters = {"city": city.id}
    waiting = connection.execute(
        text("SELECT count(*) FROM urban_inventory.leaf_delta WHERE city_id = :city"), parameters
    ).scalar_one()
    if not changes and waiting <= _PACK_ABOVE:
        return
    deltas = read_rows(connection, _DELTAS, parameters, _DELTA_KINDS)
    connection.execute(text("DELETE FROM urban_inventory.leaf_delta WHERE city_id = :city"), parameters)
    deltas = {
        name: np.concatenate([column, *(one[name] for one in changes)]) for name, column in deltas.items()
    }
    names, code = np.unique(deltas.pop("class").astype(str), return_inverse=True)
    known = _read_lists(connection, city)
    for number, name in enumerate(names.tolist()):
        mine = code == number
        events = summed(**{column: values[mine] for column, values in deltas.items()})
        _pack_class(connection, city, name, known.get(name, NO_LEAVES), events)


def _pack_class(connection: Connection, city: City, name: str, leaves: Leaves, events: Events) -> None:
    if not len(events):
        return
    keys = morton(events.lon, events.lat)
    holding = leaves.of(keys)
    old = np.unique(holding[holding >= 0])
    corner, depth = leaves.free_cells(keys[holding < 0])
    stored, _ = _read_events(connection, city, name, leaves.key[old])
    together = events.joined(stored)
    corner, depth = np.append(leaves.key[old], corner), np.append(leaves.depth[old], depth)
    order = np.argsort(corner, kind="stable")
    made, begin = divided(together, corner[order], depth[order])
    connection.execute(
        text(
            "DELETE FROM urban_inventory.leaf WHERE city_id = :city AND class = :class"
            " AND key = ANY(CAST(:keys AS bigint[]))"
        ),
        {"city": city.id, "class": name, "keys": leaves.key[old].tolist()},
    )
    _write_events(connection, city, name, made, begin, together)
    _write_list(connection, city, name, leaves.replaced(old, made))


def _write_events(
    connection: Connection, city: City, name: str, leaves: Leaves, begin: Integers, events: Events
) -> None:
    events = by_latitude(events, begin)
    places, changes = _packed(events, _PLACE), _packed(events, _CHANGE)
    bounds = list(zip(begin[:-1].tolist(), begin[1:].tolist(), strict=True))
    copy_rows(
        connection,
        leaf,
        {
            "city_id": city.id,
            "class": np.full(len(leaves), name, object),
            "key": leaves.key.astype(np.int64),
            "places": [_hex(places[first:last]) for first, last in bounds],
            "changes": [_hex(changes[first:last]) for first, last in bounds],
        },
    )


def _packed(events: Events, kind: np.dtype[Any]) -> NDArray[Any]:
    rows = np.empty(len(events), kind)
    for name in kind.names or ():
        rows[name] = getattr(events, name)
    return rows


def _hex(rows: NDArray[Any]) -> str:
    return "\\x" + rows.tobytes().hex()


_WRITE_LIST = text(
    """
    INSERT INTO urban_inventory.leaf_list (city_id, class, leaves) VALUES (:city, :class, :leaves)
    ON CONFLICT (city_id, class) DO UPDATE SET leaves = excluded.leaves
    """
)


def _write_list(connection: Connection, city: City, name: str, leaves: Leaves) -> None:
    packed = b"".join(getattr(leaves, column).astype(kind).tobytes() for column, kind in _LIST)
    connection.execute(_WRITE_LIST, {"city": city.id, "class": name, "leaves": packed})


# --- reading ------------------------------------------------------------------------------------------------


def _fetched(connection: Connection, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Rows as the driver gives them in binary: bytes come without a detour through hexadecimal digits."""
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    with driver.cursor(binary=True) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def _read_lists(connection: Connection, city: City) -> dict[str, Leaves]:
    query = "SELECT class, leaves FROM urban_inventory.leaf_list WHERE city_id = %(city)s"
    rows = _fetched(connection, query, {"city": city.id})
    return {name: _unpacked_list(packed) for name, packed in rows}


def _unpacked_list(packed: bytes) -> Leaves:
    size = sum(np.dtype(kind).itemsize for _, kind in _LIST)
    count, start = len(packed) // size, 0
    columns: dict[str, Any] = {}
    for column, kind in _LIST:
        values = np.frombuffer(packed, kind, count, start)
        start += values.nbytes
        columns[column] = values if kind == "<u8" else values.astype(np.int64)
    return Leaves(**columns)


_EVENTS = "SELECT places, changes FROM urban_inventory.leaf"
_CHANGES = "SELECT changes FROM urban_inventory.leaf"
_OF_LEAVES = " WHERE city_id = %(city)s AND class = %(class)s AND key = ANY(%(keys)s) ORDER BY key"


def _read_events(
    connection: Connection, city: City, name: str, keys: NDArray[np.uint64]
) -> tuple[Events, Integers]:
    """The events of some leaves, by leaf and latitude; and (keys,) how many each has."""
    parameters = {"city": city.id, "class": name, "keys": keys.tolist()}
    rows = _fetched(connection, _EVENTS + _OF_LEAVES, parameters) if len(keys) else []
    places = np.frombuffer(b"".join([row[0] for row in rows]), _PLACE)
    changes = np.frombuffer(b"".join([row[1] for row in rows]), _CHANGE)
    events = Events(
        **{
            column: part[column].astype(np.int64)
            for part, kind in ((places, _PLACE), (changes, _CHANGE))
            for column in kind.names or ()
        }
    )
    return events, np.array([len(row[0]) // _PLACE.itemsize for row in rows], np.int64)


def count_in_polygon(
    connection: Connection,
    known: KnownCity,
    polygon: shapely.Geometry,
    classes: Sequence[str],
    as_of: datetime,
) -> dict[str, Counted]:
    """Listed assets that intersect a valid polygon in EPSG:4326, its border included, by class.

    The caller's transaction must see one snapshot: leaves and deltas belong together.
    """
    until, city = to_micros(as_of), known.city
    over = PolygonOverLeaves(polygon)
    lists = known.part("leaves", lambda: _read_lists(connection, city))
    counts = {
        name: _count_class(connection, city, name, lists[name], over, until)
        for name in classes
        if name in lists
    }
    for name, waiting in _deltas_within(connection, city, polygon, classes, as_of).items():
        counts[name] = counts.get(name, Counted(listed=0, verified=0)) + waiting
    return counts


def _count_class(
    connection: Connection, city: City, name: str, leaves: Leaves, over: PolygonOverLeaves, until: int
) -> Counted:
    leaves = leaves.take(leaves.oldest <= until) if (leaves.oldest > until).any() else leaves
    border = over.over(leaves)
    settled = border.inside[leaves.newest[border.inside] <= until]
    count = Counted(listed=int(leaves.listed[settled].sum()), verified=int(leaves.verified[settled].sum()))
    changing = border.inside[leaves.newest[border.inside] > until]
    if len(changing):
        count += _sums_of(connection, city, name, leaves.key[changing], until)
    if len(border.crossed):
        events, each = _read_events(connection, city, name, leaves.key[border.crossed])
        inside = over.contains_points(border, leaves, events, each)
        count += events.take(inside).sums(until)
    return count


def _sums_of(connection: Connection, city: City, name: str, keys: NDArray[np.uint64], until: int) -> Counted:
    """What leaves inside add up to at an instant within them; their places are not read."""
    wanted = keys.tolist()
    rows = _fetched(connection, _CHANGES + _OF_LEAVES, {"city": city.id, "class": name, "keys": wanted})
    changes = np.frombuffer(b"".join([row[0] for row in rows]), _CHANGE)
    happened = changes[changes["at"] <= until]
    return Counted(
        listed=int(happened["listed"].sum(dtype=np.int64)),
        verified=int(happened["verified"].sum(dtype=np.int64)),
    )


_WAITING = text(
    """
    SELECT class, sum(listed) AS listed, sum(verified) AS verified
    FROM urban_inventory.leaf_delta WHERE city_id = :city GROUP BY class
    """
)


def totals(connection: Connection, city: City) -> dict[str, Counted]:
    """What leaves and deltas together say of now, by class: for comparing with the rows they stand for."""
    found = {
        name: Counted(listed=int(leaves.listed.sum()), verified=int(leaves.verified.sum()))
        for name, leaves in _read_lists(connection, city).items()
    }
    for row in connection.execute(_WAITING, {"city": city.id}):
        waiting = Counted(listed=int(row.listed), verified=int(row.verified))
        found[row[0]] = found.get(row[0], Counted(listed=0, verified=0)) + waiting
    return found


_DELTAS_NEAR = """
    SELECT class, lon, lat, sum(listed), sum(verified) FROM urban_inventory.leaf_delta
    WHERE city_id = %(city)s AND class = ANY(%(classes)s) AND at <= %(as_of)s
        AND lon BETWEEN %(west)s AND %(east)s AND lat BETWEEN %(south)s AND %(north)s
    GROUP BY class, lon, lat HAVING sum(listed) <> 0 OR sum(verified) <> 0
"""


def _deltas_within(
    connection: Connection, city: City, polygon: shapely.Geometry, classes: Sequence[str], as_of: datetime
) -> dict[str, Counted]:
    west, south, east, north = shapely.bounds(polygon).tolist()
    (low, high) = units(np.array([[west, south], [east, north]])).tolist()
    rows = _fetched(
        connection,
        _DELTAS_NEAR,
        {
            "city": city.id,
            "classes": list(classes),
            "as_of": as_of,
            "west": low[0] - 1,
            "south": low[1] - 1,
            "east": high[0] + 1,
            "north": high[1] + 1,
        },
    )
    if not rows:
        return {}
    names, lon, lat, listed, verified = (np.array(column) for column in zip(*rows, strict=True))
    inside = np.asarray(shapely.intersects_xy(polygon, lon / 1e7, lat / 1e7))
    return {
        name: Counted(
            listed=int(listed[inside & (names == name)].sum()),
            verified=int(verified[inside & (names == name)].sum()),
        )
        for name in np.unique(names).tolist()
    }
