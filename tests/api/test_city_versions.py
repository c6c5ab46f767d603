"""Entity tags over the life of a city: each use case that changes an answer changes the tag, and none else does."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import geopandas
import httpx
import pytest
from shapely import box

from api.app import create_app
from api.settings import Settings
from inventory import evidence_changes
from inventory.boundaries import AreaFile
from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import DecisionKind
from inventory.onboarding import CityRequest, add_city
from inventory.store.database import Database, Patience
from inventory.store.known import known_city
from tests.support.scenes import ORIGIN, UTM
from tests.support.server import served
from tests.support.town import CODE, GRID, PIXEL_M, SIDE_PX, Town, make_town

PATHS = (
    f"/cities/{CODE}",
    f"/cities/{CODE}/collections",
    f"/cities/{CODE}/collections/assets/items?limit=5",
    f"/cities/{CODE}/collections/counts/items",
    f"/cities/{CODE}/counts?level=district",
    f"/cities/{CODE}/tiles/WebMercatorQuad/tilejson",
    f"/cities/{CODE}/stac/collections/scenes/items",
)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Town:
    return make_town(database, tmp_path)


@pytest.fixture
def client(town: Town, tmp_path: Path) -> Iterator[httpx.Client]:
    app = create_app(Settings(home=tmp_path), town.database)
    with served(app) as url, httpx.Client(base_url=url, timeout=60) as opened:
        yield opened


def tags(client: httpx.Client) -> dict[str, str]:
    return {path: client.get(path).raise_for_status().headers["etag"] for path in PATHS}


def say(town: Town, new: NewDecision) -> str:
    return decide(town.database, CODE, new, taxonomy=town.taxonomy)


def steps(town: Town) -> Iterator[tuple[str, Callable[[], object]]]:
    """The use cases that change what is answered about a city, one after the other."""
    (first,) = town.ingest(town.picture("one", GRID), "2024-05-01")
    yield "nothing", lambda: None
    file = town.picture("two", GRID[:40])
    yield "ingest", lambda: town.ingest(file, "2025-05-01")
    with town.database.transaction(read_only=True) as connection:
        assert known_city(connection, CODE)
        asset = str(
            connection.exec_driver_sql("SELECT min(public_id) FROM urban_inventory.asset").scalar_one()
        )
    said: list[str] = []
    reject = NewDecision(kind=DecisionKind.REJECT, asset=asset, author="an", reason="a bush")
    yield "decide", lambda: said.append(say(town, reject))
    yield (
        "retract",
        lambda: say(town, NewDecision(kind=DecisionKind.RETRACT, retracts=said[0], author="an", reason="no")),
    )
    survey, scene = str(first.survey), str(first.scene)
    known = {"taxonomy": town.taxonomy}
    yield "withdraw", lambda: evidence_changes.withdraw_survey(town.database, CODE, survey, **known)
    yield "restore", lambda: evidence_changes.restore_survey(town.database, CODE, survey, **known)
    at = datetime(2024, 6, 1, 12, tzinfo=UTC)
    yield "redate", lambda: evidence_changes.redate_scene(town.database, CODE, scene, at, **known)
    other = town.registry.get("cubes")
    yield "models use", lambda: evidence_changes.choose_model(town.database, CODE, other, **known)
    moved = town.folder / "one.tif"
    moved = moved.rename(town.folder / "moved.tif")
    yield "locate", lambda: evidence_changes.locate_scene(town.database, CODE, scene, moved)
    yield "areas", lambda: add_city(town.database, _one_area(town), now=datetime(2026, 3, 1, tzinfo=UTC))
    named = CityRequest(code=CODE, name="Another name")
    yield "name", lambda: add_city(town.database, named, now=datetime(2026, 3, 1, tzinfo=UTC))
    classes = replace(named, classes=("tree", "car"))
    yield "classes", lambda: add_city(town.database, classes, now=datetime(2026, 3, 1, tzinfo=UTC))
    yield (
        "purge",
        lambda: evidence_changes.purge_scene(town.database, CODE, scene, home=town.folder, **known),
    )


def _one_area(town: Town) -> CityRequest:
    west, north = ORIGIN
    side = SIDE_PX * PIXEL_M
    frame = geopandas.GeoDataFrame(
        {"level": "district", "code": ["W"], "name": ["Whole"]},
        geometry=[box(west, north - side, west + side, north)],
        crs=UTM,
    )
    file = town.folder / "whole.geojson"
    frame.to_crs(4326).to_file(file, driver="GeoJSON")
    return CityRequest(code=CODE, areas=AreaFile(path=file), valid_from=date(2026, 2, 1))


def test_each_use_case_that_changes_an_answer_changes_the_tags(client: httpx.Client, town: Town) -> None:
    done = []
    for name, step in steps(town):
        before = tags(client)
        step()
        after = tags(client)
        same = {path for path in PATHS if before[path] == after[path]}
        assert same == (set(PATHS) if name == "nothing" else set()), name
        done.append(name)
    assert len(done) == 13


def test_reading_and_rehearsing_change_no_tag(client: httpx.Client, town: Town) -> None:
    town.ingest(town.picture("one", GRID), "2024-05-01")
    before = tags(client)
    client.get(f"/cities/{CODE}/collections/assets/download?f=csv").raise_for_status()
    with town.database.rehearsal(Patience.JOB) as connection:
        connection.exec_driver_sql("UPDATE urban_inventory.asset_state SET verified = true WHERE listed")
    assert tags(client) == before


def test_settings_that_change_an_answer_change_its_tag(town: Town, tmp_path: Path) -> None:
    town.ingest(town.picture("one", GRID), "2024-05-01")
    told = []
    for setting in ({}, {"default_items": 5}, {"allow_unauthenticated_writes": True}):
        with served(
            create_app(Settings(home=tmp_path, public_url="http://127.0.0.1", **setting), town.database)
        ) as url:
            told.append(httpx.get(f"{url}/cities/{CODE}/collections/assets/items").headers["etag"])
    assert len(set(told)) == 3
