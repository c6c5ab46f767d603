"""Counts of a city: by area and class, or in a polygon of the caller's; as of a date."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api import pages
from api.fresh import city_asked
from api.negotiation import wants_html
from api.ogc.formats import CSV
from api.ogc.parameters import read_date, read_names
from api.ogc.rendering import as_file
from api.requests import Installation, Store, read_body, today_in
from detection.errors import CallerError
from inventory.counting import count, unseen_because
from inventory.dates import days_from
from inventory.domain.tally import CountRow
from inventory.feature_files import BYTE_ORDER_MARK, csv_text
from inventory.grouping import DATES_MOST, By, grouped_counts
from inventory.polygons import read_polygon
from inventory.store import features
from inventory.store.features import CityOnPage

router = APIRouter(tags=["counts"])

_EXAMPLE = {
    "counts": [
        {
            "area": "530802",
            "name": "思茅区",
            "class": "tree",
            "count": 1284,
            "low": 1190.4,
            "high": 1377.6,
            "basis": "card:trees-aerial@1",
            "coverage": 0.97,
            "as_of": "2026-11-22",
            "oldest_look": "2025-03-01",
            "newest_look": "2026-10-14",
        }
    ]
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _EXAMPLE}, "text/html": {}, "text/csv": {}}}
}
_POLYGON_EXAMPLE = {
    "type": "Polygon",
    "coordinates": [[[100.96, 22.77], [100.98, 22.77], [100.98, 22.79], [100.96, 22.79], [100.96, 22.77]]],
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "A Polygon or MultiPolygon as Geometry, Feature, or FeatureCollection of one.",
        "content": {
            media_type: {"schema": {"type": "object"}, "example": _POLYGON_EXAMPLE}
            for media_type in ("application/geo+json", "application/json")
        },
    }
}

_Classes = Annotated[
    str | None, Query(alias="class", description="Names, with commas between.", examples=["tree"])
]
_Bom = Annotated[bool, Query(description="CSV: false for programs, without byte order mark.")]
_AsOf = Annotated[
    str | None, Query(description="A local date of the city, meaning its end.", examples=["2026-11-22"])
]


@router.get("/cities/{city}/counts", responses=_ANSWERS, response_class=JSONResponse)
def counts_by_area(
    request: Request,
    store: Store,
    city: str,
    area: Annotated[str | None, Query(description="Code of an area.", examples=["530802"])] = None,
    level: Annotated[str | None, Query(description="All areas of a level, and the ground outside.")] = None,
    class_: _Classes = None,
    as_of: Annotated[
        str | None,
        Query(
            description="A local date of the city, meaning its end; with group-by=date several, with commas between.",
            examples=["2026-11-22"],
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        Query(alias="group-by", description="Of level, area, class, date: what rows are told apart by.",
              examples=["level,class,date"]),
    ] = None,
    from_: Annotated[
        str | None, Query(alias="from", description="With group-by=date: the first of dates a step apart.")
    ] = None,
    to: Annotated[str | None, Query(description="The last of them there may be; today without it.")] = None,
    step: Annotated[str | None, Query(description="P1Y (without it), P3M, P1W, P10D.")] = None,
    bom: _Bom = True,
) -> Response:  # fmt: skip
    """Counts of the city, of one area, or of every area of a level. Null is *not surveyed*, never 0."""
    if area is not None and level is not None:
        raise CallerError("area and level exclude each other", do="Give one of them.")
    as_csv = _is_csv(request)
    as_page = not as_csv and wants_html(request)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city, alone=not as_page)
        levels = features.levels_of(connection, shown.id) if as_page or group_by else []
    if group_by is None and (from_ or to or step):
        raise CallerError(
            "dates a step apart are told apart by date", where="from", do="Add group-by=class,date."
        )
    if group_by is not None:
        if area is not None:
            raise CallerError("group-by: one area is not told apart further", do="Leave area out.")
        asked = _by(group_by)
        found = grouped_counts(
            store,
            city,
            asked,
            classes=_names(class_),
            levels=read_names(level) if level else levels,
            dates=_dates(as_of, from_, to, step, today_in(shown.time_zone)),
        )
        return _csv(shown, found, bom) if as_csv else JSONResponse({"counts": found})
    rows = count(store, city, classes=_names(class_), area=area, level=level, as_of=_day(as_of))
    if as_page:
        return pages.page(request, "counts.html", city=shown, rows=rows, levels=levels, level=level)
    return _csv(shown, _document(rows)["counts"], bom) if as_csv else JSONResponse(_document(rows))


@router.post("/cities/{city}/counts", responses=_ANSWERS, response_class=JSONResponse, openapi_extra=_BODY)
async def counts_in_polygon(
    request: Request,
    store: Store,
    settings: Installation,
    city: str,
    class_: _Classes = None,
    as_of: _AsOf = None,
    bom: _Bom = True,
) -> Response:
    """Counts in a polygon of the caller's, its border included; over the 180th meridian too, however it is drawn."""
    as_csv = _is_csv(request)
    if request.query_params.get("f", "json") not in ("json", "csv"):
        raise CallerError(f"f={request.query_params['f'][:32]} is no form of this", do="Use json or csv.")
    body = await read_body(request, settings.body_limit_bytes)

    def counted() -> dict[str, Any] | Response:
        polygon = read_polygon(body, vertex_limit=settings.vertex_limit)
        rows = count(store, city, classes=_names(class_), polygon=polygon, as_of=_day(as_of))
        if as_csv:
            with store.transaction(read_only=True) as connection:
                shown = features.city_on_page(connection, city, alone=True)
            return _csv(shown, _document(rows)["counts"], bom)
        hint = unseen_because(store, city, rows, polygon)
        return _document(rows) if hint is None else {**_document(rows), "hint": hint}

    answer = await run_in_threadpool(counted)
    return answer if isinstance(answer, Response) else JSONResponse(answer)


def _by(value: str) -> list[By]:
    try:
        return [By(part.strip()) for part in value.split(",")]
    except ValueError:
        raise CallerError(f"group-by={value[:64]} names something else", do=f"Of: {', '.join(By)}.") from None


def _dates(
    as_of: str | None, first: str | None, last: str | None, step: str | None, today: date
) -> Sequence[date | None]:
    if first is None:
        for name, value in (("to", last), ("step", step)):
            if value is not None:
                raise CallerError(f"{name} needs “from”", where=name, do="Add from=2020-12-31, or use as_of.")
        return [None] if as_of is None else [read_date(one, "as_of") for one in as_of.split(",")]
    if as_of is not None:
        raise CallerError("as_of and from exclude each other", where="as_of", do="Give one of them.")
    return days_from(
        read_date(first, "from"),
        today if last is None else read_date(last, "to"),
        step or "P1Y",
        most=DATES_MOST,
    )


def _is_csv(request: Request) -> bool:
    # Looked for first: other forms are refused, or told apart, where they are read.
    return request.query_params.get("f") == "csv"


def _csv(city: CityOnPage, rows: list[dict[str, Any]], spreadsheet: bool) -> Response:
    """What nobody looked at is an empty cell; for spreadsheets with a byte order mark, and no formulas."""
    names = list(rows[0]) if rows else ["area", "class", "count"]
    lines = csv_text([names, *([row[name] for name in names] for row in rows)], spreadsheet=spreadsheet)
    return Response(
        ((BYTE_ORDER_MARK if spreadsheet else "") + lines).encode(),
        media_type=CSV.content_type,
        headers=as_file(city, "counts", CSV),
    )


def _names(value: str | None) -> Sequence[str] | None:
    return None if value is None else read_names(value)


def _day(value: str | None) -> date | None:
    return None if value is None else read_date(value, "as_of")


def _document(rows: list[CountRow]) -> dict[str, Any]:
    return {"counts": [row.as_json() for row in rows]}
