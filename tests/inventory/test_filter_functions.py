"""Functions of filters against references in Python: space by shapely, time by closed intervals, patterns by signs."""

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import shapely
from geoalchemy2 import Geometry
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
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
    delete,
    insert,
    select,
)  # fmt: skip

from api.ogc.cql2_text import read_cql2_text
from inventory.store.filter_operators import Kind
from inventory.store.filters import Filter, Queryable, condition
from tests.support.database import DatabaseServer, cloned_database

TABLE = Table(
    "drawn",
    MetaData(schema="urban_inventory"),
    Column("id", Integer),
    Column("name", Text),
    Column("a", Double),
    Column("b", Double),
    Column("first", Date),
    Column("last", Date),
    Column("began", DateTime(timezone=True)),
    Column("geom", Geometry(srid=4326)),
)
KINDS = {
    "id": Kind.INTEGER, "name": Kind.TEXT, "a": Kind.NUMBER, "b": Kind.NUMBER, "first": Kind.DATE, "last": Kind.DATE,
    "began": Kind.INSTANT, "geom": Kind.GEOMETRY,
}  # fmt: skip
QUERYABLES = {name: Queryable(kind=kind, expression=TABLE.c[name]) for name, kind in KINDS.items()}
DAY = date(2025, 6, 10)


@pytest.fixture(scope="module")
def connection(database_server: DatabaseServer) -> Iterator[Connection]:
    with cloned_database(database_server) as clone:
        engine = create_engine(clone.owner_url, poolclass=NullPool)
        with engine.connect() as opened:
            TABLE.create(opened)
            yield opened
        engine.dispose()


def filled(connection: Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute(delete(TABLE))
    whole = [{**dict.fromkeys(KINDS), **row, "id": number} for number, row in enumerate(rows)]
    for row in whole:
        row["geom"] = None if row["geom"] is None else f"SRID=4326;{row['geom']}"
    connection.execute(insert(TABLE), whole)


def found(connection: Connection, stated: Any, time_zone: str = "UTC") -> list[int]:
    stated = read_cql2_text(stated) if isinstance(stated, str) else stated
    wanted = condition(Filter(cql2=stated), QUERYABLES, time_zone=time_zone)
    return list(connection.execute(select(TABLE.c.id).where(wanted).order_by(TABLE.c.id)).scalars())


# --- space ---------------------------------------------------------------------------------------------------

DRAWN = [
    "POINT(1 1)", "POINT(0 0)", "POINT(5 5)", "LINESTRING(0 0,2 2)", "LINESTRING(-1 1,3 1)", "LINESTRING(2 0,2 2)",
    "POLYGON((0 0,2 0,2 2,0 2,0 0))", "POLYGON((2 0,4 0,4 2,2 2,2 0))", "POLYGON((1 1,3 1,3 3,1 3,1 1))",
    "POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,1 3,3 3,3 1,1 1))", "MULTIPOINT(0 0,1 1)", "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
]  # fmt: skip
ASKED = [*DRAWN, "BBOX(0,0,2,2)", "BBOX(1,1,1,1)", "BBOX(0,1,3,1)", "MULTILINESTRING((0 0,0 2),(2 0,2 2))"]
OF_BOXES = {
    "BBOX(0,0,2,2)": "POLYGON((0 0,2 0,2 2,0 2,0 0))",
    "BBOX(1,1,1,1)": "POINT(1 1)",
    "BBOX(0,1,3,1)": "LINESTRING(0 1,3 1)",
}


@pytest.mark.parametrize(
    "function", ["intersects", "disjoint", "equals", "touches", "crosses", "within", "contains", "overlaps"]
)
def test_a_spatial_function_is_what_shapely_takes_it_for(connection: Connection, function: str) -> None:
    filled(connection, [{"geom": one} for one in [*DRAWN, None]])
    drawn = shapely.from_wkt(DRAWN)
    asked_at_all = 0
    for asked in ASKED:
        other = shapely.from_wkt(OF_BOXES.get(asked, asked))
        holds = getattr(shapely, function)
        assert found(connection, f"S_{function}(geom,{asked})") == list(holds(drawn, other).nonzero()[0]), (
            asked
        )
        assert found(connection, f"S_{function}({asked},geom)") == list(holds(other, drawn).nonzero()[0]), (
            asked
        )
        asked_at_all += int(holds(drawn, other).sum())
    assert asked_at_all > 0


@pytest.mark.parametrize(
    ("box", "ids"),
    [
        ("170,-10,-170,10", [0, 1, 2]),
        ("-170,-10,170,10", [3, 4]),
        ("180,-10,-180,10", [2]),
        ("-180,-90,180,90", [0, 1, 2, 3, 4]),
        ("170,11,-170,12", []),
        ("170,-10,0,-170,10,9", [0, 1, 2]),
    ],
)
def test_a_box_with_its_west_beyond_its_east_crosses_the_antimeridian(
    connection: Connection, box: str, ids: list[int]
) -> None:
    filled(connection, [{"geom": f"POINT({lon} 0)"} for lon in (175, -175, 180, 0, 160)])
    assert found(connection, f"S_INTERSECTS(geom,BBOX({box}))") == ids


# --- time ----------------------------------------------------------------------------------------------------

RELATIONS: dict[str, Any] = {
    "T_AFTER": lambda a, b, c, d: a > d,
    "T_BEFORE": lambda a, b, c, d: b < c,
    "T_CONTAINS": lambda a, b, c, d: a < c and b > d,
    "T_DISJOINT": lambda a, b, c, d: a > d or b < c,
    "T_DURING": lambda a, b, c, d: a > c and b < d,
    "T_EQUALS": lambda a, b, c, d: a == c and b == d,
    "T_FINISHEDBY": lambda a, b, c, d: a < c and b == d,
    "T_FINISHES": lambda a, b, c, d: a > c and b == d,
    "T_INTERSECTS": lambda a, b, c, d: a <= d and b >= c,
    "T_MEETS": lambda a, b, c, d: b == c,
    "T_METBY": lambda a, b, c, d: a == d,
    "T_OVERLAPPEDBY": lambda a, b, c, d: c < a < d < b,
    "T_OVERLAPS": lambda a, b, c, d: a < c < b < d,
    "T_STARTEDBY": lambda a, b, c, d: a == c and b > d,
    "T_STARTS": lambda a, b, c, d: a == c and b < d,
}
SPANS = [span for span in itertools.product(range(4), repeat=2) if span[0] <= span[1]]


@pytest.mark.parametrize("function", RELATIONS)
def test_intervals_are_closed(connection: Connection, function: str) -> None:
    days = [DAY + timedelta(days=number) for number in range(4)]
    filled(connection, [{"first": days[a], "last": days[b]} for a, b in SPANS] + [{}])
    for c, d in SPANS:
        wanted = [row for row, (a, b) in enumerate(SPANS) if RELATIONS[function](a, b, c, d)]
        asked = f"{function}(INTERVAL(first,last),INTERVAL('{days[c]}','{days[d]}'))"
        assert found(connection, asked) == wanted, asked


def test_open_ends_reach_on_for_ever(connection: Connection) -> None:
    filled(connection, [{"first": date(1, 1, 1)}, {"first": DAY}, {"first": date(9999, 12, 31)}, {}])
    assert found(connection, f"T_DURING(first,INTERVAL('..','{DAY}'))") == [0]
    assert found(connection, f"T_INTERSECTS(first,INTERVAL('{DAY}','..'))") == [1, 2]
    assert found(connection, "T_DURING(first,INTERVAL('..','..'))") == [0, 1, 2]


def test_a_date_is_the_whole_local_day_also_where_clocks_change(connection: Connection) -> None:
    # Berlin's 26th of October 2025 lasts 25 hours.
    ends = [
        datetime(2025, 10, 25, 21, 59, 59, tzinfo=UTC),
        datetime(2025, 10, 25, 22, 0, tzinfo=UTC),
        datetime(2025, 10, 26, 22, 59, 59, 999999, tzinfo=UTC),
        datetime(2025, 10, 26, 23, 0, tzinfo=UTC),
    ]
    filled(connection, [{"began": end} for end in ends])
    for asked in (
        "began = DATE('2025-10-26')",
        "T_INTERSECTS(began,DATE('2025-10-26'))",
        "T_INTERSECTS(began,INTERVAL('2025-10-26','2025-10-26'))",
        "began BETWEEN '2025-10-26' AND '2025-10-26'",
        "NOT (began < DATE('2025-10-26') OR began > DATE('2025-10-26'))",
    ):
        assert found(connection, asked, "Europe/Berlin") == [1, 2], asked


# --- texts and numbers, over random rows ---------------------------------------------------------------------

_SIGNS = "aAbB%_\\.*'香 "
_TEXTS = st.text(alphabet=_SIGNS, max_size=4)


def like(value: str, pattern: str) -> bool:
    """What LIKE says, sign by sign."""
    made, signs = "", iter(pattern)
    for sign in signs:
        if sign == "\\":
            # A lone one at the end stands for itself.
            made += re.escape(next(signs, "\\"))
        else:
            made += {"%": ".*", "_": "."}.get(sign, re.escape(sign))
    return re.fullmatch(made, value, re.DOTALL) is not None


@settings(deadline=None, max_examples=150)
@given(names=st.lists(st.one_of(st.none(), _TEXTS), min_size=1, max_size=6), pattern=_TEXTS)
def test_like_is_its_pattern_and_unknown_of_nothing(
    connection: Connection, names: list[str | None], pattern: str
) -> None:
    filled(connection, [{"name": name} for name in names])
    asked = {"op": "like", "args": [{"property": "name"}, pattern]}
    known = [(row, name) for row, name in enumerate(names) if name is not None]
    assert found(connection, asked) == [row for row, name in known if like(name, pattern)]
    assert found(connection, {"op": "not", "args": [asked]}) == [
        row for row, name in known if not like(name, pattern)
    ]


@settings(deadline=None, max_examples=100)
@given(
    names=st.lists(st.one_of(st.none(), _TEXTS), min_size=1, max_size=6),
    listed=st.lists(_TEXTS, min_size=1, max_size=4),
)
def test_lists_and_orders_of_texts_go_by_code_points(
    connection: Connection, names: list[str | None], listed: list[str]
) -> None:
    filled(connection, [{"name": name} for name in names])
    known = [(row, name) for row, name in enumerate(names) if name is not None]
    low, high = listed[0], listed[-1]
    name = {"property": "name"}
    asked = {"op": "in", "args": [name, listed]}
    assert found(connection, asked) == [row for row, one in known if one in listed]
    assert found(connection, {"op": "not", "args": [asked]}) == [
        row for row, one in known if one not in listed
    ]
    between = {"op": "between", "args": [name, low, high]}
    assert found(connection, between) == [row for row, one in known if low <= one <= high]


_NUMBERS = st.one_of(st.none(), st.integers(-4, 4).map(float), st.sampled_from([0.5, -2.5]))


def computed(op: str, a: float | None, b: float | None) -> float | None:
    """Unknown of nothing, and where there is no such number."""
    if a is None or b is None or (op in ("/", "%", "div") and b == 0):
        return None
    if op == "^":
        return None if (a == 0 and b < 0) or (a < 0 and b != int(b)) else a**b
    if op in ("%", "div"):
        whole = float(int(a / b))
        return whole if op == "div" else a - b * whole
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0.0}[op]


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.tuples(_NUMBERS, _NUMBERS), min_size=1, max_size=6),
    op=st.sampled_from(["+", "-", "*", "/", "%", "div", "^"]),
    limit=st.integers(-3, 3).map(float),
)
def test_what_cannot_be_computed_is_unknown(
    connection: Connection, rows: list[tuple[float | None, float | None]], op: str, limit: float
) -> None:
    filled(connection, [{"a": a, "b": b} for a, b in rows])
    asked = {"op": ">", "args": [{"op": op, "args": [{"property": "a"}, {"property": "b"}]}, limit]}
    values = [computed(op, a, b) for a, b in rows]
    assert found(connection, asked) == [
        row for row, one in enumerate(values) if one is not None and one > limit
    ]
    assert found(connection, {"op": "not", "args": [asked]}) == [
        row for row, one in enumerate(values) if one is not None and one <= limit
    ]
