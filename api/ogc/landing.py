"""The resources that describe a city: landing page, conformance, collections, and the API's description."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api import pages
from api.fresh import city_asked
from api.negotiation import OPENAPI_TYPE, wants_html
from api.ogc import documents, openapi
from api.ogc.parameters import end_of_today
from api.requests import Installation, Store, today_in
from detection.taxonomy import ClassKind, shipped_taxonomy
from inventory.store import feature_pages, features
from inventory.store.database import Database
from inventory.store.features import CityOnPage, Collection, Wanted

router = APIRouter(tags=["city"])

# What clients show before anybody asked for items must come at once.
_COUNT_PATIENCE_MS = 400

_EXAMPLE_LINK = {"rel": "self", "type": "application/json", "href": "https://trees.example/cities/puer/"}
_LANDING_EXAMPLE = {"title": "普洱", "description": "Inventory of 普洱", "links": [_EXAMPLE_LINK]}
_COLLECTION_EXAMPLE = {"id": "assets", "title": "Assets", "itemCount": 1284, "links": [_EXAMPLE_LINK]}


def _answers(example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}, "text/html": {}}}}


@router.get("/cities/{city}", responses=_answers(_LANDING_EXAMPLE), response_class=JSONResponse)
@router.get("/cities/{city}/", include_in_schema=False)
def landing(request: Request, store: Store, city: str) -> Response:
    """The landing page of a city: an OGC API, and for people a map with counts."""
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        imagery = features.attributions(connection, city)
        levels = features.levels_of(connection, shown.id) if wants_html(request) else []
    if not wants_html(request):
        return JSONResponse(documents.landing(request, shown))
    known = shipped_taxonomy().classes
    return pages.page(
        request,
        "city.html",
        city=shown,
        today=today_in(shown.time_zone),
        # What stands comes first: it is what most people look for.
        classes=sorted(
            (known[name] for name in shown.classes if name in known),
            key=lambda each: (each.kind is ClassKind.MOBILE, each.name),
        ),
        imagery=imagery,
        levels=levels,
    )


@router.get(
    "/cities/{city}/conformance",
    responses=_answers({"conformsTo": list(documents.CONFORMANCE)}),
    response_class=JSONResponse,
)
def conformance(request: Request, store: Store, city: str) -> Response:
    """What of the OGC's standards this API fulfils."""
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
    document = documents.conformance(request, shown)
    if wants_html(request):
        return pages.page(request, "conformance.html", city=shown, document=document)
    return JSONResponse(document)


@router.get(
    "/cities/{city}/collections",
    responses=_answers({"links": [_EXAMPLE_LINK], "collections": [_COLLECTION_EXAMPLE]}),
    response_class=JSONResponse,
)
def collections(request: Request, store: Store, city: str) -> Response:
    """The city's collections: assets, areas, surveys and observations."""
    shown, totals = _city_and_totals(request, store, city, list(Collection))
    document = documents.collections(request, shown, totals)
    if wants_html(request):
        return pages.page(request, "collections.html", city=shown, document=document)
    return JSONResponse(document)


@router.get(
    "/cities/{city}/collections/{collection}",
    responses=_answers(_COLLECTION_EXAMPLE),
    response_class=JSONResponse,
)
def collection(request: Request, store: Store, city: str, collection: str) -> Response:
    """One collection: its extent, its number of items, and where they are."""
    named = documents.collection_named(collection)
    shown, totals = _city_and_totals(request, store, city, [named])
    document = documents.collection(request, shown, named, totals[named])
    if wants_html(request):
        return pages.page(request, "collection.html", city=shown, document=document)
    return JSONResponse(document)


@router.get(
    "/cities/{city}/api",
    responses={200: {"content": {OPENAPI_TYPE: {"example": {"openapi": "3.0.3"}}, "text/html": {}}}},
    response_class=JSONResponse,
)
def description(request: Request, store: Store, settings: Installation, city: str) -> Response:
    """The city's API in OpenAPI 3.0, the version that GIS clients read."""
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
    document = openapi.document(
        request, shown, default_limit=settings.default_items, maximum_limit=settings.maximum_items
    )
    if wants_html(request):
        return pages.page(request, "api.html", city=shown, document=document)
    return JSONResponse(document, media_type=OPENAPI_TYPE)


def _city_and_totals(
    request: Request, store: Database, city: str, wanted: list[Collection]
) -> tuple[CityOnPage, dict[Collection, int | None]]:
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        today = today_in(shown.time_zone)
        everything = Wanted(when=end_of_today(today, shown.time_zone), local_dates=(today, today))
        return shown, {
            each: feature_pages.total(connection, shown, each, everything, patience_ms=_COUNT_PATIENCE_MS)
            for each in wanted
        }
