"""From what coordinates say to where things are: GCJ-02 and WGS 84, and the CRS in which a city measures.

Chinese web maps publish boundaries in GCJ-02, hundreds of metres from where the ground is; nothing in such a
file says so. All arrays are (n, 2) float64: longitude, latitude in degrees.
"""

from collections.abc import Iterable
from enum import StrEnum
from math import floor

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod, Proj
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_crs_info
from pyproj.enums import PJType
from pyproj.exceptions import CRSError
from shapely import MultiPolygon, Polygon

Positions = NDArray[np.float64]


class Datum(StrEnum):
    """What the degrees of a file mean."""

    WGS84 = "wgs84"
    GCJ02 = "gcj02"


# Krasovsky 1940: the ellipsoid on which GCJ-02's shifts in metres become degrees.
_SEMI_MAJOR_M = 6_378_245.0
_ECCENTRICITY_SQUARED = 0.006_693_421_622_965_943

# The rectangle in which web maps shift coordinates: x_min, y_min, x_max, y_max.
_SHIFTED = (72.004, 0.8293, 137.8347, 55.8271)

# Each step shrinks the error at least a hundredfold: 700 m → 7 m → 7 cm → 1 mm → beyond what doubles tell.
_STEPS = 6

# Scale error up to which a city simply keeps its UTM zone: what UTM itself has at a zone's edge.
_SCALE_ERROR_OF_UTM = 0.001

# Datums that agree with WGS 84 within about a metre: only their projections are looked at for wide cities.
_NEAR_WGS84 = (
    "WGS 84",
    "ETRS89",
    "CGCS2000",
    "China Geodetic Coordinate System 2000",
    "NAD83(2011)",
    "GDA2020",
)


def in_shifted_region(lon_lat: Positions) -> NDArray[np.bool_]:
    """(n,) whether each position lies in the rectangle in which GCJ-02 differs from WGS 84."""
    lon, lat = lon_lat[:, 0], lon_lat[:, 1]
    x_min, y_min, x_max, y_max = _SHIFTED
    return (lon >= x_min) & (lon <= x_max) & (lat >= y_min) & (lat <= y_max)


def wgs84_to_gcj02(lon_lat: Positions) -> Positions:
    """Where a Chinese web map draws WGS 84 positions; those outside its rectangle stay as they are.

    Source: the published reconstruction of GCJ-02 (“eviltransform”, “PRCoords”); no official text is public.
    """
    shifted = lon_lat + _shift_deg(lon_lat)
    return np.where(in_shifted_region(lon_lat)[:, None], shifted, lon_lat)


def gcj02_to_wgs84(lon_lat: Positions) -> Positions:
    """Where the ground of GCJ-02 positions is; those outside the rectangle stay as they are.

    Solves ``wgs84_to_gcj02(answer) = lon_lat`` by fixed-point iteration: the shift changes by less than a
    hundredth over its own length, so each step gains at least two digits. Round trip well below 1 mm.
    """
    guess = lon_lat - _shift_deg(lon_lat)
    for _ in range(_STEPS):
        guess = lon_lat - _shift_deg(guess)
    return np.where(in_shifted_region(lon_lat)[:, None], guess, lon_lat)


def _shift_deg(lon_lat: Positions) -> Positions:
    """(n, 2) what GCJ-02 adds, in degrees."""
    x, y = lon_lat[:, 0] - 105.0, lon_lat[:, 1] - 35.0
    east_m = 300.0 + x + 2.0 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * np.sqrt(np.abs(x))
    east_m += _waves_m(x, {6.0: 20.0, 2.0: 20.0, 1.0: 20.0, 1 / 3: 40.0, 1 / 12: 150.0, 1 / 30: 300.0})
    north_m = -100.0 + 2.0 * x + 3.0 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * np.sqrt(np.abs(x))
    north_m += _waves_m(x, {6.0: 20.0, 2.0: 20.0}) + _waves_m(y, {1.0: 20.0, 1 / 3: 40.0})
    north_m += _waves_m(y, {1 / 12: 160.0, 1 / 30: 320.0})
    latitude = np.radians(lon_lat[:, 1])
    flattened = 1.0 - _ECCENTRICITY_SQUARED * np.sin(latitude) ** 2
    metres_per_lat = np.radians(_SEMI_MAJOR_M * (1.0 - _ECCENTRICITY_SQUARED) / flattened**1.5)
    metres_per_lon = np.radians(_SEMI_MAJOR_M * np.cos(latitude) / np.sqrt(flattened))
    return np.stack([east_m / metres_per_lon, north_m / metres_per_lat], axis=1)


def _waves_m(degrees: NDArray[np.float64], amplitudes_m: dict[float, float]) -> NDArray[np.float64]:
    """Sum of sines: half-waves per degree → amplitude; the reconstruction gives ⅔ of its constants."""
    total: NDArray[np.float64] = np.zeros_like(degrees)
    for half_waves, amplitude_m in amplitudes_m.items():
        total += amplitude_m * np.sin(half_waves * np.pi * degrees)
    return total * 2.0 / 3.0


_ELLIPSOID = Geod(ellps="WGS84")


def ground_area_m2(polygons: Polygon | MultiPolygon) -> float:
    """Area of valid polygons in EPSG:4326, measured on the ellipsoid; edges are taken as geodesics."""
    if polygons.is_empty:
        return 0.0
    # Signed by the direction of each ring: shells and holes must run against each other.
    oriented = shapely.orient_polygons(polygons)
    area_m2, _perimeter_m = _ELLIPSOID.geometry_area_perimeter(oriented)
    return abs(float(area_m2))


def metric_crs(lon_lat: Positions, centre: tuple[float, float]) -> str:
    """The CRS in which distances of a city are computed, as “EPSG:code”.

    The UTM zone of the centre; near the poles UPS. Where a city is so wide that its zone would stretch some
    distance by more than UTM allows itself (0.1 %), the projection of the EPSG register with the smallest
    scale error over the city, if that is smaller.

    Args:
        lon_lat: (n, 2) positions that span the city, its corners at least.
        centre: longitude, latitude of the city's centre.
    """
    longitude, latitude = centre
    if latitude > 84.0:
        return "EPSG:5041"
    if latitude < -80.0:
        return "EPSG:5042"
    zone = floor((longitude + 180.0) / 6.0) % 60 + 1
    usual = f"EPSG:{32600 + zone if latitude >= 0 else 32700 + zone}"
    if scale_error(usual, lon_lat) <= _SCALE_ERROR_OF_UTM:
        return usual
    # The usual one first: another must be better, not as good.
    return min([usual, *_projections_over(lon_lat)], key=lambda crs: round(scale_error(crs, lon_lat), 6))


def scale_error(crs: str, lon_lat: Positions) -> float:
    """The largest share by which the CRS stretches or shrinks a short distance at any of the positions."""
    try:
        factors = Proj(crs).get_factors(lon_lat[:, 0], lon_lat[:, 1])
    except CRSError:  # in the register, but without a projection that PROJ can compute
        return float("inf")
    scales = np.stack([factors.tissot_semimajor, factors.tissot_semiminor])
    worst = np.abs(scales - 1.0).max()
    return float(worst) if np.isfinite(worst) else float("inf")


def _projections_over(lon_lat: Positions) -> Iterable[str]:
    """Metric projections of the register whose area of use holds all the positions."""
    west, south = lon_lat.min(axis=0)
    east, north = lon_lat.max(axis=0)
    found = query_crs_info(
        auth_name="EPSG",
        pj_types=PJType.PROJECTED_CRS,
        area_of_interest=AreaOfInterest(west, south, east, north),
        contains=True,
    )
    near = [info.code for info in found if info.name.startswith(_NEAR_WGS84)]
    return [f"EPSG:{code}" for code in near if _in_metres(CRS.from_epsg(code))]


def _in_metres(crs: CRS) -> bool:
    return len(crs.axis_info) == 2 and all(axis.unit_conversion_factor == 1.0 for axis in crs.axis_info)
