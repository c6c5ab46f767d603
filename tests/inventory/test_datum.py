"""GCJ-02, areas on the ellipsoid, and the CRS in which a city measures."""

from importlib.metadata import version as version_of

import numpy as np
import prcoords
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon, box

from inventory.domain.datum import (
    gcj02_to_wgs84,
    ground_area_m2,
    in_shifted_region,
    metric_crs,
    scale_error,
    wgs84_to_gcj02,
)

_METRES_PER_DEGREE = 111_320.0

# Published with the reconstruction “eviltransform”: longitude, latitude in WGS 84 and in GCJ-02.
_PUBLISHED = [
    ((121.5272106, 31.1774276), (121.531541859215, 31.17530398364597)),
    ((113.912316, 22.543847), (113.9171764808363, 22.540796131694766)),
    ((116.377817, 39.911954), (116.38404722455657, 39.91334545536069)),
]


def _metres_apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() * _METRES_PER_DEGREE)


@pytest.mark.parametrize(("wgs84", "gcj02"), _PUBLISHED)
def test_published_point_pairs_are_met_both_ways(
    wgs84: tuple[float, float], gcj02: tuple[float, float]
) -> None:
    assert _metres_apart(wgs84_to_gcj02(np.array([wgs84])), np.array([gcj02])) < 0.02
    assert _metres_apart(gcj02_to_wgs84(np.array([gcj02])), np.array([wgs84])) < 0.02


def test_an_independent_package_says_the_same_all_over_china() -> None:
    grid = np.stack(np.meshgrid(np.linspace(74, 134, 25), np.linspace(18, 53, 20)), axis=-1).reshape(-1, 2)
    theirs = np.array([prcoords.wgs_gcj((lat, lon))[::-1] for lon, lat in grid])
    if version_of("prcoords") == "1.0.1":
        # The newest one with a wheel multiplies by a power that it ought to divide by; 1.0.2 mends that.
        flattened = 1 - prcoords.GCJ_EE * np.sin(np.radians(grid[:, 1])) ** 2
        theirs[:, 1] = grid[:, 1] + (theirs[:, 1] - grid[:, 1]) * flattened**3
    assert _metres_apart(wgs84_to_gcj02(grid), theirs) < 0.001


@settings(deadline=None)
@given(lon=st.floats(72.1, 137.7), lat=st.floats(0.9, 55.7))
def test_a_round_trip_returns_within_a_millimetre(lon: float, lat: float) -> None:
    position = np.array([[lon, lat]])
    assert _metres_apart(gcj02_to_wgs84(wgs84_to_gcj02(position)), position) < 0.001


def test_the_shift_is_hundreds_of_metres() -> None:
    puer = np.array([[100.97, 22.79]])
    assert 100 < _metres_apart(wgs84_to_gcj02(puer), puer) < 1_000


def test_positions_outside_china_stay() -> None:
    elsewhere = np.array([[-104.99, 39.74], [2.35, 48.86], [151.2, -33.9], [100.5, 0.5]])
    assert not in_shifted_region(elsewhere).any()
    assert np.array_equal(wgs84_to_gcj02(elsewhere), elsewhere)
    assert np.array_equal(gcj02_to_wgs84(elsewhere), elsewhere)


def _grid(west: float, south: float, east: float, north: float) -> np.ndarray:
    return np.stack(np.meshgrid(np.linspace(west, east, 9), np.linspace(south, north, 9)), -1).reshape(-1, 2)


@pytest.mark.parametrize(
    ("bounds", "crs"),
    [
        ((100.5, 22.5, 101.5, 23.5), "EPSG:32647"),
        ((-110.5, 44.6, -110.3, 44.8), "EPSG:32612"),
        ((151.0, -34.0, 151.3, -33.7), "EPSG:32756"),
        ((179.0, -18.2, 179.9, -17.8), "EPSG:32760"),
        ((-70.0, -85.0, -60.0, -84.0), "EPSG:5042"),
        ((15.0, 84.5, 16.0, 84.6), "EPSG:5041"),
    ],
)
def test_a_city_measures_in_its_utm_zone_and_near_the_poles_in_ups(
    bounds: tuple[float, float, float, float], crs: str
) -> None:
    west, south, east, north = bounds
    assert metric_crs(_grid(*bounds), ((west + east) / 2, (south + north) / 2)) == crs


def test_a_city_wider_than_its_zone_gets_a_projection_that_stretches_less() -> None:
    wide = _grid(5.0, 47.0, 15.0, 55.0)
    chosen = metric_crs(wide, (10.0, 51.0))
    assert scale_error(chosen, wide) < scale_error("EPSG:32632", wide)
    assert scale_error(chosen, wide) < 0.0015


def test_a_degree_square_at_the_equator_has_its_known_area() -> None:
    # NGA, WGS 84: 12,308.8 km² between the equator and 1° N, per degree of longitude.
    assert ground_area_m2(box(10, 0, 11, 1)) == pytest.approx(12_308.8e6, rel=1e-4)


def test_holes_and_parts_add_up_whatever_way_their_rings_run() -> None:
    shell = [(10, 0), (10, 1), (11, 1), (11, 0)]
    hole = [(10.2, 0.2), (10.2, 0.4), (10.4, 0.4), (10.4, 0.2)]
    for ring in (hole, hole[::-1]):
        holed = Polygon(shell, [ring])
        rest = ground_area_m2(Polygon(shell)) - ground_area_m2(Polygon(hole))
        assert ground_area_m2(holed) == pytest.approx(rest)
        both = MultiPolygon([holed, Polygon(hole)])
        assert ground_area_m2(both) == pytest.approx(ground_area_m2(Polygon(shell)))
    assert ground_area_m2(MultiPolygon()) == 0.0
