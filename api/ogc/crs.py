"""Coordinate reference systems of the OGC API (Features, Part 2): which are served, and in which order of axes.

CRS84 is longitude, latitude; all others have the axes in their authority's order, so EPSG:4326 and EPSG:4490 are
latitude first. That is what clients expect who ask for them.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from detection.errors import CallerError
from inventory.store.features import CityOnPage
from inventory.store.filter_geometries import FilterCrs

CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
_CRS84_NAMES = frozenset({CRS84, "OGC:CRS84", "urn:ogc:def:crs:OGC:1.3:CRS84", "CRS84"})
_CHINESE_ZONES = frozenset(
    {"Asia/Shanghai", "Asia/Urumqi", "Asia/Chongqing", "Asia/Harbin", "Asia/Kashgar", "PRC"}
)
_AROUND = 3.0
"""Degrees around where a CRS is used; a Transverse Mercator grid holds that far."""
_DIGITS = {True: 7, False: 2}
"""Decimals of degrees, and of metres: a centimetre each."""


@dataclass(frozen=True, slots=True)
class Crs:
    """A CRS that is served: its URI, and its authority's code (``OGC:CRS84``, ``EPSG:4326``)."""

    uri: str
    code: str

    @property
    def is_lon_lat(self) -> bool:
        """Whether coordinates are as they are stored."""
        return self.uri == CRS84

    @property
    def is_geographic(self) -> bool:
        """Whether its coordinates are degrees."""
        return _is_geographic(self.code)

    def for_filters(self) -> FilterCrs:
        """What brings coordinates of this CRS to longitude and latitude."""
        return FilterCrs(
            name=self.code,
            to_lon_lat=_transformer(self.code, "OGC:CRS84"),
            is_geographic=self.is_geographic,
            bounds=_bounds(self.code),
        )

    def lon_lat(self, first: float, second: float) -> tuple[float, float]:
        """Longitude and latitude of coordinates in the authority's order; infinite where there is no such place."""
        lon, lat = _transformer(self.code, "OGC:CRS84").transform(first, second)
        return float(lon), float(lat)

    def coordinates(self, lon_lat: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) coordinates in the authority's order of (n, 2) longitudes and latitudes, rounded to a centimetre."""
        first, second = _transformer("OGC:CRS84", self.code).transform(lon_lat[:, 0], lon_lat[:, 1])
        return np.round(np.column_stack([first, second]), _DIGITS[self.is_geographic])


LON_LAT = Crs(CRS84, "OGC:CRS84")


@lru_cache(64)
def _is_geographic(code: str) -> bool:
    return bool(CRS(code).is_geographic)


@lru_cache(64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target)


@lru_cache(64)
def _bounds(code: str) -> tuple[float, float, float, float]:
    """Lowest and highest coordinates of where a CRS is used, and some degrees around: cities reach over borders."""
    used = CRS(code).area_of_use
    if used is None:
        return (-np.inf, -np.inf, np.inf, np.inf)
    west, east = max(used.west - _AROUND, -180), min(used.east + _AROUND, 180)
    south, north = max(used.south - _AROUND, -90), min(used.north + _AROUND, 90)
    places = np.meshgrid(np.linspace(west, east, 33), np.linspace(south, north, 33))
    found = np.stack(_transformer("OGC:CRS84", code).transform(*places)).reshape(2, -1)
    found = found[:, np.isfinite(found).all(axis=0)]
    first, second = found.min(axis=1), found.max(axis=1)
    return (float(first[0]), float(first[1]), float(second[0]), float(second[1]))


def served(city: CityOnPage) -> tuple[Crs, ...]:
    """The CRS of a city's answers, CRS84 first."""
    codes = ["EPSG:4326", "EPSG:3857", city.metric_crs]
    if city.time_zone in _CHINESE_ZONES:
        codes.append("EPSG:4490")
    return (LON_LAT, *(Crs(_uri(code), code) for code in dict.fromkeys(codes)))


def read_crs(name: str | None, city: CityOnPage, parameter: str) -> Crs:
    """The CRS that a parameter names; CRS84 without it.

    Raises:
        CallerError: it is none of those served; the message lists them.
    """
    known = served(city)
    if name is None or name.strip("<>[]") in _CRS84_NAMES:
        return known[0]
    wanted = name.strip("<>[]")
    for one in known:
        if wanted in (one.uri, one.code, _urn(one.code), one.uri.replace("http:", "https:", 1)):
            return one
    raise CallerError(
        f"{parameter}: the CRS “{name[:80]}” is not served",
        do=f"Use one of {', '.join(one.uri for one in known)}.",
    )


def _uri(code: str) -> str:
    authority, number = code.split(":")
    return f"http://www.opengis.net/def/crs/{authority}/0/{number}"


def _urn(code: str) -> str:
    authority, number = code.split(":")
    return f"urn:ogc:def:crs:{authority}::{number}"


def in_crs(features: list[dict[str, Any]], crs: Crs) -> list[dict[str, Any]]:
    """GeoJSON features with their geometries in a CRS."""
    rows = [row for row, feature in enumerate(features) if feature["geometry"] is not None]
    if crs.is_lon_lat or not rows:
        return features
    shapes = shapely.from_geojson([orjson.dumps(features[row]["geometry"]).decode() for row in rows])
    moved = shapely.transform(shapes, crs.coordinates)
    for row, shape in zip(rows, shapely.to_geojson(moved).tolist(), strict=True):
        features[row]["geometry"] = orjson.loads(shape)
    return features


def in_crs_text(features: bytes, crs: Crs, separator: str) -> bytes:
    """Texts of GeoJSON features with their geometries in a CRS.

    Args:
        separator: what stands between two of them.
    """
    found = orjson.loads(b"[" + features.replace(separator.encode(), b",") + b"]")
    return separator.encode().join(orjson.dumps(feature) for feature in in_crs(found, crs))
