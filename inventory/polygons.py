"""A polygon drawn by a user, checked before any library gets it.

JSON is limited in size, depth and length of numbers before it is parsed; coordinates in number, kind and
range before they become a geometry; the geometry's validity is tested outside the database, because GEOS cannot
be interrupted there (a self-intersecting ring once took a whole cluster down), and large ones in a process
of their own that may be killed. Nothing is repaired: what a polygon means is its author's to say.
"""

import atexit
import gc
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from math import isfinite
from typing import Any, NoReturn

import numpy as np
import orjson
import shapely
from shapely import MultiPolygon, Polygon

from inventory.antimeridian import FURTHEST_DEG, Ring, cut, is_plain, unrolled
from inventory.errors import (
    CoordinateNotFinite,
    CoordinateOutOfRange,
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
_AT_ONCE = 2
_FEW_MEMBERS = 1_000

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PLACE = re.compile(r"(?P<fault>[^\[]+)\[(?P<place>[^\]]+)\]")
_LON_LAT_NAMES = ("CRS84", "EPSG::4326", "EPSG:4326")


def read_polygon(data: bytes, *, vertex_limit: int = VERTEX_LIMIT) -> Polygon | MultiPolygon:
    """The polygon in GeoJSON bytes: a Geometry, a Feature, or a FeatureCollection of one.

    Args:
        data: UTF-8; positions are longitude, latitude in degrees; heights are read and dropped. Over the 180th
            meridian a polygon may be cut, jump, or go on (``antimeridian.py``).
        vertex_limit: positions of all rings together.

    Returns:
        A valid polygon with an inside, EPSG:4326.

    Raises:
        PolygonTooLarge, JsonUnusable, PolygonUnusable: each says what is wrong and where.
    """
    with _garbage_uncollected():
        kind, parts = _rings_in(data, vertex_limit)
    over = [not all(map(is_plain, rings)) for rings in parts]
    parts = [unrolled(rings, f"polygon {i}") if over[i] else rings for i, rings in enumerate(parts)]
    shapes = [Polygon(rings[0], rings[1:]) for rings in parts]
    made: Polygon | MultiPolygon = shapes[0] if kind == "Polygon" else MultiPolygon(shapes)
    _require_valid(made)
    _require_inside(shapes)
    return _cut_at_180(shapes) if any(over) else made


def _rings_in(data: bytes, vertex_limit: int) -> tuple[str, list[list[Ring]]]:
    """The geometry's type, and the rings of each of its polygons."""
    geometry = _geometry_of(_parsed(data))
    polygons = _polygons_of(geometry)
    _require_few(polygons, vertex_limit)
    return geometry["type"], [
        [_ring(ring, f"polygon {i}, ring {j}") for j, ring in enumerate(rings)]
        for i, rings in enumerate(polygons)
    ]


def _cut_at_180(shapes: list[Polygon]) -> Polygon | MultiPolygon:
    pieces = [piece for shape in shapes for piece in cut(shape)]
    # What lies on the meridian alone is no ground, and rounding leaves no more on the other side of it.
    pieces = [piece for piece in pieces if _mean_width(piece) >= _LEAST_WIDTH_DEG] or pieces
    if len(pieces) == 1:
        return pieces[0]
    made = MultiPolygon(pieces)
    # Apart in longitudes that go on, two of them may be the same ground.
    _require_valid(made)
    return made


def _parsed(data: bytes) -> Any:
    if len(data) > SIZE_LIMIT_BYTES:
        raise PolygonTooLarge(
            f"{len(data):,} bytes are more than {SIZE_LIMIT_BYTES:,}", do="Simplify the polygon."
        )
    bare = _STRING.sub(b'""', data)
    if _longest_number(bare) > _DIGITS:
        raise NumberTooLong(f"a number has more than {_DIGITS} digits", do="Round the coordinates.")
    brackets = np.frombuffer(bare.translate(None, _NOT_BRACKETS), dtype=np.uint8)
    opened = (brackets == ord("[")) | (brackets == ord("{"))
    if int(opened.sum()) > _BRACKET_LIMIT:
        raise TooManyVertices(
            "more lists than the largest polygon has", do="Simplify the polygon, or leave other members out."
        )
    if brackets.size and int(np.cumsum(np.where(opened, 1, -1)).max()) > _DEPTH_LIMIT:
        raise JsonTooDeep(f"the JSON is nested more than {_DEPTH_LIMIT} deep", do="Send plain GeoJSON.")
    return _parsed_fast(data, members=bare.count(b":")) or _parsed_with_reasons(data)


def _longest_number(bare: bytes) -> int:
    """Most digits in a row."""
    signs = np.frombuffer(bare, np.uint8)
    others = np.flatnonzero((signs < ord("0")) | (signs > ord("9")))
    return int(np.diff(others, prepend=-1, append=len(signs)).max()) - 1


def _parsed_fast(data: bytes, *, members: int) -> Any:
    """The document, an eighth of the time; None where anything is unusual, a member named twice among it."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return document if members <= _FEW_MEMBERS and _members(document) == members else None


@contextmanager
def _garbage_uncollected() -> Iterator[None]:
    """All that is parsed within comes and goes: the collector would look through a hundred thousand lists in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _members(value: Any) -> int:
    """Members of all objects, those in coordinates left out: there are none, or the count is off."""
    if isinstance(value, dict):
        return len(value) + sum(_members(part) for name, part in value.items() if name != "coordinates")
    return sum(map(_members, value)) if isinstance(value, list) else 0


def _parsed_with_reasons(data: bytes) -> Any:
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
    ring = _positions(positions, where)
    if len(ring) < 4 or (ring[0] != ring[-1]).any():
        raise PolygonDegenerate(
            "a ring is not closed", where=where, do="Its last position must repeat the first, after 3 others."
        )
    # Nearly all rings show three different positions at once.
    if all(len({*map(tuple, part.tolist())}) < 3 for part in (ring[:9], ring)):
        raise PolygonDegenerate("a ring has fewer than 3 different positions", where=where)
    return ring


def _positions(positions: list[Any], where: str) -> Ring:
    """All positions at once; where any is unusable, one by one, so that the message names it."""
    are_pairs = {*map(type, positions)} == {list} and {*map(len, positions)} == {2}
    if are_pairs and {*map(type, chain.from_iterable(positions))} <= {float, int}:
        ring = np.fromiter(chain.from_iterable(positions), np.float64, 2 * len(positions)).reshape(-1, 2)
        if (np.abs(ring) <= (FURTHEST_DEG, 90)).all():
            return ring
    return np.array([_position(position, where) for position in positions], np.float64).reshape(-1, 2)


def _position(position: Any, where: str) -> tuple[float, float]:
    if not isinstance(position, list) or not 2 <= len(position) <= 4:
        raise CoordinateNotFinite("a position is no list of 2 numbers", where=where)
    for number in position:
        # Exactly these types: True is an int to Python, and "1" is not a number to anybody.
        if type(number) not in (float, int) or not isfinite(number):
            raise CoordinateNotFinite(f"{str(number)[:40]} is no coordinate", where=where)
    lon, lat = float(position[0]), float(position[1])
    if not (-FURTHEST_DEG <= lon <= FURTHEST_DEG and -90 <= lat <= 90):
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
    reason = _CHECKERS.check(shapely.to_wkb(polygon))
    if reason is None:
        raise _too_intricate()
    return reason


class _Checkers:
    """Children that test polygons one after the other: starting one takes longer than nearly all tests."""

    def __init__(self) -> None:
        self._turn = threading.BoundedSemaphore(_AT_ONCE)
        self._idle: list[subprocess.Popen[bytes]] = []

    def check(self, wkb: bytes) -> str | None:
        """``VALID`` or the reason; None when it took too long, or too much memory."""
        with self._turn:
            child = self._taken()
            # Killed from outside: nothing that runs in the child can be trusted to stop.
            limit = threading.Timer(_CHECK_LIMIT_S, child.kill)
            limit.start()
            try:
                reason = _asked(child, wkb)
            finally:
                limit.cancel()
            if reason is None:
                _end(child)
            else:
                self._idle.append(child)
            return reason

    def end(self) -> None:
        """Ends the idle children."""
        while self._idle:
            _end(self._idle.pop())

    def _taken(self) -> "subprocess.Popen[bytes]":
        while self._idle:
            child = self._idle.pop()
            if child.poll() is None:
                return child
            _end(child)
        command = [sys.executable, "-m", "inventory.polygon_check", str(int(_CHECK_LIMIT_S))]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    with child:
        pass


def _asked(child: "subprocess.Popen[bytes]", wkb: bytes) -> str | None:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(len(wkb).to_bytes(8, "little") + wkb)
        child.stdin.flush()
        answer = child.stdout.readline()
    except OSError:
        return None
    return answer.decode().rstrip("\n") if answer.endswith(b"\n") else None


_CHECKERS = _Checkers()
atexit.register(_CHECKERS.end)


def _too_intricate() -> PolygonTooIntricate:
    return PolygonTooIntricate(
        f"the polygon could not be checked within {_CHECK_LIMIT_S:g} s", do="Simplify it."
    )


def _require_inside(shapes: list[Polygon]) -> None:
    widths = _mean_width(shapes)
    if float(np.min(widths)) < _LEAST_WIDTH_DEG:
        raise PolygonDegenerate(
            "the polygon is a sliver without an inside",
            where=f"polygon {int(np.argmin(widths))}",
            do="Draw it wider than a millimetre.",
        )


def _mean_width(shapes: Any) -> Any:
    """Of a thin polygon: its area over half of its outline."""
    return 2 * shapely.area(shapes) / shapely.length(shapes)
