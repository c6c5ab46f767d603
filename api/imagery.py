"""Raster tiles of the imagery that was counted: scene by scene, and of the city as of a date.

Like vector tiles they are kept for good by the addresses that TileJSON gives out, and asked about again otherwise.
"""

from typing import Annotated, Any

import shapely
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from api.fresh import city_asked
from api.links import city_url, with_query
from api.negotiation import preferred
from api.ogc import parameters
from api.ogc.tiles import GRID, KEPT_FOR_GOOD, attribution_html, require_grid
from api.requests import Store, WholeNumber, json_alone, today_in
from detection.errors import CallerError, UnknownName
from detection.imagery.map_tiles import SIDES_PX, Picture
from detection.taxonomy import shipped_taxonomy
from inventory.domain.tiles import DEEPEST_ZOOM, Tile
from inventory.showing import city_tile, deepest_zoom, scene_preview, scene_tile, scenes_in, zooms_of
from inventory.store.catalogue import all_scenes, get_scene
from inventory.store.features import CityOnPage
from inventory.tiling import attributions, named

router = APIRouter(tags=["imagery"])
_JSON_ALONE = [Depends(json_alone)]

FIRST_ZOOM_OF_CITY = 10
"""From farther away a city is a speck, and each of its scenes would have to be opened for it."""
_FORMS = {"png": ("PNG", "image/png"), "webp": ("WEBP", "image/webp"), "jpeg": ("JPEG", "image/jpeg")}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {media_type: {"example": "(binary)"} for _, media_type in _FORMS.values()}},
    204: {"description": "No imagery is there."},
}
_TILEJSON: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"tilejson": "3.0.0", "tiles": []}}}}
}
_Side = Annotated[WholeNumber, Query(alias="tile-size", description="Side in pixels: 256 or 512.")]
_Version = Annotated[str | None, Query(description="From TileJSON: the answer may be kept for good.")]
_Datetime = Annotated[
    str | None, Query(description="As of the end of this local day.", examples=["2026-01-02"])
]


# --- TileJSON ---------------------------------------------------------------------------------------------------


@router.get(
    "/cities/{city}/scenes/{scene}/tiles/{grid}/tilejson",
    responses=_TILEJSON,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def scene_tilejson(
    request: Request, store: Store, city: str, scene: str, grid: str, side_px: _Side = 256
) -> Response:
    """TileJSON of a scene."""
    require_grid(grid)
    _require_side(side_px)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        found = get_scene(connection, shown, scene)
    return _tilejson(
        shown,
        f"{city_url(request, shown.code)}/scenes/{found.public_id}/tiles/{GRID}",
        f"Scene {found.public_id}",
        {},
        side_px,
        bounds=shapely.bounds(found.footprint).tolist(),
        attribution=attribution_html([named(found.attribution, found.licence)]),
        zooms=zooms_of(found),
    )


@router.get(
    "/cities/{city}/imagery/tiles/{grid}/tilejson",
    responses=_TILEJSON,
    response_class=JSONResponse,
    dependencies=_JSON_ALONE,
)
def city_tilejson(
    request: Request, store: Store, city: str, grid: str, side_px: _Side = 256, datetime: _Datetime = None
) -> Response:
    """TileJSON of the city's imagery, the newest on top."""
    require_grid(grid)
    _require_side(side_px)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        _read_date(datetime, shown)
        said = attributions(connection, shown.code)
        scenes = all_scenes(connection, shown)
    return _tilejson(
        shown,
        f"{city_url(request, shown.code)}/imagery/tiles/{GRID}",
        f"Imagery of {shown.name}",
        {} if datetime is None else {"datetime": datetime},
        side_px,
        bounds=list(scenes.box or shown.box),
        attribution=attribution_html(said),
        zooms=(FIRST_ZOOM_OF_CITY, max(FIRST_ZOOM_OF_CITY, deepest_zoom(scenes))),
    )


def _tilejson(
    city: CityOnPage,
    address: str,
    name: str,
    asked: dict[str, str],
    side_px: int,
    *,
    bounds: list[float],
    attribution: str,
    zooms: tuple[int, int],
) -> Response:
    """With a side of 512 pixels a tile shows as much at a zoom less."""
    further = 1 if side_px == max(SIDES_PX) else 0
    query = {**asked, **({"tile-size": str(side_px)} if further else {}), "v": _version(city)}
    return JSONResponse(
        {
            "tilejson": "3.0.0",
            "name": name,
            "attribution": attribution,
            "scheme": "xyz",
            "tiles": [with_query(f"{address}/{{z}}/{{y}}/{{x}}", list(query.items()))],
            "minzoom": max(0, zooms[0]),
            "maxzoom": max(zooms[0], zooms[1] - further),
            "bounds": [round(edge, 6) for edge in bounds],
        }
    )


# --- pictures ---------------------------------------------------------------------------------------------------


@router.get(
    "/cities/{city}/scenes/{scene}/tiles/{grid}/{zoom}/{row}/{column}",
    responses=_ANSWERS,
    response_class=Response,
)
def tile_of_scene(
    request: Request, store: Store, city: str, scene: str, grid: str,
    zoom: WholeNumber, row: WholeNumber, column: WholeNumber,
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
    request: Request, store: Store, city: str, grid: str,
    zoom: WholeNumber, row: WholeNumber, column: WholeNumber,
    side_px: _Side = 256, datetime: _Datetime = None, v: _Version = None,
) -> Response:  # fmt: skip
    """The city's imagery in a tile: the newest adequate scene on top."""
    tile, form = _asked(request, grid, zoom, row, column, side_px)
    if zoom < FIRST_ZOOM_OF_CITY:
        raise UnknownName(f"imagery begins with zoom {FIRST_ZOOM_OF_CITY}", do="Ask for a deeper tile.")
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
        until = _read_date(datetime, shown)
        found = scenes_in(connection, shown, tile, until, taxonomy=shipped_taxonomy())
    made = city_tile(found, tile, side_px)
    if not made.is_whole:
        # What lacks a scene now may have it in a moment, without a change of the city: it must not be kept.
        request.state.etag = None
    return _answer(made.picture, form, kept=made.is_whole and v == _version(shown))


def _read_date(datetime: str | None, city: CityOnPage) -> Any:
    """The instant up to which imagery is shown; None: all there is."""
    span = parameters.read_span(datetime, city.time_zone)
    if span is not None and not span.single:
        raise CallerError("datetime: imagery is as of one date", do="Write datetime=2026-01-02.")
    return None if span is None else span.end


def _asked(
    request: Request, grid: str, zoom: int, row: int, column: int, side_px: int
) -> tuple[Tile, tuple[str, str]]:
    require_grid(grid)
    _require_side(side_px)
    if not (0 <= zoom <= DEEPEST_ZOOM and 0 <= row < 2**zoom and 0 <= column < 2**zoom):
        raise UnknownName(f"no tile {zoom}/{row}/{column} here", do=f"Zooms 0 to {DEEPEST_ZOOM}.")
    return Tile(zoom, column, row), _form(request)


def _require_side(side_px: int) -> None:
    if side_px not in SIDES_PX:
        raise CallerError(f"tile-size={side_px} is no size of a tile", do="Use 256 or 512.")


def _form(request: Request) -> tuple[str, str]:
    named = request.query_params.get("f")
    if named is None:
        kinds = {media_type: name for name, (_, media_type) in _FORMS.items()}
        named = preferred(request.headers.get("accept", ""), kinds, "png")
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
