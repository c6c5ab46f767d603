"""Counts by area as features, and counts told apart by level, class and date."""

import csv
import io
from datetime import date
from pathlib import Path

import geopandas
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.dates import days_from
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


@pytest.mark.parametrize(
    ("span", "as_of"),
    [("2024-01-01/2025-12-31", "2025-12-31"), ("../2025-12-31", "2025-12-31"), ("2024-01-01/..", None),
     ("../..", None), ("0000-01-01T00:00:00Z/9999-12-31T00:00:00Z", None)],
)  # fmt: skip
def test_of_a_span_of_time_they_are_as_of_its_end(service: Service, span: str, as_of: str | None) -> None:
    alone = service.get(ITEMS if as_of is None else f"{ITEMS}?datetime={as_of}").json()["features"]
    assert service.get(f"{ITEMS}?datetime={span}").json()["features"] == alone


def test_their_schema_has_the_citys_own_columns(service: Service) -> None:
    schema = service.get("/cities/town/collections/counts/schema").json()["properties"]
    feature = service.get(ITEMS).json()["features"][0]
    assert set(schema) - {"id", "geom"} == set(feature["properties"])
    assert schema["tree_count"]["type"] == "integer"


@pytest.mark.parametrize("form", ["gpkg", "flatgeobuf", "geojson", "geojsonseq"])
@pytest.mark.parametrize("path", [ITEMS, "/cities/town/collections/counts/download"])
def test_programs_open_them_in_every_format(service: Service, tmp_path: Path, path: str, form: str) -> None:
    suffix = {"flatgeobuf": "fgb", "geojsonseq": "geojsonl"}.get(form, form)
    file = tmp_path / f"counts.{suffix}"
    file.write_bytes(service.get(f"{path}?f={form}&datetime=2025-12-31").content)
    table = geopandas.read_file(file).set_index("code").sort_index()
    told = {
        each["properties"]["code"]: each["properties"]
        for each in service.get(f"{ITEMS}?datetime=2025-12-31").json()["features"]
    }
    assert list(table.index) == sorted(told)
    assert table.crs.to_epsg() == 4326
    for code, row in table.iterrows():
        known = told[str(code)]
        assert [None if pandas.isna(row[name]) else row[name] for name in ("tree_count", "tree_coverage")] == [
            known["tree_count"], known["tree_coverage"],
        ]  # fmt: skip


def test_as_a_table_they_have_a_column_for_each_of_theirs(service: Service) -> None:
    lines = service.get(f"{ITEMS}?f=csv&bom=false").text.splitlines()
    header = next(csv.reader(lines))
    assert {"code", "as_of", "tree_count", "tree_low", "tree_basis", "WKT"} <= set(header)
    assert len(lines) == 1 + len(service.get(ITEMS).json()["features"])


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


def test_dates_may_be_given_as_steps(service: Service) -> None:
    asked = "group-by=class,date&class=tree"
    by_month = service.get(f"{COUNTS}?{asked}&from=2025-12-31&to=2026-03-15&step=P1M").json()["counts"]
    assert [(row["as_of"], row["count"]) for row in by_month] == [
        ("2025-12-31", 4),
        ("2026-01-31", 4),
        ("2026-02-28", 5),
    ]
    by_year = service.get(f"{COUNTS}?{asked}&from=2025-06-30&to=2026-06-30").json()
    assert by_year == service.get(f"{COUNTS}?{asked}&as_of=2025-06-30,2026-06-30").json()


def test_a_table_is_for_spreadsheets_or_for_programs(service: Service) -> None:
    for_people = service.get(f"{COUNTS}?level=district&f=csv")
    assert 'filename="town-counts.csv"' in for_people.headers["content-disposition"]
    plain = service.get(f"{COUNTS}?level=district&f=csv&bom=false")
    assert for_people.text.removeprefix("\ufeff") == plain.text
    ring = [[100.0, 22.0], [100.1, 22.0], [100.1, 22.1], [100.0, 22.1], [100.0, 22.0]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    table = service.client.post(f"{COUNTS}?class=tree&f=csv&bom=false", json=polygon)
    (row,) = list(csv.DictReader(io.StringIO(table.text)))
    (said,) = service.client.post(f"{COUNTS}?class=tree", json=polygon).json()["counts"]
    assert row == {name: "" if value is None else str(value) for name, value in said.items()}
    assert service.client.post(f"{COUNTS}?f=html", json=polygon).status_code == 400


def test_ends_of_months_stay_ends_of_months() -> None:
    assert days_from(date(2024, 1, 31), date(2024, 4, 30), "P1M", most=9) == [
        date(2024, 1, 31),
        date(2024, 2, 29),
        date(2024, 3, 31),
        date(2024, 4, 30),
    ]
    assert days_from(date(2024, 2, 29), date(2028, 12, 31), "P1Y", most=9)[-1] == date(2028, 2, 29)
    assert days_from(date(9999, 1, 1), date(9999, 12, 31), "P1Y", most=9) == [date(9999, 1, 1)]


@given(
    st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    st.integers(0, 4000),
    st.sampled_from(["P1Y", "P1M", "P5M", "P1W", "P10D", "P1Y6M", "P1M1D"]),
)
def test_steps_rise_begin_with_the_first_day_and_never_pass_the_last(
    first: date, more: int, step: str
) -> None:
    last = date.fromordinal(first.toordinal() + more)
    days = days_from(first, last, step, most=10_000)

    assert days[0] == first
    assert days == sorted(set(days))
    assert days[-1] <= last


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from=2025-12-31", "group-by"),
        ("group-by=date&to=2025-12-31", "from"),
        ("group-by=date&step=P1Y", "from"),
        ("group-by=date&as_of=2025-12-31&from=2024-12-31", "exclude"),
        ("group-by=date&from=2025-12-31&step=yearly", "yearly"),
        ("group-by=date&from=2025-12-31&step=P0D", "P0D"),
        ("group-by=date&from=2025-12-31&step=PT1H", "PT1H"),
        ("group-by=date&from=2025-12-31&to=2024-12-31", "comes before"),
        ("group-by=date&from=1900-01-01&to=2026-01-01&step=P1D", "120"),
        ("group-by=date&from=soon", "soon"),
        ("f=xml", "xml"),
        ("bom=perhaps&f=csv", "bom"),
    ],
)
def test_steps_and_forms_that_are_none_are_refused(service: Service, query: str, told: str) -> None:
    answer = service.get(f"{COUNTS}?{query}")
    assert answer.status_code == 400
    assert told in f"{answer.json()['detail']} {answer.json()['where']}"


@pytest.mark.parametrize(
    "query",
    ["group-by=colour", "group-by=class&as_of=2025-01-01,2026-01-01", "group-by=class&area=A", "as_of=a,b"],
)
def test_a_grouping_that_means_nothing_is_refused(service: Service, query: str) -> None:
    assert service.get(f"{COUNTS}?{query}").status_code == 400
