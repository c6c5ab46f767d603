"""Items of the collections: pages of GeoJSON streamed from the database, and single features."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal
from urllib.parse import quote

import anyio
import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api import pages
from api.links import Link, changed_query, city_url, header_value, link, with_query
from api.negotiation import wants_html
from api.ogc import parameters
from api.ogc.documents import CRS84, GEOJSON, HTML, JSON, time_stamp
from api.ogc.landing import collection_named
from api.requests import Installation, Store, today_in
from detection.errors import CallerError
from inventory.store import features
from inventory.store.database import Connection, Patience
from inventory.store.features import CityOnPage, Collection, Page, Wanted, When

router = APIRouter(tags=["features"])

_FEATURES_A_CHUNK = 250
# A page for people shows so many rows at most: a table of ten thousand helps nobody.
_ROWS_ON_A_PAGE = 500
_ROWS_WITHOUT_LIMIT = 50
_CONTENT_CRS = f"<{CRS84}>"
_CRS84_NAMES = frozenset({CRS84, "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84"})

_FEATURE_EXAMPLE = {
    "type": "Feature",
    "id": "t7k2m9q4x",
    "geometry": {"type": "Point", "coordinates": [100.9723001, 22.7766002]},
    "properties": {"class": "tree", "status": "present", "listed": True, "probability": 0.93},
}
_PAGE_EXAMPLE = {
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
    """Where in a collection a page starts."""

    limit: int
    after: int | None
    offset: int


@router.get(
    "/cities/{city}/collections/{collection}/items",
    responses={200: {"content": {GEOJSON: {"example": _PAGE_EXAMPLE}, HTML: {}}}},
    response_class=StreamingResponse,
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
) -> Response:
    """A page of a collection's features, as GeoJSON or as a table."""
    named = collection_named(collection)
    _require_crs84(crs, bbox_crs)
    as_page = wants_html(request)
    most = _ROWS_ON_A_PAGE if as_page else settings.maximum_items
    place = _Place(
        limit=min(limit or (_ROWS_WITHOUT_LIMIT if as_page else settings.default_items), most),
        after=parameters.decode_cursor(cursor),
        offset=_checked_offset(offset or 0),
    )
    with ExitStack() as opened:
        connection = opened.enter_context(store.transaction(Patience.HTTP, read_only=True))
        shown = features.city_on_page(connection, city)
        wanted = _wanted(
            connection, shown, named,
            bbox=bbox, datetime=datetime, class_=class_, area=area, level=level, status=status,
            current=bool(current),
        )  # fmt: skip
        matched = features.total(connection, shown, named, wanted)
        if resultType == "hits":
            page = Page(rows=(), next_after=None)
        else:
            page = features.page_of(
                connection, shown, named, wanted, limit=place.limit, after=place.after, offset=place.offset
            )
        # A table shows fewer rows than GeoJSON would: its links say how many.
        asked = changed_query(request, limit=str(place.limit)) if as_page else changed_query(request)
        head = _head(request, shown, named, page, matched, asked)
        # Closed before the transaction is: a cursor closed later breaks into whatever has the connection then.
        lines = opened.enter_context(closing(features.features(connection, shown, named, page.rows)))
        if as_page:
            found = [orjson.loads(line) for line in lines]
            return pages.page(request, "items.html", city=shown, collection=named, head=head, features=found)
        return _Streamed(_chunks(head, lines), opened.pop_all(), headers=_headers(head))


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
    with store.transaction(read_only=True) as connection:
        shown = features.city_on_page(connection, city)
        row = features.row_of(connection, shown, named, feature, today_in(shown.time_zone))
        document = orjson.loads(next(features.features(connection, shown, named, [row])))
    root = f"{city_url(request, shown.code)}/collections/{named}"
    address = f"{root}/items/{quote(str(document['id']), safe='')}"
    document["links"] = [
        link(address, "self", GEOJSON, "This feature"),
        link(f"{address}?f=html", "alternate", HTML, "This feature as a page"),
        link(root, "collection", JSON, "Its collection"),
    ]
    if wants_html(request):
        return pages.page(request, "item.html", city=shown, collection=named, feature=document)
    return Response(orjson.dumps(document), media_type=GEOJSON, headers={"Content-Crs": _CONTENT_CRS})


def _wanted(
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


def _checked_offset(offset: int) -> int:
    if offset > parameters.MAXIMUM_OFFSET:
        raise CallerError(
            f"offset={offset} is more than {parameters.MAXIMUM_OFFSET}",
            do="Follow the “next” links: their cursor reaches everything.",
        )
    return offset


def _require_crs84(*names: str | None) -> None:
    for name in names:
        if name is not None and name.strip("<>") not in _CRS84_NAMES:
            raise CallerError(f"the CRS “{name[:80]}” is not served", do=f"Use {CRS84}.")


def _head(
    request: Request,
    city: CityOnPage,
    collection: Collection,
    page: Page,
    matched: int | None,
    asked: list[tuple[str, str]],
) -> dict[str, Any]:
    """The members of a FeatureCollection before its features."""
    root = f"{city_url(request, city.code)}/collections/{collection}"
    address = f"{root}/items"
    links: list[Link] = [
        link(with_query(address, asked), "self", GEOJSON, "This page"),
        link(
            with_query(address, changed_query(request, f="html")), "alternate", HTML, "This page for people"
        ),
        link(root, "collection", JSON, "Its collection"),
    ]
    if page.next_after is not None:
        onwards = changed_query(request, cursor=parameters.encode_cursor(page.next_after), offset=None)
        links.append(link(with_query(address, onwards), "next", GEOJSON, "The next page"))
    return {
        "type": "FeatureCollection",
        "timeStamp": time_stamp(),
        **({} if matched is None else {"numberMatched": matched}),
        "numberReturned": len(page.rows),
        "links": links,
    }


def _headers(head: dict[str, Any]) -> dict[str, str]:
    headers = {"Content-Crs": _CONTENT_CRS, "Link": header_value(head["links"])}
    if "numberMatched" in head:
        headers["OGC-NumberMatched"] = str(head["numberMatched"])
    return headers


def _chunks(head: dict[str, Any], lines: Iterator[str]) -> Iterator[bytes]:
    yield orjson.dumps(head)[:-1] + b',"features":['
    separator = ""
    while chunk := list(islice(lines, _FEATURES_A_CHUNK)):
        yield (separator + ",\n".join(chunk)).encode()
        separator = ",\n"
    yield b"]}"


class _Streamed(StreamingResponse):
    """A page on its way; its transaction ends with it, however it ends."""

    def __init__(self, chunks: Iterator[bytes], opened: ExitStack, *, headers: dict[str, str]) -> None:
        super().__init__(chunks, media_type=GEOJSON, headers=headers)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Shielded: a caller who hung up must not leave a connection behind.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._opened.close)
