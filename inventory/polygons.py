"""A polygon drawn by a user, checked before any library gets it.

JSON is limited in size, depth and length of numbers before it is parsed; coordinates in number, kind and
range before they become a geometry; the geometry's validity is tested outside the database, because GEOS cannot
be interrupted there (a self-intersecting ring once took a whole cluster down), and large ones in a process
of their own that may be killed. Nothing is repaired: what a polygon means is its author's to say.
"""

import json
import re
import subprocess
import sys
import threading
from itertools import pairwise
from math import isfinite
from typing import Any, NoReturn

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from inventory.errors import (
    CoordinateNotFinite,
    CoordinateOutOfRange,
    CrossesAntimeridian,
    JsonTooDeep,
    JsonUnusable,
    NumberTooLong,
    PolygonDegenerate,
    PolygonTooIntricate,
    PolygonTooLarge,
    PolygonUnusable,
    TooManyVertices,
    UnsupportedGeometry,
)

SIZE_LIMIT_BYTES = 8 * 1024**2
VERTEX_LIMIT = 100_000
RING_LIMIT = 10_000

_DEPTH_LIMIT = 32
# One for each position, ring and polygon, and as many again for other members: parsing takes no longer.
_BRACKET_LIMIT = 2 * (VERTEX_LIMIT + 2 * RING_LIMIT)
# Doubles have 17 digits that matter; exact decimal expansions of one run to some fifty.
_DIGITS = 100
# Below a tenth of a millimetre (in degrees) a polygon has no inside that a position could lie in.
_LEAST_WIDTH_DEG = 1e-9
# Testing so many vertices takes at most some 0.2 s, however they cross; more are tested by a child.
_VERTICES_IN_PROCESS = 4_000
_CHECK_LIMIT_S = 10.0
_CHILDREN = threading.BoundedSemaphore(2)

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (_DIGITS + 1))
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PLACE = re.compile(r"(?P<fault>[^\[]+)\[(?P<place>[^\]]+)\]")
_LON_LAT_NAMES = ("CRS84", "EPSG::4326", "EPSG:4326")

Ring = list[tuple[float, float]]


def read_polygon(data: bytes, *, vertex_limit: int = VERTEX_LIMIT) -> Polygon | MultiPolygon:
    """The polygon in GeoJSON bytes: a Geometry, a Feature, or a FeatureCollection of one.

    Args:
        data: UTF-8; positions are longitude, latitude in degrees; heights are read and dropped.
        vertex_limit: positions of all rings together.

    Returns:
        A valid polygon with an inside, EPSG:4326.

    Raises:
        PolygonTooLarge, JsonUnusable, PolygonUnusable: each says what is wrong and where.
    """
    geometry = _geometry_of(_parsed(data))
    polygons = _polygons_of(geometry)
    _require_few(polygons, vertex_limit)
    parts = [[_ring(ring, f"polygon {i}, ring {j}") for j, ring in enumerate(rings)]
             for i, rings in enumerate(polygons)]  # fmt: skip
    shapes = [Polygon(rings[0], rings[1:]) for rings in parts]
    made: Polygon | MultiPolygon = shapes[0] if geometry["type"] == "Polygon" else MultiPolygon(shapes)
    _require_valid(made)
    _require_inside(shapes)
    return made


def _parsed(data: bytes) -> Any:
    if len(data) > SIZE_LIMIT_BYTES:
        raise PolygonTooLarge(
            f"{len(data):,} bytes are more than {SIZE_LIMIT_BYTES:,}", do="Simplify the polygon."
        )
    bare = _STRING.sub(b'""', data)
    if _LONG_NUMBER.search(bare):
        raise NumberTooLong(f"a number has more than {_DIGITS} digits", do="Round the coordinates.")
    brackets = np.frombuffer(bare.translate(None, _NOT_BRACKETS), dtype=np.uint8)
    opened = (brackets == ord("[")) | (brackets == ord("{"))
    if int(opened.sum()) > _BRACKET_LIMIT:
        raise TooManyVertices(
            "more lists than the largest polygon has", do="Simplify the polygon, or leave other members out."
        )
    if brackets.size and int(np.cumsum(np.where(opened, 1, -1)).max()) > _DEPTH_LIMIT:
        raise JsonTooDeep(f"the JSON is nested more than {_DEPTH_LIMIT} deep", do="Send plain GeoJSON.")
    try:
        return json.loads(
            data.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_without_repetition
        )
    except UnicodeDecodeError as error:
        raise JsonUnusable("the text is not UTF-8", do="Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise JsonUnusable(
            f"this is not JSON: {error.msg}", where=f"line {error.lineno}, column {error.colno}"
        ) from error


def _refuse_constant(name: str) -> NoReturn:
    raise CoordinateNotFinite(f"{name} is no coordinate", do="Give finite numbers.")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise JsonUnusable("a member of an object is named twice", do="Name each member once.")
    return made


def _geometry_of(document: Any) -> dict[str, Any]:
    found = _object(document)
    _require_lon_lat(found)
    if found.get("type") == "FeatureCollection":
        features = found.get("features")
        if not isinstance(features, list) or len(features) != 1:
            raise UnsupportedGeometry("a FeatureCollection of other than one feature", do="Send one feature.")
        found = _object(features[0])
    if found.get("type") == "Feature":
        found = _object(found.get("geometry"))
    if found.get("type") not in ("Polygon", "MultiPolygon"):
        kind = str(found.get("type"))[:40]
        raise UnsupportedGeometry(f"“{kind}” is no polygon", do="Send one Polygon or MultiPolygon.")
    return found


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnsupportedGeometry("this is no GeoJSON object", do="Send one Polygon or MultiPolygon.")
    return value


def _require_lon_lat(document: dict[str, Any]) -> None:
    # The member that GeoJSON gave up in 2016; programs still write it.
    named = str(document.get("crs") or "CRS84")
    if not any(name in named for name in _LON_LAT_NAMES):
        raise UnsupportedGeometry(
            f"the coordinates are in another CRS: {named[:80]}",
            do="Convert them to longitude, latitude (EPSG:4326).",
        )


def _polygons_of(geometry: dict[str, Any]) -> list[list[list[Any]]]:
    coordinates = geometry.get("coordinates")
    polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
    if not (isinstance(polygons, list) and polygons):
        raise PolygonDegenerate("the geometry is empty", do="Send a polygon with an inside.")
    for rings in polygons:
        if not (isinstance(rings, list) and rings and all(isinstance(ring, list) for ring in rings)):
            raise PolygonDegenerate("a polygon has no rings", do="A polygon is a list of rings.")
    return polygons


def _require_few(polygons: list[list[list[Any]]], vertex_limit: int) -> None:
    rings = sum(len(rings) for rings in polygons)
    vertices = sum(len(ring) for rings in polygons for ring in rings)
    if vertices > vertex_limit or rings > RING_LIMIT:
        raise TooManyVertices(
            f"{vertices:,} vertices in {rings:,} rings are more than {vertex_limit:,} in {RING_LIMIT:,}",
            do="Simplify the polygon: a metre is finer than any count needs.",
        )


def _ring(positions: list[Any], where: str) -> Ring:
    ring = [_position(position, where) for position in positions]
    if len(ring) < 4 or ring[0] != ring[-1]:
        raise PolygonDegenerate(
            "a ring is not closed", where=where, do="Its last position must repeat the first, after 3 others."
        )
    if len(set(ring)) < 3:
        raise PolygonDegenerate("a ring has fewer than 3 different positions", where=where)
    for (lon, _), (following, _) in pairwise(ring):
        if abs(following - lon) > 180 and abs(lon) + abs(following) < 360:
            raise CrossesAntimeridian(
                f"a ring runs from longitude {lon:g} to {following:g}",
                where=where,
                do="Cut it at 180 and send a MultiPolygon of both sides (RFC 7946).",
            )
    return ring


def _position(position: Any, where: str) -> tuple[float, float]:
    if not isinstance(position, list) or not 2 <= len(position) <= 4:
        raise CoordinateNotFinite("a position is no list of 2 numbers", where=where)
    for number in position:
        # Exactly these types: True is an int to Python, and "1" is not a number to anybody.
        if type(number) not in (float, int) or not isfinite(number):
            raise CoordinateNotFinite(f"{str(number)[:40]} is no coordinate", where=where)
    lon, lat = float(position[0]), float(position[1])
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise CoordinateOutOfRange(
            f"({lon:g}, {lat:g}) is outside of ±180, ±90",
            where=where,
            do="Positions are longitude, latitude in degrees (EPSG:4326).",
        )
    return lon, lat


def _require_valid(polygon: Polygon | MultiPolygon) -> None:
    few = shapely.get_num_coordinates(polygon) <= _VERTICES_IN_PROCESS
    reason = validity(polygon) if few else _validity_by_child(polygon)
    if reason == VALID:
        return
    found = _PLACE.fullmatch(reason)
    fault, place = (found["fault"], found["place"].replace(" ", ", ")) if found else (reason, None)
    if fault.startswith("Too few points"):
        raise PolygonDegenerate("a ring encloses nothing", where=place)
    raise PolygonUnusable(
        f"the polygon is not valid: {fault.lower()}",
        where=place and f"longitude, latitude {place}",
        do="Mend it where it crosses or touches itself, and send it again.",
    )


VALID = "Valid Geometry"


def validity(polygon: Polygon | MultiPolygon) -> str:
    """``VALID``, or GEOS's reason with the first bad place as ``Reason[lon lat]``."""
    return str(shapely.is_valid_reason(polygon))


def _validity_by_child(polygon: Polygon | MultiPolygon) -> str:
    with _CHILDREN:
        try:
            child = subprocess.run(
                [sys.executable, "-m", "inventory.polygon_check", str(int(_CHECK_LIMIT_S))],
                input=shapely.to_wkb(polygon),
                capture_output=True,
                timeout=_CHECK_LIMIT_S + 5,
            )
        except subprocess.TimeoutExpired:
            raise _too_intricate() from None
    if child.returncode != 0:
        raise _too_intricate()
    return child.stdout.decode()


def _too_intricate() -> PolygonTooIntricate:
    return PolygonTooIntricate(
        f"the polygon could not be checked within {_CHECK_LIMIT_S:g} s", do="Simplify it."
    )


def _require_inside(shapes: list[Polygon]) -> None:
    # Mean width of a thin polygon: its area over half of its outline.
    widths = 2 * shapely.area(shapes) / shapely.length(shapes)
    if float(np.min(widths)) < _LEAST_WIDTH_DEG:
        raise PolygonDegenerate(
            "the polygon is a sliver without an inside",
            where=f"polygon {int(np.argmin(widths))}",
            do="Draw it wider than a millimetre.",
        )
