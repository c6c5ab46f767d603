"""Polygons of users, checked before any library gets them (rows GE1–GE7 of the security design)."""

import json
import math
import random
from typing import Any, NoReturn

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from detection.errors import CallerError
from inventory import polygons
from inventory.errors import PolygonTooLarge, PolygonUnusable
from inventory.polygons import read_polygon

TRIANGLE = [[0, 0], [1, 0], [1, 1], [0, 0]]


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def code_of(document: Any) -> str:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(CallerError) as refused:
        read_polygon(data)
    return refused.value.code


def ring_of(count: int, seed: int = 1) -> list[list[float]]:
    random_one = random.Random(seed)
    ring = [[random_one.random(), random_one.random()] for _ in range(count - 1)]
    return [*ring, ring[0]]


def must_not_be_called(*_: Any, **__: Any) -> NoReturn:
    pytest.fail("called")


def circle_of(count: int) -> list[list[float]]:
    angles = [2 * math.pi * i / (count - 1) for i in range(count - 1)]
    ring = [[100 + math.cos(angle), 20 + math.sin(angle)] for angle in angles]
    return [*ring, ring[0]]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda geometry: geometry,
        lambda geometry: {"type": "Feature", "properties": {"note": "[[[["}, "geometry": geometry},
        lambda geometry: {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "properties": None, "geometry": geometry}],
        },
    ],
)
def test_a_polygon_may_come_as_geometry_feature_or_collection_of_one(wrap: Any) -> None:
    read = read_polygon(json.dumps(wrap(polygon(TRIANGLE))).encode())

    assert read.equals(shapely.Polygon(TRIANGLE))


def test_heights_are_dropped_and_a_byte_order_mark_is_no_fault() -> None:
    data = b"\xef\xbb\xbf" + json.dumps(polygon([[*position, 7.5] for position in TRIANGLE])).encode()

    assert not read_polygon(data).has_z


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", '"1"', "true", "null", "[1]"])
def test_ge1_what_is_no_finite_number_is_refused(number: str) -> None:
    data = f'{{"type":"Polygon","coordinates":[[[{number},0],[1,0],[1,1],[{number},0]]]}}'.encode()

    assert code_of(data) == "coordinate_not_finite"


@pytest.mark.parametrize("position", [[999, 0], [0, 91], [22.5, 100.5], [500000, 2500000]])
def test_ge2_coordinates_out_of_range_are_refused(position: list[float]) -> None:
    assert code_of(polygon([position, [1, 0], [1, 1], position])) == "coordinate_out_of_range"


def test_ge2_a_named_projected_crs_is_refused() -> None:
    document = {
        **polygon(TRIANGLE),
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32647"}},
    }

    assert code_of(document) == "unsupported_geometry"


def test_ge3_more_bytes_than_allowed_are_refused() -> None:
    with pytest.raises(PolygonTooLarge):
        read_polygon(b" " * (8 * 1024**2 + 1))


def test_ge3_more_vertices_than_allowed_are_refused() -> None:
    assert code_of(polygon([[0, 0]] * 100_001)) == "too_many_vertices"


def test_ge3_more_rings_than_allowed_are_refused() -> None:
    assert code_of(polygon(*[TRIANGLE] * 10_001)) == "too_many_vertices"


def test_ge3_millions_of_empty_lists_are_refused_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons.json, "loads", must_not_be_called)

    assert code_of(b"[" + b"[]," * 2_000_000 + b"1]") == "too_many_vertices"


def test_ge4_a_self_intersection_is_refused_with_its_place() -> None:
    with pytest.raises(PolygonUnusable) as refused:
        read_polygon(json.dumps(polygon([[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]])).encode())

    assert refused.value.code == "geometry_invalid"
    assert "0.5, 0.5" in str(refused.value)


def test_ge4_a_self_intersection_bomb_is_refused_and_never_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is slow about such a ring is mending it; the first fault is found at once.
    monkeypatch.setattr(shapely, "make_valid", must_not_be_called)

    assert code_of(polygon(ring_of(1_500))) == "geometry_invalid"


def test_ge4_a_large_polygon_is_checked_by_a_child_that_can_be_killed() -> None:
    assert read_polygon(json.dumps(polygon(circle_of(20_000))).encode()).is_valid
    assert code_of(polygon(ring_of(20_000))) == "geometry_invalid"


def test_ge5_a_ring_that_may_mean_either_way_round_is_refused() -> None:
    ring = [[100, -10], [-100, -10], [-100, 10], [100, 10], [100, -10]]

    assert code_of(polygon(ring)) == "antimeridian"


def test_ge5_a_multipolygon_cut_at_180_is_read() -> None:
    east = [[170, -10], [180, -10], [180, 10], [170, 10], [170, -10]]
    west = [[-180, -10], [-170, -10], [-170, 10], [-180, 10], [-180, -10]]
    read = read_polygon(json.dumps({"type": "MultiPolygon", "coordinates": [[east], [west]]}).encode())

    assert read.area == 400


@pytest.mark.parametrize(
    "document",
    [
        {"type": "GeometryCollection", "geometries": [polygon(TRIANGLE)]},
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "LineString", "coordinates": TRIANGLE},
        {"type": "FeatureCollection", "features": []},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": polygon(TRIANGLE)}] * 2},
        {"type": "Feature", "geometry": None},
        {"coordinates": [TRIANGLE]},
        [1, 2],
        7,
    ],
)
def test_ge6_other_than_one_polygon_is_refused(document: Any) -> None:
    assert code_of(document) == "unsupported_geometry"


def test_ge6_depth_digits_and_repetition_are_refused_before_parsing() -> None:
    assert code_of(b"[" * 100_000) == "json_too_deep"
    assert code_of(b'{"a":' * 300 + b"1" + b"}" * 300) == "json_too_deep"
    assert code_of(b'{"type":"Polygon","coordinates":[[[' + b"1" * 5_000 + b",0]]]}") == "number_too_long"
    assert code_of(b'{"type":"Polygon","type":"Point","coordinates":[]}') == "json_invalid"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"Polygon", b'{"type":"Polygon","coordinates":[[['])
def test_ge6_what_is_no_json_is_refused(data: bytes) -> None:
    assert code_of(data) == "json_invalid"


@pytest.mark.parametrize(
    "rings",
    [
        [],
        [[]],
        [[[0, 0], [1, 0], [1, 1]]],
        [[[0, 0], [1, 0], [1, 1], [0, 1]]],
        [[[0, 0], [0, 0], [0, 0], [0, 0]]],
        [[[0, 0], [1, 0], [1, 1e-15], [0, 1e-15], [0, 0]]],
    ],
)
def test_ge7_open_rings_and_slivers_are_refused(rings: Any) -> None:
    assert code_of({"type": "Polygon", "coordinates": rings}) == "geometry_degenerate"


@given(st.integers(min_value=0, max_value=30))
def test_ge7_the_vertex_that_a_ring_starts_with_does_not_matter(start: int) -> None:
    corners = circle_of(32)[:-1]
    turned = corners[start:] + corners[:start]
    read = read_polygon(json.dumps(polygon([*turned, turned[0]])).encode())

    assert read.equals(shapely.Polygon(corners))


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "coordinates", "geometry", "features", "crs"]),
        inner | st.sampled_from(["Polygon", "MultiPolygon", "Feature", "FeatureCollection"]),
        max_size=4,
    ),
    max_leaves=20,
))  # fmt: skip
def test_no_document_ends_in_anything_but_a_polygon_or_a_refusal(document: Any) -> None:
    try:
        read = read_polygon(json.dumps(document).encode())
    except CallerError:
        return
    assert read.is_valid
