"""Filters become conditions: three-valued logic, closed intervals, patterns; all that means nothing is refused."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import cql2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Integer,
    MetaData,
    NullPool,
    Table,
    Text,
    create_engine,
    func,
    insert,
    select,
)

from inventory.errors import FilterUnusable
from inventory.store.filter_operators import Kind
from inventory.store.filters import Filter, Queryable, condition
from tests.support.database import DatabaseServer, cloned_database

NAMES = ("id", "name", "size", "tall", "on", "at")
VALUES: list[tuple[Any, ...]] = [
    (1, "Ahorn", 4.0, True, date(2025, 6, 1), datetime(2025, 6, 1, 12, tzinfo=UTC)),
    (2, "ähre", 0.0, False, date(2025, 6, 2), datetime(2025, 6, 1, 20, tzinfo=UTC)),
    (3, "香樟", -2.5, None, None, None),
    (4, None, None, True, date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),
    (5, "50% it's a\\b", 9.0, False, date(2026, 1, 2), datetime(2026, 6, 1, tzinfo=UTC)),
]
ROWS: list[dict[str, Any]] = [dict(zip(NAMES, values, strict=True)) for values in VALUES]
TABLE = Table(
    "filtered",
    MetaData(schema="urban_inventory"),
    Column("id", Integer),
    Column("name", Text),
    Column("size", Double),
    Column("tall", Boolean),
    Column("on", Date),
    Column("at", DateTime(timezone=True)),
)
KINDS = {
    "id": Kind.INTEGER,
    "name": Kind.TEXT,
    "size": Kind.NUMBER,
    "tall": Kind.BOOLEAN,
    "on": Kind.DATE,
    "at": Kind.INSTANT,
}
QUERYABLES = {name: Queryable(kind=kind, expression=TABLE.c[name]) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def connection(database_server: DatabaseServer) -> Iterator[Connection]:
    with cloned_database(database_server) as clone:
        engine = create_engine(clone.owner_url, poolclass=NullPool)
        with engine.connect() as opened:
            TABLE.create(opened)
            opened.execute(insert(TABLE), ROWS)
            yield opened
        engine.dispose()


def found(connection: Connection, stated: Any) -> list[int]:
    wanted = condition(Filter(cql2=stated), QUERYABLES, time_zone="Asia/Shanghai")
    return list(connection.execute(select(TABLE.c.id).where(wanted).order_by(TABLE.c.id)).scalars())


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("name = 'Ahorn'", [1]),
        ("name <> 'Ahorn'", [2, 3, 5]),
        ("NOT (name = 'Ahorn')", [2, 3, 5]),
        ("name IS NULL OR size IS NULL", [4]),
        ("树种 IS NULL OR true", None),
        ("name < 'B'", [1, 5]),
        ("name LIKE 'A%'", [1]),
        ("CASEI(name) LIKE CASEI('Ä%')", [2]),
        ("ACCENTI(CASEI(name)) LIKE ACCENTI(CASEI('AH%'))", [1, 2]),
        (r"name LIKE '50\% it''s a\\b'", [5]),
        ("name LIKE '香_'", [3]),
        ("size BETWEEN 0 AND 4", [1, 2]),
        ("size * 2 + 1 > ( - (4))", [1, 2, 5]),
        ("size / id > 1", [1, 5]),
        ("1 / size > 0", [1, 5]),
        ("size ^ 2 = 16", [1]),
        ("id % 2 = 1", [1, 3, 5]),
        ("id div 2 = 1", [2, 3]),
        ("tall", [1, 4]),
        ("NOT tall", [2, 5]),
        ("tall = false", [2, 5]),
        ("at > TIMESTAMP('2025-06-01T12:00:00Z')", [2, 4, 5]),
        # A date is a whole local day: 20 o'clock in London is the next day in Shanghai.
        ("at = DATE('2025-06-01')", [1]),
        ("at = DATE('2025-06-02')", [2]),
        ("at >= '2026-01-01'", [4, 5]),
        ("on = '2025-06-01'", [1]),
        ("T_INTERSECTS(at, INTERVAL('2025-06-01','2025-06-01'))", [1]),
        ("T_INTERSECTS(at, INTERVAL('2025-06-01T12:00:00Z','2025-06-01T20:00:00Z'))", [1, 2]),
        ("T_AFTER(at, DATE('2025-06-02'))", [4, 5]),
        ("T_DURING(on, INTERVAL('..','2026-01-01'))", [1, 2]),
        ("at > TIMESTAMP('0000-01-01T00:00:00Z')", [1, 2, 4, 5]),
        ("id IN (1, 3, 7)", [1, 3]),
        ("id NOT IN (1, 3)", [2, 4, 5]),
        ("false", []),
    ],
)  # fmt: skip
def test_a_filter_finds_what_it_says(connection: Connection, text: str, ids: list[int] | None) -> None:
    stated = cql2.parse_text(text).to_json()
    if ids is None:
        with pytest.raises(FilterUnusable, match="树种"):
            found(connection, stated)
    else:
        assert found(connection, stated) == ids


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("height = 3", "nothing is called “height”"),
        ("name = 3", "cannot compare a number and a text"),
        ("tall > true", "cannot be compared"),
        ("name", "is a text"),
        ("3", "no condition"),
        ("foo(name) = 1", "“foo” is unknown"),
        ("casei(size) = 'a'", "takes a text"),
        ("size LIKE 'a'", "compares texts"),
        ("name + 1 = 2", "computes with numbers"),
        ("at = DATE('2025-13-45')", "is no date"),
        ("at = TIMESTAMP('yesterday')", "is no instant"),
        ("on = 'soon'", "is no instant"),
        ("S_INTERSECTS(name, POINT(1 2))", "takes geometries"),
        ("T_AFTER(size, DATE('2025-01-01'))", "is no time"),
        ("T_AFTER(name, DATE('2025-01-01'))", "text property"),
        ("A_CONTAINS(name, ('a'))", "unknown"),
    ],
)
def test_what_means_nothing_is_refused_by_name(connection: Connection, text: str, told: str) -> None:
    with pytest.raises(FilterUnusable, match=told):
        found(connection, cql2.parse_text(text).to_json())


@pytest.mark.parametrize(
    "stated",
    [
        None, [], "x", {"op": "and"}, {"op": "and", "args": []}, {"op": "="}, {"op": "=", "args": [1]}, {"op": 3},
        {"op": "in", "args": [{"property": "id"}, 3]}, {"op": "=", "args": [{"property": "id"}, None]},
        {"op": "=", "args": [{"property": ["id"]}, 3]}, {"op": "like", "args": [{"property": "name"}, "a\x00"]},
        {"op": "s_intersects", "args": [{"bbox": [1, 2, "3", 4]}, {"type": "Point", "coordinates": [1, 2]}]},
        {"op": "s_intersects", "args": [{"type": "Point"}, {"type": "Polygon", "coordinates": [[[0, 0]]]}]},
        {"op": "t_after", "args": [{"interval": ["..", ".."]}, {"interval": [3]}]},
    ],
)  # fmt: skip
def test_json_of_any_other_shape_is_refused(connection: Connection, stated: Any) -> None:
    with pytest.raises(FilterUnusable):
        found(connection, stated)


def test_a_filter_is_bounded_in_depth_and_size(connection: Connection) -> None:
    deep: Any = True
    for _ in range(80):
        deep = {"op": "not", "args": [deep]}
    for stated in (deep, {"op": "or", "args": [True] * 3_000}):
        with pytest.raises(FilterUnusable, match="nested"):
            found(connection, stated)


# --- against a reference: three-valued logic over random rows -------------------------------------------------

_NAMES = st.sampled_from(["size", "id"])
_COMPARED = st.tuples(
    st.sampled_from(["=", "<>", "<", ">", "<=", ">="]), _NAMES, st.sampled_from([-2.5, 0.0, 2.0, 4.0])
).map(lambda it: {"op": it[0], "args": [{"property": it[1]}, it[2]]})
_NULL = _NAMES.map(lambda name: {"op": "isNull", "args": [{"property": name}]})
_CONDITIONS = st.recursive(
    st.one_of(_COMPARED, _NULL, st.booleans()),
    lambda inner: st.one_of(
        inner.map(lambda one: {"op": "not", "args": [one]}),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda it: {"op": it[0], "args": it[1]}
        ),
    ),
    max_leaves=12,
)


def reference(stated: Any, row: dict[str, Any]) -> bool | None:
    """What a condition is for a row; None: unknown."""
    if isinstance(stated, bool):
        return stated
    op, arguments = stated["op"], stated["args"]
    if op == "isNull":
        return row[arguments[0]["property"]] is None
    if op in ("and", "or"):
        values = [reference(one, row) for one in arguments]
        settles = op == "or"
        return settles if settles in values else None if None in values else not settles
    if op == "not":
        value = reference(arguments[0], row)
        return None if value is None else not value
    left, right = row[arguments[0]["property"]], arguments[1]
    if left is None:
        return None
    return bool(
        {"=": left == right, "<>": left != right, "<": left < right, ">": left > right,
         "<=": left <= right, ">=": left >= right}[op]
    )  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(_CONDITIONS)
def test_logic_with_unknown_values_is_as_the_standard_has_it(connection: Connection, stated: Any) -> None:
    assert found(connection, stated) == [row["id"] for row in ROWS if reference(stated, row) is True]


def test_every_comparison_of_texts_goes_by_code_points(connection: Connection) -> None:
    names = [row["name"] for row in ROWS if row["name"] is not None]
    pivot = random.Random(1).choice(names)
    stated = {"op": ">=", "args": [{"property": "name"}, pivot]}
    wanted = condition(Filter(cql2=stated), QUERYABLES, time_zone="UTC")
    count = connection.execute(select(func.count()).select_from(TABLE).where(wanted)).scalar_one()
    assert count == sum(name >= pivot for name in names)
