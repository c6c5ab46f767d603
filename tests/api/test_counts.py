"""Counts over HTTP: by area, in a polygon, as of a date; null is *not surveyed*."""

import json
from typing import Any

import pytest

from tests.api.conftest import Service

COUNTS = "/cities/town/counts"
KEYS = {
    "area", "name", "class", "count", "low", "high", "basis", "coverage", "as_of", "oldest_look", "newest_look",
}  # fmt: skip


def box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def counted(service: Service, path: str) -> list[dict[str, Any]]:
    answer = service.get(path)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["counts"]
    assert all(row.keys() == KEYS for row in rows)
    return rows


def test_the_city_has_one_row_for_each_class(service: Service) -> None:
    rows = {row["class"]: row for row in counted(service, COUNTS)}

    assert (rows["tree"]["count"], rows["tree"]["coverage"], rows["tree"]["area"]) == (4, 0.5, "town")
    assert rows["car"]["count"] == 2


def test_r12_the_areas_of_a_level_and_outside_add_up_to_the_city(service: Service) -> None:
    rows = counted(service, f"{COUNTS}?level=district&class=tree")

    assert [(row["area"], row["count"]) for row in rows] == [("A", 2), ("B", 1), ("outside", 1)]


def test_r13_nothing_surveyed_is_null_and_not_zero(service: Service) -> None:
    (row,) = counted(service, f"{COUNTS}?area=B&class=tree&as_of=2020-01-01")

    assert (row["count"], row["coverage"], row["as_of"]) == (None, None, "2020-01-01")


def test_a_polygon_is_counted_with_its_border(service: Service) -> None:
    for body in (
        box(100.01, 22.01, 100.02, 22.02),
        {"type": "Feature", "properties": {}, "geometry": box(100.01, 22.01, 100.02, 22.02)},
        {"type": "MultiPolygon", "coordinates": [box(100.01, 22.01, 100.02, 22.02)["coordinates"]]},
    ):
        answer = service.client.post(f"{COUNTS}?class=tree", json=body)
        (row,) = answer.json()["counts"]
        assert row.keys() == KEYS
        assert (row["area"], row["count"], row["coverage"]) == (None, 2, 1.0)


@pytest.mark.parametrize(
    "body",
    [
        box(179.0, -18.0, -179.0, -16.0),
        box(179.0, -18.0, 181.0, -16.0),
        box(-181.0, -18.0, -179.0, -16.0),
        {
            "type": "MultiPolygon",
            "coordinates": [
                box(179.0, -18.0, 180.0, -16.0)["coordinates"],
                box(-180.0, -18.0, -179.0, -16.0)["coordinates"],
            ],
        },
    ],
    ids=["jumps", "beyond 180", "beyond -180", "cut"],
)
def test_a_polygon_over_the_antimeridian_counts_both_sides_and_nothing_else(
    service: Service, body: dict[str, Any]
) -> None:
    (row,) = service.client.post("/cities/fiji/counts", json=body).json()["counts"]
    assert row["count"] == 2
    assert row["coverage"] == pytest.approx(0.5, abs=1e-3)


def test_r13_a_polygon_beyond_the_city_has_no_count_and_is_told_why(service: Service) -> None:
    def asked(body: dict[str, Any], query: str = "") -> dict[str, Any]:
        found: dict[str, Any] = service.client.post(f"{COUNTS}?class=tree{query}", json=body).json()
        return found

    beyond = asked(box(22.0, 50.0, 23.0, 51.0))
    (row,) = beyond["counts"]
    assert row.keys() == KEYS
    assert (row["count"], row["coverage"], row["basis"]) == (None, None, "not surveyed")
    assert "outside of town" in beyond["hint"]
    assert "nobody has looked" in asked(box(100.0, 22.0, 100.05, 22.05), "&as_of=2020-01-01")["hint"]
    assert "hint" not in asked(box(100.0, 22.0, 100.05, 22.05))


def test_a_polygon_is_counted_as_of_a_date(service: Service) -> None:
    body = box(100.0, 22.0, 100.05, 22.05)

    for day, count in (("2025-06-01", 3), ("2026-03-05", 2)):
        (row,) = service.client.post(f"{COUNTS}?class=tree&as_of={day}", json=body).json()["counts"]
        assert row["count"] == count


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"type":"Polygon","coordinates":[[[NaN,0],[1,0],[1,1],[NaN,0]]]}', 422, "coordinate_not_finite"),
        (json.dumps(box(999, 0, 1000, 1)).encode(), 422, "coordinate_out_of_range"),
        (b" " * (8 * 1024**2 + 1), 413, "body_too_large"),
        (
            json.dumps({"type": "Polygon", "coordinates": [[[0, 0]] * 100_001]}).encode(),
            422,
            "too_many_vertices",
        ),
        (b'{"type":"Polygon","coordinates":[[[0,0],[1,1],[1,0],[0,1],[0,0]]]}', 422, "geometry_invalid"),
        (b'{"type":"Polygon","coordinates":[[[100,0],[-100,0],[-100,1],[100,0]]]}', 422, "antimeridian"),
        (b'{"type":"Point","coordinates":[1,2]}', 422, "unsupported_geometry"),
        (b"[" * 100_000, 400, "json_too_deep"),
        (b"[" + b"1" * 5_000 + b"]", 400, "number_too_long"),
        (b"", 400, "json_invalid"),
        (b'{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1]]]}', 422, "geometry_degenerate"),
    ],
)
def test_ge_rows_are_refused_over_http(service: Service, body: bytes, status: int, code: str) -> None:
    answer = service.client.post(COUNTS, content=body, headers={"Content-Type": "application/geo+json"})

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_ge3_a_body_without_a_length_is_cut_off_at_the_limit(service: Service) -> None:
    def endless() -> Any:
        for _ in range(9):
            yield b" " * 1024**2

    assert service.client.post(COUNTS, content=endless()).status_code == 413


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("area=nowhere", 404), ("level=nowhere", 404), ("class=unicorn", 404), ("as_of=2026-02-30", 400),
        ("as_of=yesterday", 400), ("area=A&level=district", 400), ("areas=A", 400),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_is_refused(service: Service, query: str, status: int) -> None:
    answer = service.get(f"{COUNTS}?{query}")

    assert answer.status_code == status
    assert answer.json()["do"]
