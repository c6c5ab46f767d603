"""What changed between two dates, on a drawn town whose changes are known beforehand."""

from datetime import UTC, date, datetime
from pathlib import Path

import geopandas
import pytest
from shapely import box
from sqlalchemy import text

from detection.errors import UnknownName
from inventory.boundaries import AreaFile
from inventory.comparing import change
from inventory.decisions import NewDecision, decide
from inventory.domain.change import ChangeRow, Flow, LookedAt, net_between, why_not_comparable
from inventory.domain.evidence import DecisionKind
from inventory.domain.tally import CountError
from inventory.errors import TimeUnusable
from inventory.onboarding import CityRequest, add_city
from inventory.store.database import Database
from tests.support.networks import make_model, write_card
from tests.support.scenes import ORIGIN, UTM
from tests.support.town import CODE, GRID, PIXEL_M, SIDE_PX, Town, make_town

# Shuffled, so that what comes and goes is everywhere.
TREES = [GRID[(5 * n) % len(GRID)] for n in range(len(GRID))]
STAY, FELLED, PLANTED = TREES[:-20], TREES[-20:-10], TREES[-10:]
ONCE = len(TREES) - 10
ERROR = CountError(relative_error=0.1, dispersion=1.0)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Town:
    """Ten trees felled and ten planted between 2024 and 2025; in 2026 nobody doubts it any more (R9)."""
    town = make_town(database, tmp_path)
    town.ingest(town.picture("one", [*STAY, *FELLED]), "2024-05-01")
    town.ingest(town.picture("two", [*STAY, *PLANTED]), "2025-05-01")
    town.ingest(town.picture("three", [*STAY, *PLANTED]), "2026-05-01")
    return town


def between(town: Town, first: str, second: str, **asked: object) -> list[ChangeRow]:
    return change(town.database, CODE, date.fromisoformat(first), date.fromisoformat(second), **asked)  # type: ignore[arg-type]


def test_what_came_and_what_went_is_told_by_identity(town: Town) -> None:
    (row,) = between(town, "2024-12-31", "2026-12-31")
    assert row.flow is not None
    assert (row.area, row.class_name, row.net, row.comparable) == (CODE, "tree", 0, True)
    assert (row.flow.listed_from, row.flow.listed_to) == (ONCE, ONCE)
    assert (row.flow.new, row.flow.gone, row.flow.moved, row.flow.reclassified) == (10, 10, 0, 0)


def test_r12_net_is_the_difference_of_the_two_counts_in_every_area(town: Town) -> None:
    town.ingest(town.picture("four", STAY), "2026-10-01")
    for first, second in (("2024-12-31", "2025-12-31"), ("2024-12-31", "2026-12-31")):
        was, now = (
            {row.area: row.count for row in town.counts(level="district", as_of=date.fromisoformat(day))}
            for day in (first, second)
        )
        rows = {row.area: row for row in between(town, first, second, level="district")}
        assert list(rows) == ["E", "W", "outside"]
        for code in ("W", "E"):
            row = rows[code]
            assert row.flow is not None
            assert row.net == (now[code] or 0) - (was[code] or 0)
            flow = row.flow
            assert row.net == flow.new - flow.gone + flow.entered - flow.left
        (city,) = between(town, first, second)
        assert city.net == sum(row.flow.listed_to - row.flow.listed_from for row in rows.values() if row.flow)


def test_the_same_day_twice_is_no_change(town: Town) -> None:
    (row,) = between(town, "2025-12-31", "2025-12-31")
    assert row.flow == Flow(listed_from=ONCE, listed_to=ONCE)
    assert (row.net, row.low, row.high) == (0, 0.0, 0.0)


def test_r13_before_the_first_look_nothing_is_stated(town: Town) -> None:
    (row,) = between(town, "2023-12-31", "2025-12-31")
    assert (row.net, row.low, row.high, row.comparable) == (None, None, None, False)
    assert row.reason == "not surveyed by the first date"


def test_r13_looks_by_different_models_are_not_comparable(town: Town) -> None:
    model = make_model(
        town.folder / "models" / "other",
        name="other",
        ground_resolution_m=PIXEL_M,
        window_px=96,
        margin_px=16,
    )
    write_card(model)
    town.taxonomy.classes["tree"] = town.taxonomy.classes["tree"].model_copy(
        update={"models": ("squares", "other")}
    )
    town.ingest(town.picture("four", STAY), "2026-10-01", model="other")
    (row,) = between(town, "2026-09-01", "2026-12-31")
    assert row.net is None
    assert row.reason is not None
    assert "different models: squares@1" in row.reason
    assert "then other@1" in row.reason
    (before,) = between(town, "2024-12-31", "2025-12-31")
    assert before.comparable


def test_ground_first_surveyed_between_the_dates_brings_nothing_new(
    database: Database, tmp_path: Path
) -> None:
    town = make_town(database, tmp_path)
    half = town.picture("half", [c for c in TREES if c[0] < 180], size_px=(SIDE_PX // 2, SIDE_PX))
    town.ingest(half, "2024-05-01")
    town.ingest(town.picture("all", TREES), "2025-05-01")
    (row,) = between(town, "2024-12-31", "2025-12-31")
    assert row.reason == "50% was surveyed by the first date, 100% by the second"
    rows = {row.area: row for row in between(town, "2024-12-31", "2025-12-31", level="district")}
    assert rows["W"].comparable
    assert rows["E"].reason == "not surveyed by the first date"


def test_a_move_over_a_border_enters_one_area_and_leaves_the_other(town: Town) -> None:
    with town.database.transaction() as connection:
        asset, lon, lat = connection.execute(
            text(
                "SELECT id, ST_X(geom), ST_Y(geom) FROM urban_inventory.listed_assets"
                " WHERE city = 'town' ORDER BY ST_X(geom) LIMIT 1"
            )
        ).one()
    decide(
        town.database,
        CODE,
        NewDecision(
            kind=DecisionKind.MOVE,
            asset=asset,
            lon_lat=(lon + 0.0009, lat),
            at=datetime(2025, 8, 1, tzinfo=UTC),
        ),
        taxonomy=town.taxonomy,
    )
    rows = {row.area: row.flow for row in between(town, "2025-07-01", "2025-12-31", level="district")}
    assert rows["W"]
    assert rows["E"]
    assert (rows["W"].new, rows["W"].gone, rows["W"].moved, rows["W"].left) == (0, 0, 1, 1)
    assert (rows["E"].new, rows["E"].gone, rows["E"].moved, rows["E"].entered) == (0, 0, 1, 1)
    (city,) = between(town, "2025-07-01", "2025-12-31")
    assert city.flow is not None
    assert (city.flow.moved, city.net, city.low, city.high) == (1, 0, 0.0, 0.0)


def test_a_border_drawn_anew_is_named_and_each_date_has_its_own(town: Town) -> None:
    west, north = ORIGIN
    side = SIDE_PX * PIXEL_M
    halves = [box(west, north - side, west + 60, north), box(west + 60, north - side, west + side, north)]
    frame = geopandas.GeoDataFrame(
        {"level": "district", "code": ["W", "E"], "name": ["West", "East"]}, geometry=halves, crs=UTM
    )
    file = town.folder / "redrawn.geojson"
    frame.to_crs(4326).to_file(file, driver="GeoJSON")
    add_city(
        town.database,
        CityRequest(code=CODE, areas=AreaFile(path=file), valid_from=date(2025, 7, 1)),
        now=datetime(2026, 1, 2, tzinfo=UTC),
    )
    rows = {row.area: row for row in between(town, "2025-06-01", "2025-12-31", level="district")}
    flow = rows["W"].flow
    assert flow is not None
    assert (flow.new, flow.gone, flow.moved, flow.left) == (0, 0, 0, 0)
    assert flow.entered == rows["W"].net
    assert flow.entered > 0
    assert rows["W"].note is not None
    assert f"{flow.entered} came in" in rows["W"].note


def test_reclassified_is_neither_new_nor_gone(town: Town) -> None:
    with town.database.transaction() as connection:
        asset = connection.execute(
            text("SELECT id FROM urban_inventory.listed_assets WHERE city = 'town' LIMIT 1")
        ).scalar_one()
    town.taxonomy.classes["bench"] = town.taxonomy.classes["tree"].model_copy(update={"name": "bench"})
    decide(
        town.database,
        CODE,
        NewDecision(
            kind=DecisionKind.RECLASSIFY,
            asset=asset,
            class_name="bench",
            at=datetime(2025, 8, 1, tzinfo=UTC),
        ),
        taxonomy=town.taxonomy,
    )
    tree, bench = (row.flow for row in between(town, "2025-07-01", "2025-12-31", classes=["tree", "bench"]))
    assert tree == Flow(listed_from=ONCE, listed_to=ONCE - 1, left=1, reclassified=1, crossed=-1)
    assert bench is None or bench == Flow(listed_to=1, entered=1, reclassified=1, crossed=1)


def test_r10_things_without_identity_are_two_samples(database: Database, tmp_path: Path) -> None:
    town = make_town(database, tmp_path, classes=("tree", "car"))
    town.ingest(town.picture("one", TREES[:5], cars=TREES[5:9]), "2024-05-01")
    town.ingest(town.picture("two", TREES[:5], cars=TREES[9:12]), "2025-05-01")
    car, tree = between(town, "2024-12-31", "2025-12-31")
    assert (car.class_name, car.flow, car.net, car.comparable) == ("car", None, None, False)
    assert car.reason is not None
    assert "no identity" in car.reason
    assert tree.net == 0


def test_dates_areas_and_levels_that_are_none_are_refused(town: Town) -> None:
    with pytest.raises(TimeUnusable, match="comes after"):
        between(town, "2025-12-31", "2024-12-31")
    with pytest.raises(UnknownName, match="Areas: E, W"):
        between(town, "2024-12-31", "2025-12-31", area="X")
    with pytest.raises(UnknownName, match="Levels: district"):
        between(town, "2024-12-31", "2025-12-31", level="street")
    with pytest.raises(UnknownName, match="does not count"):
        between(town, "2024-12-31", "2025-12-31", classes=["bench"])


def test_r13_the_net_of_two_looks_is_corrected_for_what_a_model_overlooks() -> None:
    flow = Flow(listed_from=1000, listed_to=964, new=80, gone=116, only_before=116, only_after=80, decided=-3)
    net = net_between(flow, recall=0.72, error=ERROR, same_look=False)
    assert net.net == pytest.approx(-36 / 0.72 - 3)
    assert net.low is not None
    assert net.high is not None
    assert net.low < -53 < net.high < 0
    unvalidated = net_between(flow, recall=None, error=None, same_look=False)
    assert (unvalidated.net, unvalidated.low, unvalidated.high) == (-36, None, None)
    decided = net_between(flow, recall=0.72, error=ERROR, same_look=True)
    assert (decided.net, decided.low, decided.high) == (-36, -36, -36)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (None, None, "either"),
        ({"a": "A"}, None, "second"),
        (None, {"a": "A"}, "first"),
        ({"a": "A"}, {"b": "B"}, "different models: A, then B"),
        ({"a": "A", "b": "B"}, {"a": "A", "b": "B"}, "several models: A, B"),
        ({"a": "A"}, {"a": "A"}, None),
    ],
)
def test_r13_when_a_change_may_be_stated(
    was: dict[str, str] | None, now: dict[str, str] | None, said: str | None
) -> None:
    reason = why_not_comparable(
        *(None if models is None else LookedAt(share=1.0, models=models) for models in (was, now))
    )
    assert reason is None if said is None else reason is not None and said in reason
