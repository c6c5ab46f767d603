"""Polygons over the 180th meridian: however they are drawn, the same ground, and never the rest of the world."""

import json
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from detection.errors import CallerError
from inventory.errors import CrossesAntimeridian, PolygonUnusable
from inventory.polygons import read_polygon

CUT = shapely.union_all([shapely.box(170, -10, 180, 10), shapely.box(-180, -10, -170, 10)])


def read(*polygons: Any) -> Any:
    coordinates = [list(rings) for rings in polygons]
    document = (
        {"type": "Polygon", "coordinates": coordinates[0]}
        if len(coordinates) == 1
        else {"type": "MultiPolygon", "coordinates": coordinates}
    )
    return read_polygon(json.dumps(document).encode())


def box(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


@pytest.mark.parametrize(
    "ring",
    [
        box(170, -10, -170, 10),
        list(reversed(box(170, -10, -170, 10))),
        [[-170, -10], [-170, 10], [170, 10], [170, -10], [-170, -10]],
        # With the meridian's own places, on both sides of it.
        [[170, -10], [180, -10], [-180, -10], [-170, -10], [-170, 10], [-180, 10], [180, 10], [170, 10], [170, -10]],
        box(170, -10, 190, 10),
        box(-190, -10, -170, 10),
    ],
    ids=["jumps", "backwards", "from the west", "by 180 and -180", "beyond 180", "beyond -180"],
)  # fmt: skip
def test_a_ring_over_the_antimeridian_is_cut_there(ring: Any) -> None:
    made = read([ring])

    assert made.geom_type == "MultiPolygon"
    assert made.is_valid
    assert made.equals(CUT)


def test_what_lies_beyond_180_altogether_is_turned_back() -> None:
    assert read([box(181, 0, 182, 1)]).equals(shapely.box(-179, 0, -178, 1))
    assert read([box(-182, 0, -181, 1)]).equals(shapely.box(178, 0, 179, 1))
    assert read([box(380, 0, 381, 1)]).equals(shapely.box(20, 0, 21, 1))
    assert read([box(180, 0, 181, 1)]).equals(shapely.box(-180, 0, -179, 1))


@pytest.mark.parametrize(
    "hole",
    [
        box(178, -1, -178, 1),
        box(178, -1, 182, 1),
        box(-182, -1, -178, 1),
        box(-179, -1, -178, 1),
        box(178, -1, 179, 1),
    ],
)
@pytest.mark.parametrize("shell", [box(170, -10, -170, 10), box(170, -10, 190, 10), box(-190, -10, -170, 10)])
def test_holes_are_cut_with_their_shell_however_either_is_drawn(shell: Any, hole: Any) -> None:
    made = read([shell, hole])

    lost = read([hole])
    assert made.equals(shapely.difference(CUT, lost))
    assert made.area == pytest.approx(400 - lost.area)


def test_parts_are_read_each_in_its_own_way() -> None:
    made = read([box(170, -10, -170, 10)], [box(181, 20, 182, 21)], [box(10, 0, 11, 1)])

    assert made.equals(shapely.union_all([CUT, shapely.box(-179, 20, -178, 21), shapely.box(10, 0, 11, 1)]))


def test_the_same_ground_twice_is_refused_also_where_longitudes_hide_it() -> None:
    with pytest.raises(PolygonUnusable):
        read([box(170, -10, 190, 10)], [box(-175, -5, -172, 5)])


@pytest.mark.parametrize(
    "ring",
    [
        box(-100, 0, 100, 1),
        box(-10, 0, 200, 1),
        box(-200, 0, 200, 1),
        [[0, -60], [120, -60], [-120, -60], [0, -60]],
        [[0, -60], [90, -61], [170, -62], [-170, -63], [-90, -62], [0, -60]],
    ],
    ids=[
        "half the world",
        "half the world and beyond",
        "more than the world",
        "a third of the world",
        "round a pole",
    ],
)
def test_what_may_mean_either_way_round_is_refused(ring: Any) -> None:
    with pytest.raises(CallerError) as refused:
        read([ring])
    assert refused.value.code in ("antimeridian", "geometry_invalid", "geometry_degenerate")
    if isinstance(refused.value, CrossesAntimeridian):
        assert "RFC 7946" in (refused.value.do or "") or "once round" in (refused.value.do or "")


@pytest.mark.parametrize(
    "ring",
    [
        box(-180, -90, 180, 90),
        box(-180, -20, 180, -15),
        [[-180, 0], [0, 0], [180, 0], [180, 9], [0, 9], [-180, 9], [-180, 0]],
    ],
)
def test_a_band_round_the_world_stays_one(ring: Any) -> None:
    assert read([ring]).equals(shapely.Polygon(ring))


@given(
    st.floats(-179.9, 179.9).map(lambda lon: round(lon, 4)),
    st.integers(1, 80),
    st.sampled_from([-1, 0, 1]),
)
def test_the_ground_of_a_ring_does_not_depend_on_how_it_is_drawn(west: float, width: int, turns: int) -> None:
    """Going on beyond 180, once more round the world, or jumping: the same."""
    east = west + width
    going_on = box(west, 0, east, 1)
    wrapped = [[(lon + 180) % 360 - 180, lat] for lon, lat in going_on]
    turned = [[lon + 360 * turns, lat] for lon, lat in going_on]
    assert shapely.area(read([wrapped])) == pytest.approx(width)
    if all(abs(lon) <= 540 for lon, _ in turned):
        assert shapely.area(shapely.symmetric_difference(read([turned]), read([wrapped]))) < 1e-9
    around = 0.5 * (west + east)
    inside = (around + 180) % 360 - 180
    assert shapely.intersects_xy(read([wrapped]), inside, 0.5)
    assert not shapely.intersects_xy(read([wrapped]), (around + 360) % 360 - 180, 0.5)
