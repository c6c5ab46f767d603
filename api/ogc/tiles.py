"""Vector tiles (OGC API – Tiles 1, TileJSON 3): assets as points or clusters, areas with their counts.

Addresses that TileJSON gives out carry the version of the city (``v``), so that what they answer never changes and may
be kept for good; without it a tile is kept and asked about again, by its entity tag.
"""

from collections.abc import Iterable
from functools import lru_cache
from html import escape
from typing import Annotated, Any

import morecantile
import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from api import pages
from api.fresh import city_asked
from api.links import city_url, link, with_query
from api.negotiation import wants_html
from api.ogc import parameters
from api.ogc.documents import HTML, JSON
from api.requests import Store, WholeNumber, json_alone, today_in
from detection.errors import CallerError, UnknownName
from inventory.domain.tiles import DEEPEST_ZOOM, Tile
from inventory.store.database import Connection, Database
from inventory.store.features import CityOnPage
from inventory.tiling import FIRST_ZOOM, LAST_ZOOM, TiledLayer, TilesAsked, Tiling, attributions

router = APIRouter(tags=["tiles"])
_JSON_ALONE = [Depends(json_alone)]

MVT = "application/vnd.mapbox-vector-tile"
GRID = "WebMercatorQuad"
_GRID_URI = "http://www.opengis.net/def/tilematrixset/OGC/1.0/WebMercatorQuad"
_REL = "http://www.opengis.net/def/rel/ogc/1.0"
_TITLES = {
    "assets": "Assets: points, or clusters with their count",
    "areas": "Areas with their counts",
    "area_labels": "A point of each area with its counts",
}
KEPT_FOR_GOOD = "public, max-age=31536000, immutable"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {MVT: {"example": "(binary)"}}},
    204: {"description": "Nothing is there."},
}
_EXAMPLE: dict[str, Any] = {"tilesets": [], "links": []}
_DOCUMENT: dict[int | str, dict[str, Any]] = {200: {"content": {JSON: {"example": _EXAMPLE}, HTML: {}}}}
_Classes = Annotated[str | None, Query(alias="class", description="Names, with commas between.")]
_Datetime = Annotated[
    str | None, Query(description="As of the end of this local day.", examples=["2026-01-02"])
]
_Level = Annotated[str | None, Query(description="Areas: their level; by zoom without it.")]
_Version = Annotated[str | None, Query(description="From TileJSON: the answer may be kept for good.")]


@lru_cache(1)
def _grid() -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(morecantile.tms.get(GRID).model_dump_json(exclude_none=True))
    document["tileMatrices"] = [one for one in document["tileMatrices"] if int(one["id"]) <= DEEPEST_ZOOM]
    return document


# --- the grid -------------------------------------------------------------------------------------------------


@router.get(
    "/cities/{city}/tileMatrixSets",
    responses=_DOCUMENT,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def tile_matrix_sets(request: Request, store: Store, city: str) -> Response:
    """The grids of tiles: one, that of web maps."""
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city, alone=True)
    address = f"{city_url(request, shown.code)}/tileMatrixSets"
    sets = [{"id": GRID, "uri": _GRID_URI, "links": [link(f"{address}/{GRID}", "self", JSON, GRID)]}]
    return JSONResponse({"tileMatrixSets": sets, "links": [link(address, "self", JSON)]})


@router.get(
    "/cities/{city}/tileMatrixSets/{grid}",
    responses=_DOCUMENT,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def tile_matrix_set(request: Request, store: Store, city: str, grid: str) -> Response:
    """The grid of web maps, zoom by zoom."""
    require_grid(grid)
    with store.transaction(read_only=True) as connection:
        city_asked(request, connection, city, alone=True)
    return JSONResponse(_grid())


# --- tilesets -------------------------------------------------------------------------------------------------


@router.get("/cities/{city}/tiles", responses=_DOCUMENT, response_class=JSONResponse)
def tilesets(request: Request, store: Store, city: str) -> Response:
    """The city's tilesets: assets and areas together."""
    return _tilesets(request, store, city, None)


@router.get("/cities/{city}/collections/{collection}/tiles", responses=_DOCUMENT, response_class=JSONResponse)
def tilesets_of_collection(request: Request, store: Store, city: str, collection: str) -> Response:
    """The tilesets of a collection."""
    return _tilesets(request, store, city, collection)


@router.get(
    "/cities/{city}/tiles/{grid}",
    responses=_DOCUMENT,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def tileset(request: Request, store: Store, city: str, grid: str) -> Response:
    """The city's tiles in a grid."""
    return _tileset(request, store, city, grid, None)


@router.get(
    "/cities/{city}/collections/{collection}/tiles/{grid}",
    responses=_DOCUMENT,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def tileset_of_collection(request: Request, store: Store, city: str, collection: str, grid: str) -> Response:
    """A collection's tiles in a grid."""
    return _tileset(request, store, city, grid, collection)


@router.get(
    "/cities/{city}/tiles/{grid}/tilejson",
    responses=_DOCUMENT,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def tilejson(
    request: Request, store: Store, city: str, grid: str,
    class_: _Classes = None, datetime: _Datetime = None, level: _Level = None,
) -> Response:  # fmt: skip
    """TileJSON of the city's tiles; what is asked for here is in the addresses of its tiles."""
    return _tilejson(request, store, city, grid, None, class_, datetime, level)


@router.get(
    "/cities/{city}/collections/{collection}/tiles/{grid}/tilejson",
    responses=_DOCUMENT,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def tilejson_of_collection(
    request: Request, store: Store, city: str, collection: str, grid: str,
    class_: _Classes = None, datetime: _Datetime = None, level: _Level = None,
) -> Response:  # fmt: skip
    """TileJSON of a collection's tiles; what is asked for here is in the addresses of its tiles."""
    return _tilejson(request, store, city, grid, collection, class_, datetime, level)


def _tilesets(request: Request, store: Database, city: str, collection: str | None) -> Response:
    layers = _layers(collection)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        described = _described(request, shown, _tiling(connection, shown, layers), collection)
    address = _address(request, shown, collection)
    document = {
        "tilesets": [described],
        "links": [link(address, "self", JSON), link(f"{address}?f=html", "alternate", HTML)],
    }
    if wants_html(request):
        return pages.page(
            request,
            "tiles.html",
            city=shown,
            document=document,
            layer=collection,
            first=FIRST_ZOOM,
            last=LAST_ZOOM,
        )
    return JSONResponse(document)


def _tileset(request: Request, store: Database, city: str, grid: str, collection: str | None) -> Response:
    require_grid(grid)
    layers = _layers(collection)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        described = _described(request, shown, _tiling(connection, shown, layers), collection)
    return JSONResponse({**described, "tileMatrixSet": _grid()})


def _described(request: Request, city: CityOnPage, tiling: Tiling, collection: str | None) -> dict[str, Any]:
    """A tileset; also in the list it has all that the OGC's suite reads there."""
    address = f"{_address(request, city, collection)}/{GRID}"
    root = city_url(request, city.code)
    west, south, east, north = tiling.box
    return {
        "title": _title(city, collection),
        "dataType": "vector",
        "crs": "http://www.opengis.net/def/crs/EPSG/0/3857",
        "tileMatrixSetId": GRID,
        "tileMatrixSetURI": _GRID_URI,
        "tileMatrixSetLimits": [_limits(tiling, zoom) for zoom in range(DEEPEST_ZOOM + 1)],
        "boundingBox": {"lowerLeft": [west, south], "upperRight": [east, north]},
        "layers": [{"id": each, "title": _TITLES[each], "dataType": "vector"} for each in tiling.fields()],
        "links": [
            link(address, "self", JSON, "This tileset"),
            {**link(f"{address}/{{tileMatrix}}/{{tileRow}}/{{tileCol}}", "item", MVT, "A tile"), "templated": True},
            link(f"{root}/tileMatrixSets/{GRID}", f"{_REL}/tiling-scheme", JSON, "The grid"),
            link(f"{address}/tilejson", "describedby", JSON, "TileJSON"),
            *([link(f"{root}/collections/{collection}", f"{_REL}/geodata", JSON, "The collection")]
              if collection else []),
        ],
    }  # fmt: skip


def _limits(tiling: Tiling, zoom: int) -> dict[str, Any]:
    limits = tiling.limits(zoom)
    return {
        "tileMatrix": str(zoom),
        "minTileRow": limits.first_row,
        "maxTileRow": limits.last_row,
        "minTileCol": limits.first_column,
        "maxTileCol": limits.last_column,
    }


def _tilejson(
    request: Request, store: Database, city: str, grid: str, collection: str | None,
    class_: str | None, datetime: str | None, level: str | None,
) -> Response:  # fmt: skip
    require_grid(grid)
    layers = _layers(collection)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        tiling = _tiling(connection, shown, layers, class_=class_, datetime=datetime, level=level)
        said = attributions(connection, shown.code)
        bounds, fields = tiling.box, tiling.fields()
    template = f"{_address(request, shown, collection)}/{GRID}/{{z}}/{{y}}/{{x}}"
    asked = {"class": class_, "datetime": datetime, "level": level, "v": _version(shown)}
    document = {
        "tilejson": "3.0.0",
        "name": _title(shown, collection),
        "attribution": attribution_html(said),
        "scheme": "xyz",
        "tiles": [
            with_query(template, [(name, value) for name, value in asked.items() if value is not None])
        ],
        "minzoom": FIRST_ZOOM,
        "maxzoom": LAST_ZOOM,
        "bounds": [round(edge, 7) for edge in bounds],
        "vector_layers": [
            {
                "id": each,
                "description": _TITLES[each],
                "fields": known,
                "minzoom": FIRST_ZOOM,
                "maxzoom": LAST_ZOOM,
            }
            for each, known in fields.items()
        ],
    }
    return JSONResponse(document)


def _title(city: CityOnPage, collection: str | None) -> str:
    return f"{collection.capitalize() if collection else 'Assets and areas'} of {city.name}"


# --- tiles ------------------------------------------------------------------------------------------------------


@router.get("/cities/{city}/tiles/{grid}/{zoom}/{row}/{column}", responses=_ANSWERS, response_class=Response)
def tile(
    request: Request, store: Store, city: str, grid: str,
    zoom: WholeNumber, row: WholeNumber, column: WholeNumber,
    class_: _Classes = None, datetime: _Datetime = None, level: _Level = None, v: _Version = None,
) -> Response:  # fmt: skip
    """A tile with the layers assets and areas."""
    return _tile(request, store, city, grid, Tile(zoom, column, row), None, class_, datetime, level, v)


@router.get(
    "/cities/{city}/collections/{collection}/tiles/{grid}/{zoom}/{row}/{column}",
    responses=_ANSWERS,
    response_class=Response,
)
def tile_of_collection(
    request: Request, store: Store, city: str, collection: str, grid: str,
    zoom: WholeNumber, row: WholeNumber, column: WholeNumber,
    class_: _Classes = None, datetime: _Datetime = None, level: _Level = None, v: _Version = None,
) -> Response:  # fmt: skip
    """A tile of one collection."""
    return _tile(request, store, city, grid, Tile(zoom, column, row), collection, class_, datetime, level, v)


def _tile(
    request: Request, store: Database, city: str, grid: str, asked: Tile, collection: str | None,
    class_: str | None, datetime: str | None, level: str | None, version: str | None,
) -> Response:  # fmt: skip
    require_grid(grid)
    layers = _layers(collection)
    if request.query_params.get("f", "mvt") != "mvt":
        raise CallerError(f"f={request.query_params['f'][:32]} is no form of a tile", do="Use mvt.")
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        tiling = _tiling(connection, shown, layers, class_=class_, datetime=datetime, level=level)
        content = tiling.tile(asked)
    headers = {"Cache-Control": KEPT_FOR_GOOD} if version == _version(shown) else {}
    if not content:
        # Kept like any other: most tiles of a wide city are empty.
        kept = {"ETag": request.state.etag, "Cache-Control": "private, no-cache", **headers}
        return Response(status_code=204, headers=kept)
    return Response(content, media_type=MVT, headers=headers)


def _tiling(
    connection: Connection, city: CityOnPage, layers: tuple[TiledLayer, ...], *,
    class_: str | None = None, datetime: str | None = None, level: str | None = None,
) -> Tiling:  # fmt: skip
    span = parameters.read_span(datetime, city.time_zone)
    if span is not None and (not span.single or span.end is None):
        raise CallerError("datetime: a tile is as of one date", do="Write datetime=2026-01-02.")
    today = today_in(city.time_zone)
    as_of, day = parameters.end_of_today(today, city.time_zone).as_of, today
    if span is not None:
        as_of, day = span.end, parameters.local_dates(span, city.time_zone)[1] or today
    assert as_of is not None
    asked = TilesAsked(
        layers=layers,
        classes=parameters.read_names(class_),
        level=level,
        as_of=as_of,
        day=day,
        now=span is None,
    )
    return Tiling(connection, city, asked)


def _version(city: CityOnPage) -> str:
    """What addresses of tiles carry: another one when anything of the city changes, or its day, whose end is now."""
    return f"{city.version}.{today_in(city.time_zone)}"


def _layers(collection: str | None) -> tuple[TiledLayer, ...]:
    if collection is None:
        return tuple(TiledLayer)
    if collection not in list(TiledLayer):
        raise UnknownName(
            f"“{collection[:64]}” has no tiles", do=f"Collections with tiles: {', '.join(TiledLayer)}."
        )
    return (TiledLayer(collection),)


def attribution_html(said: Iterable[str | None]) -> str:
    """Whom to name, each once, as TileJSON has it: maps put it into their pages as HTML, so it must be inert."""
    return escape("; ".join(dict.fromkeys(one for one in said if one)))


def require_grid(grid: str) -> None:
    """Raises:
    UnknownName: there is one grid, and this is another.
    """
    if grid != GRID:
        raise UnknownName(f"no grid of tiles is called “{grid[:64]}”", do=f"There is one: {GRID}.")


def _address(request: Request, city: CityOnPage, layer: str | None) -> str:
    root = city_url(request, city.code)
    return f"{root}/tiles" if layer is None else f"{root}/collections/{layer}/tiles"
