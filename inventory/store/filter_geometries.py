"""The geometries of filters: CQL2 JSON as shapes in longitude and latitude, checked before the database sees them.

Coordinates come in the axis order of their CRS's authority. A box is what it is in its own CRS: its straight sides are
curves in degrees, and are followed to a centimetre.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from inventory.errors import FilterUnusable

_VERTEX_LIMIT = 4_000
# Of the sides of a projected box, in its units, mostly metres: at latitude 60 the middle of a chord of 500 m along a
# parallel of a Transverse Mercator grid is 8 mm off; at most so many a side.
_CHORD, _CHORDS = 500.0, 1_000
# What does not come back to where it was, in the CRS's units, lies where the projection does not hold.
_COMES_BACK = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterCrs:
    """A CRS of coordinates as its authority orders them.

    Attributes:
        to_lon_lat: from its coordinates to longitude and latitude.
        bounds: lowest first and second, highest first and second coordinate of where it is used.
    """

    name: str
    to_lon_lat: Transformer
    is_geographic: bool
    bounds: tuple[float, float, float, float]

    def lon_lat(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) longitude, latitude of (n, 2) coordinates."""
        return np.column_stack(self.to_lon_lat.transform(coordinates[:, 0], coordinates[:, 1]))

    def from_lon_lat(self, lon_lat: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse."""
        return np.column_stack(self.to_lon_lat.transform(lon_lat[:, 0], lon_lat[:, 1], direction="INVERSE"))


class FilterGeometries:
    """The geometries of one filter, which together have no more than so many vertices."""

    def __init__(self, crs: FilterCrs | None) -> None:
        self._crs = crs
        self._numbers = 0

    def shape(self, node: dict[str, Any]) -> shapely.Geometry:
        """The shape of a GeoJSON geometry or ``bbox``, EPSG:4326, within ±180, ±90.

        Raises:
            FilterUnusable: it is none, not valid, too large, or lies nowhere.
        """
        shape = self._box(node["bbox"]) if "bbox" in node else self._geometry(node)
        bounds = shapely.bounds(shape)
        if not (np.isfinite(bounds).all() and (np.abs(bounds) <= (180, 90, 180, 90)).all()):
            raise FilterUnusable(
                "a geometry is empty, or lies outside of ±180, ±90",
                do="Give longitude, latitude in degrees, or name the CRS with filter-crs."
                if self._crs is None
                else f"Give coordinates of {self._crs.name}, in its authority’s order.",
            )
        reason = str(shapely.is_valid_reason(shape))
        if reason != "Valid Geometry":
            raise FilterUnusable(f"a geometry is not valid: {reason[:120]}", do="Mend it.")
        return shape

    def _geometry(self, node: dict[str, Any]) -> shapely.Geometry:
        self._numbers += _count_numbers(node)
        if self._numbers > 3 * _VERTEX_LIMIT:
            raise FilterUnusable(
                f"the filter's geometries have more than {_VERTEX_LIMIT:,} vertices", do="Simplify them."
            )
        try:
            made = shapely.force_2d(shapely.geometry.shape(node))
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, shapely.GEOSException) as error:
            raise FilterUnusable(f"a geometry cannot be read: {str(error)[:120]}") from None
        if self._crs is None:
            return made
        if not self._crs.is_geographic and shapely.is_valid(made) and not shapely.is_empty(made):
            chord = max(_CHORD, float(shapely.length(made)) / _VERTEX_LIMIT)
            made = shapely.segmentize(made, chord)
        return _in_lon_lat(made, self._crs)

    def _box(self, corners: Any) -> shapely.Geometry:
        numbers = _numbers_of(corners)
        if len(numbers) == 6:
            # Heights are read and dropped: the inventory is flat.
            numbers = [numbers[0], numbers[1], numbers[3], numbers[4]]
        if len(numbers) != 4:
            raise FilterUnusable("a BBOX has 4 or 6 numbers", do="Write BBOX(west, south, east, north).")
        if self._crs is None:
            return _box_of_degrees(numbers)
        if self._crs.is_geographic:
            return _box_of_degrees(self._crs.lon_lat(np.array(numbers).reshape(2, 2)).ravel().tolist())
        return _projected_box(numbers, self._crs)


def _box_of_degrees(corners: list[float]) -> shapely.Geometry:
    """A box of longitudes and latitudes; with its west east of its east it crosses the antimeridian."""
    west, south, east, north = corners
    if south > north:
        raise FilterUnusable(
            "a BBOX has its south above its north", do="Write BBOX(west, south, east, north)."
        )
    if west > east and abs(west) <= 180 and abs(east) <= 180:
        halves = _flat_box(west, south, 180, north), _flat_box(-180, south, east, north)
        return shapely.union_all(halves)
    return _flat_box(west, south, east, north)


def _projected_box(corners: list[float], crs: FilterCrs) -> shapely.Geometry:
    lowest, highest = np.array(corners[:2]), np.array(corners[2:])
    if (lowest > highest).any():
        raise FilterUnusable(
            f"a BBOX in {crs.name} has its lowest corner above its highest",
            do="Give the lowest coordinates first, in the authority’s order.",
        )
    # As far as the CRS is used: beyond there are no coordinates to follow, and nothing of a city that uses it.
    lowest = np.maximum(lowest, crs.bounds[:2])
    highest = np.minimum(highest, crs.bounds[2:])
    if (lowest > highest).any():
        return shapely.Polygon()
    longest = float((highest - lowest).max())
    box = _flat_box(*lowest.tolist(), *highest.tolist())
    return _in_lon_lat(shapely.segmentize(box, max(_CHORD, longest / _CHORDS)), crs)


def _in_lon_lat(shape: shapely.Geometry, crs: FilterCrs) -> shapely.Geometry:
    before = shapely.get_coordinates(shape)
    lon_lat = crs.lon_lat(before)
    away = np.abs(crs.from_lon_lat(lon_lat) - before)
    if not (np.isfinite(lon_lat).all() and np.isfinite(away).all() and (away <= _COMES_BACK).all()):
        raise FilterUnusable(
            f"a geometry lies where {crs.name} does not hold",
            do=f"Give coordinates of {crs.name}, in its authority’s order, or another CRS.",
        )
    return shapely.transform(shape, lambda _: lon_lat)


def _flat_box(west: float, south: float, east: float, north: float) -> shapely.Geometry:
    """A box as what it is: also without width or height."""
    if west == east and south == north:
        return shapely.Point(west, south)
    if west == east or south == north:
        return shapely.LineString([(west, south), (east, north)])
    return shapely.box(west, south, east, north)


def _numbers_of(values: Any) -> list[float]:
    if not isinstance(values, list) or not all(type(one) in (int, float) for one in values):
        raise FilterUnusable("a BBOX is a list of numbers")
    if not all(math.isfinite(one) and abs(one) < 1e300 for one in values):
        raise FilterUnusable("a number is not finite")
    return [float(one) for one in values]


def _count_numbers(node: dict[str, Any]) -> int:
    # Level by level: nothing that a caller sends may exhaust Python's stack.
    found, level = 0, [_coordinates(node)]
    while level:
        following: list[Any] = []
        for one in level:
            if isinstance(one, list):
                following += one
            elif isinstance(one, dict):
                following.append(_coordinates(one))
            else:
                found += 1
        level = following
    return found


def _coordinates(node: dict[str, Any]) -> Any:
    return node.get("coordinates", node.get("geometries", []))
