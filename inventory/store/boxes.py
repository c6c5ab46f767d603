"""Exact counts in boxes, from packed points and their deltas: what ``leaves.py`` does for polygons, as integers.

Lists of leaves are remembered from request to request, each with the row version that it was read from: a snapshot
that shows another version reads it anew, so that nothing old is ever counted.
"""

from collections.abc import Sequence
from datetime import datetime
from weakref import WeakKeyDictionary

import numpy as np
from sqlalchemy import Connection, Engine

from inventory.domain.boxes import GroundOfLeaves, UnitBox, ground_of, unit_box
from inventory.domain.evidence import to_micros
from inventory.domain.places import City
from inventory.store import leaves

_REMEMBERED_AT_MOST = 64
"""Lists of leaves: three megabytes each where a class has five million assets."""
_Remembered = dict[tuple[int, str], tuple[str, GroundOfLeaves]]
# By engine: databases number their cities and row versions alike.
_REMEMBERED: WeakKeyDictionary[Engine, _Remembered] = WeakKeyDictionary()

_VERSIONS = """
    SELECT class, xmin::text || ctid::text FROM urban_inventory.leaf_list
    WHERE city_id = %(city)s AND class = ANY(%(classes)s)
"""
_LIST = "SELECT leaves FROM urban_inventory.leaf_list WHERE city_id = %(city)s AND class = %(class)s"
_DELTAS = """
    SELECT coalesce(sum(listed), 0) FROM urban_inventory.leaf_delta
    WHERE city_id = %(city)s AND class = ANY(%(classes)s) AND at <= %(as_of)s
        AND lon BETWEEN %(west)s AND %(east)s AND lat BETWEEN %(south)s AND %(north)s
"""


def listed_in_box(
    connection: Connection,
    city: City,
    box: tuple[float, float, float, float],
    classes: Sequence[str],
    as_of: datetime,
) -> int:
    """How many are listed in a box (west, south, east, north; EPSG:4326), its border included.

    The caller's transaction must see one snapshot: leaves and deltas belong together.
    """
    units, until = unit_box(*box), to_micros(as_of)
    count = sum(
        _in_leaves(connection, city, name, ground, units, until)
        for name, ground in _grounds(connection, city, classes).items()
    )
    asked = {
        "city": city.id, "classes": list(classes), "as_of": as_of,
        "west": units.west, "south": units.south, "east": units.east, "north": units.north,
    }  # fmt: skip
    ((waiting,),) = leaves._fetched(connection, _DELTAS, asked)
    return count + int(waiting)


def _in_leaves(
    connection: Connection, city: City, name: str, ground: GroundOfLeaves, box: UnitBox, until: int
) -> int:
    known = ground.leaves
    inside, crossed = ground.lying(box)
    inside, crossed = (rows[known.oldest[rows] <= until] for rows in (inside, crossed))
    settled = known.newest[inside] <= until
    count = int(known.listed[inside[settled]].sum())
    if not settled.all():
        count += leaves._sums_of(connection, city, name, known.key[inside[~settled]], until).listed
    if len(crossed):
        events, _ = leaves._read_events(connection, city, name, known.key[crossed])
        count += events.take(np.flatnonzero(box.holds(events.lon, events.lat))).sums(until).listed
    return count


def _grounds(connection: Connection, city: City, classes: Sequence[str]) -> dict[str, GroundOfLeaves]:
    remembered = _REMEMBERED.setdefault(connection.engine, {})
    found = {}
    for name, version in leaves._fetched(connection, _VERSIONS, {"city": city.id, "classes": list(classes)}):
        kept = remembered.get((city.id, name))
        if kept is None or kept[0] != version:
            ((packed,),) = leaves._fetched(connection, _LIST, {"city": city.id, "class": name})
            if len(remembered) >= _REMEMBERED_AT_MOST:
                remembered.clear()
            kept = remembered[city.id, name] = (version, ground_of(leaves._unpacked_list(packed)))
        found[name] = kept[1]
    return found
