"""Raster tiles of the imagery that was counted: scene by scene, and of the city as of a date."""

from typing import Annotated, Any

import shapely
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from api.fresh import city_asked
from api.links import city_url
from api.ogc import parameters
from api.ogc.tiles import GRID, KEPT_FOR_GOOD, require_grid
from api.requests import Store, today_in
from detection.errors import CallerError, UnknownName
from detection.imagery.map_tiles import SIZES_PX, Picture
from inventory.domain.tiles import Tile
from inventory.showing import city_tile, scene_preview, scene_tile, scenes_in
from inventory.store import features
from inventory.store.catalogue import get_scene
from inventory.store.features import CityOnPage

router = APIRouter(tags=["imagery"])

_DEEPEST, _FIRST_OF_CITY = 22, 10
_FORMS = {"png": ("PNG", "image/png"), "webp": ("WEBP", "image/webp"), "jpeg": ("JPEG", "image/jpeg")}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {media_type: {"example": "(binary)"} for _, media_type in _FORMS.values()}},
    204: {"description": "No imagery is there."},
}
_TILEJSON: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"tilejson": "3.0.0", "tiles": []}}}}
}
_Side = Annotated[int, Query(alias="tile-size", description="Side in pixels: 256 or 512.")]
_Version = Annotated[str | None, Query(description="From TileJSON: the answer may be kept for good.")]


@router.get(
    "/cities/{city}/scenes/{scene}/tiles/{grid}/tilejson", responses=_TILEJSON, response_class=JSONResponse
)
def scene_tilejson(request: Request, store: Store, city: str, scene: str, grid: str) -> Response:
    """TileJSON of a scene."""
    require_grid(grid)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        found = get_scene(connection, shown, scene)
    west, south, east, north = shapely.bounds(found.footprint).tolist()
    address = f"{city_url(request, shown.code)}/scenes/{scene}/tiles/{GRID}"
    return JSONResponse(
        _document(shown, address, f"Scene {scene}", (west, south, east, north), found.attribution or "", 0)
    )


@router.get("/cities/{city}/imagery/tiles/{grid}/tilejson", responses=_TILEJSON, response_class=JSONResponse)
def city_tilejson(request: Request, store: Store, city: str, grid: str) -> Response:
    """TileJSON of the city's imagery, the newest on top."""
    require_grid(grid)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        named = features.attributions(connection, shown.code)
    told = "; ".join(dict.fromkeys(said for _, said, _, _ in named if said))
    address = f"{city_url(request, shown.code)}/imagery/tiles/{GRID}"
    return JSONResponse(
        _document(shown, address, f"Imagery of {shown.name}", shown.box, told, _FIRST_OF_CITY)
    )


def _document(
    city: CityOnPage,
    address: str,
    name: str,
    bounds: tuple[float, float, float, float],
    attribution: str,
    first: int,
) -> dict[str, Any]:
    return {
        "tilejson": "3.0.0",
        "name": name,
        "attribution": attribution,
        "scheme": "xyz",
        "tiles": [f"{address}/{{z}}/{{y}}/{{x}}?v={_version(city)}"],
        "minzoom": first,
        "maxzoom": _DEEPEST,
        "bounds": [round(edge, 6) for edge in bounds],
    }


@router.get(
    "/cities/{city}/scenes/{scene}/tiles/{grid}/{zoom}/{row}/{column}",
    responses=_ANSWERS,
    response_class=Response,
)
def tile_of_scene(
    request: Request, store: Store, city: str, scene: str, grid: str, zoom: int, row: int, column: int,
    side_px: _Side = 256, v: _Version = None,
) -> Response:  # fmt: skip
    """A scene in a tile; what was not surveyed is transparent."""
    tile, form = _asked(request, grid, zoom, row, column, side_px)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        found = get_scene(connection, shown, scene)
    return _answer(scene_tile(found, tile, side_px), form, kept=v == _version(shown))


@router.get("/cities/{city}/scenes/{scene}/preview", responses=_ANSWERS, response_class=Response)
def preview(request: Request, store: Store, city: str, scene: str) -> Response:
    """A scene as a small picture."""
    form = _form(request)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        found = get_scene(connection, shown, scene)
    return _answer(scene_preview(found), form, kept=False)


@router.get(
    "/cities/{city}/imagery/tiles/{grid}/{zoom}/{row}/{column}", responses=_ANSWERS, response_class=Response
)
def tile_of_city(
    request: Request, store: Store, city: str, grid: str, zoom: int, row: int, column: int,
    side_px: _Side = 256,
    datetime: Annotated[str | None, Query(description="As of the end of this local day.")] = None,
    v: _Version = None,
) -> Response:  # fmt: skip
    """The city's imagery in a tile, the newest on top."""
    tile, form = _asked(request, grid, zoom, row, column, side_px)
    if zoom < _FIRST_OF_CITY:
        raise UnknownName(f"imagery begins with zoom {_FIRST_OF_CITY}", do="Ask for a deeper tile.")
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        span = parameters.read_span(datetime, shown.time_zone)
        found = scenes_in(connection, shown, tile, None if span is None else span.end)
    return _answer(city_tile(found, tile, side_px), form, kept=v == _version(shown))


def _asked(
    request: Request, grid: str, zoom: int, row: int, column: int, side_px: int
) -> tuple[Tile, tuple[str, str]]:
    require_grid(grid)
    if side_px not in SIZES_PX:
        raise CallerError(f"tile-size={side_px} is no size of a tile", do="Use 256 or 512.")
    if not (0 <= zoom <= _DEEPEST and 0 <= row < 2**zoom and 0 <= column < 2**zoom):
        raise UnknownName(f"no tile {zoom}/{row}/{column} here", do=f"Zooms 0 to {_DEEPEST}.")
    return Tile(zoom, column, row), _form(request)


def _form(request: Request) -> tuple[str, str]:
    named = request.query_params.get("f")
    if named is None:
        accepted = request.headers.get("accept", "")
        named = "webp" if "image/webp" in accepted else "png"
    if named not in _FORMS:
        raise CallerError(f"f={named[:32]} is no form of a picture", do=f"Use one of {', '.join(_FORMS)}.")
    return _FORMS[named]


def _answer(picture: Picture | None, form: tuple[str, str], *, kept: bool) -> Response:
    headers = {"Cache-Control": KEPT_FOR_GOOD} if kept else {}
    if picture is None or not picture.mask.any():
        return Response(status_code=204, headers=headers)
    return Response(picture.encoded(form[0]), media_type=form[1], headers=headers)


def _version(city: CityOnPage) -> str:
    return f"{city.version}.{today_in(city.time_zone)}"
