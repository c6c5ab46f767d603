"""The imagery as a STAC catalogue and as pictures on a map, over real scenes, by clients of the field."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pystac
import pystac_client
import pytest
import schemathesis
from PIL import Image
from pyproj import Transformer
from sqlalchemy import select, text

from api.app import create_app
from api.settings import Settings
from inventory import showing
from inventory.domain.tiles import Tile, tile_of
from inventory.ingest import Status
from inventory.store import schema
from inventory.store.database import Database, Patience
from tests.api.conftest import Service
from tests.support.city import FIRST_LOOK, add_scene, make_city, square
from tests.support.database import DatabaseServer, cloned_database
from tests.support.scenes import ORIGIN, UTM
from tests.support.server import served
from tests.support.town import Town, make_town

STAC = "/cities/town/stac"
TO_LON_LAT = Transformer.from_crs(UTM, 4326, always_xy=True)
CENTRE = TO_LON_LAT.transform(ORIGIN[0] + 40, ORIGIN[1] - 40)
ZOOM = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The town served, with three scenes: two of 2024 and 2025 that go to the map, one whose file is gone."""

    url: str
    client: httpx.Client
    town: Town
    first: str
    second: str
    gone: str


@pytest.fixture(scope="module")
def shown(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("town")
    with cloned_database(database_server) as clone:
        database = Database(clone.service_url)
        town = make_town(database, folder)
        trees = [(100, 100), (200, 200)]
        ids = []
        for name, day in (("first", "2024-06-01"), ("second", "2025-06-01"), ("gone", "2023-06-01")):
            file = town.picture(name, trees)
            (done,) = town.ingest(file, day, licence="CC BY 4.0", attribution="The town’s own aeroplane")
            assert done.status is Status.STORED
            ids.append(done.scene)
            if name == "gone":
                file.unlink()
        with (
            served(create_app(Settings(home=folder), database)) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            yield Shown(url=url, client=client, town=town, first=ids[0], second=ids[1], gone=ids[2])
        database.close()


# --- the catalogue ---------------------------------------------------------------------------------------------


def test_every_document_is_valid_stac(shown: Shown) -> None:
    pystac.Catalog.from_dict(shown.client.get(STAC).json()).validate()
    collection = pystac.Collection.from_dict(shown.client.get(f"{STAC}/collections/scenes").json())
    collection.validate()
    assert collection.license == "CC-BY-4.0"
    items = shown.client.get(f"{STAC}/collections/scenes/items").json()
    assert [one["id"] for one in items["features"]] == [shown.second, shown.first, shown.gone]
    for one in items["features"]:
        item = pystac.Item.from_dict(one)
        item.validate()
        assert item.properties["gsd"] == pytest.approx(0.2, abs=1e-3)
        assert one == {**shown.client.get(f"{STAC}/collections/scenes/items/{item.id}").json()}


def test_no_document_tells_where_files_lie(shown: Shown) -> None:
    for path in (STAC, f"{STAC}/collections", f"{STAC}/search"):
        assert str(shown.town.folder) not in shown.client.get(path).text


def test_pystac_client_walks_and_searches(shown: Shown) -> None:
    client = pystac_client.Client.open(f"{shown.url}{STAC}")
    (collection,) = client.get_collections()
    assert {item.id for item in collection.get_items()} == {shown.first, shown.second, shown.gone}
    west, south = TO_LON_LAT.transform(ORIGIN[0] - 10, ORIGIN[1] - 90)
    east, north = TO_LON_LAT.transform(ORIGIN[0] + 90, ORIGIN[1] + 10)
    for method in ("GET", "POST"):

        def found(**asked: object) -> list[str]:
            search = client.search(method=method, limit=1, **asked)  # type: ignore[arg-type]  # noqa: B023
            ids = [item.id for item in search.items()]
            assert search.matched() == len(ids)
            return ids

        assert found(bbox=[west, south, east, north]) == [shown.second, shown.first, shown.gone]
        assert found(bbox=[west + 1, south, east + 1, north]) == []
        assert found(datetime="2024-01-01T00:00:00Z/2024-12-31T00:00:00Z") == [shown.first]
        assert found(ids=[shown.second]) == [shown.second]
        assert found(
            intersects={"type": "Point", "coordinates": list(CENTRE)}, datetime="2025-01-01T00:00:00Z/.."
        ) == [shown.second]
        assert found(collections=["others"]) == []


def test_the_fields_own_validator_finds_nothing_wrong(shown: Shown) -> None:
    command = [sys.executable, "-m", "stac_api_validator", "--root-url", f"{shown.url}{STAC}", "--conformance", "core",
               "--conformance", "collections", "--conformance", "item-search", "--collection", "scenes",
               "--geometry", json.dumps({"type": "Point", "coordinates": list(CENTRE)})]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "Errors:" in told.stdout, told.stdout + told.stderr
    faults = [line for line in told.stdout.partition("Errors:")[2].splitlines() if line.strip()]
    # It fetches the schemas of single documents, which pystac has at hand (above); all else it tells by itself.
    assert [line for line in faults if "schemas.stacspec.org" not in line] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "search?bbox=1,2,3", None),
        ("GET", "search?datetime=soon", None),
        ("GET", "search?datetime=../..", None),
        ("GET", "search?datetime=2026-01-02", None),
        ("GET", "search?limit=0", None),
        ("GET", "search?page=nonsense", None),
        ("GET", "search?intersects={}", None),
        ("GET", "search?colour=red", None),
        ("POST", "search", {"bbox": ["a"]}),
        ("POST", "search", {"limit": "many"}),
        ("POST", "search", {"ids": "one"}),
        ("POST", "search", {"ids": ["a\0b"]}),
        ("POST", "search", {"collections": ["\0"]}),
        ("POST", "search", {"token": "\0"}),
        ("GET", "search?bbox=1_00,22,102,23", None),
        ("GET", "search?bbox=100,22,10,102,23,0", None),
        ("POST", "search", {"colour": "red"}),
        ("POST", "search", {"bbox": [0, 0, 1, 1], "intersects": {"type": "Point", "coordinates": [0, 0]}}),
        ("POST", "search", {"intersects": {"type": "Point", "coordinates": [200, 0]}}),
        ("POST", "search", []),
    ],
)
def test_a_search_that_means_nothing_is_refused_by_name(
    shown: Shown, method: str, path: str, body: object
) -> None:
    answer = shown.client.request(method, f"{STAC}/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["collections/others", "collections/scenes/items/none"])
def test_what_is_not_there_is_unknown(shown: Shown, path: str) -> None:
    assert shown.client.get(f"{STAC}/{path}").status_code == 404


@pytest.fixture
def puer(database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service over two cities that the test fills: one with a scene, one over the antimeridian."""
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "puer")
        make_city(connection, "fiji", box=(176.0, -20.0, 180.0, -15.0))
    with (
        served(create_app(Settings(home=tmp_path), database)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def items_of(client: httpx.Client, city: str = "puer", **asked: str) -> dict[str, Any]:
    found = client.get(f"/cities/{city}/stac/search", params=asked).json()
    for one in found["features"]:
        pystac.Item.from_dict(one).validate()
    return {one["id"]: one for one in found["features"]}


def test_r2_superseded_scenes_are_left_out_and_purged_ones_have_no_pixels(
    puer: httpx.Client, database: Database
) -> None:
    add_scene(database, "puer", "corrected")
    add_scene(database, "puer", "purged", path=None, purged_at=FIRST_LOOK)
    with database.transaction(Patience.JOB) as connection:
        scene = schema.scene
        newer = select(scene.c.id).where(scene.c.public_id == "corrected").scalar_subquery()
        connection.execute(
            scene.update().where(scene.c.city_id == 1, scene.c.public_id == "s1").values(superseded_by=newer)
        )
    found = items_of(puer)
    assert set(found) == {"corrected", "purged"}
    assert set(found["corrected"]["assets"]) == {"preview", "tiles"}
    assert found["purged"]["assets"] == {}
    assert not [one for one in found["purged"]["links"] if one["rel"] in ("xyz", "tilejson")]
    assert puer.get("/cities/puer/stac/collections/scenes/items/s1").status_code == 404
    answer = puer.get("/cities/puer/scenes/purged/preview")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_an_item_leads_to_its_surveys_and_says_what_is_known_of_it(puer: httpx.Client) -> None:
    item = items_of(puer)["s1"]
    (surveys,) = (one["href"] for one in item["links"] if one["rel"] == "related")
    assert [one["properties"]["scene"] for one in puer.get(surveys).json()["features"]] == ["s1"]
    assert item["properties"]["datetime"] == "2025-06-01T03:00:00Z"
    assert item["properties"]["providers"] == [
        {"name": "Test <b>Fliers</b>", "roles": ["producer", "licensor"]}
    ]
    assert item["properties"]["license"] == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("said", "licence"), [("CC0", "CC0-1.0"), ("ODbL-1.0", "ODbL-1.0"), ("ask the city’s surveyor", "other")]
)
def test_a_licence_is_an_spdx_identifier_or_other_and_where_scenes_differ_each_says_its_own(
    puer: httpx.Client, database: Database, said: str, licence: str
) -> None:
    address = "/cities/puer/stac/collections/scenes"
    assert puer.get(address).json()["license"] == "CC-BY-4.0"
    add_scene(database, "puer", "other", licence=said)
    assert items_of(puer)["other"]["properties"]["license"] == licence
    collection = puer.get(address).json()
    pystac.Collection.from_dict(collection).validate()
    assert collection["license"] == "other"
    assert [one["href"] for one in collection["links"] if one["rel"] == "license"]


def test_the_collection_reaches_as_far_as_its_scenes(puer: httpx.Client, database: Database) -> None:
    later = FIRST_LOOK + timedelta(days=400)
    add_scene(database, "puer", "east", taken_at=later, footprint=square(100.5, 22.0, 100.6, 22.2))
    extent = puer.get("/cities/puer/stac/collections/scenes").json()["extent"]
    assert extent["spatial"]["bbox"] == [[100.0, 22.0, 100.6, 22.2]]
    assert extent["temporal"]["interval"] == [["2025-06-01T03:00:00Z", "2026-07-06T03:00:00Z"]]


def test_a_city_without_imagery_has_a_valid_and_empty_catalogue(
    puer: httpx.Client, database: Database
) -> None:
    with database.transaction(Patience.JOB) as connection:
        connection.execute(text("DELETE FROM urban_inventory.survey_class"))
        connection.execute(text("DELETE FROM urban_inventory.survey"))
        connection.execute(text("DELETE FROM urban_inventory.scene"))
    pystac.Collection.from_dict(puer.get("/cities/puer/stac/collections/scenes").json()).validate()
    assert puer.get("/cities/puer/stac/search").json()["numberMatched"] == 0
    assert items_of(puer) == {}
    tilejson = puer.get("/cities/puer/imagery/tiles/WebMercatorQuad/tilejson").json()
    assert puer.get(tilejson["tiles"][0].format(z=14, y=7000, x=12000)).status_code == 204


def test_boxes_and_scenes_over_the_antimeridian(puer: httpx.Client, database: Database) -> None:
    west, east = ((179, 180), (-180, -179.5))
    rings = (f"(({a} -18,{b} -18,{b} -17,{a} -17,{a} -18))" for a, b in (west, east))
    both = f"SRID=4326;MULTIPOLYGON({','.join(rings)})"
    add_scene(database, "fiji", "over", footprint=both)
    add_scene(database, "fiji", "far", footprint=square(-178.0, -18.0, -177.0, -17.0))
    assert items_of(puer, "fiji")["over"]["bbox"] == [179.0, -18.0, -179.5, -17.0]
    assert set(items_of(puer, "fiji", bbox="179.5,-18,-179.8,-17")) == {"s1", "over"}
    assert set(items_of(puer, "fiji", bbox="-179.6,-18,-177.5,-17")) == {"over", "far"}
    body = {"bbox": [179.5, -18, -179.8, -17]}
    found = puer.post("/cities/fiji/stac/search", json=body).json()
    assert {one["id"] for one in found["features"]} == {"s1", "over"}


def test_pages_follow_one_another_without_loss_or_repetition_also_at_one_instant(
    puer: httpx.Client, database: Database
) -> None:
    names = {f"n{n:02d}" for n in range(23)} | {"s1"}
    for name in sorted(names - {"s1"}):
        add_scene(database, "puer", name)
    for method in ("GET", "POST"):
        found, address, body = [], f"{puer.base_url}/cities/puer/stac/search", {"limit": 5}
        address += "?limit=5" if method == "GET" else ""
        while address:
            answer = puer.request(method, address, json=body if method == "POST" else None).json()
            assert answer["numberMatched"] == len(names)
            found += [one["id"] for one in answer["features"]]
            following = next((one for one in answer["links"] if one["rel"] == "next"), None)
            address = following["href"] if following else ""
            body = following.get("body", {}) if following else {}
        assert len(found) == len(names) == len(set(found))
        assert set(found) == names


def test_many_ids_are_all_asked_for_or_refused(puer: httpx.Client, database: Database) -> None:
    for n in range(130):
        add_scene(database, "puer", f"n{n:03d}")
    many = [f"n{n:03d}" for n in range(130)]
    assert puer.get("/cities/puer/stac/search", params={"ids": ",".join(many)}).json()["numberMatched"] == 130
    refused = puer.post("/cities/puer/stac/search", json={"ids": ["x"] * 1_001})
    assert (refused.status_code, "ids" in refused.json()["detail"]) == (400, True)


def test_the_catalogue_describes_itself_in_openapi_3_0(puer: httpx.Client) -> None:
    catalogue = puer.get("/cities/puer/stac").json()
    (described,) = (one for one in catalogue["links"] if one["rel"] == "service-desc")
    answer = puer.get(described["href"])
    assert (
        answer.headers["content-type"] == described["type"] == "application/vnd.oai.openapi+json;version=3.0"
    )
    document = answer.json()
    assert document["openapi"].startswith("3.0.")
    assert document["servers"] == [{"url": f"{puer.base_url}/cities/puer/stac"}]
    assert {"/", "/conformance", "/collections", "/search", "/collections/{collection}/items"} <= set(
        document["paths"]
    )
    # What 3.1 has and 3.0 has not.
    assert '"null"' not in answer.text
    assert "examples" not in json.dumps(document["paths"])
    names = {one["name"]: one for one in document["paths"]["/search"]["get"]["parameters"]}
    assert {"bbox", "datetime", "limit", "ids", "collections", "intersects"} <= set(names)
    assert names["limit"]["schema"]["type"] == "integer"
    assert names["bbox"]["schema"]["type"] == "string"
    path = document["paths"]["/collections/{collection}/items/{item}"]["get"]
    assert {one["name"] for one in path["parameters"]} == {"collection", "item"}
    with_parameters = schemathesis.openapi.from_dict(document)
    assert len(list(with_parameters.get_all_operations())) == 9
    assert f"{catalogue['conformsTo'][-1]}".endswith("oas30")


# --- pictures ---------------------------------------------------------------------------------------------------


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def here(zoom: int = ZOOM) -> Tile:
    return tile_of(*CENTRE, zoom)


@pytest.mark.parametrize(
    ("form", "media_type"), [("png", "image/png"), ("webp", "image/webp"), ("jpeg", "image/jpeg")]
)
def test_a_tile_of_a_scene_shows_its_pixels_where_they_lie(shown: Shown, form: str, media_type: str) -> None:
    tile = here()
    answer = shown.client.get(
        f"/cities/town/scenes/{shown.first}/tiles/WebMercatorQuad/{tile.zoom}/{tile.row}/{tile.column}?f={form}"
    )
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    pixels = picture(answer.content)
    assert pixels.shape == (256, 256, 4)
    # The town has ground of its own colour here, and it fills most of the tile.
    assert pixels[..., :3].std() > 1
    assert (pixels[..., 3] > 0).mean() > 0.5


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("image/avif,image/webp,image/*,*/*;q=0.8", "image/webp"),
        ("image/webp;q=0, image/png", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("*/*", "image/png"),
    ],
)
def test_a_picture_comes_as_the_caller_prefers_and_any_page_may_show_it(
    shown: Shown, accept: str, media_type: str
) -> None:
    answer = shown.client.get(f"/cities/town/scenes/{shown.first}/preview", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


def test_what_was_not_surveyed_is_transparent_and_beyond_a_scene_is_nothing(shown: Shown) -> None:
    west, north = TO_LON_LAT.transform(ORIGIN[0], ORIGIN[1])
    corner = tile_of(west, north, 18)
    root = f"/cities/town/scenes/{shown.first}/tiles/WebMercatorQuad"
    pixels = picture(shown.client.get(f"{root}/18/{corner.row}/{corner.column}").content)
    assert 0 < (pixels[..., 3] > 0).mean() < 1
    assert shown.client.get(f"{root}/18/{corner.row - 9}/{corner.column}").status_code == 204
    large = shown.client.get(f"{root}/18/{corner.row}/{corner.column}?tile-size=512")
    assert picture(large.content).shape == (512, 512, 4)


def test_the_citys_imagery_has_the_newest_on_top_and_as_of_a_date_what_was_there(shown: Shown) -> None:
    tile = here()
    place = f"{tile.zoom}/{tile.row}/{tile.column}"
    whole = f"/cities/town/imagery/tiles/WebMercatorQuad/{place}"
    alone = "/cities/town/scenes/{}/tiles/WebMercatorQuad/" + place
    assert shown.client.get(whole).content == shown.client.get(alone.format(shown.second)).content
    then = shown.client.get(f"{whole}?datetime=2024-12-31")
    assert then.content == shown.client.get(alone.format(shown.first)).content
    assert shown.client.get(f"{whole}?datetime=2020-01-01").status_code == 204


def test_a_file_that_is_gone_is_told_by_its_scene_and_not_by_its_place(shown: Shown) -> None:
    tile = here()
    for path in (f"tiles/WebMercatorQuad/{tile.zoom}/{tile.row}/{tile.column}", "preview"):
        answer = shown.client.get(f"/cities/town/scenes/{shown.gone}/{path}")
        assert answer.status_code == 409
        assert shown.gone in answer.json()["detail"]
        assert "scene locate" in answer.json()["do"]
        assert str(shown.town.folder) not in answer.text


def test_a_preview_shows_the_whole_scene(shown: Shown) -> None:
    item = shown.client.get(f"{STAC}/collections/scenes/items/{shown.first}").json()
    answer = shown.client.get(item["assets"]["preview"]["href"])
    assert answer.status_code == 200
    assert max(picture(answer.content).shape[:2]) == 400


def test_tilejson_leads_to_tiles_that_may_be_kept_for_good(shown: Shown) -> None:
    tile = here()
    for path in (f"scenes/{shown.first}", "imagery"):
        document = shown.client.get(f"/cities/town/{path}/tiles/WebMercatorQuad/tilejson").json()
        assert document["attribution"] == "The town’s own aeroplane, CC BY 4.0"
        west, south, east, north = document["bounds"]
        assert west <= CENTRE[0] <= east
        assert south <= CENTRE[1] <= north
        answer = shown.client.get(document["tiles"][0].format(z=tile.zoom, y=tile.row, x=tile.column))
        assert (answer.status_code, answer.headers["cache-control"]) == (
            200,
            "public, max-age=31536000, immutable",
        )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("imagery/tiles/WebMercatorQuad/9/1/1", 404),
        ("imagery/tiles/WebMercatorQuad/23/1/1", 404),
        ("imagery/tiles/WebMercatorQuad/19/-1/1", 404),
        ("imagery/tiles/other/19/1/1", 404),
        ("imagery/tiles/WebMercatorQuad/19/1/1?f=gif", 400),
        ("imagery/tiles/WebMercatorQuad/19/1/1?tile-size=300", 400),
        ("imagery/tiles/WebMercatorQuad/19/1/x", 400),
        ("imagery/tiles/WebMercatorQuad/19/1/1?datetime=2024-01-01/2025-01-01", 400),
        ("imagery/tiles/WebMercatorQuad/19/1/1?datetime=soon", 400),
        ("imagery/tiles/WebMercatorQuad/tilejson?datetime=../2025-01-01", 400),
        ("imagery/tiles/WebMercatorQuad/tilejson?tile-size=1024", 400),
        ("scenes/none/preview", 404),
    ],
)
def test_what_is_no_picture_is_refused_by_name(shown: Shown, path: str, status: int) -> None:
    answer = shown.client.get(f"/cities/town/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_what_lacks_a_scene_now_is_not_kept(shown: Shown) -> None:
    tile = here()
    place = f"{tile.zoom}/{tile.row}/{tile.column}"
    template = shown.client.get(
        "/cities/town/imagery/tiles/WebMercatorQuad/tilejson?datetime=2023-12-31"
    ).json()
    address = template["tiles"][0].format(z=tile.zoom, y=tile.row, x=tile.column)
    assert "datetime=2023-12-31" in address
    # Only the scene whose file is gone is of that year.
    answer = shown.client.get(address)
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "private, no-store")
    assert "etag" not in answer.headers
    kept = shown.client.get(f"/cities/town/imagery/tiles/WebMercatorQuad/{place}")
    again = shown.client.get(str(kept.url), headers={"If-None-Match": kept.headers["etag"]})
    assert (kept.status_code, again.status_code) == (200, 304)


def test_tilejson_says_how_deep_the_imagery_goes(shown: Shown) -> None:
    root = f"/cities/town/scenes/{shown.first}/tiles/WebMercatorQuad"
    document = shown.client.get(f"{root}/tilejson").json()
    # 0.2 m a pixel at latitude 45, 400 pixels wide.
    assert (document["minzoom"], document["maxzoom"]) == (15, 20)
    large = shown.client.get(f"{root}/tilejson?tile-size=512").json()
    assert large["maxzoom"] == 19
    tile = here(19)
    answer = shown.client.get(large["tiles"][0].format(z=19, y=tile.row, x=tile.column))
    assert picture(answer.content).shape == (512, 512, 4)
    city = shown.client.get("/cities/town/imagery/tiles/WebMercatorQuad/tilejson").json()
    assert (city["minzoom"], city["maxzoom"]) == (10, 20)


def test_we1_attribution_in_tilejson_is_inert_since_maps_show_it_as_html(service: Service) -> None:
    for path in ("imagery/tiles", "scenes/s1/tiles", "tiles", "collections/assets/tiles"):
        document = service.get(f"/cities/town/{path}/WebMercatorQuad/tilejson").json()
        assert document["attribution"] == "Test &lt;b&gt;Fliers&lt;/b&gt;, CC BY 4.0"


def test_who_asks_for_too_many_pictures_at_once_is_told_to_come_again(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "_TURNS", showing.Turns(at_once=1, most_waiting=0, patience_s=0.1))
    tile = here()
    place = f"{tile.zoom}/{tile.row}/{tile.column}"
    addresses = (
        f"imagery/tiles/WebMercatorQuad/{place}",
        f"scenes/{shown.first}/tiles/WebMercatorQuad/{place}",
        f"scenes/{shown.first}/preview",
    )
    with showing._TURNS.taken():
        for address in addresses:
            answer = shown.client.get(f"/cities/town/{address}")
            assert (answer.status_code, answer.json()["code"]) == (503, "store_busy")
            assert int(answer.headers["retry-after"]) >= 1
        # Others are answered meanwhile.
        assert shown.client.get(f"{STAC}/search").status_code == 200
    for address in addresses:
        assert shown.client.get(f"/cities/town/{address}").status_code == 200
