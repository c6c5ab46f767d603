"""Counts by area as features, and counts told apart by level, class and date."""

import csv
import io

import pytest

from tests.api.conftest import Service

ITEMS = "/cities/town/collections/counts/items"
COUNTS = "/cities/town/counts"


def test_areas_have_their_counts_as_columns(service: Service) -> None:
    found = {one["properties"]["code"]: one for one in service.get(ITEMS).json()["features"]}
    rows = {
        (row["area"], row["class"]): row for row in service.get(f"{COUNTS}?level=district").json()["counts"]
    }
    assert set(found) == {"A", "B"}
    for code, feature in found.items():
        assert feature["geometry"]["type"] == "MultiPolygon"
        for name in ("tree", "car"):
            row = rows[code, name]
            told = {
                column: feature["properties"][f"{name}_{column}"]
                for column in ("count", "low", "high", "coverage")
            }
            assert told == {column: row[column] for column in told}
    # Nobody looked at B: that is not 0.
    assert (found["B"]["properties"]["car_count"], found["B"]["properties"]["car_coverage"]) == (None, None)


def test_counts_are_as_of_a_date_and_of_a_level_and_one_by_one(service: Service) -> None:
    then = service.get(f"{ITEMS}?datetime=2025-12-31").json()["features"]
    rows = {
        row["area"]: row["count"]
        for row in service.get(f"{COUNTS}?level=district&class=tree&as_of=2025-12-31").json()["counts"]
    }
    assert {one["properties"]["code"]: one["properties"]["tree_count"] for one in then} == {
        "A": rows["A"],
        "B": rows["B"],
    }
    assert {one["properties"]["as_of"] for one in then} == {"2025-12-31"}
    one = service.get(f"{ITEMS}/district:A").json()
    now = service.get(f"{ITEMS}?filter=code='A'").json()["features"][0]
    assert one["properties"] == now["properties"]


def test_their_schema_has_the_citys_own_columns(service: Service) -> None:
    schema = service.get("/cities/town/collections/counts/schema").json()["properties"]
    feature = service.get(ITEMS).json()["features"][0]
    assert set(schema) - {"id", "geom"} == set(feature["properties"])
    assert schema["tree_count"]["type"] == "integer"
    assert service.get(f"{ITEMS}?f=flatgeobuf").status_code == 400
    assert service.get("/cities/town/collections/counts/download?f=gpkg").status_code == 404


def test_rows_are_told_apart_by_what_is_asked(service: Service) -> None:
    by_level = service.get(f"{COUNTS}?group-by=level,area,class").json()["counts"]
    assert {(row["level"], row["area"], row["class"]) for row in by_level} == {
        ("district", area, name) for area in ("A", "B", "outside") for name in ("tree", "car")
    }
    by_date = service.get(f"{COUNTS}?group-by=class,date&as_of=2025-12-31,2026-11-01&class=tree").json()[
        "counts"
    ]
    alone = [
        service.get(f"{COUNTS}?class=tree&as_of={day}").json()["counts"][0]
        for day in ("2025-12-31", "2026-11-01")
    ]
    assert by_date == alone
    together = service.get(f"{COUNTS}?group-by=date").json()["counts"]
    of_each = service.get(COUNTS).json()["counts"]
    assert len(together) == 1
    known = [row["count"] for row in of_each]
    assert together[0]["count"] == (None if None in known else sum(known))
    assert (together[0]["low"], together[0]["basis"]) == (None, "sum of classes")


def test_counts_come_as_csv_too(service: Service) -> None:
    text = service.get(f"{COUNTS}?level=district&f=csv")
    assert text.headers["content-type"].startswith("text/csv")
    assert text.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(text.content.decode("utf-8-sig"))))
    told = service.get(f"{COUNTS}?level=district").json()["counts"]
    assert [(row["area"], row["class"], row["count"]) for row in rows] == [
        (row["area"], row["class"], "" if row["count"] is None else str(row["count"])) for row in told
    ]


@pytest.mark.parametrize(
    "query",
    ["group-by=colour", "group-by=class&as_of=2025-01-01,2026-01-01", "group-by=class&area=A", "as_of=a,b"],
)
def test_a_grouping_that_means_nothing_is_refused(service: Service, query: str) -> None:
    assert service.get(f"{COUNTS}?{query}").status_code == 400
