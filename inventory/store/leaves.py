"""Packed points and their deltas: exact counts in polygons that read only the ground which the border crosses.

Triggers append an event for each change of the states, in the same transaction and whoever makes it; shared rows are
rewritten only when many have come together, under the city's writer lock. Who changes many states at once holds the
triggers (``held_triggers``) and packs what changed in the same transaction. A count is leaves plus deltas, read in one
snapshot.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from inventory.domain.border import Border, PolygonOverLeaves
from inventory.domain.evidence import NEVER, to_micros
from inventory.domain.leaves import (
    NO_LEAVES,
    Events,
    divided,
    summed,
)
from inventory.domain.places import City
from inventory.domain.quadtree import morton, units
from inventory.domain.tally import Counted
from inventory.store.copy import read_rows
from inventory.store.deltas import Counting
from inventory.store.known import KnownCity
from inventory.store.leaf_rows import PackedClass, fetched, packed_classes, write_leaves, write_list

_PACK_ABOVE = 5_000
_TESTED_AT_ONCE = 200_000
"""Points of the leaves that a border crosses: arrays of more than 4 MB are new memory each time, in twice the time."""

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
    known = packed_classes(connection, city.id, keep=False)
    for number, name in enumerate(names.tolist()):
        mine = code == number
        events = summed(**{column: values[mine] for column, values in deltas.items()})
        if len(events):
            packed = known.get(name) or PackedClass(city.id, name, 0, NO_LEAVES)
            _pack_class(connection, city, name, packed, events)


def _pack_class(connection: Connection, city: City, name: str, packed: PackedClass, events: Events) -> None:
    leaves = packed.leaves
    keys = morton(events.lon, events.lat)
    holding = leaves.of(keys)
    old = np.unique(holding[holding >= 0])
    corner, depth = leaves.free_cells(keys[holding < 0])
    together = events.joined(packed.events(connection, old))
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
    write_leaves(connection, city, name, made, begin, together)
    write_list(connection, city, name, leaves.replaced(old, made))


# --- reading ------------------------------------------------------------------------------------------------


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
    packed = known.part("leaves", lambda: packed_classes(connection, city.id, keep=known.kept))
    counts = {name: _count_class(connection, packed[name], over, until) for name in classes if name in packed}
    for name, waiting in _deltas_within(connection, city, polygon, classes, as_of).items():
        counts[name] = counts.get(name, Counted(listed=0, verified=0)) + waiting
    return counts


def _count_class(connection: Connection, packed: PackedClass, over: PolygonOverLeaves, until: int) -> Counted:
    leaves = packed.leaves
    border = over.over(leaves)
    settled = border.inside[leaves.newest[border.inside] <= until]
    count = Counted(listed=int(leaves.listed[settled].sum()), verified=int(leaves.verified[settled].sum()))
    # Of the other leaves inside what they sum up to then is read, and not where.
    changing = border.inside[(leaves.newest[border.inside] > until) & (leaves.oldest[border.inside] <= until)]
    count += sum_of_kinds(packed.kinds(connection, changing), until)
    for part in border.parts(leaves.events[border.crossed], _TESTED_AT_ONCE):
        count += _count_crossed(connection, packed, over, part, until)
    return count


def _count_crossed(
    connection: Connection, packed: PackedClass, over: PolygonOverLeaves, border: Border, until: int
) -> Counted:
    leaves = packed.leaves
    x, y = packed.places(connection, border.crossed)
    inside = over.contains_points(border, leaves, x, y)
    plain = (leaves.plain[border.crossed] > 0) & (leaves.newest[border.crossed] <= until)
    of_event = np.repeat(plain, leaves.events[border.crossed])
    listed = int(np.count_nonzero(inside & of_event))
    changes = packed.changes(connection, border.crossed[~plain])[inside[~of_event]]
    happened = changes[changes["at"] <= until]
    return Counted(listed=listed + int(happened["listed"].sum()), verified=int(happened["verified"].sum()))


def sum_of_kinds(kinds: NDArray[Any], until: int) -> Counted:
    """What events add up to at an instant, as ``PackedClass.kinds`` gives them."""
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
        name: Counted(listed=int(packed.leaves.listed.sum()), verified=int(packed.leaves.verified.sum()))
        for name, packed in packed_classes(connection, city.id).items()
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
    rows = fetched(
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
