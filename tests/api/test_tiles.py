"""Vector tiles over HTTP, decoded by GDAL: nothing lost, nothing double, nothing cut, and kept as long as true."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import text

from api.app import create_app
from api.ogc.tiles import KEPT_FOR_GOOD, MVT
from api.settings import Settings
from inventory.domain.tiles import Tile, tile_of
from inventory.packing import pack_waiting
from inventory.store import tiles
from inventory.store.database import Database, Patience
from tests.api.conftest import Service
from tests.support.city import make_city
from tests.support.map_tiles import counted, decoded
from tests.support.server import served

ROOT = "/cities/grown"
ASSETS = f"{ROOT}/collections/assets/tiles/WebMercatorQuad"
MANY = 6_000
GONE = datetime(2026, 3, 1, tzinfo=UTC)
EDGE = tile_of(100.05, 22.05, 13).box


@pytest.fixture(scope="module")
def grown(service: Service) -> Iterator[Database]:
    """6,000 trees, packed; 40 more that wait as deltas, some on the edges of tiles; 10 that are gone; two cars."""
    database = service.database
    random = np.random.default_rng(1)
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "grown", classes=("tree", "car"))
        city.area("A", (100.0, 22.0, 100.05, 22.1))
        city.area("B", (100.05, 22.0, 100.1, 22.1))
        city.assets(
            [
                tuple(one)
                for one in np.round(random.uniform([100.0, 22.0], [100.1, 22.1], (MANY, 2)), 7).tolist()
            ],
            areas=["A"],
        )
    assert "grown" in pack_waiting(database)
    with database.transaction(Patience.JOB) as connection:
        city = _again(connection, "grown")
        edge = [(round(EDGE[0], 7), round(EDGE[1] + i / 1e4, 7)) for i in range(20)]
        edge += [(round(EDGE[0] + i / 1e4, 7), round(EDGE[3], 7)) for i in range(10)]
        city.assets(edge)
        city.assets([(100.02, 22.02 + i / 1e3) for i in range(10)])
        city.assets([(100.07, 22.02 + i / 1e3) for i in range(10)], valid_to=GONE)
        city.assets([(100.07, 22.07), (100.08, 22.08)], class_="car")
    yield database
    with database.transaction(Patience.JOB) as connection:
        connection.execute(
            text("SELECT urban_inventory.city_drop(id) FROM urban_inventory.city WHERE code = 'grown'")
        )


def _again(connection: Any, code: str) -> Any:
    from tests.support.city import CityMaker

    row = connection.execute(
        text(
            "SELECT c.id, (SELECT min(id) FROM urban_inventory.survey u WHERE u.city_id = c.id) AS survey_id,"
            " (SELECT count(*) FROM urban_inventory.asset a WHERE a.city_id = c.id) AS made"
            " FROM urban_inventory.city c WHERE c.code = :code"
        ),
        {"code": code},
    ).one()
    return CityMaker(connection=connection, id=row.id, code=code, survey_id=row.survey_id, made=row.made)


def tiles_of(client: httpx.Client, zoom: int, query: str = "") -> Iterator[tuple[Tile, bytes]]:
    """All tiles of a zoom that are not empty."""
    found = client.get(ASSETS.rpartition("/")[0]).json()["tilesets"][0]["tileMatrixSetLimits"][zoom]
    for row in range(found["minTileRow"], found["maxTileRow"] + 1):
        for column in range(found["minTileCol"], found["maxTileCol"] + 1):
            answer = client.get(f"{ASSETS}/{zoom}/{row}/{column}{query}")
            assert answer.status_code in (200, 204)
            assert len(answer.content) < 500_000
            if answer.status_code == 200:
                assert answer.headers["content-type"] == MVT
                yield Tile(zoom, column, row), answer.content


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize(
    ("zoom", "query", "listed"),
    [
        *((zoom, "", MANY + 40) for zoom in (0, 5, 8, 10, 11, 12, 13, 14)),
        (10, "?class=tree", MANY + 40),
        (13, "?class=car", 0),
        (10, "?datetime=2026-02-01", MANY + 50),
        (13, "?datetime=2026-02-01&class=tree", MANY + 50),
    ],
)
def test_all_tiles_of_a_zoom_add_up_to_what_is_listed(
    service: Service, tmp_path: Path, zoom: int, query: str, listed: int
) -> None:
    frames = [decoded(content, tmp_path) for _, content in tiles_of(service.client, zoom, query)]
    assert sum(map(counted, frames)) == listed
    ids = [one for frame in frames if "id" in frame.columns for one in frame["id"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.usefixtures("grown")
def test_a_tile_of_many_is_clusters_and_one_of_few_its_assets(service: Service, tmp_path: Path) -> None:
    (whole,) = [decoded(content, tmp_path) for _, content in tiles_of(service.client, 6)]
    assert whole["count"].sum() == MANY + 40
    tile, content = next(iter(tiles_of(service.client, 14)))
    few = decoded(content, tmp_path, tile=tile)
    assert len(few) <= tiles.POINTS_MOST
    first = few.iloc[0]
    item = service.client.get(f"{ROOT}/collections/assets/items/{first['id']}").json()
    half_a_step = 360 / 2**14 / 4096
    assert (first.geometry.x, first.geometry.y) == pytest.approx(
        item["geometry"]["coordinates"], abs=half_a_step
    )
    assert (first["class"], first["status"]) == ("tree", "present")


@pytest.mark.usefixtures("grown")
def test_areas_carry_their_counts_and_nothing_where_nobody_looked(service: Service, tmp_path: Path) -> None:
    tile = tile_of(100.05, 22.05, 10)
    answer = service.get(f"{ROOT}/collections/areas/tiles/WebMercatorQuad/10/{tile.row}/{tile.column}")
    frame = decoded(answer.content, tmp_path, "areas", tile).set_index("code")
    assert set(frame.index) == {"A", "B"}
    counts = {
        row["area"]: row for row in service.get(f"{ROOT}/counts?level=district&class=tree").json()["counts"]
    }
    assert "tree_count" in str(frame.loc["A"].to_dict())
    assert counts["B"]["count"] is None
    both = service.get(f"{ROOT}/tiles/WebMercatorQuad/10/{tile.row}/{tile.column}")
    assert counted(decoded(both.content, tmp_path, "assets")) > 0
    assert len(decoded(both.content, tmp_path, "areas")) == 2


def test_a_decision_is_in_the_tile_at_once_and_changes_its_tag(
    service: Service, grown: Database, tmp_path: Path
) -> None:
    tile, _ = next(iter(tiles_of(service.client, 6)))
    path = f"{ASSETS}/6/{tile.row}/{tile.column}"
    before = service.get(path)
    assert service.get(path, if_none_match=before.headers["etag"]).status_code == 304
    say = (
        "UPDATE urban_inventory.asset_state SET listed = :listed WHERE city_id = :city AND id = (SELECT max(id)"
        " FROM urban_inventory.asset_state WHERE city_id = :city AND class = 'tree' AND valid_to IS NULL)"
    )
    with grown.transaction(Patience.JOB) as connection:
        city = _again(connection, "grown").id
        connection.execute(text(say), {"listed": False, "city": city})
    try:
        after = service.get(path, if_none_match=before.headers["etag"])
        assert after.status_code == 200
        assert counted(decoded(after.content, tmp_path)) == counted(decoded(before.content, tmp_path)) - 1
    finally:
        with grown.transaction(Patience.JOB) as connection:
            connection.execute(text(say), {"listed": True, "city": city})


@pytest.mark.usefixtures("grown")
def test_tilejson_gives_addresses_that_may_be_kept_for_good(service: Service) -> None:
    document = service.get(f"{ROOT}/tiles/WebMercatorQuad/tilejson").json()
    assert document["tilejson"] == "3.0.0"
    assert "tileSize" not in document
    assert [layer["id"] for layer in document["vector_layers"]] == ["assets", "areas", "area_labels"]
    (template,) = document["tiles"]
    assert template.startswith(f"{service.url}/cities/")
    west, south, east, north = document["bounds"]
    assert (west, south, east, north) == pytest.approx((100.0, 22.0, 100.1, 22.1), abs=0.2)
    tile = tile_of((west + east) / 2, (south + north) / 2, 8)
    address = template.format(z=8, y=tile.row, x=tile.column)
    answer = service.client.get(address)
    assert (answer.status_code, answer.headers["cache-control"]) == (
        200,
        "public, max-age=31536000, immutable",
    )
    old = service.client.get(address.partition("?")[0] + "?v=1.2020-01-01")
    assert old.headers["cache-control"] == "private, no-cache"


@pytest.mark.usefixtures("grown")
def test_tilejson_hands_on_what_it_was_asked_for_and_whose_imagery_it_is(
    service: Service, tmp_path: Path
) -> None:
    asked = "class=tree&datetime=2026-02-01&level=district"
    document = service.get(f"{ROOT}/tiles/WebMercatorQuad/tilejson?{asked}&token=secret").json()
    (template,) = document["tiles"]
    assert template.partition("?")[2].startswith(f"{asked}&v=")
    # Maps show it as HTML.
    assert document["attribution"] == "Test &lt;b&gt;Fliers&lt;/b&gt;, CC BY 4.0"
    fields = {layer["id"]: set(layer["fields"]) for layer in document["vector_layers"]}
    assert {"id", "class", "count"} <= fields["assets"]
    assert {"code", "name", "count", "coverage", "tree_count"} <= fields["areas"] == fields["area_labels"]
    tile = tile_of(100.05, 22.05, 6)
    answer = service.client.get(template.format(z=6, y=tile.row, x=tile.column))
    assert counted(decoded(answer.content, tmp_path)) == MANY + 50


@pytest.mark.usefixtures("grown")
def test_a_tile_within_limits_without_anything_is_empty_and_one_beyond_is_none(service: Service) -> None:
    limits = service.get(f"{ROOT}/collections/assets/tiles").json()["tilesets"][0]["tileMatrixSetLimits"]
    for zoom in (3, 12, 18):
        one = limits[zoom]
        assert one["tileMatrix"] == str(zoom)
        assert service.get(f"{ASSETS}/{zoom}/{one['maxTileRow']}/{one['minTileCol']}").status_code in (
            200,
            204,
        )
        for row, column in ((one["maxTileRow"] + 1, one["minTileCol"]), (2147483647, 2147483647), (-1, 0)):
            assert service.get(f"{ASSETS}/{zoom}/{row}/{column}").status_code == 404
    corner = limits[18]
    path = f"{ASSETS}/18/{corner['maxTileRow']}/{corner['minTileCol']}"
    empty = service.get(path)
    assert (empty.status_code, empty.headers["cache-control"]) == (204, "private, no-cache")
    assert service.get(path, if_none_match=empty.headers["etag"]).status_code == 304
    (template,) = service.get(f"{ASSETS}/tilejson").json()["tiles"]
    for_good = service.client.get(template.format(z=18, y=corner["maxTileRow"], x=corner["minTileCol"]))
    assert (for_good.status_code, for_good.headers["cache-control"]) == (204, KEPT_FOR_GOOD)


@pytest.mark.usefixtures("grown")
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("collections/surveys/tiles", 404),
        ("collections/assets/tiles/WorldCRS84Quad", 404),
        ("collections/assets/tiles/WebMercatorQuad/23/0/0", 404),
        ("collections/assets/tiles/WebMercatorQuad/a/0/0", 400),
        ("collections/assets/tiles/WebMercatorQuad/0/0/0?f=png", 400),
        ("collections/assets/tiles/WebMercatorQuad/0/0/0?datetime=2026-01-01/2026-02-01", 400),
        ("collections/assets/tiles/WebMercatorQuad/0/0/0?colour=red", 400),
        ("collections/areas/tiles/WebMercatorQuad/0/0/0?level=moon", 404),
        ("collections/assets/tiles/WebMercatorQuad/0/0/0?class=dragon", 404),
        ("tiles/WebMercatorQuad/tilejson?class=dragon", 404),
        ("tiles/WebMercatorQuad/tilejson?datetime=yesterday", 400),
        ("tiles/WebMercatorQuad/99999999999999999999999/0/0", 404),
        ("tileMatrixSets/none", 404),
    ],
)
def test_what_is_no_tile_is_refused_by_name(service: Service, path: str, status: int) -> None:
    answer = service.get(f"{ROOT}/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.usefixtures("grown")
def test_the_ogc_suites_rules_for_tilesets(service: Service) -> None:
    landing = service.get(f"{ROOT}/", accept="application/json").json()
    rels = {link["rel"]: link["href"] for link in landing["links"]}
    listed = service.client.get(rels["http://www.opengis.net/def/rel/ogc/1.0/tilesets-vector"]).json()
    collection = service.get(f"{ROOT}/collections/assets").json()
    (own,) = [one["href"] for one in collection["links"] if one["rel"].endswith("/tilesets-vector")]
    assert own.endswith("/tiles")
    for document in (listed, service.client.get(own).json()):
        for tileset in document["tilesets"]:
            (item,) = [link for link in tileset["links"] if link["rel"] == "item"]
            assert item["templated"] is True
            assert "/tiles/WebMercatorQuad/" in item["href"]
            assert all(f"{{{name}}}" in item["href"] for name in ("tileMatrix", "tileRow", "tileCol"))
            assert tileset["tileMatrixSetId"] == "WebMercatorQuad"
            (grid,) = [link["href"] for link in tileset["links"] if link["rel"].endswith("/tiling-scheme")]
            assert len(service.client.get(grid).json()["tileMatrices"]) == len(tileset["tileMatrixSetLimits"])
    described = service.get(f"{ROOT}/api").json()
    names = [one["get"]["operationId"] for one in described["paths"].values() if "get" in one]
    assert any(".getTile" in name for name in names)
    assert "WebMercatorQuad" in service.get(f"{ROOT}/tiles", accept="text/html").text


def test_a_head_of_a_tile_is_its_answer_without_the_body(
    service: Service, grown: Database, tmp_path: Path
) -> None:
    tile, content = next(iter(tiles_of(service.client, 6)))
    head = service.client.head(
        f"{ASSETS}/6/{tile.row}/{tile.column}", headers={"Accept-Encoding": "identity"}
    )
    assert (head.status_code, head.content, int(head.headers["content-length"])) == (200, b"", len(content))
    with served(create_app(Settings(home=tmp_path), grown)) as url:
        assert httpx.get(f"{url}{ASSETS}/6/{tile.row}/{tile.column}").content == content
