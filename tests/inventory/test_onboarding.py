"""A city from its files to its stored areas, and through the years; removed without a trace."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyogrio
import pytest
import shapely
from shapely import box
from shapely.geometry.base import BaseGeometry
from sqlalchemy import text, update

from detection.errors import CallerError, Conflict, UnknownName
from inventory.boundaries import AreaFile, Fields
from inventory.counting import count
from inventory.domain.datum import Datum
from inventory.errors import BoundariesUnusable
from inventory.onboarding import CityReport, CityRequest, add_city, list_cities, show_city
from inventory.removing import holdings_of, remove_city
from inventory.store import schema
from inventory.store.database import Database
from tests.support.areas import COUNTIES, make_drawn, square, write_areas
from tests.support.city import EAST, NORTH, SOUTH, WEST, make_city

NOW = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
"""In Pu'er it is the second of March already."""
TODAY = date(2026, 3, 2)
SUMMER = date(2026, 7, 1)

SQUARE_M2 = make_drawn("x", square(0, 0)).area_m2

Row = tuple[BaseGeometry, Mapping[str, Any]]
WEST_COUNTY: Row = (square(0, 0, 2, 4), {"code": "530802", "name": "思茅区", "level": "county"})
EAST_COUNTY: Row = (square(2, 0, 2, 4), {"code": "530821", "name": "宁洱县", "level": "county"})
STREETS: list[Row] = [
    (square(2 * n, 0, 2, 4), {"code": f"{parent}001", "name": f"街道{n}", "level": "street"})
    for n, parent in enumerate(("530802", "530821"))
]


class Puer:
    """A made-up city, brought up to date from made-up files."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.files = 0

    def add(self, *rows: Row, file: dict[str, Any] | None = None, **request: Any) -> CityReport:
        """``city add puer --areas FILE``, the file holding these rows."""
        if rows:
            self.files += 1
            path = write_areas(self.folder / f"areas{self.files}.gpkg", rows)
            request["areas"] = AreaFile(path=path, **(file or {}))
        return add_city(self.database, CityRequest(code="puer", **request), now=NOW)

    def areas(self, on: date = TODAY) -> dict[str, tuple[str, BaseGeometry]]:
        """code → name and ground of the areas in force."""
        levels = show_city(self.database, "puer", now=NOW, on=on).levels
        return {area.code: (area.name, area.geometry) for of_level in levels.values() for area in of_level}


@pytest.fixture
def puer(database: Database, tmp_path: Path) -> Puer:
    return Puer(database, tmp_path)


def test_a_new_city_gets_all_it_needs_from_one_file(puer: Puer) -> None:
    report = puer.add(*STREETS, WEST_COUNTY, EAST_COUNTY, name="普洱")
    assert (report.created, report.changed) == (True, True)
    assert (report.city.name, report.city.time_zone) == ("普洱", "Asia/Shanghai")
    assert (report.city.metric_crs, report.classes) == ("EPSG:32647", ("tree",))
    assert report.valid_from == TODAY
    assert report.city.boundary.equals(square(0, 0, 4, 4))
    assert [(one.level, one.rank, one.added) for one in report.levels] == [
        ("county", 0, ("530802", "530821")),
        ("street", 1, ("530802001", "530821001")),
    ]
    assert any("time zone Asia/Shanghai, from the position" in note for note in report.notes)
    (shown,) = list_cities(puer.database, now=NOW)
    (street, _) = shown.levels["street"]
    assert (street.parent_level, street.parent_code, street.valid_from) == ("county", "530802", None)
    assert street.area_m2 == pytest.approx(report.levels[1].area_m2 / 2, rel=1e-3)


def test_the_same_file_again_changes_nothing(puer: Puer) -> None:
    rows = [*STREETS, WEST_COUNTY, EAST_COUNTY]
    puer.add(*rows)
    before = puer.areas()
    for again in (rows, rows[::-1], STREETS):
        report = puer.add(*again)
        assert not report.changed
        assert all(not (one.added or one.changed or one.ended) for one in report.levels)
    assert puer.areas() == before
    assert puer.areas(SUMMER) == before


def test_boundaries_that_change_make_versions_and_leave_the_past_alone(puer: Puer) -> None:
    puer.add(WEST_COUNTY, EAST_COUNTY)
    wider: Row = (square(0, 0, 3, 4), {**WEST_COUNTY[1], "name": "思茅新区"})
    report = puer.add(wider, (square(3, 0, 1, 4), EAST_COUNTY[1]), valid_from=SUMMER)
    assert report.levels[0].changed == ("530802", "530821")
    name, ground = puer.areas(date(2026, 6, 30))["530802"]
    assert name == "思茅区"
    assert ground.equals(WEST_COUNTY[0])
    assert puer.areas(date(1990, 1, 1)) == puer.areas(date(2026, 6, 30))
    name, ground = puer.areas(SUMMER)["530802"]
    assert name == "思茅新区"
    assert ground.equals(wider[0])


def test_areas_missing_from_a_later_file_end_and_new_ones_begin(puer: Puer) -> None:
    puer.add(WEST_COUNTY, EAST_COUNTY)
    merged: Row = (square(0, 0, 4, 4), {"code": "530899", "name": "新", "level": "county"})
    report = puer.add(merged, valid_from=SUMMER)
    assert (report.levels[0].added, report.levels[0].ended) == (("530899",), ("530802", "530821"))
    assert set(puer.areas(TODAY)) == {"530802", "530821"}
    assert set(puer.areas(SUMMER)) == {"530899"}


def test_a_later_file_leaves_other_levels_alone(puer: Puer) -> None:
    puer.add(WEST_COUNTY, EAST_COUNTY)
    report = puer.add(*STREETS)
    assert [one.level for one in report.levels] == ["street"]
    assert len(puer.areas(date(1990, 1, 1))) == 4  # the level's first version has no lower bound


def test_correcting_mends_a_version_in_place(puer: Puer) -> None:
    puer.add(WEST_COUNTY, EAST_COUNTY)
    mended: Row = (square(0, 0, 1.5, 4), WEST_COUNTY[1])
    report = puer.add(mended, correct=True)
    assert (report.levels[0].changed, report.levels[0].ended) == (("530802",), ())
    assert puer.areas(date(1990, 1, 1))["530802"][1].equals(mended[0])
    assert puer.areas()["530821"][1].equals(EAST_COUNTY[0])


def test_a_level_put_above_others_becomes_their_parent(puer: Puer) -> None:
    puer.add(*STREETS)
    city: Row = (square(0, 0, 4, 4), {"code": "530800", "name": "普洱市", "level": "city"})
    puer.add(city)
    puer.add(WEST_COUNTY, EAST_COUNTY)
    levels = show_city(puer.database, "puer", now=NOW).levels
    assert list(levels) == ["city", "county", "street"]
    assert [area.parent_code for area in levels["county"]] == ["530800", "530800"]
    assert [area.parent_code for area in levels["street"]] == ["530802", "530821"]
    assert [area.valid_from for area in levels["street"]] == [None, None]


def test_the_boundary_follows_the_top_level_until_it_is_given(puer: Puer) -> None:
    puer.add(WEST_COUNTY)
    assert puer.add(WEST_COUNTY, EAST_COUNTY).city.boundary.equals(square(0, 0, 4, 4))
    outline = write_areas(puer.folder / "outline.geojson", [(square(0, 0, 5, 4), {})])
    given = puer.add(boundary=outline)
    assert given.changed
    assert given.city.boundary_given
    kept = puer.add(WEST_COUNTY)
    assert shapely.hausdorff_distance(kept.city.boundary, square(0, 0, 5, 4)) < 1e-6
    (gap,) = kept.gaps or (None,)
    assert gap is None  # two fifths covered: a level that picks places, which is said instead
    assert "level “county” covers 40% of the ground above it" in kept.notes


def test_overlaps_and_gaps_are_measured_and_named(puer: Puer) -> None:
    eastern: Row = (square(1.5, 0, 2.5, 3.9), EAST_COUNTY[1])
    report = puer.add(WEST_COUNTY, eastern, (square(0, 0, 4, 4), {"code": "c", "name": "c", "level": "city"}))
    (overlap,) = report.overlaps
    assert (overlap.level, overlap.codes) == ("county", ("530802", "530821"))
    assert overlap.area_m2 == pytest.approx(0.5 * 3.9 * SQUARE_M2, rel=0.01)
    (gap,) = report.gaps
    assert (gap.level, gap.codes) == ("county", ("530802", "530821"))
    assert gap.area_m2 == pytest.approx(2 * 0.1 * SQUARE_M2, rel=0.01)


def test_classes_are_set_and_checked_against_the_taxonomy(puer: Puer) -> None:
    assert puer.add(WEST_COUNTY, classes=("tree", "car")).classes == ("car", "tree")
    assert puer.add(name="普洱").classes == ("car", "tree")
    report = puer.add(classes=("tree",))
    assert (report.classes, report.changed) == (("tree",), True)
    with pytest.raises(UnknownName, match="no asset class “tre”"):
        puer.add(classes=("tre",))


def test_a_time_zone_can_be_named_and_is_checked(puer: Puer) -> None:
    assert puer.add(WEST_COUNTY, time_zone="Asia/Bangkok").city.time_zone == "Asia/Bangkok"
    with pytest.raises(UnknownName, match="Did you mean Asia/Shanghai"):
        puer.add(time_zone="Asia/Shangai")


def test_chinese_degrees_of_unknown_datum_are_questioned(puer: Puer) -> None:
    assert any("--datum gcj02" in note for note in puer.add(WEST_COUNTY).notes)
    assert not any("--datum" in note for note in puer.add(WEST_COUNTY, datum=Datum.WGS84).notes)
    moved = puer.add(WEST_COUNTY, datum=Datum.GCJ02, correct=True)
    assert moved.levels[0].changed == ("530802",)


def test_a_file_whose_level_is_a_guess_is_refused_for_a_known_city(puer: Puer) -> None:
    unnamed = [(geometry, {"code": str(fields["adcode"])}) for geometry, fields in COUNTIES]
    report = puer.add(*unnamed)
    assert report.levels[0].level == "areas1"
    assert "the level is called “areas1”, after the file (--level)" in report.notes
    with pytest.raises(BoundariesUnusable, match="Say --level: areas1 to replace one"):
        puer.add(*unnamed)
    assert not puer.add(*unnamed, file={"level": "areas1"}).changed


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"code": "Pu er"}, CallerError, "cannot be the code of a city"),
        ({"code": "nowhere"}, CallerError, "nothing says where it is"),
        ({"code": "puer", "correct": True}, CallerError, "nothing to correct"),
        ({"code": "puer", "classes": ()}, CallerError, "no class to count"),
    ],
)
def test_what_cannot_be_a_city_is_refused(
    database: Database, request_: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        add_city(database, CityRequest(**request_), now=NOW)
    assert list_cities(database, now=NOW) == []


def test_areas_elsewhere_and_codes_of_other_levels_are_refused(puer: Puer) -> None:
    puer.add(WEST_COUNTY)
    with pytest.raises(BoundariesUnusable, match=r"lie [\d,]+ km away from “puer”"):
        puer.add((box(10, 50, 11, 51), {"code": "x", "level": "street"}))
    with pytest.raises(Conflict, match="the code “530802” of level “street” is one of level “county”"):
        puer.add((square(0, 0), {"code": "530802", "level": "street"}))


def test_a_named_field_serves_where_no_usual_one_exists(puer: Puer) -> None:
    report = puer.add(
        (square(0, 0), {"ref": "x", "art": "ward"}), file={"fields": Fields(code="ref", level="art")}
    )
    assert report.levels[0].level == "ward"


_CARD = {
    "name": "trees-test",
    "version": "1",
    "file": "model.onnx",
    "sha256": "ab" * 32,
    "licence": "AGPL-3.0-or-later",
    "description": "none",
    "input": {"ground_resolution_m": 0.1, "range_m": [0.05, 0.2], "window_px": 640, "margin_px": 64},
    "output": {"head": "one-to-many", "classes": ["tree"], "merge_iou": 0.5},
    "threshold": {"tree": 0.3},
}


def test_assets_move_with_the_areas_around_them(database: Database, tmp_path: Path) -> None:
    with database.transaction() as connection:
        city = make_city(connection)
        connection.execute(update(schema.survey).values(card=_CARD))
        connection.execute(update(schema.scene).values(pixel_hash="00ff" * 16))
        city.assets([(100.01, 22.05), (100.02, 22.05), (100.09, 22.05)])
    middle = (WEST + EAST) / 2
    whole = pytest.approx(1.0, abs=1e-3)  # edges straight in degrees are not quite straight in metres

    def bring(*parts: tuple[str, float, float], **request: Any) -> None:
        rows = [
            (box(west, SOUTH, east, NORTH), {"code": code, "level": "district"}) for code, west, east in parts
        ]
        path = write_areas(tmp_path / f"{len(list(tmp_path.iterdir()))}.gpkg", rows)
        add_city(database, CityRequest(code="testville", areas=AreaFile(path=path), **request), now=NOW)

    def counted(on: date) -> dict[str | None, tuple[int | None, float | None]]:
        rows = count(database, "testville", level="district", as_of=on)
        return {row.area: (row.count, row.coverage) for row in rows if row.area != "outside"}

    bring(("a", WEST, middle), ("b", middle, EAST))
    assert counted(TODAY) == {"a": (2, whole), "b": (1, whole)}
    bring(("a", WEST, 100.015), ("b", 100.015, EAST), valid_from=SUMMER)
    assert counted(TODAY)["a"] == (2, whole)
    assert counted(SUMMER) == {"a": (1, whole), "b": (2, whole)}
    with pytest.raises(Conflict, match="before its first scene"):
        add_city(database, CityRequest(code="testville", time_zone="Europe/Paris"), now=NOW)


def test_a_removed_city_is_saved_first_and_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    with database.transaction() as connection:
        city = make_city(connection)
        city.area("a", (WEST, SOUTH, EAST, NORTH))
        city.assets([(100.01, 22.05), (100.02, 22.05)], areas=["a"])
        make_city(connection, "other")
        stored = tmp_path / "imagery" / "ab" / "scene.tif"
        stored.parent.mkdir(parents=True)
        stored.touch()
        connection.execute(
            update(schema.scene).where(schema.scene.c.city_id == city.id).values(path=str(stored))
        )
    (tmp_path / "cities" / "testville").mkdir(parents=True)
    saved = tmp_path / "testville.gpkg"
    assert holdings_of(database, "testville").layers["assets"] == 2
    removed = remove_city(database, "testville", export_to=saved, home=tmp_path)
    assert (removed.layers["areas"], removed.layers["assets"], removed.layers["surveys"]) == (1, 2, 1)
    assets = pyogrio.read_dataframe(saved, layer="assets")
    assert list(assets["asset"]) == ["a00001", "a00002"]
    assert [point.x for point in assets.geometry] == pytest.approx([100.01, 100.02])
    assert [overview.city.code for overview in list_cities(database, now=NOW)] == ["other"]
    with database.transaction() as connection:
        for table in schema.metadata.sorted_tables:
            if "city_id" in table.c:
                left = connection.execute(
                    text(f"SELECT count(*) FROM urban_inventory.{table.name} WHERE city_id = :id"),
                    {"id": city.id},
                ).scalar_one()
                assert left == 0, table.name
    assert not stored.exists()
    assert not (tmp_path / "cities" / "testville").exists()


def test_a_city_that_cannot_be_saved_is_not_removed(puer: Puer) -> None:
    puer.add(WEST_COUNTY)
    taken = puer.folder / "taken.gpkg"
    taken.touch()
    with pytest.raises(Conflict, match="there is such a file"):
        remove_city(puer.database, "puer", export_to=taken, home=puer.folder)
    with pytest.raises(CallerError, match="cannot be saved"):
        remove_city(puer.database, "puer", export_to=taken / "below.gpkg", home=puer.folder)
    assert set(puer.areas()) == {"530802"}
