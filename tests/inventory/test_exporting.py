"""Files of the inventory: every format holds what is listed, which is the count, and reads back as it was."""

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import pyarrow.parquet
import pytest

from detection.errors import CallerError, UnknownName
from inventory.counting import count
from inventory.exporting import TABLES, ExportFormat, export_assets, format_of
from inventory.store import cities
from inventory.store.database import Database
from tests.support.city import FIRST_LOOK, make_city

HOSTILE = "=cmd|' /C calc'!A0"


@pytest.fixture
def town(database: Database) -> Database:
    """Three listed trees in two areas, one of them in the southern half of the world; one gone; a car."""
    with database.transaction() as connection:
        city = make_city(connection, "town", classes=("tree", "car"))
        city.area("A", (100.0, 22.0, 100.05, 22.1))
        city.area(HOSTILE, (100.05, 22.0, 100.1, 22.1))
        city.assets([(100.01, 22.01), (-0.5, -22.5)], areas=["A"], verified=True)
        city.assets([(100.06, 22.01)], areas=[HOSTILE])
        city.assets([(100.02, 22.02)], areas=["A"], listed=False, status="gone")
        city.assets([(100.03, 22.03)], class_="car")
    return database


def read(file: Path, form: ExportFormat) -> list[dict[str, Any]]:
    """The rows of a file by a reader of somebody else's, with x and y."""
    if form is ExportFormat.CSV:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = list(csv.DictReader(opened))
        return [row | {"x": float(row["longitude"]), "y": float(row["latitude"])} for row in rows]
    frame = geopandas.read_parquet(file) if form is ExportFormat.GEOPARQUET else geopandas.read_file(file)
    assert frame.crs.to_epsg() == 4326
    rows = frame.drop(columns="geometry").to_dict("records")
    return [row | {"x": p.x, "y": p.y} for row, p in zip(rows, frame.geometry, strict=True)]


@pytest.mark.parametrize("form", TABLES)
def test_export_holds_what_is_listed_with_all_that_is_public(
    town: Database, tmp_path: Path, form: ExportFormat
) -> None:
    file = tmp_path / f"out.{form}"
    done = export_assets(town, "town", file, form, classes=["tree"])
    rows = read(file, form)
    (counted,) = count(town, "town", classes=["tree"])
    assert done.assets == len(rows) == counted.count == 3
    # A FlatGeobuf is in order of place.
    first = min(rows, key=lambda row: str(row["id"]))
    assert (first["x"], first["y"]) == pytest.approx((100.01, 22.01), abs=1e-7)
    assert {name: first[name] for name in ("class", "status", "survey", "area_district", "licence")} == {
        "class": "tree",
        "status": "present",
        "survey": "v1",
        "area_district": "A",
        "licence": "CC BY 4.0",
    }
    assert float(first["probability"]) == pytest.approx(0.9)
    assert float(first["position_error_m"]) == 1
    assert str(first["first_seen"]).startswith(FIRST_LOOK.date().isoformat())
    assert len({row["id"] for row in rows}) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


@pytest.mark.parametrize("form", TABLES)
def test_export_of_nothing_still_has_its_fields(town: Database, tmp_path: Path, form: ExportFormat) -> None:
    file = tmp_path / f"none.{form}"
    assert export_assets(town, "town", file, form, as_of=date(2001, 1, 1)).assets == 0
    if form is ExportFormat.GEOJSON:
        assert json.loads(file.read_text(encoding="utf-8"))["features"] == []
    elif form is ExportFormat.CSV:
        assert "area_district" in file.read_text(encoding="utf-8-sig").splitlines()[0]
    else:
        frame = geopandas.read_parquet(file) if form is ExportFormat.GEOPARQUET else geopandas.read_file(file)
        assert "area_district" in frame.columns
        assert len(frame) == 0


def test_csv_says_its_encoding_and_holds_no_formula(town: Database, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    export_assets(town, "town", file, ExportFormat.CSV)
    content = file.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    text = content.decode("utf-8-sig")
    assert f'"\'{HOSTILE}"' in text
    assert f',"{HOSTILE}' not in text
    # A negative number stays a number.
    assert ",-0.5,-22.5\r\n" in text


def test_mobile_items_are_exported_under_their_observations(town: Database, tmp_path: Path) -> None:
    file = tmp_path / "cars.geojson"
    assert export_assets(town, "town", file, ExportFormat.GEOJSON, classes=["car"]).assets == 1
    (car,) = json.loads(file.read_text(encoding="utf-8"))["features"]
    assert car["id"].isdigit()


def test_what_moves_is_left_out_unless_asked_for_or_nothing_else_is_counted(
    town: Database, tmp_path: Path
) -> None:
    done = export_assets(town, "town", tmp_path / "all.csv", ExportFormat.CSV)
    assert (done.assets, done.classes, done.left_out) == (3, ("tree",), ("car",))
    both = export_assets(town, "town", tmp_path / "both.csv", ExportFormat.CSV, classes=["car", "tree"])
    assert (both.assets, both.left_out) == (4, ())
    with town.transaction() as connection:
        cities.set_classes(connection, cities.get_city(connection, "town").id, ["car"])
    cars = export_assets(town, "town", tmp_path / "cars.csv", ExportFormat.CSV)
    assert (cars.assets, cars.classes, cars.left_out) == (1, ("car",), ())


def test_export_of_an_area_and_of_other_statuses(town: Database, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    assert export_assets(town, "town", file, ExportFormat.CSV, area="A").assets == 2
    gone = export_assets(town, "town", file, ExportFormat.CSV, statuses=["gone"])
    assert gone.assets == 1
    (row,) = read(file, ExportFormat.CSV)
    assert (row["listed"], row["status"]) == ("false", "gone")


def test_unknown_names_are_refused_and_an_earlier_file_stays(town: Database, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_text("mine", encoding="utf-8")
    for asked in ({"area": "Z"}, {"classes": ["bench"]}, {"statuses": ["lost"]}):
        with pytest.raises(UnknownName):
            export_assets(town, "town", file, ExportFormat.CSV, **asked)  # type: ignore[arg-type]
    assert file.read_text(encoding="utf-8") == "mine"


def test_format_is_told_by_the_suffix_or_asked_for() -> None:
    assert format_of(Path("a.parquet"), None) is ExportFormat.GEOPARQUET
    assert format_of(Path("a.txt"), ExportFormat.CSV) is ExportFormat.CSV
    with pytest.raises(CallerError, match="--format"):
        format_of(Path("a.txt"), None)


def test_geoparquet_says_its_crs_in_its_metadata(town: Database, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    export_assets(town, "town", file, ExportFormat.GEOPARQUET)
    geo = json.loads(pyarrow.parquet.read_schema(file).metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert column["geometry_types"] == ["Point"]
