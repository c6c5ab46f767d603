"""Exact counts in boxes, from packed points and their deltas: what ``leaves.py`` does for polygons, as integers."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from sqlalchemy import Connection

from inventory.domain.boxes import UnitBox, ground_of, unit_box
from inventory.domain.evidence import to_micros
from inventory.domain.quadtree import SOUTH, WEST
from inventory.store.leaf_rows import PackedClass, fetched, packed_classes
from inventory.store.leaves import sum_of_kinds

_DELTAS = """
    SELECT coalesce(sum(listed), 0) FROM urban_inventory.leaf_delta
    WHERE city_id = %(city)s AND class = ANY(%(classes)s) AND at <= %(as_of)s
        AND lon BETWEEN %(west)s AND %(east)s AND lat BETWEEN %(south)s AND %(north)s
"""


def listed_in_box(
    connection: Connection,
    city_id: int,
    box: tuple[float, float, float, float],
    classes: Sequence[str],
    as_of: datetime,
) -> int:
    """How many are listed in a box (west, south, east, north; EPSG:4326), its border included.

    The caller's transaction must see one snapshot: leaves and deltas belong together.
    """
    units, until = unit_box(*box), to_micros(as_of)
    packed = packed_classes(connection, city_id)
    count = sum(
        listed_in_leaves(connection, packed[name], units, until) for name in classes if name in packed
    )
    asked = {
        "city": city_id, "classes": list(classes), "as_of": as_of,
        "west": units.west, "south": units.south, "east": units.east, "north": units.north,
    }  # fmt: skip
    ((waiting,),) = fetched(connection, _DELTAS, asked)
    return count + int(waiting)


def listed_in_leaves(connection: Connection, packed: PackedClass, box: UnitBox, until: int) -> int:
    """How many of a class leaves have in a box at an instant (microseconds); deltas not among them."""
    known = packed.leaves
    inside, crossed = packed.part("ground", lambda: ground_of(known)).lying(box)
    inside, crossed = (rows[known.oldest[rows] <= until] for rows in (inside, crossed))
    settled = known.newest[inside] <= until
    count = int(known.listed[inside[settled]].sum())
    count += sum_of_kinds(packed.kinds(connection, inside[~settled]), until).listed
    x, y = packed.places(connection, crossed)
    held = box.holds(x.astype(np.int64) - WEST, y.astype(np.int64) - SOUTH)
    if ((known.plain[crossed] > 0) & (known.newest[crossed] <= until)).all():
        return count + int(np.count_nonzero(held))
    changes = packed.changes(connection, crossed)[held]
    return count + int(changes["listed"][changes["at"] <= until].sum())
