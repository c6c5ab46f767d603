"""Answers that callers may keep and ask about again: entity tags from a city's version (RFC 9110, section 13).

The tag is made from what the answer depends on: the city's version, which any writer changes, the local day, since
“now” is its end, the program and its settings, the address asked and the form asked for. A caller who has that answer
still is told so before any of the work is done. Two answers of one tag say the same; in bytes they may differ (a time
stamp, another compression), so tags are weak.
"""

import hashlib

from fastapi import Request, Response

from api.links import base_url
from api.requests import today_in
from api.settings import Settings
from api.version import program_version
from inventory.store import features
from inventory.store.database import Connection
from inventory.store.features import CityOnPage


class NotModified(Exception):
    """The caller has the answer already."""


def city_asked(request: Request, connection: Connection, code: str, *, alone: bool = False) -> CityOnPage:
    """The city of a request (``features.city_on_page``); its version becomes the answer's entity tag.

    Raises:
        NotModified: the caller has this answer: nothing changed in the city since.
        UnknownName: no city has the code.
    """
    city = features.city_on_page(connection, code, alone=alone)
    tag = _tag(request, city)
    request.state.etag = tag
    if is_named(tag, request.headers.get("if-none-match", "")):
        raise NotModified
    return city


def content_tag(content: bytes) -> str:
    """The entity tag of one feature, from what it says: other changes of the city leave it be."""
    return f'W/"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def keep(request: Request, content: bytes) -> None:
    """Gives an answer the tag of its content.

    Raises:
        NotModified: the caller has this answer.
    """
    request.state.etag = content_tag(content)
    if is_named(request.state.etag, request.headers.get("if-none-match", "")):
        raise NotModified


def is_named(tag: str, header: str) -> bool:
    """Whether a header names a tag, or any (``*``)."""
    return header.strip() == "*" or tag in _held(header)


def not_modified(request: Request, _: Exception) -> Response:
    """The answer to a caller who has the answer already."""
    return Response(status_code=304)


def _tag(request: Request, city: CityOnPage) -> str:
    settings: Settings = request.app.state.settings
    said = (
        city.id,
        city.version,
        today_in(city.time_zone),
        program_version(),
        # Who changes one of these says something else under the same address.
        (settings.default_items, settings.maximum_items, settings.allow_unauthenticated_writes),
        base_url(request),
        request.url.path,
        request.url.query,
        request.headers.get("accept", ""),
    )
    return f'W/"{hashlib.blake2b(repr(said).encode(), digest_size=12).hexdigest()}"'


def _held(header: str) -> set[str]:
    """The tags that a caller names; compared weakly, as GET does."""
    named = {part.strip() for part in header.split(",")[:50]}
    return {tag if tag.startswith("W/") else f"W/{tag}" for tag in named if tag and tag != "*"}
