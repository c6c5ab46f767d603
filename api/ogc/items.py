"""Items of the collections: pages of features, read from the database, and single features."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Query, Request, Response

from api import pages
from api.links import changed_query, city_url, link
from api.negotiation import wants_html
from api.ogc import formats, parameters, rendering
from api.ogc.documents import CRS84, GEOJSON, HTML, JSON
from api.ogc.landing import collection_named
from api.requests import Installation, Store, today_in
from detection.errors import CallerError
from inventory.feature_tables import parsed
from inventory.store import feature_pages, features
from inventory.store.database import Connection, Patience
from inventory.store.feature_pages import Page
from inventory.store.features import CityOnPage, Collection, Wanted, When

router = APIRouter(tags=["features"])

# A page for people shows so many rows at most: a table of ten thousand helps nobody.
_ROWS_ON_A_PAGE = 500
_ROWS_WITHOUT_LIMIT = 50
# Who asks for the total alone waits for it; who asks for a page wants the page.
_HITS_PATIENCE_MS = 4_000
# The answer with so many features is small enough to be held.
_ROWS_AT_ONCE = 1_000
_CRS84_NAMES = frozenset({CRS84, "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84"})

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

_Bbox = Annotated[
    str | None,
    Query(description="west,south,east,north in degrees", examples=["100.9,22.7,101.0,22.8"]),
]
_Datetime = Annotated[
    str | None,
    Query(description="Date, instant or START/END; a date is a whole local day.", examples=["2026-01-02"]),
]
_Limit = Annotated[int | None, Query(ge=1, description="Features on a page, at most 10,000.")]
_Crs = Annotated[str | None, Query(description="Only CRS84, which is what is served.", examples=[CRS84])]


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
def items(
    request: Request,
    store: Store,
    settings: Installation,
    city: str,
    collection: str,
    bbox: _Bbox = None,
    datetime: _Datetime = None,
    limit: _Limit = None,
    class_: Annotated[str | None, Query(alias="class", description="Names, with commas between.")] = None,
    area: Annotated[str | None, Query(description="Code of an area.")] = None,
    level: Annotated[str | None, Query(description="Level of the area, or of areas.")] = None,
    status: Annotated[
        str | None, Query(description="present, doubtful, gone or rejected: listed or not.")
    ] = None,
    current: Annotated[bool | None, Query(description="Observations: the stock of mobile classes.")] = None,
    crs: _Crs = None,
    bbox_crs: Annotated[_Crs, Query(alias="bbox-crs")] = None,
    resultType: Annotated[
        Literal["results", "hits"], Query(description="hits: the total alone.")
    ] = "results",
    cursor: Annotated[str | None, Query(description="From a “next” link.")] = None,
    offset: Annotated[int | None, Query(ge=0, description="Features to skip; prefer “next” links.")] = None,
    bom: Annotated[bool, Query(description="CSV: false for programs, without byte order mark.")] = True,
) -> Response:
    """A page of a collection's features, in the format that is asked for."""
    named = collection_named(collection)
    _require_crs84(crs, bbox_crs)
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
    with ExitStack() as opened:
        connection = opened.enter_context(store.transaction(Patience.HTTP, read_only=True))
        shown = features.city_on_page(connection, city, alone=not as_page)
        wanted = wanted_of(
            connection, shown, named,
            bbox=bbox, datetime=datetime, class_=class_, area=area, level=level, status=status,
            current=bool(current),
        )  # fmt: skip
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
        if as_page:
            found = [feature for text in texts for feature in parsed(text)]
            return pages.page(request, "items.html", city=shown, collection=named, head=head, features=found)
        headers = rendering.headers(head)
        if form not in (formats.GEOJSON, formats.GEOJSON_SEQ):
            headers |= rendering.as_file(shown, named, form)
        chunks = rendering.body(form, named, texts, head=head, spreadsheet=bom)
        if len(page.rows) <= _ROWS_AT_ONCE:
            # Held whole it is sent without a thread waiting between its parts.
            return Response(b"".join(chunks), media_type=form.content_type, headers=headers)
        return rendering.Streamed(chunks, opened.pop_all(), form=form, headers=headers)


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
    _require_crs84(crs, None)
    as_page = wants_html(request)
    with store.transaction(read_only=True) as connection:
        shown = features.city_on_page(connection, city, alone=not as_page)
        row = features.row_of(connection, shown, named, feature, today_in(shown.time_zone))
        (document,) = parsed(next(features.texts(connection, shown, named, [row])))
    root = f"{city_url(request, shown.code)}/collections/{named}"
    address = f"{root}/items/{quote(str(document['id']), safe='')}"
    document["links"] = [
        link(address, "self", GEOJSON, "This feature"),
        link(f"{address}?f=html", "alternate", HTML, "This feature as a page"),
        link(root, "collection", JSON, "Its collection"),
    ]
    if as_page:
        return pages.page(request, "item.html", city=shown, collection=named, feature=document)
    return Response(
        orjson.dumps(document), media_type=GEOJSON, headers={"Content-Crs": rendering.CONTENT_CRS}
    )


def wanted_of(
    connection: Connection,
    city: CityOnPage,
    collection: Collection,
    *,
    bbox: str | None,
    datetime: str | None,
    class_: str | None,
    area: str | None,
    level: str | None,
    status: str | None,
    current: bool,
) -> Wanted:
    """The conditions of a request, read; the area is the version in force at the time asked for.

    Raises:
        CallerError, TimeUnusable, UnknownName: what a parameter says is nothing of its kind.
    """
    span = parameters.read_span(datetime, city.time_zone)
    today = today_in(city.time_zone)
    dates = (today, today) if span is None else parameters.local_dates(span, city.time_zone)
    is_state = collection is Collection.ASSETS or current
    return Wanted(
        boxes=parameters.read_boxes(bbox),
        when=parameters.end_of_today(today, city.time_zone)
        if span is None
        else _when(span, is_state=is_state),
        local_dates=dates,
        classes=parameters.read_names(class_),
        statuses=parameters.read_names(status),
        levels=parameters.read_names(level) if area is None else (),
        area=None
        if area is None
        else features.area_version(connection, city.id, area, level=level, on=dates[1] or today),
        current=current,
    )


def _when(span: parameters.Span, *, is_state: bool) -> When:
    """States are asked for as of the end of a date; surveys and observations for any time within it."""
    if is_state and span.single:
        return When(as_of=span.end)
    return When(interval=(span.start, span.end))


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


def _require_crs84(*names: str | None) -> None:
    for name in names:
        if name is not None and name.strip("<>") not in _CRS84_NAMES:
            raise CallerError(f"the CRS “{name[:80]}” is not served", do=f"Use {CRS84}.")
