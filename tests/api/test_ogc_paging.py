"""Paging as the OGC's suite follows it, over collections of 177, 243 and 12,000, and that filters use their indexes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from sqlalchemy import create_engine, event, insert, text
from sqlalchemy.pool import NullPool

from api.app import create_app
from api.ogc.cql2_text import read_cql2_text
from api.settings import Settings
from inventory.store import feature_pages, features, schema
from inventory.store.database import Database, Patience
from inventory.store.feature_pages import Page
from inventory.store.features import Box, Collection, Wanted, When
from inventory.store.filters import Filter
from tests.support.city import FIRST_LOOK, CityMaker, make_city
from tests.support.database import DatabaseServer, cloned_database
from tests.support.server import served

COUNTRIES, PLACES, DOZEN = 177, 243, 12_000
# What the suite does: so many pages after the first, and no total beyond this is checked.
PAGES_FOLLOWED, CHECKED = 4, 10_000
SIDE = 120
NOW = When(as_of=datetime(2026, 6, 1, tzinfo=UTC), now=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    client: httpx.Client
    database: Database


@pytest.fixture(scope="module")
def paged(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paged]:
    with cloned_database(database_server) as clone:
        database = Database(clone.service_url)
        fill(database)
        owner = create_engine(clone.owner_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with owner.connect() as connection:
            connection.execute(text("ANALYZE"))
        with (
            served(create_app(Settings(home=Path(tmp_path_factory.mktemp("home"))), database)) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            yield Paged(client=client, database=database)
        database.close()


def fill(database: Database) -> None:
    with database.transaction(Patience.JOB) as connection:
        world = make_city(connection, "world", box=(-180, -90, 180, 90))
        for number in range(COUNTRIES):
            west, south = -170 + number % 18 * 19, -80 + number // 18 * 16
            world.area(f"C{number:03d}", (west, south, west + 15, south + 12))
        world.assets([(-179.5 + i % 27 * 13.3, -85 + i // 27 * 19) for i in range(PLACES)])
        dozen = make_city(connection, "dozen")
        dozen.assets([(100 + i % SIDE / 1_200, 22 + i // SIDE / 1_200) for i in range(DOZEN)])
        for year in range(1, 20):
            look_again(dozen, year)


def look_again(city: CityMaker, year: int) -> None:
    """A later survey of the city that saw a few hundred things."""
    at = FIRST_LOOK + timedelta(days=year)
    scene = city._insert(
        schema.scene, public_id=f"s{year + 1}", source_id=1, campaign_id=1, path="x.tif", pixel_hash=f"p{year}",
        georeference_hash="g", taken_at=at, kind="nadir", ground_resolution_m=0.1, width_px=10, height_px=10,
        footprint="SRID=4326;MULTIPOLYGON(((100 22,100.1 22,100.1 22.1,100 22)))",
    )  # fmt: skip
    survey = city._insert(
        schema.survey, public_id=f"v{year + 1}", scene_id=scene, model="trees-test", model_version="1",
        model_sha256="abc", settings_key="k", card={}, classes=["tree"], windows=1, seconds=1.0,
        surveyed="SRID=4326;MULTIPOLYGON(((100 22,100.1 22,100.1 22.1,100 22)))",
    )  # fmt: skip
    seen = [
        {"city_id": city.id, "survey_id": survey, "plausible": True, "box_px": [0, 0, 9, 9], "cell": 0,
         "class": "tree", "geom": f"SRID=4326;POINT({100 + i / 5_000} 22.05)", "x": 0, "y": 0, "error_m": 1.0,
         "width_m": 5.0, "height_m": 5.0, "score": 0.5}
        for i in range(400)
    ]  # fmt: skip
    city.connection.execute(insert(schema.observation), seen)


# --- paging --------------------------------------------------------------------------------------------------


def next_of(page: dict[str, Any]) -> str | None:
    return next((link["href"] for link in page["links"] if link["rel"] == "next"), None)


@pytest.mark.parametrize(
    ("city", "name", "size"),
    [("world", "areas", COUNTRIES), ("world", "assets", PLACES), ("dozen", "assets", DOZEN)],
)
def test_the_suites_walk_finds_as_many_as_the_first_page_says(
    paged: Paged, city: str, name: str, size: int
) -> None:
    """It copies the parameters of the next link, and puts the greatest limit in place of its own."""
    client, address = paged.client, f"/cities/{city}/collections/{name}/items"
    described = client.get(f"/cities/{city}/api").json()["components"]["parameters"]["limit"]["schema"]
    page = client.get(address).json()
    assert page["numberMatched"] == size
    seen = [feature["id"] for feature in page["features"]]
    for _ in range(PAGES_FOLLOWED):
        following = next_of(page)
        if following is None:
            break
        split = urlsplit(following)
        assert re.fullmatch(r"[\w.~%=&+:/-]+", split.query), "it must be a legal java.net.URI"
        parameters = [*parse_qsl(split.query), ("limit", str(described["maximum"]))]
        page = client.get(split.path, params=httpx.QueryParams(parameters)).json()
        seen += [feature["id"] for feature in page["features"]]
    assert len(seen) == len(set(seen))
    assert len(seen) >= min(size, CHECKED)


@pytest.mark.parametrize(("stated", "size"), [(None, DOZEN), ("width_m > 1", DOZEN), ("id < 'a00501'", 500)])
@pytest.mark.parametrize("limit", [499, 5_000])
def test_next_links_reach_everything_once(paged: Paged, stated: str | None, size: int, limit: int) -> None:
    asked = {"limit": limit} if stated is None else {"limit": limit, "filter": stated}
    page = paged.client.get("/cities/dozen/collections/assets/items", params=asked).json()
    seen = [feature["id"] for feature in page["features"]]
    while (following := next_of(page)) is not None:
        page = paged.client.get(following).json()
        seen += [feature["id"] for feature in page["features"]]
    assert sorted(seen) == [f"a{number:05d}" for number in range(1, size + 1)]


# --- boxes that hold many ------------------------------------------------------------------------------------

BOXES = {
    "all": (Box(west=99, south=21, east=101, north=23),),
    "part": (Box(west=100.0149, south=22.0077, east=100.0852, north=22.0611),),
    # Edges that are places, and borders of squares.
    "two": (
        Box(west=100.01, south=22.0, east=100.03, north=22.02),
        Box(west=100.04, south=22.02, east=100.06, north=22.05),
    ),
}


@pytest.mark.parametrize("limit", [1, 137, 12_000])
@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
def test_square_by_square_pages_are_those_of_all_sorted(
    paged: Paged, monkeypatch: pytest.MonkeyPatch, boxes: tuple[Box, ...], limit: int
) -> None:
    wanted = Wanted(boxes=boxes, when=NOW)
    with paged.database.transaction(read_only=True) as connection:
        city = features.city_on_page(connection, "dozen")
        matched = feature_pages.total(connection, city, Collection.ASSETS, wanted)
        assert matched is not None

        def page(**place: int) -> Page:
            return feature_pages.page_of(
                connection, city, Collection.ASSETS, wanted, limit=limit, matched=matched, **place
            )

        monkeypatch.setattr(feature_pages, "_SQUARES_FROM", 1_000_000)
        places = [
            {},
            {"after": 5_077},
            {"before": 5_077},
            {"offset": 50},
            {"before": 9_000, "offset": 5},
            {"after": 12_000},
        ]
        plain = [page(**place) for place in places]
        monkeypatch.setattr(feature_pages, "_SQUARES_FROM", 0)
        assert [page(**place) for place in places] == plain
        assert len(plain[0].rows) == min(limit, matched)


def test_square_by_square_a_walk_finds_every_asset_once(
    paged: Paged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_pages, "_SQUARES_FROM", 0)
    bbox = "100.0149,22.0077,100.0852,22.0611"
    path = "/cities/dozen/collections/assets/items"
    page = paged.client.get(path, params={"limit": 500, "bbox": bbox}).json()
    seen = [feature["id"] for feature in page["features"]]
    while (following := next_of(page)) is not None:
        page = paged.client.get(following).json()
        seen += [feature["id"] for feature in page["features"]]
    places = {f"a{i + 1:05d}": (100 + i % SIDE / 1_200, 22 + i // SIDE / 1_200) for i in range(DOZEN)}
    inside = [id for id, (x, y) in places.items() if 100.0149 <= x <= 100.0852 and 22.0077 <= y <= 22.0611]
    assert seen == inside


# --- plans ---------------------------------------------------------------------------------------------------


def indexes_of_page(
    paged: Paged, collection: Collection, wanted: Wanted, matched: int | None = None
) -> tuple[str, int]:
    """The plans of all that reads a page, and how many rows it has."""
    ran: list[tuple[str, Any]] = []
    with paged.database.transaction(read_only=True) as connection:
        city = features.city_on_page(connection, "dozen")

        @event.listens_for(connection, "before_cursor_execute")
        def noted(_1: Any, _2: Any, statement: str, parameters: Any, _3: Any, _4: Any) -> None:
            if "array_agg" in statement:
                ran.append((statement, parameters))

        page = feature_pages.page_of(connection, city, collection, wanted, limit=100, matched=matched)
        event.remove(connection, "before_cursor_execute", noted)
        assert ran
        plans = [
            "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
            for statement, parameters in ran
        ]
    return "\n".join(plans), len(page.rows)


def stated(text: str) -> tuple[Filter, ...]:
    return (Filter(cql2=read_cql2_text(text)),)


TRIANGLE = "POLYGON((100.02 22.02,100.0226 22.02,100.02 22.0226,100.02 22.02))"
SMALL = Box(west=100.02, south=22.02, east=100.0225, north=22.0225)
_IN_SMALL = "S_INTERSECTS(geom,BBOX(100.02,22.02,100.0225,22.0225))"


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(boxes=(SMALL,), when=NOW),
        Wanted(boxes=(SMALL,), when=NOW, filters=stated("width_m > 1 AND class = 'tree'")),
        Wanted(when=NOW, filters=stated(_IN_SMALL)),
        Wanted(when=NOW, filters=stated(f"({_IN_SMALL}) AND (width_m > 1)")),
        Wanted(when=NOW, filters=stated(f"S_WITHIN(geom,{TRIANGLE})")),
    ],
    ids=["box", "box and filter", "filter by place", "filter by place and size", "filter by polygon"],
)  # fmt: skip
def test_places_are_found_by_their_index(paged: Paged, wanted: Wanted) -> None:
    plans, rows = indexes_of_page(paged, Collection.ASSETS, wanted)
    assert re.search(r"Scan (using|on) asset_state_\d+_geom_idx", plans), plans
    assert 0 < rows <= 16


def test_the_next_asset_of_a_square_is_found_by_its_index(
    paged: Paged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_pages, "_SQUARES_FROM", 0)
    plans, rows = indexes_of_page(
        paged, Collection.ASSETS, Wanted(boxes=BOXES["part"], when=NOW), matched=5_000
    )
    assert rows == 100
    assert len(re.findall(r"Scan (?:using|on) asset_state_\d+_expr_asset_id_idx", plans)) >= 2, plans
    assert "Seq Scan" not in plans


@pytest.mark.parametrize("text", ["id = 'a00700'", "id IN ('a00700', 'a00701')", "CASEI(id) = 'a00700'"])
def test_ids_are_looked_for_once_and_not_for_each_row(paged: Paged, text: str) -> None:
    plans, rows = indexes_of_page(paged, Collection.ASSETS, Wanted(when=NOW, filters=stated(text)))
    assert "SubPlan" not in plans
    assert rows == text.count("a007")
    if "CASEI" not in text:
        assert re.search(r"(using|on) asset_\d+_city_id_public_id_\w+", plans), plans


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(when=When(interval=(FIRST_LOOK + timedelta(days=3), FIRST_LOOK + timedelta(days=3)))),
        Wanted(filters=stated("taken_at = DATE('2025-06-04')")),
        Wanted(filters=stated("T_DURING(taken_at, INTERVAL('2025-06-04T00:00:00Z','2025-06-04T23:00:00Z'))")),
    ],
    ids=["datetime", "filter by date", "filter by interval"],
)
def test_observations_of_a_time_are_found_by_their_survey(paged: Paged, wanted: Wanted) -> None:
    plans, rows = indexes_of_page(paged, Collection.OBSERVATIONS, wanted)
    assert re.search(r"Scan (using|on) observation_\d+_survey_id_class_cell_idx", plans), plans
    assert "SubPlan" not in plans
    assert rows == 100
