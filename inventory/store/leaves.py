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

from inventory.domain.border import PolygonOverLeaves
from inventory.domain.evidence import NEVER, Floats, Integers, to_micros
from inventory.domain.leaves import (
    NO_LEAVES,
    Events,
    Kinds,
    Leaves,
    by_latitude,
    divided,
    kinds_of,
    summed,
)
from inventory.domain.places import City
from inventory.domain.quadtree import DEEPEST, SOUTH, WEST, column_row, morton, units
from inventory.domain.tally import Counted
from inventory.errors import StoreError
from inventory.store.copy import copy_rows, read_rows
from inventory.store.deltas import Counting
from inventory.store.known import KnownCity
from inventory.store.schema import leaf

_PACK_ABOVE = 5_000
_LIST = (
    ("key", "<u8"),
    ("depth", "i1"),
    ("events", "<i4"),
    ("kinds", "<i4"),
    ("plain", "i1"),
    ("listed", "<i4"),
    ("verified", "<i4"),
    ("oldest", "<i8"),
    ("newest", "<i8"),
)
# Rows, not columns: the bytes of many leaves put together are one array. Places count from their leaf's corner.
_NARROW = np.dtype([("x", "<u2"), ("y", "<u2")])
_WIDE = np.dtype([("x", "<u4"), ("y", "<u4")])
_NARROW_FROM_DEPTH = DEEPEST - 16
_KIND = np.dtype([("at", "<i8"), ("listed", "<i2"), ("verified", "<i2"), ("events", "<u4")])
_OF = np.dtype("<u2")
_MOST_KINDS = 2**16


# --- packing ------------------------------------------------------------------------------------------------

# Taken and read by one statement: what somebody else appends meanwhile stays for the next time.
_DELTAS = """
    DELETE FROM urban_inventory.leaf_delta WHERE city_id = %(city)s
    RETURNING class, lon, lat, at, listed, verified
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


def is_due(connection: Connection, city: City) -> bool:
    """Whether so many deltas wait that counts are better off with them packed."""
    waiting = text("SELECT count(*) FROM urban_inventory.leaf_delta WHERE city_id = :city")
    return bool(connection.execute(waiting, {"city": city.id}).scalar_one() > _PACK_ABOVE)


def pack(connection: Connection, city: City, changes: Sequence[dict[str, NDArray[Any]]] = ()) -> None:
    """Moves changes that no delta tells of, and the deltas once they are many, into leaves.

    Under the city's writer lock.
    """
    if not changes and not is_due(connection, city):
        return
    parameters = {"city": city.id}
    deltas = read_rows(connection, _DELTAS, parameters, _DELTA_KINDS)
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
    together = events.joined(_Reader(connection, city, name, leaves).events(old))
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
    if int(leaves.kinds.max(initial=0)) > _MOST_KINDS:
        raise StoreError(f"one place of {city.code} changed more than {_MOST_KINDS:,} times")
    events = by_latitude(events, begin)
    kinds = kinds_of(events, begin)
    copy_rows(
        connection,
        leaf,
        {
            "city_id": city.id,
            "class": np.full(len(leaves), name, object),
            "key": leaves.key.astype(np.int64),
            "places": _packed_places(leaves, begin, events),
            "kinds": _hex(_packed_kinds(kinds), _bounds(kinds.each)),
            # Where all are of one kind, nothing needs to be said of each.
            "kind_of": [
                said if many else "\\x"
                for said, many in zip(_hex(kinds.of.astype(_OF), begin), kinds.each > 1, strict=True)
            ],
        },
    )


def _packed_places(leaves: Leaves, begin: Integers, events: Events) -> list[str]:
    column, row = column_row(leaves.key)
    x = events.lon + WEST - np.repeat(column, leaves.events)
    y = events.lat + SOUTH - np.repeat(row, leaves.events)
    narrow, wide = (np.empty(len(events), kind) for kind in (_NARROW, _WIDE))
    for places in (narrow, wide):
        # What does not fit is not taken from the narrow ones.
        places["x"], places["y"] = x.astype(places.dtype["x"]), y.astype(places.dtype["y"])
    is_narrow = leaves.depth >= _NARROW_FROM_DEPTH
    return [
        small if fits else large
        for small, large, fits in zip(_hex(narrow, begin), _hex(wide, begin), is_narrow, strict=True)
    ]


def _packed_kinds(kinds: Kinds) -> NDArray[Any]:
    rows = np.empty(len(kinds.at), _KIND)
    for name in _KIND.names or ():
        rows[name] = getattr(kinds, name)
    return rows


def _bounds(each: Integers) -> Integers:
    return np.concatenate([[0], np.cumsum(each)])


def _hex(rows: NDArray[Any], begin: Integers) -> list[str]:
    """The rows of each leaf as the database reads bytes."""
    digits, size = rows.tobytes().hex(), 2 * rows.itemsize
    return [
        "\\x" + digits[size * first : size * last]
        for first, last in zip(begin[:-1].tolist(), begin[1:].tolist(), strict=True)
    ]


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


# One row of all bytes: a row for each leaf costs the driver more than all the rest. In Morton order, as leaves are.
_OF_LEAVES = """
    SELECT {columns} FROM urban_inventory.leaf
    WHERE city_id = %(city)s AND class = %(class)s AND key = ANY(%(keys)s::bigint[])
"""
_JOINED = "coalesce(string_agg({column}, '' ORDER BY key), '')"


class _Reader:
    """The leaves of one class as they are stored."""

    def __init__(self, connection: Connection, city: City, name: str, leaves: Leaves) -> None:
        self._connection, self._city, self._name = connection, city, name
        self._leaves = leaves

    def _read(self, rows: Integers, *columns: str) -> list[bytes]:
        if not len(rows):
            return [b"" for _ in columns]
        joined = ", ".join(_JOINED.format(column=column) for column in columns)
        keys = "{" + ",".join(map(str, self._leaves.key[rows].tolist())) + "}"
        parameters = {"city": self._city.id, "class": self._name, "keys": keys}
        (found,) = _fetched(self._connection, _OF_LEAVES.format(columns=joined), parameters)
        return list(found)

    def places(self, rows: Integers) -> tuple[Floats, Floats]:
        """Units from the globe's south-west corner of every event of some leaves, rising, by leaf and latitude."""
        each = self._leaves.events[rows]
        is_narrow = self._leaves.depth[rows] >= _NARROW_FROM_DEPTH
        of_event = np.repeat(is_narrow, each)
        x, y = (part.astype(np.float64) for part in column_row(np.repeat(self._leaves.key[rows], each)))
        for these, kind, events in (
            (rows[is_narrow], _NARROW, of_event),
            (rows[~is_narrow], _WIDE, ~of_event),
        ):
            if len(these):
                (packed,) = self._read(these, "places")
                places = np.frombuffer(packed, kind)
                x[events] += places["x"]
                y[events] += places["y"]
        return x, y

    def kinds(self, rows: Integers) -> NDArray[Any]:
        """What the events of some leaves say, kind by kind, by leaf."""
        (packed,) = self._read(rows, "kinds")
        return np.frombuffer(packed, _KIND)

    def changes(self, rows: Integers) -> NDArray[Any]:
        """What every event of some leaves says, in the order of ``places``."""
        kinds, packed = self._read(rows, "kinds", "kind_of")
        each, many = self._leaves.events[rows], self._leaves.kinds[rows]
        of = np.zeros(int(each.sum()), np.int64)
        of[np.repeat(many > 1, each)] = np.frombuffer(packed, _OF)
        first = np.cumsum(many) - many
        return np.frombuffer(kinds, _KIND)[of + np.repeat(first, each)]

    def events(self, rows: Integers) -> Events:
        """The events of some leaves, by leaf and latitude."""
        x, y = self.places(rows)
        changes = self.changes(rows)
        return Events(
            lon=x.astype(np.int64) - WEST,
            lat=y.astype(np.int64) - SOUTH,
            **{name: changes[name].astype(np.int64) for name in ("at", "listed", "verified")},
        )


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
        name: _count_class(_Reader(connection, city, name, lists[name]), lists[name], over, until)
        for name in classes
        if name in lists
    }
    for name, waiting in _deltas_within(connection, city, polygon, classes, as_of).items():
        counts[name] = counts.get(name, Counted(listed=0, verified=0)) + waiting
    return counts


def _count_class(reader: _Reader, leaves: Leaves, over: PolygonOverLeaves, until: int) -> Counted:
    border = over.over(leaves)
    settled = border.inside[leaves.newest[border.inside] <= until]
    count = Counted(listed=int(leaves.listed[settled].sum()), verified=int(leaves.verified[settled].sum()))
    # Of the other leaves inside what they sum up to then is read, and not where.
    changing = border.inside[(leaves.newest[border.inside] > until) & (leaves.oldest[border.inside] <= until)]
    count += _sum(reader.kinds(changing), until)
    x, y = reader.places(border.crossed)
    inside = over.contains_points(border, leaves, x, y)
    plain = (leaves.plain[border.crossed] > 0) & (leaves.newest[border.crossed] <= until)
    of_event = np.repeat(plain, leaves.events[border.crossed])
    count += Counted(listed=int(np.count_nonzero(inside & of_event)), verified=0)
    changes = reader.changes(border.crossed[~plain])[inside[~of_event]]
    happened = changes[changes["at"] <= until]
    return count + Counted(listed=int(happened["listed"].sum()), verified=int(happened["verified"].sum()))


def _sum(kinds: NDArray[Any], until: int) -> Counted:
    happened = kinds[kinds["at"] <= until]
    events = happened["events"].astype(np.int64)
    return Counted(
        listed=int((happened["listed"] * events).sum()), verified=int((happened["verified"] * events).sum())
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
