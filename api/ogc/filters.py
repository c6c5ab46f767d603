"""``filter`` of the OGC API: CQL2 in both of its encodings, read and bounded before anything is made of it."""

import re
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

import cql2
import orjson

from api.ogc.cql2_text import read_cql2_text
from api.ogc.crs import Crs
from detection.errors import CallerError
from inventory.errors import FilterUnusable
from inventory.store.features import Collection, queryables_of
from inventory.store.filter_operators import Kind
from inventory.store.filters import DEPTH_LIMIT, Filter

TEXT, JSON, DRAFT_TEXT = "cql2-text", "cql2-json", "cql-text"
LANGUAGES = {TEXT: TEXT, JSON: JSON, DRAFT_TEXT: TEXT, "cql-json": JSON}
"""Also the names of the draft: GDAL sends them."""
_LISTS = frozenset({"class", "status", "level"})
"""Parameters that take several names with commas between, and so are no plain equality."""
_LONGEST = 64 * 1024


def read_filter(value: str | None, language: str | None, crs: Crs | None) -> tuple[Filter, ...]:
    """The filter of a request; empty without one.

    Raises:
        FilterUnusable: it is no CQL2, or too large.
    """
    if language is not None and language not in LANGUAGES:
        raise FilterUnusable(f"filter-lang={language[:40]} is not spoken here", do=f"Use {TEXT} or {JSON}.")
    if value is None:
        return ()
    if len(value) > _LONGEST:
        raise FilterUnusable(f"the filter is longer than {_LONGEST:,} signs", do="Simplify it.")
    spoken = LANGUAGES[language] if language is not None else TEXT
    stated = _parsed_json(value) if spoken == JSON else _parsed_text(value)
    return (Filter(cql2=stated, crs=None if crs is None or crs.is_lon_lat else crs.for_filters()),)


def equalities(parameters: Mapping[str, str], named: Collection, *, current: bool) -> tuple[Filter, ...]:
    """Conditions that queryables given as parameters state, as ``verified=true``.

    Raises:
        CallerError: a value is not of its property's kind.
    """
    known = queryables_of(named, current=current)
    return tuple(
        Filter(
            cql2={
                "op": "=",
                "args": [{"property": name}, _literal(name, parameters[name], known[name].kind)],
            },
            parameter=name,
        )
        for name in sorted(simple_queryables(named, current=current) & set(parameters))
    )


def simple_queryables(named: Collection, *, current: bool = False) -> frozenset[str]:
    """Names that a parameter may have beside those of every page: one value each, and no geometry."""
    known = queryables_of(named, current=current)
    return frozenset(name for name, one in known.items() if one.kind is not Kind.GEOMETRY) - _LISTS


def _literal(name: str, value: str, kind: Kind) -> Any:
    if kind is Kind.TEXT:
        return value
    if kind is Kind.BOOLEAN and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind in (Kind.NUMBER, Kind.INTEGER):
        with suppress(ValueError):
            number = float(value)
            if len(value) <= 40 and isfinite(number):
                return number
    if kind in (Kind.INSTANT, Kind.DATE):
        return {"date": value} if len(value) == 10 else {"timestamp": value}
    raise CallerError(f"{name}={value[:40]} is no {kind}", do="See the collection’s queryables.")


def _parsed_text(value: str) -> object:
    if not value.strip():
        raise FilterUnusable("the filter is empty", do="Leave it out, or state a condition.")
    return read_cql2_text(value)


def _parsed_json(value: str) -> object:
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise FilterUnusable(f"the filter is no JSON: {error}") from None
    _require_flat(document)
    try:
        # Through the library, which knows the other spellings of the same.
        return cql2.parse_json(orjson.dumps(document).decode()).to_json()
    except cql2.ParseError as error:
        raise FilterUnusable(f"the filter is no CQL2 JSON: {_first_fault(error)}") from None


def _require_flat(document: object) -> None:
    """Before anything that works its way down on the stack; level by level, so that this does not."""
    level = [document]
    for _ in range(2 * DEPTH_LIMIT):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if not level:
            return
    raise FilterUnusable(f"the filter is nested more than {DEPTH_LIMIT} deep", do="Simplify it.")


def _first_fault(error: Exception) -> str:
    lines = [line.strip(" |=") for line in str(error).splitlines()]
    told = [line for line in lines if line and not re.fullmatch(r"[\d\s|^-]*", line)]
    return "; ".join(told)[:300] or "it cannot be read"
