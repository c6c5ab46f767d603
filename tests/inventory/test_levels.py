"""How areas hang together: ranks, parents, overlaps, gaps."""

import pytest
from shapely import MultiPolygon, Polygon

from inventory.domain.levels import (
    DrawnArea,
    Gap,
    canonical,
    find_parents,
    gaps,
    overlaps,
    rank_levels,
    significant,
    union_of,
)
from inventory.domain.places import Area
from inventory.errors import BoundariesUnusable
from tests.support.areas import make_drawn, square

CITY = make_drawn("530800", square(0, 0, 4, 4), level="city")
WEST_COUNTY = make_drawn("530802", square(0, 0, 2, 4), level="county")
EAST_COUNTY = make_drawn("530821", square(2, 0, 2, 4), level="county")


def test_levels_of_larger_areas_lie_above_those_of_smaller() -> None:
    street = make_drawn("s", square(0, 0), level="street")
    assert rank_levels([street, EAST_COUNTY, CITY]) == {"city": 0, "county": 1, "street": 2}


def test_what_areas_say_of_their_parents_outweighs_their_size() -> None:
    # One district of one large ward: by size alone the ward would lie above.
    district = make_drawn("d", square(0, 0, 2, 2), level="district")
    ward = make_drawn("w", square(0, 0, 3, 3), level="ward", parent="d")
    assert rank_levels([district, ward]) == {"district": 0, "ward": 1}


def test_levels_that_are_each_others_parents_are_refused() -> None:
    one = make_drawn("a", square(0, 0), level="county", parent="b")
    other = make_drawn("b", square(0, 0), level="street", parent="a")
    with pytest.raises(BoundariesUnusable, match="each other's parents"):
        rank_levels([one, other])


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("530800", "5308"),
        ("530000", "53"),
        ("530802", "530802"),
        ("530802000", "530802"),
        ("530802001000", "530802001"),
        ("100", "100"),
        ("A00000", "A00000"),
    ],
)
def test_the_unused_segments_of_an_administrative_code_are_zeros(code: str, part: str) -> None:
    assert significant(code) == part


def _parent_of(child: str, *areas: object) -> Area | None:
    drawn = list(areas)
    parents = find_parents(drawn, rank_levels(drawn))  # type: ignore[arg-type]
    return next(parent for area, parent in parents.items() if area.code == child)


def test_a_parent_is_the_one_that_the_area_names() -> None:
    street = make_drawn("530802001", square(0, 0), level="street", parent="530821")
    assert _parent_of("530802001", CITY, WEST_COUNTY, EAST_COUNTY, street) == Area("county", "530821")


def test_else_it_is_the_one_whose_code_begins_the_areas_code() -> None:
    # Mostly in the west, but an eastern code; the padded code of the city is no obstacle either.
    street = make_drawn("530821001", square(1.6, 0), level="street")
    assert _parent_of("530821001", CITY, WEST_COUNTY, EAST_COUNTY, street) == Area("county", "530821")
    assert _parent_of("530802", CITY, WEST_COUNTY, EAST_COUNTY, street) == Area("city", "530800")


def test_a_code_that_begins_alike_by_chance_is_no_parent() -> None:
    one = make_drawn("1", square(0, 0, 2, 4), level="county")
    two = make_drawn("2", square(2, 0, 2, 4), level="county")
    street = make_drawn("11", square(3, 0), level="street")
    assert _parent_of("11", one, two, street) == Area("county", "2")


def test_else_it_is_the_one_with_which_the_area_shares_most_ground() -> None:
    street = make_drawn("park", square(1.4, 0), level="street")
    assert _parent_of("park", CITY, WEST_COUNTY, EAST_COUNTY, street) == Area("county", "530802")


def test_the_top_level_and_areas_beyond_it_have_no_parent() -> None:
    far = make_drawn("far", square(9, 9), level="street")
    assert _parent_of("530800", CITY, WEST_COUNTY, far) is None
    assert _parent_of("far", CITY, WEST_COUNTY, far) is None


def test_overlaps_name_both_codes_and_the_ground_they_share() -> None:
    other = make_drawn("530821", square(1.5, 0, 2.5, 4), level="county")
    (found,) = overlaps([other, WEST_COUNTY])
    assert found.codes == ("530802", "530821")
    assert found.area_m2 == pytest.approx(WEST_COUNTY.area_m2 / 4, rel=1e-3)


def test_areas_that_only_touch_do_not_overlap() -> None:
    assert overlaps([WEST_COUNTY, EAST_COUNTY]) == []


def _gaps(areas: list[DrawnArea], whole: MultiPolygon | None = None) -> list[Gap]:
    return gaps(areas, union_of(area.geometry for area in areas), whole)


def test_a_gap_is_ground_of_the_whole_that_no_area_has() -> None:
    short = make_drawn("530821", square(2, 0, 2, 3), level="county")
    (found,) = _gaps([WEST_COUNTY, short], CITY.geometry)
    assert found.codes == ("530802", "530821")
    assert found.area_m2 == pytest.approx(CITY.area_m2 / 8, rel=1e-3)
    assert _gaps([WEST_COUNTY, EAST_COUNTY], CITY.geometry) == []


def test_without_a_whole_a_gap_is_what_the_areas_enclose() -> None:
    holed = Polygon(square(0, 0, 4, 4).exterior, [square(1, 1).exterior])
    (found,) = _gaps([make_drawn("ring", holed)])
    assert found.codes == ("ring",)
    assert _gaps([WEST_COUNTY]) == []


def test_polygons_have_one_form_whatever_order_they_came_in() -> None:
    one, other = square(0, 0), square(2, 0)
    forms = [canonical(MultiPolygon([one, other])), canonical(MultiPolygon([other, one.reverse()]))]
    assert forms[0].equals_exact(forms[1])
    assert all(part.exterior.is_ccw for part in forms[0].geoms)
