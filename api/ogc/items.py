"""Items of the collections: pages of features, read from the database, and single features."""

from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from api import pages
from api.fresh import city_asked, keep
from api.links import changed_query, city_url, link
from api.negotiation import wants_html
from api.ogc import formats, parameters, rendering
from api.ogc.area_counts import layer_of, with_counts
from api.ogc.conditions import Conditions, queryables_asked
from api.ogc.crs import CRS84, LON_LAT, Crs, in_crs, in_crs_text, read_crs
from api.ogc.documents import GEOJSON, HTML, JSON, collection_named
from api.ogc.formats import Format
from api.requests import Installation, Store, WholeNumber, takes_also, today_in
from detection.errors import CallerError
from inventory.feature_tables import parsed
from inventory.store import feature_pages, features
from inventory.store.database import Patience
from inventory.store.feature_pages import Page
from inventory.store.features import Collection, Wanted

router = APIRouter(tags=["features"])

# A page for people shows so many rows at most: a table of ten thousand helps nobody.
_ROWS_ON_A_PAGE = 500
_ROWS_WITHOUT_LIMIT = 50
# Who asks for the total alone waits for it; who asks for a page wants the page.
_HITS_PATIENCE_MS = 4_000
# The answer with so many features is small enough to be held.
_ROWS_AT_ONCE = 1_000

_FEATURE_EXAMPLE = {
    "type": "Feature",
    "id": "t7k2m9q4x",
    "geometry": {"type": "Point", "coordinates": [100.9723001, 22.7766002]},
    "properties": {"class": "tree", "status": "present", "listed": True, "probability": 0.93},
}
PAGE_EXAMPLE = {
    "type": "FeatureCollection",
    "timeStamp": "2026-11-22T12:00:00Z",
    "numberMatched": 1284,
    "numberReturned": 1,
    "links": [],
    "features": [_FEATURE_EXAMPLE],
}

_Limit = Annotated[WholeNumber | None, Query(ge=1, description="Features on a page, at most 10,000.")]
_Crs = Annotated[str | None, Query(description="One of the collection’s “crs”.", examples=[CRS84])]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where in a collection a page starts: after a key, or so that it ends before one."""

    limit: int
    after: int | None
    before: int | None
    offset: int

    def is_first(self) -> bool:
        """Whether it is the first page."""
        return self.after is None and self.before is None and self.offset == 0


@router.get(
    "/cities/{city}/collections/{collection}/items",
    responses={
        200: {
            "content": {
                GEOJSON: {"example": PAGE_EXAMPLE},
                **{each.media_type: {} for each in formats.ITEMS if each is not formats.GEOJSON},
            }
        }
    },
    response_class=Response,
)
@takes_also(queryables_asked)
def items(
    request: Request,
    store: Store,
    settings: Installation,
    city: str,
    collection: str,
    conditions: Annotated[Conditions, Depends()],
    limit: _Limit = None,
    crs: _Crs = None,
    resultType: Annotated[
        Literal["results", "hits"], Query(description="hits: the total alone.")
    ] = "results",
    cursor: Annotated[str | None, Query(description="From a “next” link.")] = None,
    offset: Annotated[
        WholeNumber | None, Query(ge=0, description="Features to skip; prefer “next” links.")
    ] = None,
    bom: Annotated[bool, Query(description="CSV: false for programs, without byte order mark.")] = True,
) -> Response:
    """A page of a collection's features, in the format that is asked for."""
    named = collection_named(collection)
    form = formats.format_asked(request, formats.ITEMS, otherwise=formats.GEOJSON)
    as_page = form is formats.HTML
    place = _place(
        min(
            limit or (_ROWS_WITHOUT_LIMIT if as_page else settings.default_items),
            _ROWS_ON_A_PAGE if as_page else settings.maximum_items,
        ),
        cursor,
        offset or 0,
    )
    with store.transaction(Patience.HTTP, read_only=True) as connection:
        shown = city_asked(request, connection, city, alone=not (as_page or named is Collection.COUNTS))
        answered_in = read_crs(crs, shown, "crs")
        _require_lon_lat(answered_in, form)
        wanted = conditions.wanted(request, connection, shown, named)
        if resultType == "hits":
            page = Page(rows=(), next_after=None)
            matched = feature_pages.total(connection, shown, named, wanted, patience_ms=_HITS_PATIENCE_MS)
        else:
            matched = feature_pages.known_total(connection, shown, named, wanted)
            page = feature_pages.page_of(
                connection, shown, named, wanted, limit=place.limit, after=place.after,
                before=place.before, offset=place.offset, matched=matched,
            )  # fmt: skip
            if matched is None and place.is_first() and page.next_after is None:
                matched = len(page.rows)
            elif matched is None:
                matched = feature_pages.total(connection, shown, named, wanted)
        # A table shows fewer rows than GeoJSON would: its links say how many.
        asked = changed_query(request, limit=str(place.limit)) if as_page else changed_query(request)
        head = rendering.head(request, shown, named, page, matched, form, asked)
        texts = features.texts(connection, shown, named, page.rows, separator=rendering.separator_of(form))
        if named is Collection.COUNTS:
            between = rendering.separator_of(form)
            texts = with_counts(connection, shown, wanted, texts, between, classes=conditions.class_)
        if not answered_in.is_lon_lat:
            texts = (in_crs_text(text, answered_in, rendering.separator_of(form)) for text in texts)
        if as_page:
            found = [feature for text in texts for feature in parsed(text)]
            return pages.page(request, "items.html", city=shown, collection=named, head=head, features=found)
        headers = rendering.headers(head, answered_in)
        if form not in (formats.GEOJSON, formats.GEOJSON_SEQ):
            headers |= rendering.as_file(shown, named, form)
        chunks = rendering.body(form, layer_of(named, shown), texts, head=head, spreadsheet=bom)
        if len(page.rows) <= _ROWS_AT_ONCE:
            # Held whole it is sent without a thread waiting between its parts.
            return Response(b"".join(chunks), media_type=form.content_type, headers=headers)
        return rendering.held(chunks, form, headers)


@router.get(
    "/cities/{city}/collections/{collection}/items/{feature:path}",
    responses={200: {"content": {GEOJSON: {"example": _FEATURE_EXAMPLE}, HTML: {}}}},
    response_class=Response,
)
def item(
    request: Request, store: Store, city: str, collection: str, feature: str, crs: _Crs = None
) -> Response:
    """One feature by its id; the id of an asset that is an alias gives the asset it stands for."""
    named = collection_named(collection)
    as_page = wants_html(request)
    answered_in, shown = LON_LAT, None
    if crs is None and not as_page and named is not Collection.COUNTS:
        # What is asked for most is the text alone.
        with store.statement() as connection:
            text = features.text_of(connection, city, named, feature)
    else:
        with store.transaction(read_only=True) as connection:
            shown = features.city_on_page(connection, city, alone=not as_page)
            answered_in = read_crs(crs, shown, "crs")
            text = features.text_of(connection, city, named, feature)
            if named is Collection.COUNTS:
                today = today_in(shown.time_zone)
                of_today = Wanted(local_dates=(today, today))
                (text,) = with_counts(connection, shown, of_today, iter([text]), ",\n")
    if not as_page and answered_in.is_lon_lat:
        keep(request, text)
    (document,) = in_crs(parsed(text), answered_in)
    root = f"{city_url(request, city)}/collections/{named}"
    address = f"{root}/items/{quote(str(document['id']), safe='')}"
    document["links"] = [
        link(address, "self", GEOJSON, "This feature"),
        link(f"{address}?f=html", "alternate", HTML, "This feature as a page"),
        link(root, "collection", JSON, "Its collection"),
    ]
    if as_page:
        return pages.page(request, "item.html", city=shown, collection=named, feature=document)
    return Response(
        orjson.dumps(document), media_type=GEOJSON, headers={"Content-Crs": f"<{answered_in.uri}>"}
    )


def _place(limit: int, cursor: str | None, offset: int) -> _Place:
    if offset > parameters.MAXIMUM_OFFSET:
        raise CallerError(
            f"offset={offset} is more than {parameters.MAXIMUM_OFFSET}",
            do="Follow the “next” links: their cursor reaches everything.",
        )
    key = parameters.decode_cursor(cursor)
    backwards = key is not None and key < 0
    return _Place(
        limit=limit,
        after=None if backwards else key,
        before=-key if key is not None and backwards else None,
        offset=offset,
    )


def _require_lon_lat(crs: Crs, form: Format) -> None:
    if not crs.is_lon_lat and form not in (formats.GEOJSON, formats.GEOJSON_SEQ, formats.HTML):
        raise CallerError(
            f"crs: {form.title} comes in {CRS84} alone", do="Ask for GeoJSON, or leave crs out."
        )
