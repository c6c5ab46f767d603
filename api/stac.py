"""The imagery of a city as a SpatioTemporal Asset Catalogue (STAC API 1.0): collection ``scenes``, items, search.

Apart from the features' landing page, since clients take the one link ``data`` of a page for collections of its kind.
"""

import re
from typing import Annotated, Any

import orjson
import shapely
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api import stac_documents, stac_openapi
from api.fresh import city_asked
from api.links import base_url, with_query
from api.negotiation import OPENAPI_TYPE
from api.ogc import parameters
from api.ogc.documents import GEOJSON, JSON
from api.requests import Store, WholeNumber, json_alone, read_body
from api.stac_documents import COLLECTION, CONFORMS, link, root_of
from detection.errors import CallerError, UnknownName
from inventory.errors import JsonUnusable
from inventory.store.catalogue import ScenesWanted, all_scenes, count_scenes, find_scenes, get_scene
from inventory.store.database import Connection, Database
from inventory.store.features import CityOnPage

router = APIRouter(tags=["stac"], dependencies=[Depends(json_alone)])

_MOST, _USUAL = 1_000, 100
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,12})?(Z|[+-]\d\d:\d\d)")
_EXAMPLE: dict[str, Any] = {"type": "FeatureCollection", "features": [], "links": []}
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"content": {JSON: {"example": _EXAMPLE}}}}
_ITEMS: dict[int | str, dict[str, Any]] = {200: {"content": {GEOJSON: {"example": _EXAMPLE}}}}
_DESCRIPTION: dict[int | str, dict[str, Any]] = {
    200: {"content": {OPENAPI_TYPE: {"example": {"openapi": "3.0.3"}}}}
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"type": "object"}, "example": {"bbox": [100.9, 22.7, 101.0, 22.8]}}},
    }
}
_MEMBERS = frozenset({"bbox", "datetime", "ids", "collections", "intersects", "limit", "token"})
_Limit = Annotated[WholeNumber | None, Query(ge=1, description=f"Items on a page, at most {_MOST:,}.")]
_Bbox = Annotated[
    str | None, Query(description="west,south,east,north in degrees", examples=["100.9,22.7,101.0,22.8"])
]
_Datetime = Annotated[str | None, Query(description="Instant, or START/END.", examples=["2026-01-01/.."])]
_Page = Annotated[str | None, Query(description="From a “next” link.")]


_Ids = Annotated[str | None, Query(description="Ids, with commas between.")]
_Collections = Annotated[str | None, Query(description="Names, with commas between.")]


# --- the catalogue -------------------------------------------------------------------------------------------


@router.get("/cities/{city}/stac", responses=_ANSWERS, response_class=JSONResponse)
@router.get("/cities/{city}/stac/", include_in_schema=False)
def catalogue(request: Request, store: Store, city: str) -> Response:
    """The catalogue of a city’s imagery."""
    return _json(stac_documents.catalogue(request, _city(request, store, city)))


@router.get("/cities/{city}/stac/conformance", responses=_ANSWERS, response_class=JSONResponse)
def conformance(request: Request, store: Store, city: str) -> Response:
    """What of the standards the catalogue fulfils."""
    _city(request, store, city)
    return _json({"conformsTo": CONFORMS})


@router.get("/cities/{city}/stac/api", responses=_DESCRIPTION, response_class=Response)
def api(request: Request, store: Store, city: str) -> Response:
    """This catalogue’s description in OpenAPI 3.0."""
    shown = _city(request, store, city)
    described = stac_openapi.document(router, root_of(request, shown), f"Imagery of {shown.name}")
    return _json(described, OPENAPI_TYPE)


@router.get("/cities/{city}/stac/collections", responses=_ANSWERS, response_class=JSONResponse)
def collections(request: Request, store: Store, city: str) -> Response:
    """The catalogue’s collections: one, of all scenes."""
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        made = stac_documents.collection(request, shown, all_scenes(connection, shown))
    root = root_of(request, shown)
    links = [link(f"{root}/collections", "self", JSON), link(root, "root", JSON), link(root, "parent", JSON)]
    return _json({"collections": [made], "links": links})


@router.get("/cities/{city}/stac/collections/{collection}", responses=_ANSWERS, response_class=JSONResponse)
def collection(request: Request, store: Store, city: str, collection: str) -> Response:
    """The collection of all scenes."""
    _require_ours(collection)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        return _json(stac_documents.collection(request, shown, all_scenes(connection, shown)))


# --- items ------------------------------------------------------------------------------------------------------


@router.get("/cities/{city}/stac/collections/{collection}/items", responses=_ITEMS, response_class=Response)
def items(
    request: Request, store: Store, city: str, collection: str,
    bbox: _Bbox = None, datetime: _Datetime = None, limit: _Limit = None, page: _Page = None,
    ids: _Ids = None, collections: _Collections = None,
) -> Response:  # fmt: skip
    """Scenes, newest first."""
    _require_ours(collection)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        wanted = _wanted(
            shown, bbox=bbox, datetime=datetime, ids=_listed(ids), collections=_listed(collections)
        )
        return _page(request, connection, shown, wanted, limit, page, "GET", {})


@router.get(
    "/cities/{city}/stac/collections/{collection}/items/{item}", responses=_ITEMS, response_class=Response
)
def item(request: Request, store: Store, city: str, collection: str, item: str) -> Response:
    """One scene."""
    _require_ours(collection)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        return _json(stac_documents.item(request, shown, get_scene(connection, shown, item)), GEOJSON)


@router.get("/cities/{city}/stac/search", responses=_ITEMS, response_class=Response)
def search(
    request: Request, store: Store, city: str,
    bbox: _Bbox = None, datetime: _Datetime = None, limit: _Limit = None, page: _Page = None,
    ids: _Ids = None, collections: _Collections = None,
    intersects: Annotated[str | None, Query(description="A GeoJSON geometry.")] = None,
) -> Response:  # fmt: skip
    """Scenes that match, newest first."""
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        wanted = _wanted(
            shown,
            bbox=bbox,
            datetime=datetime,
            ids=_listed(ids),
            collections=_listed(collections),
            intersects=None if intersects is None else _parsed(intersects.encode()),
        )
        return _page(request, connection, shown, wanted, limit, page, "GET", {})


@router.post("/cities/{city}/stac/search", responses=_ITEMS, response_class=Response, openapi_extra=_BODY)
async def search_by_body(request: Request, store: Store, city: str) -> Response:
    """Scenes that match what the body says, newest first."""
    body = _parsed(await read_body(request, 1024**2))
    if not isinstance(body, dict):
        raise JsonUnusable("the body is no JSON object", do='Send {"bbox": [west, south, east, north]}.')
    unknown = sorted(set(map(str, body)) - _MEMBERS)
    if unknown:
        raise CallerError(
            f"unknown member “{unknown[0][:64]}”", do=f"Members: {', '.join(sorted(_MEMBERS))}."
        )
    limit = body.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CallerError("limit is no number above 0")
    box = body.get("bbox")
    if box is not None and not (isinstance(box, list) and all(type(one) in (int, float) for one in box)):
        raise CallerError("bbox is no list of numbers")

    def found() -> Response:
        with store.transaction(read_only=True) as connection:
            shown = city_asked(request, connection, city)
            wanted = _wanted(
                shown,
                bbox=None if box is None else ",".join(map(str, box)),
                datetime=_text(body, "datetime"),
                ids=_texts(body, "ids"),
                collections=_texts(body, "collections"),
                intersects=body.get("intersects"),
            )
            return _page(request, connection, shown, wanted, limit, _text(body, "token"), "POST", body)

    # The database is waited for in a thread: in the event loop everybody else would wait too.
    return await run_in_threadpool(found)


def _listed(value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",")]


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise CallerError(f"{name} is no text")
    return value


def _texts(body: dict[str, Any], name: str) -> list[str] | None:
    value = body.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise CallerError(f"{name} is no list of texts")
    if value is not None and any("\0" in one for one in value):
        # The database's text cannot hold it, and no name of ours does.
        raise CallerError("a text holds the character 0", where=name, do="Leave it out.")
    return value


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise JsonUnusable(f"this is no JSON: {error}") from None


def _wanted(
    city: CityOnPage,
    *,
    bbox: str | None,
    datetime: str | None,
    ids: list[str] | None = None,
    collections: list[str] | None = None,
    intersects: Any = None,
) -> ScenesWanted:
    if bbox is not None and intersects is not None:
        raise CallerError("bbox and intersects exclude each other", do="Give one of them.")
    span = None if datetime is None else parameters.read_span(_strict(datetime), city.time_zone)
    if ids is not None and len(ids) > _MOST:
        raise CallerError(f"ids: {len(ids):,} are more than {_MOST:,}", do="Ask for fewer at a time.")
    if collections is not None and COLLECTION not in collections:
        ids = []
    boxes = parameters.read_boxes(bbox)
    return ScenesWanted(
        boxes=boxes,
        span=(None, None) if span is None else (span.start, span.end),
        ids=ids,
        intersects=None if intersects is None else _geometry(intersects),
    )


def _strict(value: str) -> str:
    """Instants as RFC 3339 has them, which STAC wants to the letter, and not both ends open."""
    parts = value.upper().split("/")
    instants = [part for part in parts if part not in ("", "..")]
    if not instants or len(parts) > 2 or not all(_INSTANT.fullmatch(part) for part in instants):
        raise CallerError(
            f"datetime={value[:80]} is no instant or interval of RFC 3339",
            do="Write 2026-01-02T03:04:05Z, or START/END with .. for one open end.",
        )
    return "/".join(parts)


def _geometry(document: Any) -> shapely.Geometry:
    try:
        shape = shapely.from_geojson(orjson.dumps(document).decode())
        is_usable = not shapely.is_empty(shape) and bool(shapely.is_valid(shape))
    except (shapely.GEOSException, TypeError, ValueError):
        is_usable = False
    if not is_usable or (abs(shapely.get_coordinates(shape)) > (180, 90)).any():
        raise CallerError(
            "intersects is no valid GeoJSON geometry", do="Give longitude, latitude in degrees."
        )
    if int(shapely.get_num_coordinates(shape)) > 4_000:
        raise CallerError("intersects has more than 4,000 vertices", do="Simplify it.")
    return shapely.force_2d(shape)


def _page(
    request: Request,
    connection: Connection,
    city: CityOnPage,
    wanted: ScenesWanted,
    limit: int | None,
    cursor: str | None,
    method: str,
    body: dict[str, Any],
) -> Response:
    most = min(limit or _USUAL, _MOST)
    found = find_scenes(connection, city, wanted, limit=most + 1, after=parameters.decode_cursor(cursor))
    shown = found[:most]
    address = f"{base_url(request)}{request.url.path}"
    query = [(name, value) for name, value in request.query_params.items() if name != "page"]
    links = [
        link(root_of(request, city), "root", JSON),
        link(with_query(address, list(request.query_params.items())), "self", GEOJSON),
    ]
    if len(found) > most:
        further = parameters.encode_cursor(shown[-1].id)
        if method == "POST":
            links.append(
                {**link(address, "next", GEOJSON), "method": "POST", "body": {**body, "token": further}}
            )
        else:
            links.append(
                {**link(with_query(address, [*query, ("page", further)]), "next", GEOJSON), "method": "GET"}
            )
    return _json(
        {
            "type": "FeatureCollection",
            "features": [stac_documents.item(request, city, scene) for scene in shown],
            "links": links,
            "numberMatched": count_scenes(connection, city, wanted),
            "numberReturned": len(shown),
        },
        GEOJSON,
    )


# --- small things ------------------------------------------------------------------------------------------------


def _city(request: Request, store: Database, code: str) -> CityOnPage:
    with store.transaction(read_only=True) as connection:
        return city_asked(request, connection, code)


def _require_ours(name: str) -> None:
    if name != COLLECTION:
        raise UnknownName(f"no collection is called “{name[:64]}”", do=f"There is one: {COLLECTION}.")


def _json(document: dict[str, Any], media_type: str = JSON) -> Response:
    return Response(orjson.dumps(document), media_type=media_type)
