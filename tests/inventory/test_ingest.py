"""The main job against a real database, on drawn imagery whose count is known beforehand."""

import shutil
import zlib
from collections.abc import Callable
from datetime import date
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from sqlalchemy import text

from detection.errors import Conflict, SceneOutsideCity, SceneWithoutDate, UnknownName
from inventory import evidence_changes
from inventory import ingest as ingesting
from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import DecisionKind
from inventory.errors import TimeUnusable
from inventory.ingest import Status
from inventory.store.database import Database
from tests.support.database import DatabaseServer, cloned_database
from tests.support.networks import make_model, write_card
from tests.support.scenes import ORIGIN, UTM, scattered, write_scene
from tests.support.town import CODE, PIXEL_M, SIDE_PX, Town, make_town

TREES = scattered(SIDE_PX, SIDE_PX, count=60, gap_px=40)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Town:
    return make_town(database, tmp_path)


def ids(town: Town) -> set[str]:
    """Public ids of what is listed now."""
    query = text("SELECT id FROM urban_inventory.listed_assets WHERE city = :city")
    with town.database.transaction() as connection:
        return set(connection.execute(query, {"city": CODE}).scalars())


def states(town: Town) -> set[tuple[object, ...]]:
    """Everything the fold has said, but for row numbers."""
    query = text(
        "SELECT a.public_id, s.class, s.valid_from, s.valid_to, s.listed, s.status, s.x, s.y, s.hits"
        " FROM urban_inventory.asset_state s LEFT JOIN urban_inventory.asset a ON a.id = s.asset_id"
    )
    with town.database.transaction() as connection:
        return {tuple(row) for row in connection.execute(query)}


def test_a_survey_counts_what_is_there_and_says_how_much_it_saw(town: Town) -> None:
    (outcome,) = town.ingest(town.picture("one", TREES), "2024-05-01")
    assert (outcome.status, outcome.new, outcome.matched, outcome.missed) == (Status.STORED, 60, 0, 0)
    (row,) = town.counts()
    assert (row.count, row.area) == (60, CODE)
    assert row.coverage == pytest.approx(1.0, abs=1e-3)
    assert row.basis == "unvalidated:squares@1"
    assert (row.low, row.high) == (None, None)


def test_r12_areas_and_outside_add_up_to_the_city(town: Town) -> None:
    # 24 m further north, so that some trees lie outside of all areas.
    town.ingest(town.picture("north", TREES, origin=(ORIGIN[0], ORIGIN[1] + 24)), "2024-05-01")
    rows = {row.area: row for row in town.counts(level="district")}
    assert set(rows) == {"W", "E", "outside"}
    assert rows["outside"].count
    assert sum(row.count or 0 for row in rows.values()) == town.total() == 60
    west = sum(1 for column, row in TREES if column + 4 < SIDE_PX / 2 and row + 4 > 120)
    assert rows["W"].count == pytest.approx(west, abs=3)


def test_r13_nothing_surveyed_is_unknown_and_nothing_found_is_zero(town: Town) -> None:
    assert [row.count for row in town.counts(level="district")] == [None, None, None]
    half = town.picture("bare", [], size_px=(SIDE_PX // 2, SIDE_PX))
    town.ingest(half, "2024-05-01")
    rows = {row.area: row for row in town.counts(level="district")}
    assert (rows["W"].count, rows["E"].count) == (0, None)
    assert rows["W"].coverage == pytest.approx(1.0, abs=1e-3)
    assert rows["E"].coverage is None
    (city,) = town.counts()
    assert (city.count, city.coverage) == (0, pytest.approx(0.5, abs=1e-3))


def test_a_count_is_given_as_of_the_first_and_the_last_day_of_the_calendar(town: Town) -> None:
    town.ingest(town.picture("one", TREES), "2024-05-01")
    assert [row.count for day in (date.min, date.max) for row in town.counts(as_of=day)] == [None, 60]


def test_r2_the_same_file_again_changes_nothing(town: Town) -> None:
    file = town.picture("one", TREES)
    town.ingest(file, "2024-05-01")
    before = states(town)
    (again,) = town.ingest(file, "2024-05-01")
    assert again.status is Status.UNCHANGED
    assert (again.new, again.matched, again.missed) == (0, 0, 0)
    assert states(town) == before


def test_r2_the_same_pixels_with_another_date_are_refused_naming_redate(town: Town) -> None:
    file = town.picture("one", TREES)
    town.ingest(file, "2024-05-01")
    (refused,) = town.ingest(file, "2025-05-01")
    assert refused.status is Status.REFUSED
    assert isinstance(refused.error, Conflict)
    assert "scene redate" in str(refused.error)


def test_r2_a_corrected_georeference_takes_the_place_of_the_old_and_keeps_the_ids(town: Town) -> None:
    town.ingest(town.picture("wrong", TREES, seed=1), "2024-05-01")
    before = ids(town)
    corrected = town.picture("right", TREES, seed=1, origin=(ORIGIN[0] + 12, ORIGIN[1]))
    (outcome,) = town.ingest(corrected, "2024-05-01")
    assert outcome.status is Status.SUPERSEDED
    assert town.total() == 60
    assert ids(town) == before


def test_r2_without_a_date_a_file_is_refused_and_nothing_is_stored(town: Town) -> None:
    (refused,) = town.ingest(town.picture("undated", TREES), None)
    assert isinstance(refused.error, SceneWithoutDate)
    assert town.total() is None


def test_r2_imagery_of_a_day_that_has_not_come_is_refused(town: Town) -> None:
    (outcome,) = town.ingest(town.picture("a", TREES), "2999-01-01")
    assert isinstance(outcome.error, TimeUnusable)
    assert town.total() is None


def meanwhile(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Another process stores something while the network looks."""
    real = ingesting.sweep

    def sweep(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(ingesting, "sweep", real)
        other()
        return real(*arguments, **named)

    monkeypatch.setattr(ingesting, "sweep", sweep)


def test_r2_what_others_store_while_the_network_looks_is_seen(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = town.picture("a", TREES)
    meanwhile(monkeypatch, lambda: town.ingest(picture, "2025-07-01"))
    (outcome,) = town.ingest(picture, "2025-06-01")
    assert isinstance(outcome.error, Conflict)
    assert "scene redate" in str(outcome.error)
    moved = town.picture("b", TREES, seed=zlib.crc32(b"a"), origin=(ORIGIN[0] + 3, ORIGIN[1]))
    meanwhile(monkeypatch, lambda: town.ingest(moved, "2025-07-01"))
    (outcome,) = town.ingest(moved, "2025-07-01")
    assert outcome.status is Status.UNCHANGED
    with town.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM urban_inventory.scene")).scalar() == 2
    town.ingest(town.picture("c", TREES), "2025-08-01")
    meanwhile(monkeypatch, lambda: town.ingest(town.picture("d", TREES), "2025-08-02"))
    moved = town.picture("e", TREES, seed=zlib.crc32(b"d"), origin=(ORIGIN[0] + 3, ORIGIN[1]))
    (outcome,) = town.ingest(moved, "2025-08-02")
    assert outcome.status is Status.SUPERSEDED


def test_a_file_of_another_place_is_refused_and_the_rest_goes_on(town: Town) -> None:
    far = town.picture("far", TREES, origin=(ORIGIN[0] + 5000, ORIGIN[1]))
    refused, stored = town.ingest([far, town.picture("here", TREES[:5])], "2024-05-01")
    assert isinstance(refused.error, SceneOutsideCity)
    assert stored.status is Status.STORED
    assert town.total() == 5


def test_r3_runs_by_a_model_that_is_not_in_force_are_stored_and_are_no_evidence(town: Town) -> None:
    file = town.picture("one", TREES, cars=[(20, 20)])
    town.ingest(file, "2024-05-01")
    before = states(town)
    (other,) = town.ingest(file, "2024-05-01", model="cubes")
    assert other.status is Status.NOT_IN_FORCE
    assert states(town) == before


def test_r3_choosing_a_model_switches_and_choosing_back_gives_the_counts_of_before(town: Town) -> None:
    file = town.picture("one", TREES)
    town.ingest(file, "2024-05-01")
    before = states(town)
    town.ingest(file, "2024-05-01", model="cubes")
    for name in ("cubes", "squares"):
        evidence_changes.choose_model(town.database, CODE, town.registry.get(name), taxonomy=town.taxonomy)
    assert states(town) == before


def test_r3_another_card_on_the_same_network_is_another_model(town: Town) -> None:
    squares = town.registry.get("squares").card_path
    assert squares is not None
    copied = shutil.copytree(squares.parent, squares.parent.parent / "copied") / "card.toml"
    copied.write_text(copied.read_text("utf-8").replace('name = "squares"', 'name = "copied"'), "utf-8")
    file = town.picture("one", TREES)
    town.ingest(file, "2024-05-01")
    before = states(town)
    for _ in range(2):
        (other,) = town.ingest(file, "2024-05-01", model="copied")
    assert other.status is Status.UNCHANGED
    assert other.survey != town.ingest(file, "2024-05-01")[0].survey
    evidence_changes.choose_model(town.database, CODE, town.registry.get("copied"), taxonomy=town.taxonomy)
    query = text(
        "SELECT v.model FROM urban_inventory.survey v JOIN urban_inventory.survey_class k ON k.survey_id = v.id"
        " WHERE k.in_force AND k.class = 'tree'"
    )
    with town.database.transaction() as connection:
        assert connection.execute(query).scalars().all() == ["copied"]
    assert town.total() == len(before)


def test_r6_an_implausible_size_is_stored_and_never_counted(town: Town) -> None:
    # A tenth of the size of a tree: 8 px of 2.5 cm are 0.2 m.
    tiny = town.picture("tiny", scattered(400, 400, count=5), pixel_m=0.025)
    (outcome,) = town.ingest(tiny, "2024-05-01", model=_fine_model(town))
    assert outcome.observations == 5
    assert town.total() == 0


def _fine_model(town: Town) -> str:
    # Named as the model in force, at a resolution at which the squares are far too small to be trees.
    model = make_model(town.folder / "fine", name="squares", ground_resolution_m=0.025)
    return str(write_card(model))


def test_r7_two_surveys_of_one_place_give_one_set_of_assets_with_the_same_ids(town: Town) -> None:
    town.ingest(town.picture("one", TREES), "2024-05-01")
    before = ids(town)
    (second,) = town.ingest(town.picture("two", TREES, origin=(ORIGIN[0] + 0.5, ORIGIN[1])), "2025-05-01")
    assert (second.new, second.matched, second.missed) == (0, 60, 0)
    assert ids(town) == before


def test_r1_the_order_of_ingest_does_not_change_counts_of_any_date(
    database_server: DatabaseServer, tmp_path: Path
) -> None:
    years = {"2023": TREES[:40], "2024": TREES[10:50], "2025": TREES[20:]}
    outcomes = set()
    for number, order in enumerate(permutations(years)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with cloned_database(database_server) as clone:
            database = Database(clone.service_url)
            town = make_town(database, folder)
            for year in order:
                town.ingest(town.picture(year, years[year]), f"{year}-05-01")
            outcomes.add(
                tuple(
                    (row.area, row.count)
                    for year in years
                    for row in town.counts(level="district", as_of=date(int(year), 6, 1))
                )
            )
            database.close()
    assert len(outcomes) == 1


def test_r7_withdraw_and_restore_give_back_the_same_ids_and_states(town: Town) -> None:
    (first,) = town.ingest(town.picture("one", TREES), "2024-05-01")
    town.ingest(town.picture("two", TREES[:50]), "2025-05-01")
    before = states(town)
    assert first.survey is not None
    evidence_changes.withdraw_survey(town.database, CODE, first.survey, taxonomy=town.taxonomy)
    assert town.total() == 50
    assert town.total(as_of="2024-12-31") is None
    evidence_changes.restore_survey(town.database, CODE, first.survey, taxonomy=town.taxonomy)
    assert states(town) == before


def test_rebuild_gives_what_was_there(town: Town) -> None:
    town.ingest(town.picture("one", TREES), "2024-05-01")
    town.ingest(town.picture("two", TREES[5:]), "2025-05-01")
    before, rows = states(town), [row.as_json() for row in town.counts(level="district")]
    evidence_changes.rebuild(town.database, CODE, taxonomy=town.taxonomy)
    assert states(town) == before
    assert [row.as_json() for row in town.counts(level="district")] == rows


def test_r10_cars_are_a_stock_that_the_next_look_replaces(database: Database, tmp_path: Path) -> None:
    town = make_town(database, tmp_path, classes=("tree", "car"))
    town.ingest(town.picture("one", [(300, 300)], cars=[(20, 20), (60, 20)]), "2024-05-01")
    town.ingest(town.picture("two", [(300, 300)], cars=[(200, 20)]), "2024-05-02")
    assert (town.total("car", "2024-05-01"), town.total("car", "2024-05-02")) == (2, 1)
    assert town.total("tree") == 1


def test_r11_a_decision_is_counted_and_survives_the_withdrawal_of_its_survey(town: Town) -> None:
    (first,) = town.ingest(town.picture("one", TREES), "2024-05-01")
    town.ingest(town.picture("two", TREES), "2025-05-01")
    rejected = sorted(ids(town))[0]
    decide(
        town.database,
        CODE,
        NewDecision(kind=DecisionKind.REJECT, asset=rejected, author="an", reason="a bush"),
        taxonomy=town.taxonomy,
    )
    assert town.total() == 59
    assert first.survey is not None
    evidence_changes.withdraw_survey(town.database, CODE, first.survey, taxonomy=town.taxonomy)
    assert town.total() == 59
    assert rejected not in ids(town)


def known_at(town: Town, change: int) -> set[tuple[object, ...]]:
    """What was said once a change was made: said by then, and not ended yet; each until the next of its track."""
    query = text("""
        WITH said AS (
            SELECT track, class, valid_from, listed, status, hits, change_id, NULL::bigint AS ended_by
            FROM urban_inventory.asset_state
            UNION ALL
            SELECT track, class, valid_from, listed, status, hits, change_id, ended_by FROM urban_inventory.history
        )
        SELECT track, class, valid_from, lead(valid_from) OVER (PARTITION BY track ORDER BY valid_from) AS valid_to,
            listed, status, hits
        FROM said WHERE change_id <= :change AND (ended_by IS NULL OR ended_by > :change)
    """)
    with town.database.transaction() as connection:
        return {tuple(row) for row in connection.execute(query, {"change": change})}


def test_r14_what_was_known_after_each_change_can_be_told_with_its_cause(town: Town) -> None:
    now = text(
        "SELECT track, class, valid_from, valid_to, listed, status, hits FROM urban_inventory.asset_state"
    )
    newest = text("SELECT id, cause FROM urban_inventory.change ORDER BY id DESC LIMIT 1")
    known: dict[int, set[tuple[object, ...]]] = {}

    def remember(cause: str) -> None:
        with town.database.transaction() as connection:
            change = connection.execute(newest).one()
            assert change.cause == cause
            known[change.id] = {tuple(row) for row in connection.execute(now)}

    (first,) = town.ingest(town.picture("one", TREES), "2024-05-01")
    remember("ingest")
    town.ingest(town.picture("two", TREES[:50]), "2025-05-01")
    remember("ingest")
    assert first.survey is not None
    evidence_changes.withdraw_survey(town.database, CODE, first.survey, taxonomy=town.taxonomy)
    remember("survey withdrawn")
    decide(
        town.database,
        CODE,
        NewDecision(kind=DecisionKind.REJECT, asset=sorted(ids(town))[0]),
        taxonomy=town.taxonomy,
    )
    remember("decision reject")
    assert len({frozenset(said) for said in known.values()}) == 4
    for change, said in known.items():
        assert known_at(town, change) == said


def test_sums_by_area_are_those_of_the_rows_behind_them(town: Town) -> None:
    town.ingest(town.picture("one", TREES), "2024-05-01")
    town.ingest(town.picture("two", TREES[:30]), "2025-05-01")
    polygons = _halves()
    for day in (date(2024, 6, 1), date(2025, 6, 1)):
        for row in town.counts(level="district", as_of=day):
            if row.area in polygons:
                (drawn,) = town.counts(polygon=polygons[row.area], as_of=day)
                assert row.count == drawn.count


def test_a_drawn_polygon_counts_what_it_holds_with_its_coverage(town: Town) -> None:
    town.ingest(town.picture("one", TREES, size_px=(SIDE_PX // 2, SIDE_PX)), "2024-05-01")
    west, north = ORIGIN
    side = SIDE_PX * PIXEL_M
    (row,) = town.counts(polygon=_lon_lat(shapely.box(west, north - side, west + side, north)))
    assert (row.area, row.coverage) == (None, pytest.approx(0.5, abs=1e-3))
    (beside,) = town.counts(polygon=_lon_lat(shapely.box(west + 50, north - 50, west + 75, north)))
    assert (beside.count, beside.coverage) == (None, None)


def test_r12_a_drawn_polygon_is_closed_to_the_digits_that_are_given_out(town: Town) -> None:
    town.ingest(town.picture("one", TREES), "2024-05-01")
    query = text("SELECT ST_AsGeoJSON(geom, 7) FROM urban_inventory.listed_assets WHERE city = :city")
    with town.database.transaction() as connection:
        given = [shapely.from_geojson(point) for point in connection.execute(query, {"city": CODE}).scalars()]
    # Every fifth tree is a corner of a polygon: there the last digit decides.
    for corner in given[::5]:
        for east, north in ((1e-4, 1e-7), (-1e-4, -1e-7), (1e-7, 1e-4)):
            polygon = shapely.Polygon([(corner.x, corner.y), (corner.x + east, corner.y + north),
                                       (corner.x + east / 2, corner.y + north / 2 + 1e-5)])  # fmt: skip
            (row,) = town.counts(polygon=polygon)
            assert row.count == int(shapely.intersects(polygon, given).sum())


def test_several_files_of_one_date_are_one_mosaic_whose_seams_no_tree_notices(town: Town) -> None:
    trees = [(96, 60), (196, 150), (300, 190), (40, 40)]
    whole = town.picture("whole", trees)
    parts = _cut(town, whole, 4)
    outcomes = town.ingest(parts, "2024-05-01")
    assert {outcome.status for outcome in outcomes} == {Status.STORED}
    assert town.total() == len(trees)


def test_a_purged_scene_leaves_no_observations(town: Town) -> None:
    (first,) = town.ingest(town.picture("one", TREES), "2024-05-01")
    assert first.scene is not None
    evidence_changes.purge_scene(town.database, CODE, first.scene, taxonomy=town.taxonomy, home=town.folder)
    assert town.total() is None
    with town.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM urban_inventory.observation")).scalar() == 0


def test_a_copy_is_kept_by_its_content_and_goes_when_the_scene_is_purged(town: Town) -> None:
    kept = town.folder / "imagery"
    file = town.picture("one", TREES)
    (first,) = town.ingest(file, "2024-05-01", copy_to=kept)
    (copy,) = kept.iterdir()
    assert copy.read_bytes() == file.read_bytes()
    assert first.scene is not None
    evidence_changes.purge_scene(town.database, CODE, first.scene, taxonomy=town.taxonomy, home=town.folder)
    assert list(kept.iterdir()) == []
    assert file.is_file()


def test_an_unknown_model_or_city_is_named(town: Town) -> None:
    with pytest.raises(UnknownName, match="squares"):
        town.ingest(town.picture("one", TREES), "2024-05-01", model="spheres")
    with pytest.raises(UnknownName, match=r"W, E|E, W"):
        town.counts(area="N")


def _halves() -> dict[str, shapely.Geometry]:
    west, north = ORIGIN
    side = SIDE_PX * PIXEL_M
    return {
        "W": _lon_lat(shapely.box(west, north - side, west + side / 2, north)),
        "E": _lon_lat(shapely.box(west + side / 2, north - side, west + side, north)),
    }


def _lon_lat(polygon: shapely.Geometry) -> shapely.Geometry:
    to_lon_lat = Transformer.from_crs(UTM, 4326, always_xy=True)
    return shapely.transform(polygon, lambda xy: _stack(to_lon_lat.transform(xy[:, 0], xy[:, 1])))


def _stack(columns: tuple[object, object]) -> object:
    return np.column_stack(columns)


def _cut(town: Town, whole: Path, sides: int) -> list[Path]:
    with rasterio.open(whole) as dataset:
        pixels, transform = dataset.read(), dataset.transform
    step = SIDE_PX // sides
    return [
        write_scene(
            town.folder / f"part{row}{column}.tif",
            pixels[:, row * step : (row + 1) * step, column * step : (column + 1) * step],
            transform=transform @ Affine.translation(column * step, row * step),
        )
        for row in range(sides)
        for column in range(sides)
    ]
