"""Pages of the assets in a box that holds many: square by square of the ground, in the order of their ids all the same.

Ids follow the ground that was surveyed, so that those of a box lie together, and where is not known beforehand: walking
all ids to find them, or collecting all of the box to sort them, takes most of a second for a part of a large city. An
index tells of each square, a fiftieth of a degree wide, which id comes next in it. Squares are read in that order, and
no more of them once the page is full and no other square has an id that belongs on it.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from sqlalchemy import BigInteger, Connection, Integer, Select, cast, func, literal_column, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from inventory.domain.evidence import Integers
from inventory.store import schema
from inventory.store.features import Box

_SQUARES_MOST = 20_000
"""Of more squares the next ids are not asked for."""
_SQUARES_A_DEGREE, _ROW = 50, 18_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Squares:
    """Squares with the next id in each, (n,) each, in the order of the ids."""

    number: Integers
    next_id: Integers


def page_keys(
    connection: Connection,
    keys: Select[tuple[int, int]],
    *,
    city_id: int,
    boxes: tuple[Box, ...],
    matched: int,
    rows: int,
    after: int | None,
    before: int | None,
) -> tuple[list[int], list[int]] | None:
    """The first ``rows`` assets that match, by key, and the numbers of their states.

    Args:
        keys: what matches, from ``features.assets_by_square``.
        matched: about how many match on all pages.
        after, before: the key after which they begin; or the key before which they end: then they are the last ones.

    Returns:
        Keys and states, ascending; None where the boxes have more squares than are asked one by one.
    """
    squares = _squares_of(boxes)
    if squares is None:
        return None
    sign = 1 if before is None else -1
    waiting = _next_ids(connection, city_id, squares, after=after, before=before)
    found = np.empty((2, 0), np.int64)
    # About so many squares hold the page, if all hold alike.
    many = 1 + ceil(rows * len(waiting.number) / max(matched, 1))
    begin = 0
    while many and begin < len(waiting.number):
        more = _read(connection, keys, waiting, slice(begin, begin + many), rows=rows, backwards=sign < 0)
        begin += many
        found = np.concatenate([found, more], axis=1)
        found = found[:, np.argsort(sign * found[0], kind="stable")[:rows]]
        if found.shape[1] < rows:
            many *= 2
        else:
            # Only squares whose next id comes before the last one found can still change the page.
            many = int(np.count_nonzero(sign * waiting.next_id[begin:] < sign * found[0, -1]))
    of_keys, of_rows = found[:, ::sign].tolist()
    return of_keys, of_rows


def _squares_of(boxes: tuple[Box, ...]) -> Integers | None:
    """As ``schema.SQUARE_OF_PLACE`` numbers them."""
    spans = [
        [floor(edge * _SQUARES_A_DEGREE) for edge in (box.west, box.south, box.east, box.north)]
        for box in boxes
    ]
    if sum((east - west + 1) * (north - south + 1) for west, south, east, north in spans) > _SQUARES_MOST:
        return None
    parts = [
        np.arange(west, east + 1)[:, None] * _ROW + np.arange(south, north + 1)
        for west, south, east, north in spans
    ]
    return np.unique(np.concatenate([part.ravel() for part in parts]))


_NEXT = f"""
    SELECT array_agg(q.number ORDER BY n.asset_id {{order}}), array_agg(n.asset_id ORDER BY n.asset_id {{order}})
    FROM unnest(CAST(:squares AS integer[])) AS q (number)
    CROSS JOIN LATERAL (
        SELECT asset_id FROM urban_inventory.asset_state
        WHERE city_id = :city AND {schema.SQUARE_OF_PLACE} = q.number
            AND asset_id {{beyond}} :key
        ORDER BY asset_id {{order}} LIMIT 1
    ) n
"""
_NEXT_ABOVE = text(_NEXT.format(beyond=">", order="ASC"))
_NEXT_BELOW = text(_NEXT.format(beyond="<", order="DESC"))


def _next_ids(
    connection: Connection, city_id: int, squares: Integers, *, after: int | None, before: int | None
) -> _Squares:
    asked = {"city": city_id, "squares": f"{{{','.join(map(str, squares.tolist()))}}}"}
    if before is not None:
        found = connection.execute(_NEXT_BELOW, {**asked, "key": before}).one()
    else:
        found = connection.execute(_NEXT_ABOVE, {**asked, "key": after or 0}).one()
    number, next_id = (np.array(part or [], np.int64) for part in found)
    return _Squares(number=number, next_id=next_id)


def _read(
    connection: Connection,
    keys: Select[tuple[int, int]],
    squares: _Squares,
    part: slice,
    *,
    rows: int,
    backwards: bool,
) -> Integers:
    """(2, n) keys and states of what matches in some squares, from the next id of each on; ``rows`` of each at most."""
    named = func.unnest(
        cast(squares.number[part].tolist(), ARRAY(Integer)),
        cast(squares.next_id[part].tolist(), ARRAY(BigInteger)),
    )
    asked = named.table_valued("number", "next_id", name="asked").render_derived()
    key = schema.asset_state.c.asset_id
    square = literal_column(schema.SQUARE_OF_PLACE, Integer)
    beyond = key <= asked.c.next_id if backwards else key >= asked.c.next_id
    of_square = (
        keys.where(square == asked.c.number, beyond)
        .order_by(key.desc() if backwards else key)
        .limit(rows)
        .correlate(asked)
        .lateral("of_square")
    )
    found = select(of_square.c.key, of_square.c.row_id).select_from(asked.join(of_square, true())).subquery()
    in_order = [func.array_agg(aggregate_order_by(column, found.c.key)) for column in found.c]
    return np.array([column or [] for column in connection.execute(select(*in_order)).one()], np.int64)
