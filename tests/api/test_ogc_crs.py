"""Coordinate reference systems: the abstract tests of Features Part 2, fixed golden points, boxes to the centimetre."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pyproj import Transformer

from api.app import create_app
from api.settings import Settings
from inventory.store.database import Database, Patience
from tests.support.city import make_city
from tests.support.database import DatabaseServer, cloned_database
from tests.support.server import served

CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
EPSG = "http://www.opengis.net/def/crs/EPSG/0"
UNSUPPORTED = "http://www.opengis.net/def/crs/0/unsupported"
PLACE = (103.85, 36.06)
# Of PLACE, in the axes of each authority: EPSG:4544 has its northing first.
GOLDEN = {
    CRS84: (103.85, 36.06),
    f"{EPSG}/4326": (36.06, 103.85),
    f"{EPSG}/4490": (36.06, 103.85),
    f"{EPSG}/3857": (11560529.119, 4308880.423),
    f"{EPSG}/4544": (3992812.358, 396388.203),
}
# A box of 200 km around this place, in EPSG:32633; its upper side bends by 1.3 m between its ends in degrees.
FAR_NORTH = (500_000.0, 6_650_000.0)
HALF = 100_000.0
NEAR_M = 0.05


@pytest.fixture(scope="module")
def client(
    database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    with cloned_database(database_server) as clone:
        database = Database(clone.service_url)
        fill(database)
        home = Path(tmp_path_factory.mktemp("home"))
        with (
            served(create_app(Settings(home=home), database)) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            yield client
        database.close()


def fill(database: Database) -> None:
    """``lanzhou``: a grid of trees around PLACE; ``north``: trees on both sides of a box's border, and the areas."""
    with database.transaction(Patience.JOB) as connection:
        lanzhou = make_city(connection, "lanzhou", box=(103.8, 36.0, 103.9, 36.1), metric_crs="EPSG:4544")
        lanzhou.area("A", (103.8, 36.0, 103.85, 36.1))
        lanzhou.asset(*PLACE, areas=["A"])
        lanzhou.assets([(103.803 + i % 10 / 100, 36.003 + i // 10 / 100) for i in range(100)])
        north = make_city(
            connection,
            "north",
            box=(12.5, 58.5, 18.5, 61.5),
            metric_crs="EPSG:32633",
            time_zone="Europe/Oslo",
        )
        north.assets(beside_the_border(NEAR_M))
        north.assets(beside_the_border(-NEAR_M))
        north.area("A", (14.0, 59.5, 16.0, 60.5))


def beside_the_border(inwards_m: float) -> list[tuple[float, float]]:
    """Nine places along each side of the box, so far inside of it."""
    to_lon_lat = Transformer.from_crs("EPSG:32633", "OGC:CRS84")
    (x, y), reach = FAR_NORTH, HALF - inwards_m
    along = [HALF * share for share in (-0.99, -0.7, -0.43, -0.2, 0.01, 0.26, 0.51, 0.77, 0.985)]
    places = [
        place
        for one in along
        for place in ((x + one, y + reach), (x + one, y - reach), (x + reach, y + one), (x - reach, y + one))
    ]
    return [to_lon_lat.transform(*place) for place in places]


def collection(client: httpx.Client, city: str, name: str = "assets") -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/cities/{city}/collections/{name}").json()
    return found


def items(client: httpx.Client, city: str, name: str = "assets", **parameters: Any) -> list[dict[str, Any]]:
    named = {key.replace("_", "-"): value for key, value in parameters.items()}
    answer = client.get(f"/cities/{city}/collections/{name}/items", params={"limit": 1_000, **named})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["features"]
    return found


def ids(features: list[dict[str, Any]]) -> list[str]:
    return [feature["id"] for feature in features]


# --- the abstract tests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("city", ["lanzhou", "north"])
def test_every_crs_is_a_uri_and_the_storage_crs_is_among_them(client: httpx.Client, city: str) -> None:
    for each in client.get(f"/cities/{city}/collections").json()["collections"]:
        assert each["crs"][0] == CRS84
        assert each["storageCrs"] in each["crs"]
        assert len(set(each["crs"])) == len(each["crs"])
        assert all(urlsplit(uri).scheme == "http" and urlsplit(uri).netloc for uri in each["crs"])


def test_a_city_serves_its_own_crs_and_a_chinese_one_that_of_china(client: httpx.Client) -> None:
    assert set(collection(client, "lanzhou")["crs"]) == set(GOLDEN)
    assert set(collection(client, "north")["crs"]) == {
        CRS84, f"{EPSG}/4326", f"{EPSG}/3857", f"{EPSG}/32633"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["assets", "areas", "surveys", "observations"])
def test_content_crs_is_what_was_asked_for_to_the_letter(client: httpx.Client, name: str) -> None:
    address = f"/cities/lanzhou/collections/{name}/items"
    first = client.get(f"{address}?limit=1")
    assert first.headers["content-crs"] == f"<{CRS84}>"
    for path in (address, f"{address}/{first.json()['features'][0]['id']}"):
        for uri in collection(client, "lanzhou", name)["crs"]:
            answer = client.get(path, params={"crs": uri})
            assert (answer.status_code, answer.headers["content-crs"]) == (200, f"<{uri}>")


def test_a_crs_that_is_not_served_is_refused_everywhere(client: httpx.Client) -> None:
    address = "/cities/lanzhou/collections/assets/items"
    for path, name in (
        (address, "crs"),
        (f"{address}/a00001", "crs"),
        (address, "bbox-crs"),
        (address, "filter-crs"),
    ):
        answer = client.get(
            path, params={name: UNSUPPORTED, "bbox": "1,2,3,4"} if name != "crs" else {name: UNSUPPORTED}
        )
        assert answer.status_code == 400, (path, name)
        assert name in answer.json()["detail"]
        assert f"{EPSG}/4544" in answer.json()["detail"]


def test_a_box_says_the_same_with_its_default_crs_named(client: httpx.Client) -> None:
    box = "103.82,36.02,103.85,36.08"
    assert items(client, "lanzhou", bbox=box) == items(client, "lanzhou", bbox=box, bbox_crs=CRS84) != []


@pytest.mark.parametrize("city", ["lanzhou", "north"])
@pytest.mark.parametrize("name", ["assets", "areas", "surveys", "observations"])
def test_the_extent_in_every_crs_gives_the_same_first_page(
    client: httpx.Client, city: str, name: str
) -> None:
    told = collection(client, city, name)
    west, south, east, north = told["extent"]["spatial"]["bbox"][0]
    expected = items(client, city, name, bbox=f"{west},{south},{east},{north}", limit=20)
    assert expected
    for uri in told["crs"]:
        there = Transformer.from_crs("OGC:CRS84", code_of(uri))
        low, high = extent_in(there, west, south, east, north)
        box = ",".join(map(str, (*low, *high)))
        assert ids(items(client, city, name, bbox=box, bbox_crs=uri, limit=20)) == ids(expected), uri


@pytest.mark.parametrize("uri", GOLDEN)
def test_coordinates_are_as_the_suite_computes_them(client: httpx.Client, uri: str) -> None:
    there = Transformer.from_crs("OGC:CRS84", code_of(uri))
    plain, moved = items(client, "lanzhou"), items(client, "lanzhou", crs=uri)
    assert ids(plain) == ids(moved)
    for one, other in zip(plain, moved, strict=True):
        wanted = there.transform(*one["geometry"]["coordinates"])
        # Rounded to a centimetre, of metres or of degrees.
        assert other["geometry"]["coordinates"] == pytest.approx(wanted, abs=0.0051)


def code_of(uri: str) -> str:
    return "OGC:CRS84" if uri == CRS84 else f"EPSG:{uri.rpartition('/')[2]}"


def extent_in(
    there: Transformer, west: float, south: float, east: float, north: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    corners = [
        there.transform(west + (east - west) * i / 50, south + (north - south) * j / 50)
        for i in range(51)
        for j in range(51)
    ]
    firsts, seconds = zip(*corners, strict=True)
    return (min(firsts), min(seconds)), (max(firsts), max(seconds))


# --- golden points and boxes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("uri", "wanted"), GOLDEN.items(), ids=GOLDEN)
def test_a_golden_point_has_the_axes_of_its_authority(
    client: httpx.Client, uri: str, wanted: tuple[float, float]
) -> None:
    alone = client.get("/cities/lanzhou/collections/assets/items/a00001", params={"crs": uri}).json()
    assert alone["geometry"]["coordinates"] == pytest.approx(wanted, abs=0.006)
    a, b = wanted
    reach = 0.0001 if abs(a) < 200 else 5.0
    around = f"{a - reach},{b - reach},{a + reach},{b + reach}"
    assert ids(items(client, "lanzhou", bbox=around, bbox_crs=uri)) == ["a00001"]
    inside = f"S_INTERSECTS(geom,BBOX({around}))"
    assert ids(items(client, "lanzhou", filter=inside, filter_crs=uri)) == ["a00001"]
    ring = f"{a - reach} {b - reach},{a + reach} {b - reach},{a + reach} {b + reach},{a - reach} {b + reach}"
    around = f"S_WITHIN(geom,POLYGON(({ring},{a - reach} {b - reach})))"
    assert ids(items(client, "lanzhou", filter=around, filter_crs=uri)) == ["a00001"]


def test_a_crs_may_be_said_in_the_short_ways(client: httpx.Client) -> None:
    for name in ("EPSG:4544", "urn:ogc:def:crs:EPSG::4544", f"[{'EPSG:4544'}]", f"<{EPSG}/4544>"):
        answer = client.get("/cities/lanzhou/collections/assets/items/a00001", params={"crs": name})
        assert answer.headers["content-crs"] == f"<{EPSG}/4544>"


def test_areas_move_whole(client: httpx.Client) -> None:
    (area,) = items(client, "lanzhou", "areas", crs=f"{EPSG}/4326")
    assert area["geometry"]["coordinates"][0][0][0] == [36.0, 103.8]


@pytest.mark.parametrize("as_filter", [False, True], ids=["bbox", "filter"])
def test_a_projected_box_holds_what_lies_in_it_to_the_centimetre(
    client: httpx.Client, as_filter: bool
) -> None:
    (x, y), uri = FAR_NORTH, f"{EPSG}/32633"
    box = f"{x - HALF},{y - HALF},{x + HALF},{y + HALF}"
    found = (
        items(client, "north", filter=f"S_INTERSECTS(geom,BBOX({box}))", filter_crs=uri)
        if as_filter
        else items(client, "north", bbox=box, bbox_crs=uri)
    )
    # The first half of the trees stands inside of its border.
    assert ids(found) == [f"a{number:05d}" for number in range(1, len(beside_the_border(NEAR_M)) + 1)]
    hull = items(client, "north")
    assert len(hull) == 2 * len(found)


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ("-3e7,-3e7,3e7,3e7", 3857),
        ("-20037509,-20048967,20037509,20048967", 3857),
        ("-1e7,-1e7,1e7,2e7", 32633),
    ],
)
def test_a_box_larger_than_its_crs_holds_everything(client: httpx.Client, box: str, code: int) -> None:
    assert len(items(client, "north", bbox=box, bbox_crs=f"{EPSG}/{code}")) == len(items(client, "north"))


@pytest.mark.parametrize(
    ("box", "code", "told"),
    [
        ("3,0,2,1", 32633, "lowest corner"),
        ("0,1,1,0", 32633, "lowest corner"),
        ("36.1,103,36,104", 4326, "latitude first"),
        ("103,36,104,37", 4326, "latitude first"),
        ("9e8,9e8,9.1e8,9.1e8", 32633, "outside"),
    ],
)
def test_a_box_that_is_none_in_its_crs_is_refused(
    client: httpx.Client, box: str, code: int, told: str
) -> None:
    answer = client.get(
        "/cities/north/collections/assets/items", params={"bbox": box, "bbox-crs": f"{EPSG}/{code}"}
    )
    assert answer.status_code == 400
    assert told in answer.json()["detail"]


def test_a_geometry_far_from_its_crs_is_refused(client: httpx.Client) -> None:
    for stated in ("POINT(1e9 1e9)", "LINESTRING(0 0,1e12 0)", "POINT(3e7 3e7)"):
        answer = client.get(
            "/cities/north/collections/assets/items",
            params={"filter": f"S_INTERSECTS(geom,{stated})", "filter-crs": f"{EPSG}/32633"},
        )
        assert answer.status_code == 400, stated
        assert "EPSG:32633" in answer.json()["detail"]
