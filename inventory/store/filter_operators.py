"""What the operators and functions of CQL2 are in SQL."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, collate, func, null, or_, text


class Kind(StrEnum):
    """What a value is, as far as comparisons care."""

    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    DATE = "date"
    GEOMETRY = "geometry"


class Span(NamedTuple):
    """First and last instant, or day, of something that lasts; both belong to it."""

    first: ColumnElement[Any]
    last: ColumnElement[Any]
    kind: Kind


def _without_marks(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Letters without their accents: taken apart, what is put on them goes."""
    apart = func.normalize(value, text("NFD"))
    return func.normalize(func.regexp_replace(apart, "[\u0300-\u036f]", "", "g"))


def _lower(value: ColumnElement[Any]) -> ColumnElement[Any]:
    # Letters of every language, whatever the database's own collation knows.
    return func.lower(collate(value, "und-x-icu"))


def _power(base: ColumnElement[Any], exponent: ColumnElement[Any]) -> ColumnElement[Any]:
    # Where it is no real number it is unknown, not an error.
    undefined = or_(and_(base == 0, exponent < 0), and_(base < 0, exponent != func.floor(exponent)))
    return case((undefined, null()), else_=func.power(base, exponent))


COMPARISONS: dict[str, Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[bool]]] = {
    "=": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}
OTHER_CONDITIONS = frozenset({"isnull", "like", "between", "in"})
OF_TEXT: dict[str, Callable[[ColumnElement[Any]], ColumnElement[Any]]] = {
    "casei": _lower,
    "accenti": _without_marks,
}
ARITHMETIC: dict[str, Callable[[ColumnElement[Any], ColumnElement[Any]], ColumnElement[Any]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / func.nullif(b, 0),
    "div": lambda a, b: func.trunc(a / func.nullif(b, 0)),
    "%": lambda a, b: a - b * func.trunc(a / func.nullif(b, 0)),
    "^": _power,
}
SPATIAL = {
    f"s_{name}": f"ST_{name.capitalize()}"
    for name in ("intersects", "disjoint", "equals", "touches", "crosses", "within", "contains", "overlaps")
}
TEMPORAL: dict[str, Callable[[Span, Span], ColumnElement[bool]]] = {
    "t_after": lambda a, b: a.first > b.last,
    "t_before": lambda a, b: a.last < b.first,
    "t_disjoint": lambda a, b: or_(a.last < b.first, a.first > b.last),
    "t_equals": lambda a, b: and_(a.first == b.first, a.last == b.last),
    "t_intersects": lambda a, b: and_(a.first <= b.last, a.last >= b.first),
    "t_contains": lambda a, b: and_(a.first < b.first, a.last > b.last),
    "t_during": lambda a, b: and_(a.first > b.first, a.last < b.last),
    "t_finishedby": lambda a, b: and_(a.first < b.first, a.last == b.last),
    "t_finishes": lambda a, b: and_(a.first > b.first, a.last == b.last),
    "t_meets": lambda a, b: a.last == b.first,
    "t_metby": lambda a, b: a.first == b.last,
    "t_overlappedby": lambda a, b: and_(a.first > b.first, a.first < b.last, a.last > b.last),
    "t_overlaps": lambda a, b: and_(a.first < b.first, a.last > b.first, a.last < b.last),
    "t_startedby": lambda a, b: and_(a.first == b.first, a.last > b.last),
    "t_starts": lambda a, b: and_(a.first == b.first, a.last < b.last),
}
