"""Vector tiles (OGC API – Tiles 1, TileJSON 3): assets as points or clusters, areas with their counts.

Addresses that TileJSON gives out carry the version of the city (``v``), so that what they answer never changes and may
be kept for good; without it a tile is kept and asked about again, by its entity tag.
"""

from collections.abc import Iterable
from functools import lru_cache
from html import escape
from math import isfinite
from typing import Annotated, Any

import morecantile
import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from api import pages
from api.fresh import city_asked
from api.links import city_url, link
from api.negotiation import wants_html
from api.ogc import parameters
from api.ogc.documents import HTML, JSON
from api.requests import Store, today_in
from detection.errors import CallerError, UnknownName
from detection.taxonomy import ClassKind, shipped_taxonomy
from inventory.counting import OUTSIDE, count
from inventory.domain.tiles import DEEPEST_ZOOM, Tile, tile_of
from inventory.store import features, tiles
from inventory.store.database import Connection, Database
from inventory.store.features import CityOnPage
from inventory.store.tiles import TileWanted

router = APIRouter(tags=["tiles"])

MVT = "application/vnd.mapbox-vector-tile"
GRID = "WebMercatorQuad"
_GRID_URI = "http://www.opengis.net/def/tilematrixset/OGC/1.0/WebMercatorQuad"
_REL = "http://www.opengis.net/def/rel/ogc/1.0"
_LAYERS = {"assets": "Assets", "areas": "Areas"}
KEPT_FOR_GOOD = "public, max-age=31536000, immutable"
_ZOOM_OF_RANK = (0, 9, 12, 14)
"""Zoom from which on areas of each rank are shown, unless a level is asked for."""
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


@router.get("/cities/{city}/tileMatrixSets", responses=_DOCUMENT, response_class=JSONResponse)
def tile_matrix_sets(request: Request, store: Store, city: str) -> Response:
    """The grids of tiles: one, that of web maps."""
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city, alone=True)
    address = f"{city_url(request, shown.code)}/tileMatrixSets"
    sets = [{"id": GRID, "uri": _GRID_URI, "links": [link(f"{address}/{GRID}", "self", JSON, GRID)]}]
    return JSONResponse({"tileMatrixSets": sets, "links": [link(address, "self", JSON)]})


@router.get("/cities/{city}/tileMatrixSets/{grid}", responses=_DOCUMENT, response_class=JSONResponse)
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
    return _tilesets(request, store, city, _layer_named(collection))


@router.get("/cities/{city}/tiles/{grid}", responses=_DOCUMENT, response_class=JSONResponse)
def tileset(request: Request, store: Store, city: str, grid: str) -> Response:
    """The city's tiles in a grid."""
    return _tileset(request, store, city, grid, None)


@router.get(
    "/cities/{city}/collections/{collection}/tiles/{grid}", responses=_DOCUMENT, response_class=JSONResponse
)
def tileset_of_collection(request: Request, store: Store, city: str, collection: str, grid: str) -> Response:
    """A collection's tiles in a grid."""
    return _tileset(request, store, city, grid, _layer_named(collection))


@router.get("/cities/{city}/tiles/{grid}/tilejson", responses=_DOCUMENT, response_class=JSONResponse)
def tilejson(request: Request, store: Store, city: str, grid: str) -> Response:
    """TileJSON of the city's tiles."""
    return _tilejson(request, store, city, grid, None)


@router.get(
    "/cities/{city}/collections/{collection}/tiles/{grid}/tilejson",
    responses=_DOCUMENT,
    response_class=JSONResponse,
)
def tilejson_of_collection(request: Request, store: Store, city: str, collection: str, grid: str) -> Response:
    """TileJSON of a collection's tiles."""
    return _tilejson(request, store, city, grid, _layer_named(collection))


def _tilesets(request: Request, store: Database, city: str, layer: str | None) -> Response:
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
    address = _address(request, shown, layer)
    document = {
        "tilesets": [_described(request, shown, layer)],
        "links": [link(address, "self", JSON), link(f"{address}?f=html", "alternate", HTML)],
    }
    if wants_html(request):
        return pages.page(request, "tiles.html", city=shown, document=document, layer=layer)
    return JSONResponse(document)


def _tileset(request: Request, store: Database, city: str, grid: str, layer: str | None) -> Response:
    require_grid(grid)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
    return JSONResponse({**_described(request, shown, layer), "tileMatrixSet": _grid()})


def _described(request: Request, city: CityOnPage, layer: str | None) -> dict[str, Any]:
    """A tileset; also in the list it has all that the OGC's suite reads there."""
    address = f"{_address(request, city, layer)}/{GRID}"
    root = city_url(request, city.code)
    west, south, east, north = city.box
    return {
        "title": f"{_LAYERS[layer] if layer else 'Assets and areas'} of {city.name}",
        "dataType": "vector",
        "crs": "http://www.opengis.net/def/crs/EPSG/0/3857",
        "tileMatrixSetId": GRID,
        "tileMatrixSetURI": _GRID_URI,
        "tileMatrixSetLimits": [_limits(city, zoom) for zoom in range(DEEPEST_ZOOM + 1)],
        "boundingBox": {"lowerLeft": [west, south], "upperRight": [east, north]},
        "layers": [{"id": each, "title": _LAYERS[each], "dataType": "vector"} for each in _layers(layer)],
        "links": [
            link(address, "self", JSON, "This tileset"),
            {**link(f"{address}/{{tileMatrix}}/{{tileRow}}/{{tileCol}}", "item", MVT, "A tile"), "templated": True},
            link(f"{root}/tileMatrixSets/{GRID}", f"{_REL}/tiling-scheme", JSON, "The grid"),
            link(f"{address}/tilejson", "describedby", JSON, "TileJSON"),
            *([link(f"{root}/collections/{layer}", f"{_REL}/geodata", JSON, "The collection")] if layer else []),
        ],
    }  # fmt: skip


def _tilejson(request: Request, store: Database, city: str, grid: str, layer: str | None) -> Response:
    require_grid(grid)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        named = features.attributions(connection, shown.code)
    version = f"{shown.version}.{today_in(shown.time_zone)}"
    known = {"assets": _asset_fields(shown), "areas": {"code": "String", "name": "String", "level": "String"}}
    document = {
        "tilejson": "3.0.0",
        "name": f"{_LAYERS[layer] if layer else 'Assets and areas'} of {shown.name}",
        "attribution": attribution_html(said for _, said, _, _ in named),
        "scheme": "xyz",
        "tiles": [f"{_address(request, shown, layer)}/{GRID}/{{z}}/{{y}}/{{x}}?v={version}"],
        "minzoom": 0,
        "maxzoom": 18,
        "bounds": [round(edge, 6) for edge in shown.box],
        "vector_layers": [
            {"id": each, "fields": known[each], "minzoom": 0, "maxzoom": 18} for each in _layers(layer)
        ],
    }
    return JSONResponse(document)


def _asset_fields(city: CityOnPage) -> dict[str, str]:
    text, number, yes_no = "String", "Number", "Boolean"
    classes = _static(city.classes)
    return {
        "id": text, "class": text, "status": text, "verified": yes_no, "review": yes_no, "probability": number,
        "width_m": number, "height_m": number, "last_seen": text, "count": number,
        **({f"{name}_count": number for name in classes} if len(classes) > 1 else {}),
    }  # fmt: skip


# --- tiles ------------------------------------------------------------------------------------------------------


@router.get("/cities/{city}/tiles/{grid}/{zoom}/{row}/{column}", responses=_ANSWERS, response_class=Response)
def tile(
    request: Request, store: Store, city: str, grid: str, zoom: int, row: int, column: int,
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
    request: Request, store: Store, city: str, collection: str, grid: str, zoom: int, row: int, column: int,
    class_: _Classes = None, datetime: _Datetime = None, level: _Level = None, v: _Version = None,
) -> Response:  # fmt: skip
    """A tile of one collection."""
    layer = _layer_named(collection)
    return _tile(request, store, city, grid, Tile(zoom, column, row), layer, class_, datetime, level, v)


def _tile(
    request: Request, store: Database, city: str, grid: str, asked: Tile, layer: str | None,
    class_: str | None, datetime: str | None, level: str | None, version: str | None,
) -> Response:  # fmt: skip
    require_grid(grid)
    if request.query_params.get("f", "mvt") != "mvt":
        raise CallerError(f"f={request.query_params['f'][:32]} is no form of a tile", do="Use mvt.")
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        _require_within(shown, asked)
        today = today_in(shown.time_zone)
        span = parameters.read_span(datetime, shown.time_zone)
        if span is not None and (not span.single or span.end is None):
            raise CallerError("datetime: a tile is as of one date", do="Write datetime=2026-01-02.")
        end = span.end if span is not None else parameters.end_of_today(today, shown.time_zone).as_of
        assert end is not None
        content = b""
        if layer in (None, "assets"):
            content += tiles.assets_tile(
                connection,
                asked,
                TileWanted(
                    city_id=shown.id,
                    classes=_static(parameters.read_names(class_) or shown.classes),
                    as_of=end,
                    now=span is None,
                ),
            ).content
        named = _level(connection, shown, asked.zoom, level) if layer in (None, "areas") else None
        if named is not None:
            day = parameters.local_dates(span, shown.time_zone)[1] if span is not None else today
            content += tiles.areas_tile(
                connection, asked, shown.id, named, day or today, _told(store, shown, named, day or today)
            )
    kept = version is not None and version == f"{shown.version}.{today}"
    headers = {"Cache-Control": KEPT_FOR_GOOD} if kept else {}
    if not content:
        return Response(status_code=204, headers=headers)
    return Response(content, media_type=MVT, headers=headers)


def _told(store: Database, city: CityOnPage, level: str, day: Any) -> dict[str, str]:
    """What a tile tells of each area's counts; what nobody looked at is left out, never 0 (R13)."""
    told: dict[str, dict[str, Any]] = {}
    for row in count(store, city.code, level=level, as_of=day):
        if row.area is None or row.area == OUTSIDE or row.count is None:
            continue
        said = told.setdefault(row.area, {})
        said[f"{row.class_name}_count"] = row.count
        said[f"{row.class_name}_coverage"] = row.coverage
    return {code: orjson.dumps(said).decode() for code, said in told.items()}


def _level(connection: Connection, city: CityOnPage, zoom: int, asked: str | None) -> str | None:
    known = features.levels_of(connection, city.id)
    if asked is not None:
        if asked not in known:
            raise UnknownName(f"no level “{asked[:64]}”", do=f"Levels: {', '.join(known) or 'none'}.")
        return asked
    ranks = [rank for rank, first in enumerate(_ZOOM_OF_RANK) if zoom >= first]
    return known[min(ranks[-1], len(known) - 1)] if known else None


def _static(names: tuple[str, ...]) -> tuple[str, ...]:
    known = shipped_taxonomy().classes
    return tuple(name for name in names if name not in known or known[name].kind is ClassKind.STATIC)


def _layers(layer: str | None) -> list[str]:
    return list(_LAYERS) if layer is None else [layer]


def _layer_named(collection: str) -> str:
    if collection not in _LAYERS:
        raise UnknownName(
            f"“{collection[:64]}” has no tiles", do=f"Collections with tiles: {', '.join(_LAYERS)}."
        )
    return collection


def attribution_html(said: Iterable[str | None]) -> str:
    """Whom to name, each once, as TileJSON has it: maps put it into their pages as HTML, so it must be inert."""
    return escape("; ".join(dict.fromkeys(one for one in said if one)))


def require_grid(grid: str) -> None:
    """Raises:
    UnknownName: there is one grid, and this is another.
    """
    if grid != GRID:
        raise UnknownName(f"no grid of tiles is called “{grid[:64]}”", do=f"There is one: {GRID}.")


def _limits(city: CityOnPage, zoom: int) -> dict[str, Any]:
    west, south, east, north = city.box
    first, last = tile_of(west, north, zoom), tile_of(east, south, zoom)
    return {
        "tileMatrix": str(zoom),
        "minTileRow": first.row,
        "maxTileRow": last.row,
        "minTileCol": min(first.column, last.column),
        "maxTileCol": max(first.column, last.column),
    }


def _require_within(city: CityOnPage, asked: Tile) -> None:
    """Raises:
    UnknownName: the tile lies beyond the city's.
    """
    if 0 <= asked.zoom <= DEEPEST_ZOOM and all(map(isfinite, city.box)):
        limits = _limits(city, asked.zoom)
        if (
            limits["minTileRow"] <= asked.row <= limits["maxTileRow"]
            and limits["minTileCol"] <= asked.column <= limits["maxTileCol"]
        ):
            return
    raise UnknownName(
        f"no tile {asked.zoom}/{asked.row}/{asked.column} here", do="See the tileset’s tileMatrixSetLimits."
    )


def _address(request: Request, city: CityOnPage, layer: str | None) -> str:
    root = city_url(request, city.code)
    return f"{root}/tiles" if layer is None else f"{root}/collections/{layer}/tiles"
