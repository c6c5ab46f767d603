"""R12: which area has a point."""

from datetime import date

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from inventory.domain.places import (
    OUTSIDE,
    Area,
    AreaVersion,
    area_of_points,
    areas_of_points,
    versions_by_level,
)
from inventory.store.database import Database
from tests.support.areas import SIDE, SOUTH, WEST, make_version, square

_HALVES = st.integers(0, 12).map(lambda steps: steps / 2)
_RECTANGLES = st.tuples(_HALVES, _HALVES, st.integers(1, 4), st.integers(1, 4))
_POINTS = st.lists(st.tuples(_HALVES, _HALVES), max_size=30)


def _on_ground(grid: list[tuple[float, float]]) -> np.ndarray:
    return np.array(grid, dtype=np.float64).reshape(-1, 2) * SIDE + [WEST, SOUTH]


def _level(rectangles: list[tuple[float, float, int, int]], level: str = "county") -> list[AreaVersion]:
    return [
        make_version(f"{index:02}", square(*rectangle), level=level)
        for index, rectangle in enumerate(rectangles)
    ]


@settings(max_examples=40, deadline=None)
@given(rectangles=st.lists(_RECTANGLES, max_size=8), points=_POINTS, shuffle=st.randoms())
def test_r12_of_all_areas_that_intersect_a_point_the_lowest_code_has_it(
    rectangles: list[tuple[float, float, int, int]], points: list[tuple[float, float]], shuffle: object
) -> None:
    versions = _level(rectangles)
    shuffle.shuffle(versions)  # type: ignore[attr-defined]
    lon_lat = _on_ground(points)
    owner = area_of_points(lon_lat, versions)
    for place, index in zip(shapely.points(lon_lat) if points else (), owner, strict=True):
        claimants = [version.code for version in versions if version.geometry.intersects(place)]
        assert (versions[index].code if index != OUTSIDE else None) == min(claimants, default=None)


@settings(max_examples=40, deadline=None)
@given(rectangles=st.lists(_RECTANGLES, max_size=8), points=_POINTS)
def test_r12_the_areas_of_a_level_and_outside_add_up_to_the_total(
    rectangles: list[tuple[float, float, int, int]], points: list[tuple[float, float]]
) -> None:
    versions = [*_level(rectangles[::2], "county"), *_level(rectangles[1::2], "street")]
    found = areas_of_points(_on_ground(points), versions)
    for level, owner in found.items():
        assert {versions[index].level for index in owner if index != OUTSIDE} <= {level}
        counts = [int((owner == index).sum()) for index in range(len(versions))]
        assert sum(counts) + int((owner == OUTSIDE).sum()) == len(points)


def test_a_point_on_a_shared_border_belongs_to_one_area() -> None:
    versions = [make_version("b", square(0, 0)), make_version("a", square(1, 0))]
    border, corner, beyond = (1, 0.5), (2, 1), (2.0001, 1)
    assert area_of_points(_on_ground([border, corner, beyond]), versions).tolist() == [1, 1, OUTSIDE]


def test_codes_compare_by_code_points_not_as_numbers() -> None:
    versions = [make_version("9", square(0, 0)), make_version("10", square(0, 0))]
    assert area_of_points(_on_ground([(0.5, 0.5)]), versions).tolist() == [1]


def test_no_points_and_no_areas_are_fine() -> None:
    assert area_of_points(np.empty((0, 2)), _level([(0, 0, 1, 1)])).shape == (0,)
    assert area_of_points(_on_ground([(0, 0)]), []).tolist() == [OUTSIDE]
    assert areas_of_points(_on_ground([(0, 0)]), []) == {}


def test_membership_equals_st_intersects_also_on_slanted_borders(database: Database) -> None:
    generator = np.random.default_rng(12)
    ring = generator.uniform(0, 6, (12, 2))
    hull = shapely.MultiPoint(_on_ground([tuple(corner) for corner in ring])).convex_hull
    version = make_version("a", hull)
    corners = shapely.get_coordinates(hull)
    along = [corners[i] + share * (corners[i + 1] - corners[i]) for i in range(len(corners) - 1) for share in
             np.linspace(0, 1, 40)]  # fmt: skip
    lon_lat = np.concatenate(
        [corners, along, _on_ground([tuple(p) for p in generator.uniform(0, 6, (300, 2))])]
    )
    with database.transaction() as connection:
        theirs = connection.execute(
            text(
                "SELECT ST_Intersects(ST_GeomFromEWKB(:area), ST_SetSRID(ST_MakePoint(lon, lat), 4326)) "
                "FROM unnest(CAST(:lon AS float8[]), CAST(:lat AS float8[])) WITH ORDINALITY p(lon, lat, n) "
                "ORDER BY n"
            ),
            {
                "area": shapely.to_wkb(shapely.set_srid(version.geometry, 4326), include_srid=True),
                "lon": lon_lat[:, 0].tolist(),
                "lat": lon_lat[:, 1].tolist(),
            },
        ).scalars()
        assert (area_of_points(lon_lat, [version]) == 0).tolist() == list(theirs)


def test_levels_come_top_first_and_codes_in_order() -> None:
    versions = [
        make_version("2", square(0, 0), level="street", rank=1),
        make_version("10", square(0, 0), level="street", rank=1),
        make_version("z", square(0, 0), level="county", rank=0),
    ]
    found = versions_by_level(versions)
    assert {level: [version.code for version in of_level] for level, of_level in found.items()} == {
        "county": ["z"],
        "street": ["10", "2"],
    }
    assert list(found) == ["county", "street"]
    assert versions[0].area == Area("street", "2")


def test_a_version_holds_from_its_first_day_to_the_day_before_the_next() -> None:
    version = make_version("a", square(0, 0), valid_from=date(2026, 1, 1), valid_to=date(2026, 3, 1))
    days = [date(2025, 12, 31), date(2026, 1, 1), date(2026, 2, 28), date(2026, 3, 1)]
    assert [version.in_force(day) for day in days] == [False, True, True, False]
    assert make_version("a", square(0, 0)).in_force(date.min)
