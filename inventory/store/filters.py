"""Filters as conditions: CQL2, parsed already, over the queryables of a collection.

The input is CQL2 as JSON (OGC 21-065r2), the form that the ``cql2`` library gives for both encodings. What comes out
is SQL that carries every value of the caller as a parameter. NULL follows SQL's three-valued logic, which is CQL2's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import shapely
from sqlalchemy import (
    REAL,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    collate,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    true,
)

from inventory.errors import FilterUnusable
from inventory.store.filter_geometries import FilterCrs, FilterGeometries
from inventory.store.filter_operators import (
    ARITHMETIC,
    COMPARISONS,
    OF_TEXT,
    OTHER_CONDITIONS,
    SPATIAL,
    TEMPORAL,
    Kind,
    Span,
)

DEPTH_LIMIT = 64
_NODE_LIMIT = 2_000


_NUMBERS = frozenset({Kind.NUMBER, Kind.INTEGER})
_TIMES = frozenset({Kind.INSTANT, Kind.DATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Where a property stands that is not in the row itself, so that it is found from its value.

    Attributes:
        reference: in the row; what it leads to is never NULL.
        rows: what it leads to, by the one column that the reference holds.
        value: the property there.
    """

    reference: ColumnElement[Any]
    rows: Select[Any]
    value: ColumnElement[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queryable:
    """A property that filters may name: its kind and its expression in SQL; geometries are EPSG:4326."""

    kind: Kind
    expression: ColumnElement[Any]
    elsewhere: Elsewhere | None = None


class _Typed(NamedTuple):
    """An expression with its kind; ``constant``: it names no property; ``plain``: of a text, in no order."""

    expression: ColumnElement[Any]
    kind: Kind
    constant: Any = None
    plain: ColumnElement[Any] | None = None


def condition(
    stated: "Filter", queryables: Mapping[str, Queryable], *, time_zone: str
) -> ColumnElement[bool]:
    """The condition that a filter states.

    Args:
        time_zone: of the city: a date is a whole local day in it.

    Raises:
        FilterUnusable: it names something unknown, compares what cannot be compared, or is too large.
    """
    try:
        return _Compiler(queryables, ZoneInfo(time_zone), stated.crs).condition(stated.cql2)
    except FilterUnusable as error:
        raise FilterUnusable(error.what, where=error.where or stated.parameter, do=error.do) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter as it was parsed: CQL2 JSON, and the CRS of its geometries (None: longitude, latitude).

    Attributes:
        parameter: the name that it was given under, for refusals.
    """

    cql2: Any
    crs: FilterCrs | None = None
    parameter: str = "filter"


class _Compiler:
    """One filter on its way to SQL."""

    def __init__(self, queryables: Mapping[str, Queryable], zone: ZoneInfo, crs: FilterCrs | None) -> None:
        self._queryables, self._zone = queryables, zone
        self._geometries = FilterGeometries(crs)
        self._nodes = 0
        self._depth = 0

    # --- conditions ------------------------------------------------------------------------------------

    def condition(self, node: Any) -> ColumnElement[bool]:
        """A node that is true or false."""
        self._enter()
        try:
            if isinstance(node, bool):
                return true() if node else false()
            if isinstance(node, dict) and "property" in node:
                found = self._property(node["property"])
                if found.kind is not Kind.BOOLEAN:
                    raise FilterUnusable(
                        f"“{node['property']}” alone is no condition: it is {_article(found.kind)}",
                        do="Compare it with something.",
                    )
                return found.expression
            if not (isinstance(node, dict) and isinstance(node.get("op"), str)):
                raise FilterUnusable("the filter is no condition", do="State one, as class = 'tree'.")
            return self._operation(node["op"].lower(), _arguments(node))
        finally:
            self._depth -= 1

    def _enter(self) -> None:
        self._nodes += 1
        self._depth += 1
        if self._nodes > _NODE_LIMIT or self._depth > DEPTH_LIMIT:
            raise FilterUnusable(
                f"the filter has more than {_NODE_LIMIT:,} parts, or is nested more than {DEPTH_LIMIT} deep",
                do="Simplify it.",
            )

    def _operation(self, op: str, arguments: list[Any]) -> ColumnElement[bool]:
        found = self._found_elsewhere(op, arguments)
        if found is not None:
            return found
        if op in ("and", "or"):
            _require_number(op, arguments, least=1)
            parts = [self.condition(one) for one in arguments]
            return and_(*parts) if op == "and" else or_(*parts)
        if op == "not":
            _require_number(op, arguments, least=1, most=1)
            return not_(self.condition(arguments[0]))
        if op in COMPARISONS:
            _require_number(op, arguments, least=2, most=2)
            return self._comparison(op, *self._comparable([self.value(one) for one in arguments], op))
        for names, made in (
            (OTHER_CONDITIONS, self._other_condition),
            (SPATIAL, self._spatial),
            (TEMPORAL, self._temporal),
        ):
            if op in names:
                return made(op, arguments)
        raise FilterUnusable(
            f"the function “{op[:64]}” is unknown, or gives no condition", do="See the API’s conformance."
        )

    def _found_elsewhere(self, op: str, arguments: list[Any]) -> ColumnElement[bool] | None:
        """A condition on one property that stands elsewhere: looked for there, not looked up for each row."""
        if op not in COMPARISONS and op not in OTHER_CONDITIONS and op not in TEMPORAL:
            return None
        names = _plain_names(arguments)
        queryable = self._queryables.get(next(iter(names))) if names is not None and len(names) == 1 else None
        if queryable is None or queryable.elsewhere is None:
            return None
        place, usual = queryable.elsewhere, self._queryables
        self._queryables = {
            name: Queryable(kind=queryable.kind, expression=place.value) if one is queryable else one
            for name, one in usual.items()
        }
        try:
            return place.reference.in_(place.rows.where(self._operation(op, arguments)))
        finally:
            self._queryables = usual

    def _comparison(self, op: str, left: _Typed, right: _Typed) -> ColumnElement[bool]:
        if Kind.GEOMETRY in (left.kind, right.kind) or (left.kind is Kind.BOOLEAN and op not in ("=", "<>")):
            raise FilterUnusable(f"{_article(left.kind)} cannot be compared by “{op}”")
        if op in ("=", "<>") and left.kind is Kind.TEXT:
            # Equality is the same in every order, and only without one an index is used.
            left, right = (
                one if one.plain is None else one._replace(expression=one.plain) for one in (left, right)
            )
        left, right = _as_short(left, right), _as_short(right, left)
        return COMPARISONS[op](left.expression, right.expression)

    def _other_condition(self, op: str, arguments: list[Any]) -> ColumnElement[bool]:
        if op == "isnull":
            _require_number(op, arguments, least=1, most=1)
            return self.value(arguments[0]).expression.is_(null())
        if op == "like":
            return self._like(arguments)
        if op == "between":
            _require_number(op, arguments, least=3, most=3)
            value, low, high = self._comparable([self.value(one) for one in arguments], op)
            return and_(self._comparison(">=", value, low), self._comparison("<=", value, high))
        _require_number(op, arguments, least=2, most=2)
        if not isinstance(arguments[1], list):
            raise FilterUnusable("“in” needs a list", do="Write name IN ('a', 'b').")
        items = [self.value(one) for one in arguments[1]]
        value, *items = self._comparable([self.value(arguments[0]), *items], op)
        return or_(false(), *(self._comparison("=", value, one) for one in items))

    def _like(self, arguments: list[Any]) -> ColumnElement[bool]:
        _require_number("like", arguments, least=2, most=2)
        value, pattern = (self.value(one) for one in arguments)
        if value.kind is not Kind.TEXT or pattern.kind is not Kind.TEXT:
            raise FilterUnusable("LIKE compares texts", do="Write name LIKE 'B%'.")
        # A lone escape sign at the end escapes nothing: PostgreSQL refuses it, CQL2 takes it for itself.
        lone = pattern.expression.op("~")(literal(r"(^|[^\\])(\\\\)*\\$"))
        safe = case((lone, pattern.expression.concat("\\")), else_=pattern.expression)
        return value.expression.op("LIKE", is_comparison=True)(safe)

    # --- values ----------------------------------------------------------------------------------------

    def value(self, node: Any) -> _Typed:
        """A node that has a value."""
        self._enter()
        try:
            return self._value(node)
        finally:
            self._depth -= 1

    def _value(self, node: Any) -> _Typed:
        # Before numbers: Python takes True for one.
        if isinstance(node, bool):
            return _Typed(true() if node else false(), Kind.BOOLEAN, node)
        if isinstance(node, int | float):
            if not math.isfinite(node) or abs(node) > 1e300:
                raise FilterUnusable("a number is not finite")
            return _Typed(literal(float(node), Double), Kind.NUMBER, node)
        if isinstance(node, str):
            if "\x00" in node:
                raise FilterUnusable("a text holds the character 0")
            said = literal(node, Text)
            return _Typed(collate(said, "C"), Kind.TEXT, node, said)
        if isinstance(node, dict):
            if "property" in node:
                return self._property(node["property"])
            if "date" in node:
                day = _day(node["date"])
                return _Typed(literal(day, Date), Kind.DATE, day)
            if "timestamp" in node:
                instant = self._instant(node["timestamp"])
                return _Typed(literal(instant, DateTime(timezone=True)), Kind.INSTANT, instant)
            if "type" in node or "bbox" in node:
                return _Typed(self._geometry(node), Kind.GEOMETRY, node)
            if isinstance(node.get("op"), str):
                return self._function(node["op"].lower(), _arguments(node))
        raise FilterUnusable("a part of the filter is no value that is known here")

    def _property(self, name: Any) -> _Typed:
        found = self._queryables.get(name) if isinstance(name, str) else None
        if found is None:
            raise FilterUnusable(
                f"nothing is called “{str(name)[:64]}” here", do=f"Properties: {', '.join(self._queryables)}."
            )
        # By code points, whatever the database sorts by: that is CQL2's order.
        if found.kind is Kind.TEXT:
            return _Typed(collate(found.expression, "C"), found.kind, plain=found.expression)
        return _Typed(found.expression, found.kind)

    def _function(self, op: str, arguments: list[Any]) -> _Typed:
        if op in ARITHMETIC:
            return self._arithmetic(op, arguments)
        if op in OF_TEXT:
            _require_number(op, arguments, least=1, most=1)
            value = self.value(arguments[0])
            if value.kind is not Kind.TEXT:
                raise FilterUnusable(f"“{op}” takes a text")
            return _Typed(collate(OF_TEXT[op](value.expression), "C"), Kind.TEXT)
        if op in COMPARISONS or op in OTHER_CONDITIONS or op in ("and", "or", "not"):
            return _Typed(self._operation(op, arguments), Kind.BOOLEAN)
        raise FilterUnusable(f"the function “{op[:64]}” is unknown", do="See the API’s conformance.")

    def _arithmetic(self, op: str, arguments: list[Any]) -> _Typed:
        _require_number(op, arguments, least=1 if op == "-" else 2, most=2)
        values = [self.value(one) for one in arguments]
        for one in values:
            if one.kind not in _NUMBERS:
                raise FilterUnusable(f"“{op}” computes with numbers, not with {_article(one.kind)}")
        parts = [cast(one.expression, Double) for one in values]
        if len(parts) == 1:
            return _Typed(-parts[0], Kind.NUMBER)
        return _Typed(ARITHMETIC[op](*parts), Kind.NUMBER)

    def _comparable(self, values: list[_Typed], op: str) -> list[_Typed]:
        """The values as one kind: texts beside times are read as times, days beside instants are compared as days, 1
        and 0 beside what is true or false mean that."""
        kinds = {one.kind for one in values}
        if kinds & _TIMES and Kind.TEXT in kinds:
            values = [self._as_time(one) for one in values]
            kinds = {one.kind for one in values}
        if Kind.BOOLEAN in kinds:
            values = [_as_boolean(one) for one in values]
            kinds = {one.kind for one in values}
        if kinds == {Kind.DATE, Kind.INSTANT}:
            return [self._as_day(one) for one in values]
        if len(kinds) == 1 or kinds <= _NUMBERS:
            return values
        said = " and ".join(sorted(_article(kind) for kind in kinds))
        raise FilterUnusable(f"“{op}” cannot compare {said}")

    def _as_time(self, value: _Typed) -> _Typed:
        if value.kind is not Kind.TEXT:
            return value
        if not isinstance(value.constant, str):
            raise FilterUnusable("a text property cannot be compared with a time")
        if len(value.constant) == 10:
            day = _day(value.constant)
            return _Typed(literal(day, Date), Kind.DATE, day)
        instant = self._instant(value.constant)
        return _Typed(literal(instant, DateTime(timezone=True)), Kind.INSTANT, instant)

    def _as_day(self, value: _Typed) -> _Typed:
        if value.kind is Kind.DATE:
            return value
        return _Typed(cast(func.timezone(self._zone.key, value.expression), Date), Kind.DATE)

    # --- time ------------------------------------------------------------------------------------------

    def _temporal(self, op: str, arguments: list[Any]) -> ColumnElement[bool]:
        _require_number(op, arguments, least=2, most=2)
        one, other = (self._span(node) for node in arguments)
        if one.kind is not other.kind:
            one, other = self._as_instants(one), self._as_instants(other)
        return TEMPORAL[op](one, other)

    def _span(self, node: Any) -> Span:
        if isinstance(node, dict) and "interval" in node:
            ends = node["interval"]
            if not (isinstance(ends, list) and len(ends) == 2):
                raise FilterUnusable("an interval has two ends")
            return self._interval(ends)
        value = self.value(node)
        if value.kind is Kind.TEXT:
            value = self._as_time(value)
        if value.kind not in _TIMES:
            raise FilterUnusable(f"{_article(value.kind)} is no time")
        return Span(value.expression, value.expression, value.kind)

    def _interval(self, ends: list[Any]) -> Span:
        known = [None if end in ("..", "") else self._as_time(self.value(end)) for end in ends]
        kinds = {one.kind for one in known if one is not None}
        if not kinds <= _TIMES:
            raise FilterUnusable("an interval lasts from one time to another")
        first, last = (
            None if one is None else Span(one.expression, one.expression, one.kind) for one in known
        )
        if len(kinds) == 2:
            first, last = (None if one is None else self._as_instants(one) for one in (first, last))
        kind = first.kind if first is not None else last.kind if last is not None else Kind.INSTANT
        unit = Date if kind is Kind.DATE else DateTime(timezone=True)
        return Span(
            cast(literal("-infinity"), unit) if first is None else first.first,
            cast(literal("infinity"), unit) if last is None else last.last,
            kind,
        )

    def _as_instants(self, span: Span) -> Span:
        if span.kind is Kind.INSTANT:
            return span
        # The midnight after, not 24 hours later: days on which clocks change are longer, or shorter.
        first, after = (
            func.timezone(self._zone.key, cast(day, DateTime())) for day in (span.first, span.last + 1)
        )
        return Span(first, after - timedelta(microseconds=1), Kind.INSTANT)

    def _instant(self, said: Any) -> datetime:
        try:
            # Python's calendar begins with year 1; who says 0000 means a beginning of all time.
            earliest = f"0001-01-02{str(said)[10:]}"
            found = datetime.fromisoformat(earliest if str(said).startswith("0000-") else str(said))
        except ValueError:
            raise FilterUnusable(
                f"“{str(said)[:64]}” is no instant", do="Write TIMESTAMP('2026-01-02T03:04:05Z')."
            ) from None
        return found if found.tzinfo is not None else datetime.combine(found.date(), found.time(), self._zone)

    # --- space -----------------------------------------------------------------------------------------

    def _spatial(self, op: str, arguments: list[Any]) -> ColumnElement[bool]:
        _require_number(op, arguments, least=2, most=2)
        one, other = (self.value(node) for node in arguments)
        for value in (one, other):
            if value.kind is not Kind.GEOMETRY:
                raise FilterUnusable(f"“{op}” takes geometries, not {_article(value.kind)}")
        result: ColumnElement[bool] = getattr(func, SPATIAL[op])(one.expression, other.expression)
        return result

    def _geometry(self, node: dict[str, Any]) -> ColumnElement[Any]:
        shape = shapely.set_srid(self._geometries.shape(node), 4326)
        ewkb: bytes = shapely.to_wkb(shape, include_srid=True)
        return func.ST_GeomFromEWKB(bindparam(None, ewkb, unique=True))


def _plain_names(arguments: list[Any]) -> set[str] | None:
    """The properties that arguments name; None where something is computed, which may be NULL of its own."""
    names: set[str] = set()
    level = arguments
    for _ in range(DEPTH_LIMIT):
        following: list[Any] = []
        for one in level:
            if isinstance(one, list):
                following += one
            elif isinstance(one, dict) and "property" in one:
                names.add(str(one["property"]))
            elif isinstance(one, dict) and "op" in one:
                if str(one["op"]).lower() not in OF_TEXT:
                    return None
                following += _arguments(one)
            elif isinstance(one, dict) and "interval" in one:
                following.append(one["interval"])
        level = following
        if not level:
            return names
    return None


def _arguments(node: dict[str, Any]) -> list[Any]:
    arguments = node.get("args", [])
    if not isinstance(arguments, list):
        raise FilterUnusable("“args” is a list")
    return arguments


def _require_number(op: str, arguments: list[Any], *, least: int, most: int | None = None) -> None:
    if len(arguments) < least or (most is not None and len(arguments) > most):
        wanted = str(least) if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        raise FilterUnusable(f"“{op}” takes {wanted} arguments, not {len(arguments)}")


def _day(said: Any) -> date:
    try:
        if str(said).startswith("0000-"):
            return date.min
        return date.fromisoformat(str(said))
    except ValueError:
        raise FilterUnusable(f"“{str(said)[:64]}” is no date", do="Write DATE('2026-01-02').") from None


def _as_short(value: _Typed, beside: _Typed) -> _Typed:
    # A column of short numbers shows 0.8, which in long ones is 0.800000012: it is equal to a short 0.8 only.
    if (
        value.kind is not Kind.NUMBER
        or value.constant is None
        or not isinstance(beside.expression.type, REAL)
    ):
        return value
    is_short = value.constant == 0 or 1e-37 < abs(value.constant) < 1e38
    return value._replace(expression=cast(value.expression, REAL)) if is_short else value


def _as_boolean(value: _Typed) -> _Typed:
    # GDAL has no other way to say it.
    if value.kind is Kind.NUMBER and value.constant in (0, 1):
        return _Typed(true() if value.constant else false(), Kind.BOOLEAN, bool(value.constant))
    return value


def _article(kind: Kind) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
