"""The imagery as a STAC catalogue and as pictures on a map, over real scenes, by clients of the field."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pystac
import pystac_client
import pytest
from PIL import Image
from pyproj import Transformer

from api.app import create_app
from api.settings import Settings
from inventory.domain.tiles import Tile, tile_of
from inventory.ingest import Status
from inventory.store.database import Database
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
        assert document["attribution"] == "The town’s own aeroplane"
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
        ("scenes/none/preview", 404),
    ],
)
def test_what_is_no_picture_is_refused_by_name(shown: Shown, path: str, status: int) -> None:
    answer = shown.client.get(f"/cities/town/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
