"""Leaves as they are stored, and what was read of them kept in memory until they are packed anew.

Each class of a city has one list of its leaves, read whole, and a row of bytes for each leaf, of which a question reads
those that it needs. Both change only when deltas are packed; the list then bears another stamp, by which what was read
before is known to be out of date.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text

from inventory.domain.evidence import Floats, Integers
from inventory.domain.leaves import Events, Kinds, Leaves, by_latitude, kinds_of
from inventory.domain.places import City
from inventory.domain.quadtree import DEEPEST, SOUTH, WEST, Bools, column_row, ranges
from inventory.errors import StoreError
from inventory.store.copy import copy_rows
from inventory.store.schema import leaf

_T = TypeVar("_T")
_KEPT_EVENTS = 20_000_000
"""Events of all classes of which what was read is kept: 14 bytes each."""
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


# --- writing ------------------------------------------------------------------------------------------------


def write_leaves(
    connection: Connection, city: City, name: str, leaves: Leaves, begin: Integers, events: Events
) -> None:
    """Appends leaves, as ``divided`` gives them with their events."""
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
    INSERT INTO urban_inventory.leaf_list (city_id, class, leaves, packed)
    SELECT id, :class, :leaves, version FROM urban_inventory.city WHERE id = :city
    ON CONFLICT (city_id, class) DO UPDATE SET leaves = excluded.leaves, packed = excluded.packed
    """
)


def write_list(connection: Connection, city: City, name: str, leaves: Leaves) -> None:
    """Says which leaves the class has now, under another stamp than before: the city's version as it will be."""
    packed = b"".join(getattr(leaves, column).astype(kind).tobytes() for column, kind in _LIST)
    connection.execute(_WRITE_LIST, {"city": city.id, "class": name, "leaves": packed})


# --- reading ------------------------------------------------------------------------------------------------


def fetched(connection: Connection, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Rows as the driver gives them in binary: bytes come without a detour through hexadecimal digits."""
    driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    with driver.cursor(binary=True) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


# Of many leaves one row of all bytes: a row for each costs the driver more than all the rest. In Morton order.
_OF_LEAVES = """
    SELECT {columns} FROM urban_inventory.leaf
    WHERE city_id = %(city)s AND class = %(class)s AND key = ANY(%(keys)s::bigint[])
"""
_JOINED = "coalesce(string_agg({column}, '' ORDER BY key), '')"


class PackedClass:
    """The leaves of one class of a city as they were packed last, and of their rows what was asked for so far.

    Its methods read in a transaction that sees this packing. Several threads may read at once: they get the same.
    """

    def __init__(self, city_id: int, name: str, stamp: int, leaves: Leaves) -> None:
        self.stamp, self.leaves = stamp, leaves
        self._city_id, self._name = city_id, name
        self._events = _Rows(leaves.events)
        self._kinds = _Rows(leaves.kinds)
        # Untouched memory is none: what was not read yet costs nothing.
        self._x, self._y = (np.empty(self._events.total, np.uint32) for _ in range(2))
        self._kind_of = np.empty(self._events.total, _OF)
        self._kind = np.empty(self._kinds.total, _KIND)
        self._has_places, self._has_kinds, self._has_kind_of = (np.zeros(len(leaves), bool) for _ in range(3))

        self._parts: dict[str, Any] = {}

    def part(self, name: str, made: Callable[[], _T]) -> _T:
        """What ``made`` gives, made once: what else there is to know of these leaves."""
        if name not in self._parts:
            self._parts[name] = made()
        return cast("_T", self._parts[name])

    def places(self, connection: Connection, rows: Integers) -> tuple[Floats, Floats]:
        """Units from the globe's south-west corner of every event of some leaves, by leaf and latitude.

        Args:
            rows: the leaves, rising; here and below.
        """
        missing = rows[~self._has_places[rows]]
        is_narrow = self.leaves.depth[missing] >= _NARROW_FROM_DEPTH
        for these, kind in ((missing[is_narrow], _NARROW), (missing[~is_narrow], _WIDE)):
            if len(these):
                (packed,) = self._read(connection, these, "places")
                self._put_places(these, np.frombuffer(packed, kind))
        events = self._events.of(rows)
        return self._x[events].astype(np.float64), self._y[events].astype(np.float64)

    def _put_places(self, rows: Integers, places: NDArray[Any]) -> None:
        events, each = self._events.of(rows), self.leaves.events[rows]
        column, row = column_row(self.leaves.key[rows])
        self._x[events] = places["x"] + np.repeat(column, each)
        self._y[events] = places["y"] + np.repeat(row, each)
        self._has_places[rows] = True

    def kinds(self, connection: Connection, rows: Integers) -> NDArray[Any]:
        """What the events of some leaves say, kind by kind, by leaf: at, listed, verified, events."""
        missing = rows[~self._has_kinds[rows]]
        if len(missing):
            (packed,) = self._read(connection, missing, "kinds")
            self._kind[self._kinds.of(missing)] = np.frombuffer(packed, _KIND)
            self._has_kinds[missing] = True
        return self._kind[self._kinds.of(rows)]

    def changes(self, connection: Connection, rows: Integers) -> NDArray[Any]:
        """What every event of some leaves says, in the order of ``places``: at, listed, verified."""
        missing = rows[~self._has_kind_of[rows]]
        if len(missing):
            (packed,) = self._read(connection, missing, "kind_of")
            self._put_kind_of(missing, np.frombuffer(packed, _OF))
        kinds, each = self.kinds(connection, rows), self.leaves.kinds[rows]
        first = np.repeat(np.cumsum(each) - each, self.leaves.events[rows])
        return kinds[self._kind_of[self._events.of(rows)] + first]

    def _put_kind_of(self, rows: Integers, said: NDArray[Any]) -> None:
        many = self.leaves.kinds[rows] > 1
        self._kind_of[self._events.of(rows[~many])] = 0
        self._kind_of[self._events.of(rows[many])] = said
        self._has_kind_of[rows] = True

    def events(self, connection: Connection, rows: Integers) -> Events:
        """The events of some leaves, by leaf and latitude."""
        x, y = self.places(connection, rows)
        changes = self.changes(connection, rows)
        return Events(
            lon=x.astype(np.int64) - WEST,
            lat=y.astype(np.int64) - SOUTH,
            **{name: changes[name].astype(np.int64) for name in ("at", "listed", "verified")},
        )

    def _read(self, connection: Connection, rows: Integers, *columns: str) -> list[bytes]:
        joined = ", ".join(_JOINED.format(column=column) for column in columns)
        keys = "{" + ",".join(map(str, self.leaves.key[rows].tolist())) + "}"
        parameters = {"city": self._city_id, "class": self._name, "keys": keys}
        (found,) = fetched(connection, _OF_LEAVES.format(columns=joined), parameters)
        return list(found)


class _Rows:
    """Where the rows of each leaf lie in an array that holds those of all, one leaf after the other."""

    def __init__(self, each: Integers) -> None:
        self._end = np.cumsum(each)
        self._begin = self._end - each
        self.total = int(self._end[-1]) if len(each) else 0

    def of(self, leaves: Integers | Bools) -> Integers:
        """All rows of some leaves."""
        return ranges(self._begin[leaves], self._end[leaves])


# --- what is kept -------------------------------------------------------------------------------------------


class _Kept:
    """Classes of one database, the last asked for, as many as may be kept."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._classes: OrderedDict[tuple[int, str], PackedClass] = OrderedDict()

    def get(self, city_id: int, name: str, stamp: int) -> PackedClass | None:
        with self._turn:
            found = self._classes.get((city_id, name))
            return found if found is not None and found.stamp == stamp else None

    def put(self, city_id: int, name: str, packed: PackedClass) -> None:
        with self._turn:
            self._classes.pop((city_id, name), None)
            self._classes[city_id, name] = packed
            while sum(int(one.leaves.events.sum()) for one in self._classes.values()) > _KEPT_EVENTS:
                self._classes.popitem(last=False)


_KEPT: WeakKeyDictionary[Engine, _Kept] = WeakKeyDictionary()
_STAMPS = "SELECT class, packed FROM urban_inventory.leaf_list WHERE city_id = %(city)s"
_ONE_LIST = """
    SELECT leaves FROM urban_inventory.leaf_list WHERE city_id = %(city)s AND class = %(class)s
"""


def packed_classes(connection: Connection, city_id: int, *, keep: bool = True) -> dict[str, PackedClass]:
    """The packed classes of a city as a transaction sees it that sees one snapshot.

    Args:
        keep: False where the transaction may have packed itself: what is undone later must not be kept.
    """
    kept = _KEPT.setdefault(connection.engine, _Kept()) if keep else _Kept()
    classes = {}
    for name, stamp in fetched(connection, _STAMPS, {"city": city_id}):
        packed = kept.get(city_id, name, stamp)
        if packed is None:
            ((said,),) = fetched(connection, _ONE_LIST, {"city": city_id, "class": name})
            packed = PackedClass(city_id, name, stamp, _unpacked_list(said))
            kept.put(city_id, name, packed)
        classes[name] = packed
    return classes


def _unpacked_list(packed: bytes) -> Leaves:
    size = sum(np.dtype(kind).itemsize for _, kind in _LIST)
    count, start = len(packed) // size, 0
    columns: dict[str, Any] = {}
    for column, kind in _LIST:
        values = np.frombuffer(packed, kind, count, start)
        start += values.nbytes
        columns[column] = values if kind == "<u8" else values.astype(np.int64)
    return Leaves(**columns)
