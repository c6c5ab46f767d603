"""Assets written as features (OGC API Features, Part 4): each write becomes decisions, in one transaction.

Until accounts arrive a write is refused (403) unless the service was started for this machine alone with
``--allow-unauthenticated-writes``; then it is refused to pages of other sites, whose requests a browser sends along.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.fresh import content_tag, is_named
from api.links import base_url, city_url
from api.ogc.crs import Crs, read_crs
from api.ogc.documents import GEOJSON
from api.requests import Installation, Store, read_body
from detection.errors import CallerError, UrbanInventoryError
from detection.taxonomy import ClassKind, shipped_taxonomy
from inventory.dates import parse_instant
from inventory.editing import WRITABLE, Edit, add_asset, change_asset, remove_asset
from inventory.errors import FeatureUnusable, NotAllowed, PreconditionFailed, TimeUnusable, WrongMediaType
from inventory.feature_tables import LAYERS, parsed
from inventory.store import features
from inventory.store.database import Connection, Database
from inventory.store.features import CityOnPage, Collection

_ITEMS = "/cities/{city}/collections/assets/items"
_MERGE_PATCH = "application/merge-patch+json"
_BODIES = frozenset({GEOJSON, "application/json"})
_REJECTED = "rejected"
_KNOWN = frozenset(LAYERS[Collection.ASSETS].fields) | frozenset(WRITABLE)

_EXAMPLE = {
    "type": "Feature",
    "geometry": {"type": "Point", "coordinates": [100.9723001, 22.7766002]},
    "properties": {"class": "tree", "reason": "planted this spring", "at": "2026-03-12"},
}
_PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {}}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": said, **_PROBLEM}
    for status, said in {
        400: "The body or a parameter is unusable.",
        403: "Writing is not allowed here.",
        404: "No such city or asset.",
        409: "The asset changed meanwhile, or decisions contradict.",
        412: "If-Match names another state of the asset.",
        413: "The body is too long.",
        415: "The body is of another media type.",
        422: "The decision is unusable.",
        503: "Another job writes.",
    }.items()
}


def _body(*media_types: str) -> dict[str, Any]:
    content = {each: {"schema": {"type": "object"}, "example": _EXAMPLE} for each in media_types}
    return {"requestBody": {"required": True, "content": content}}


def may_write(request: Request, settings: Installation) -> None:
    """Lets through who may write.

    Raises:
        NotAllowed: nobody may here, or the request comes from a page of another site.
    """
    if not settings.allow_unauthenticated_writes:
        raise NotAllowed(
            "this service is read only", do="Write with “urban-inventory decide”, or see docs/operator.md."
        )
    origin = request.headers.get("origin")
    if origin not in (None, base_url(request)) or request.headers.get("sec-fetch-site") in (
        "cross-site",
        "same-site",
    ):
        raise NotAllowed("pages of other sites may not write here", where=f"Origin: {str(origin)[:80]}")


router = APIRouter(tags=["features"], dependencies=[Depends(may_write)])
_ContentCrs = Annotated[str | None, Header(description="CRS of the body’s coordinates; CRS84 without it.")]
_IfMatch = Annotated[str | None, Header(description="Entity tag that the asset must still have.")]
_Reason = Annotated[str | None, Query(description="Why.", max_length=2_000)]


@router.post(
    _ITEMS,
    status_code=201,
    responses={201: {"description": "Added; Location names it."}, **_REFUSALS},
    response_class=Response,
    openapi_extra=_body(GEOJSON),
)
async def create(
    request: Request, store: Store, settings: Installation, city: str, content_crs: _ContentCrs = None
) -> Response:
    """Adds an asset: a decision “add”. Where one stands already, that one is meant."""
    document = await _document(request, settings.body_limit_bytes, _BODIES)

    def added() -> tuple[str, str]:
        edit = _edit(store, city, document, content_crs, whole=True)
        if edit.properties.get("class") is None:
            raise FeatureUnusable("an asset has a class", where="properties.class", do="Name one, as tree.")
        with _at_named():
            made = add_asset(store, city, edit, taxonomy=shipped_taxonomy())
        return made, _asset_now(store, city, made).tag

    made, tag = await run_in_threadpool(added)
    address = f"{city_url(request, city)}/collections/assets/items/{quote(made, safe='')}"
    return Response(status_code=201, headers={"Location": address, "ETag": tag})


@router.put(
    f"{_ITEMS}/{{feature}}",
    status_code=204,
    responses={204: {"description": "Done."}, **_REFUSALS},
    response_class=Response,
    openapi_extra=_body(GEOJSON),
)
async def replace(
    request: Request, store: Store, settings: Installation, city: str, feature: str,
    content_crs: _ContentCrs = None, if_match: _IfMatch = None,
) -> Response:  # fmt: skip
    """Makes an asset what the body says, as far as people may say it; the rest of the body is passed over.

    What is stored is not what was sent, so the answer has no entity tag (RFC 9110, section 9.3.4).
    """
    document = await _document(request, settings.body_limit_bytes, _BODIES)
    await run_in_threadpool(_changed, store, city, feature, document, content_crs, if_match, whole=True)
    return Response(status_code=204)


@router.patch(
    f"{_ITEMS}/{{feature}}",
    status_code=204,
    responses={204: {"description": "Done."}, **_REFUSALS},
    response_class=Response,
    openapi_extra=_body(_MERGE_PATCH),
)
async def update(
    request: Request, store: Store, settings: Installation, city: str, feature: str,
    content_crs: _ContentCrs = None, if_match: _IfMatch = None,
) -> Response:  # fmt: skip
    """Changes of an asset what the body names: its place, its class, whether it is verified."""
    document = await _document(request, settings.body_limit_bytes, _BODIES | {_MERGE_PATCH})

    def changed() -> str:
        _changed(store, city, feature, document, content_crs, if_match, whole=False)
        return _asset_now(store, city, feature).tag

    return Response(status_code=204, headers={"ETag": await run_in_threadpool(changed)})


@router.delete(
    f"{_ITEMS}/{{feature}}",
    status_code=204,
    responses={204: {"description": "Done."}, **_REFUSALS},
    response_class=Response,
)
def delete(
    store: Store, city: str, feature: str, if_match: _IfMatch = None, reason: _Reason = None
) -> Response:
    """Says that an asset is none, or is no more: it is listed no longer. Its history stays."""
    known = _asset_now(store, city, feature)
    known.require(if_match)
    if known.status != _REJECTED:
        remove_asset(
            store, city, feature, taxonomy=shipped_taxonomy(), reason=reason, only_if=known.unless(if_match)
        )
    return Response(status_code=204)


def _changed(
    store: Database,
    city: str,
    feature: str,
    document: Mapping[str, Any],
    content_crs: str | None,
    if_match: str | None,
    *,
    whole: bool,
) -> None:
    known = _asset_now(store, city, feature)
    known.require(if_match)
    if document.get("id") not in (None, known.id, feature):
        raise FeatureUnusable(
            f"the body is of “{str(document['id'])[:64]}”, the address of “{feature[:64]}”",
            where="id",
            do="Leave the id out, or send it to its own address.",
        )
    edit = _edit(store, city, document, content_crs, whole=whole)
    with _at_named():
        change_asset(
            store,
            city,
            feature,
            edit,
            known={"lon_lat": known.lon_lat, "class": known.class_name, "verified": known.verified},
            taxonomy=shipped_taxonomy(),
            only_if=known.unless(if_match),
        )


@contextmanager
def _at_named() -> Iterator[None]:
    """Within it a date that cannot be is told by the name that it was given under."""
    try:
        yield
    except TimeUnusable as error:
        raise FeatureUnusable(error.what, where="properties.at", do=error.do) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """An asset as its feature shows it, under the id that was asked for."""

    city: CityOnPage
    asked: str
    id: str
    tag: str
    lon_lat: tuple[float, float]
    class_name: str
    verified: bool
    status: str

    def require(self, if_match: str | None, tag: str | None = None) -> None:
        """Raises:
        PreconditionFailed: ``if_match`` names another state of it.
        """
        if if_match is not None and not is_named(tag or self.tag, if_match):
            raise PreconditionFailed(
                f"{self.asked[:64]} is not as it was", where="If-Match", do="Read it again, and decide again."
            )

    def unless(self, if_match: str | None) -> Callable[[Connection], None] | None:
        """The same, to be asked again when nobody else writes any more."""
        if if_match is None:
            return None
        return lambda connection: self.require(
            if_match, content_tag(_text_now(connection, self.city, self.asked))
        )


def _asset_now(store: Database, city: str, feature: str) -> _Known:
    """The asset as its feature shows it.

    Raises:
        UnknownName: no such city or asset.
    """
    with store.transaction(read_only=True) as connection:
        shown = features.city_on_page(connection, city, alone=True)
        text = _text_now(connection, shown, feature)
    (document,) = parsed(text)
    lon, lat = document["geometry"]["coordinates"]
    said = document["properties"]
    return _Known(
        city=shown,
        asked=feature,
        id=document["id"],
        tag=content_tag(text),
        lon_lat=(lon, lat),
        class_name=said["class"],
        verified=said["verified"],
        status=said["status"],
    )


def _text_now(connection: Connection, city: CityOnPage, feature: str) -> bytes:
    return features.text_of(connection, city.code, Collection.ASSETS, feature)


# --- reading what was sent ----------------------------------------------------------------------------------


async def _document(request: Request, limit_bytes: int, media_types: frozenset[str]) -> dict[str, Any]:
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in media_types:
        raise WrongMediaType(f"the body’s type is “{said[:64]}”", where="Content-Type", do=f"Send {GEOJSON}.")
    body = await read_body(request, limit_bytes)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FeatureUnusable(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise FeatureUnusable("the body is no JSON object", do="Send one GeoJSON Feature.")
    return document


def _edit(
    store: Database, city: str, document: Mapping[str, Any], content_crs: str | None, *, whole: bool
) -> Edit:
    with store.transaction(read_only=True) as connection:
        shown = features.city_on_page(connection, city, alone=True)
    crs = read_crs(content_crs, shown, "Content-Crs")
    if whole and document.get("type") != "Feature":
        raise FeatureUnusable("the body is no GeoJSON Feature", where="type", do="Send one Feature.")
    geometry = document.get("geometry")
    if geometry is None and (whole or "geometry" in document):
        raise FeatureUnusable("an asset has a place", where="geometry", do="Give a Point.")
    return Edit(
        lon_lat=None if geometry is None else _place(geometry, crs),
        properties=_properties(document, may_be_null=whole),
    )


def _place(geometry: Any, crs: Crs) -> tuple[float, float]:
    known = geometry if isinstance(geometry, dict) else {}
    coordinates: Any = known.get("coordinates") if known.get("type") == "Point" else None
    are_numbers = isinstance(coordinates, list) and all(type(one) in (int, float) for one in coordinates)
    if not are_numbers or len(coordinates) not in (2, 3):
        raise FeatureUnusable("the geometry is no point", where="geometry", do="Give a Point of two numbers.")
    lon, lat = crs.lon_lat(float(coordinates[0]), float(coordinates[1]))
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise FeatureUnusable(
            f"({coordinates[0]:g}, {coordinates[1]:g}) is no place in {crs.code}",
            where="geometry.coordinates",
        )
    return lon, lat


def _properties(document: Mapping[str, Any], *, may_be_null: bool) -> dict[str, Any]:
    """What may be set; what is known and may not is passed over, as programs send back all that they read.

    Args:
        may_be_null: programs write whole features with null for what nobody filled in; a patch takes it away.
    """
    for name in WRITABLE:
        if name in document:
            raise FeatureUnusable(
                f"“{name}” stands beside “properties”", where=name, do="Put it into “properties”."
            )
    given = document.get("properties")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise FeatureUnusable("properties are an object", where="properties")
    for name in given:
        if name not in _KNOWN:
            raise FeatureUnusable(
                f"an asset has no property “{str(name)[:64]}”",
                where="properties",
                do=f"What may be set: {', '.join(WRITABLE)}.",
            )
    for name in () if may_be_null else ("class", "verified"):
        if name in given and given[name] is None:
            raise FeatureUnusable(
                f"an asset is never without “{name}”", where=f"properties.{name}", do="Leave it out."
            )
    found = {name: given[name] for name in WRITABLE if given.get(name) is not None}
    readers: dict[str, Callable[[Any], Any]] = {
        "class": _static, "text": _text, "reason": _text, "verified": _yes_no, "at": _instant
    }  # fmt: skip
    return {name: _read(readers[name], name, value) for name, value in found.items()}


def _read(reader: Callable[[Any], Any], name: str, value: Any) -> Any:
    try:
        return reader(value)
    except UrbanInventoryError as error:
        raise FeatureUnusable(error.what, where=f"properties.{name}", do=error.do) from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 2_000 or "\x00" in value:
        raise CallerError("it is no text of at most 2,000 signs")
    return value


def _static(value: Any) -> str:
    known = shipped_taxonomy().get(_text(value))
    if known.kind is not ClassKind.STATIC:
        raise CallerError(f"“{known.name}” moves: its things have no identity", do="Name a class that stays.")
    return known.name


def _yes_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise CallerError("it is neither true nor false")
    return value


def _instant(value: Any) -> Any:
    return parse_instant(_text(value))
