"""What every route needs of a request: the database, and that no parameter is unknown."""

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

from api.settings import Settings
from detection.errors import CallerError
from inventory.errors import BodyTooLarge
from inventory.store.database import Database

_Route = TypeVar("_Route", bound=Callable[..., Any])

# Known on every resource: QGIS, GDAL and ArcGIS append a user's own parameters to each request.
_ALWAYS_KNOWN = frozenset({"f", "token", "lang"})


_KNOWN_PARAMETERS = "_known_parameters"
_DIGITS = re.compile(r"-?[0-9]+")
_MORE_PARAMETERS = "_more_parameters"


def takes_also(names: Callable[[Request], frozenset[str]]) -> Callable[[_Route], _Route]:
    """Marks a route that takes parameters beside those it declares: which ones depends on the request."""

    def marked(route: _Route) -> _Route:
        setattr(route, _MORE_PARAMETERS, names)
        return route

    return marked


# Coroutines, though they wait for nothing: for each function the framework would go through a thread.
async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def json_alone(request: Request) -> None:
    """For routes whose answer has one form.

    Raises:
        CallerError: ``f`` names another.
    """
    named = request.query_params.get("f", "json")
    if named.lower() not in ("json", "geojson"):
        raise CallerError(f"f={named[:32]} is no form of this resource", do="Use json.")


def _in_digits(value: Any) -> Any:
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


WholeNumber = Annotated[int, BeforeValidator(_in_digits)]
"""Written in digits: Python would also take “1_0”, “ 1” and “1.0”."""
Store = Annotated[Database, Depends(_database)]
Installation = Annotated[Settings, Depends(_settings)]


def today_in(time_zone: str) -> date:
    """The date that it is now where that zone holds."""
    return datetime.now(ZoneInfo(time_zone)).date()


async def refuse_unknown_parameters(request: Request) -> None:
    """A misspelt filter must not pass for no filter (OGC API Features 1, requirement 8).

    Raises:
        CallerError: a query parameter that the route does not have; names it and those there are.
    """
    with_nul = [name for name, value in request.query_params.multi_items() if "\0" in value]
    if with_nul or "\0" in request.url.path:
        # The database's text cannot hold it, and no name of ours does.
        raise CallerError(
            "the address has a NUL in it", where=with_nul[0][:64] if with_nul else None, do="Leave it out."
        )
    route: Any = request.scope.get("route")
    known = _known(route)
    more: Callable[[Request], frozenset[str]] | None = getattr(
        getattr(route, "endpoint", None), _MORE_PARAMETERS, None
    )
    known |= more(request) if more is not None else frozenset()
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        names = ", ".join(sorted(known - _ALWAYS_KNOWN)) or "none"
        raise CallerError(
            f"unknown query parameter “{unknown[0][:64]}”", do=f"Parameters of this resource: {names}."
        )


def _known(route: Any) -> frozenset[str]:
    """What a route declares, looked through once."""
    if not hasattr(route, "dependant"):
        return _ALWAYS_KNOWN
    known: frozenset[str] | None = getattr(route, _KNOWN_PARAMETERS, None)
    if known is None:
        known = _declared(route.dependant) | _ALWAYS_KNOWN
        setattr(route, _KNOWN_PARAMETERS, known)
    return known


def _declared(dependant: Dependant) -> frozenset[str]:
    names = {field.alias for field in dependant.query_params}
    return frozenset(names).union(*(_declared(inner) for inner in dependant.dependencies))


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body, never more of it in memory than the limit.

    Raises:
        BodyTooLarge: it is longer, whatever its Content-Length said.
    """
    said = request.headers.get("content-length", "0")
    chunks: list[bytes] = []
    size = int(said) if said.isdecimal() and int(said) > limit_bytes else 0
    if not size:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit_bytes:
                break
            chunks.append(chunk)
    if size > limit_bytes:
        raise BodyTooLarge(
            f"the body is longer than {limit_bytes:,} bytes", do="Send less: simplify geometries."
        )
    return b"".join(chunks)
