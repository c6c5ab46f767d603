"""Pages of features: which rows make one, where it goes on, and how many match on all of them.

A page is read in two steps of one transaction: first the keys of its rows (a few numbers each, so a page of
any size knows what it returns and where it goes on before its first byte is sent), then the features by
those keys (``features.texts``). All of a collection is read alike, its keys through a server-side cursor.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, Select, func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.exc import OperationalError

from inventory.store import asset_pages, schema
from inventory.store.boxes import listed_in_box
from inventory.store.features import Box, CityOnPage, Collection, Wanted, assets_by_square, keys_of

_QUERY_CANCELED = "57014"
# An exact total that takes longer than this is left out: the page itself must not wait for it.
_TOTAL_PATIENCE_MS = 100
# Keys that the server hands over at a time where all of a collection is read.
_KEYS_AT_A_TIME = 5_000
# Walking the ids in order and testing each position beats collecting all rows of the box first and sorting
# them, where the box holds many; where it holds few, the walk reads far too much (470–850 ms against 14 ms for a
# small box among 5 million). Where the total is not known, many is such a share of the ground.
_WALK_FROM_SHARE = 0.25
# So many assets are collected in some milliseconds; where more match, squares of the ground know where they begin.
_SQUARES_FROM = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The rows of a page by key, the key after which the next one starts (None: the last page), and the key
    before which the previous one ends (None: the first)."""

    rows: tuple[int, ...]
    next_after: int | None
    previous_before: int | None = None


def page_of(
    connection: Connection,
    city: CityOnPage,
    collection: Collection,
    wanted: Wanted,
    *,
    limit: int,
    after: int | None = None,
    before: int | None = None,
    offset: int = 0,
    matched: int | None = None,
) -> Page:
    """The keys of one page, in an order that does not change between pages.

    Args:
        limit: rows at most, ≥ 1.
        after: the key that the page before ended with.
        before: the key that the page after began with; read backwards from it.
        offset: rows to skip; for clients that cannot follow a cursor.
        matched: how many rows match on all pages, where that is known.
    """
    keys = keys_of(city, collection, wanted)
    if after is not None:
        keys = keys.where(keys.selected_columns.key > after)
    if before is not None:
        keys = keys.where(keys.selected_columns.key < before)
    found = None
    if collection is Collection.ASSETS and matched is not None and matched > _SQUARES_FROM and wanted.boxes:
        found = asset_pages.page_keys(
            connection, assets_by_square(city, wanted), city_id=city.id,
            boxes=wanted.boxes, matched=matched, rows=offset + limit + 1, after=after, before=before,
        )  # fmt: skip
    if found is not None:
        skipped = slice(None, -offset) if offset and before is not None else slice(offset, None)
        keys_found, rows_found = (part[skipped] for part in found)
    else:
        keys_found, rows_found = _page_keys(
            connection, city, wanted, keys,
            limit=limit, offset=offset, backwards=before is not None, matched=matched,
        )  # fmt: skip
    shown = slice(-limit, None) if before is not None else slice(limit)
    more = len(keys_found) > limit
    shown_keys, rows = keys_found[shown], rows_found[shown]
    if not shown_keys:
        return Page(rows=(), next_after=None)
    if before is not None:
        forth, back = True, more
    else:
        forth, back = more, after is not None or offset > 0
    return Page(
        rows=tuple(rows),
        next_after=shown_keys[-1] if forth else None,
        previous_before=shown_keys[0] if back else None,
    )


def _page_keys(
    connection: Connection,
    city: CityOnPage,
    wanted: Wanted,
    keys: Select[tuple[int, int]],
    *,
    limit: int,
    offset: int,
    backwards: bool,
    matched: int | None,
) -> tuple[list[int], list[int]]:
    """Keys and rows of a page and, where there is one, of the row after it, by key."""

    def arrays(many: bool) -> Select[Any, Any]:
        ordered = _in_order(keys, wanted, many=many, backwards=backwards)
        # One row more than wanted tells whether there is a next page; a total would not be needed for that.
        found = ordered.limit(limit + 1).offset(offset).subquery()
        # As two arrays: so many rows cost the driver more than the database.
        return select(
            func.array_agg(aggregate_order_by(found.c.key, found.c.key)),
            func.array_agg(aggregate_order_by(found.c.row_id, found.c.key)),
        )

    share = _share_of_city(wanted.boxes, city) if wanted.boxes else 1.0
    # A walk passes over so many rows until it has found a page; collecting finds all that match.
    many = share >= _WALK_FROM_SHARE if matched is None else limit <= matched * share
    with _planned_anew(connection):
        of_keys, of_rows = connection.execute(arrays(many)).one()
    return of_keys or [], of_rows or []


@contextmanager
def _planned_anew(connection: Connection) -> Iterator[None]:
    """Within it statements are planned for their values: a plan for any box is a bad one for most (110 ms
    instead of 2)."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    usual, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        yield
    finally:
        driver.prepare_threshold = usual


def rows_of(
    connection: Connection, city: CityOnPage, collection: Collection, wanted: Wanted
) -> Iterator[tuple[int, ...]]:
    """All rows that a request matches, some thousands at a time, in the order of pages.

    The caller closes the iterator before the transaction ends, unless it ran to its end.
    """
    # A cursor is planned for its first tenth by default; all rows are wanted.
    connection.execute(text("SELECT set_config('cursor_tuple_fraction', '1', true)"))
    keys = _in_order(keys_of(city, collection, wanted), wanted, many=not wanted.boxes)
    streamed = {"stream_results": True, "yield_per": _KEYS_AT_A_TIME}
    with _planned_anew(connection), connection.execute(keys, execution_options=streamed) as result:
        for part in result.partitions():
            yield tuple(row.row_id for row in part)


def known_total(
    connection: Connection, city: CityOnPage, collection: Collection, wanted: Wanted
) -> int | None:
    """``total`` where it can be had without counting one by one; else None."""
    kind = _COUNTED_KIND.get((collection, wanted.current))
    if kind is None or not _is_counted(wanted):
        return None
    if not wanted.boxes:
        return _summed(connection, city, wanted, kind=kind)
    if wanted.area is None and wanted.when.as_of is not None:
        return _packed(connection, city, wanted, kind=kind)
    return None


def total(
    connection: Connection,
    city: CityOnPage,
    collection: Collection,
    wanted: Wanted,
    *,
    patience_ms: int = _TOTAL_PATIENCE_MS,
) -> int | None:
    """How many features a request matches, exactly; None where that would take too long.

    What counts answer comes from what they read: maintained sums, or packed points where there is a box. It is
    the same number in milliseconds. Only the rest is counted one by one, as far as the patience goes.
    """
    known = known_total(connection, city, collection, wanted)
    if known is not None:
        return known
    row = _in_time(connection, _count(city, collection, wanted), patience_ms)
    return None if row is None else int(row[0])


def _in_time(
    connection: Connection, statement: Select[*tuple[Any, ...]], patience_ms: int
) -> tuple[Any, ...] | None:
    """The one row of a statement; None where it takes too long. The transaction goes on either way."""
    savepoint = connection.begin_nested()
    try:
        connection.execute(_SET_PATIENCE, {"patience": str(patience_ms)})
        with _planned_anew(connection):
            row = tuple(connection.execute(statement).one())
    except OperationalError as error:
        savepoint.rollback()
        if getattr(error.orig, "sqlstate", None) == _QUERY_CANCELED:
            return None
        raise
    # Rolled back also here: that gives the transaction its own patience back.
    savepoint.rollback()
    return row


def _count(city: CityOnPage, collection: Collection, wanted: Wanted) -> Select[int]:
    keys = keys_of(city, collection, wanted).subquery()
    return select(func.count()).select_from(keys)


_SET_PATIENCE = text("SELECT set_config('statement_timeout', :patience, true)")


def _in_order(
    keys: Select[tuple[int, int]],
    wanted: Wanted,
    *,
    many: bool,
    backwards: bool = False,
) -> Select[tuple[int, int]]:
    # Of several states of an asset the latest speaks: that order is in the query, which is not turned round.
    latest = wanted.when.interval is not None
    if many and wanted.area is None and not (backwards and latest):
        key = keys.selected_columns.key
        return keys.order_by(key.desc() if backwards else key)
    if not latest:
        # The sum has no index: the rows are found by other means, and sorted.
        key = keys.selected_columns.key + 0
        return keys.order_by(None).order_by(key.desc() if backwards else key)
    found = keys.cte("found").prefix_with("MATERIALIZED", dialect="postgresql")
    return select(found.c.key, found.c.row_id).order_by(found.c.key.desc() if backwards else found.c.key)


def _share_of_city(boxes: Sequence[Box], city: CityOnPage) -> float:
    west, south, east, north = city.box
    whole = (east - west) * (north - south)
    shared = sum(
        max(0.0, min(east, box.east) - max(west, box.west))
        * max(0.0, min(north, box.north) - max(south, box.south))
        for box in boxes
    )
    return shared / whole if whole > 0 else 1.0


# Totals that need no counting.

# Which kind of classes the collections hold that are states; (collection, whether only the current stock).
_COUNTED_KIND = {
    (Collection.ASSETS, False): "static",
    (Collection.ASSETS, True): "static",
    (Collection.OBSERVATIONS, True): "mobile",
}


def _is_counted(wanted: Wanted) -> bool:
    """Whether it asks for what is listed at an instant, by class and place alone: sums and leaves hold no more."""
    return not (wanted.statuses or wanted.filters) and wanted.when.interval is None


def _packed(connection: Connection, city: CityOnPage, wanted: Wanted, *, kind: str) -> int:
    named = schema.asset_class
    classes = select(named.c.name).where(named.c.kind == kind)
    if wanted.classes:
        classes = classes.where(named.c.name.in_(wanted.classes))
    names = list(connection.execute(classes).scalars())
    assert wanted.when.as_of is not None
    return sum(
        listed_in_box(
            connection,
            city.id,
            (box.west, box.south, box.east, box.north),
            names,
            wanted.when.as_of,
        )
        for box in wanted.boxes
    )


def _summed(connection: Connection, city: CityOnPage, wanted: Wanted, *, kind: str) -> int:
    delta, named = schema.area_count_delta, schema.asset_class
    query = (
        select(func.coalesce(func.sum(delta.c.listed), 0))
        .join(named, named.c.name == delta.c["class"])
        .where(
            delta.c.city_id == city.id, delta.c.area_version_id == (wanted.area or 0), named.c.kind == kind
        )
    )
    if wanted.classes:
        query = query.where(delta.c["class"].in_(wanted.classes))
    if wanted.when.as_of is not None:
        query = query.where(delta.c.at <= wanted.when.as_of)
    return int(connection.execute(query).scalar_one())
