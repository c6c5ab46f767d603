"""Assets written as features: each write becomes decisions; nobody writes where nobody may."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from api.app import create_app
from api.cli.app import run
from api.settings import Settings
from inventory.counting import count
from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import DecisionKind
from inventory.store import database as database_module
from inventory.store.cities import get_city, lock_city
from inventory.store.database import Database, Patience
from tests.support.server import served
from tests.support.surveys import add_plain_city, make_seen, make_survey, make_taxonomy, store_surveys

ITEMS = "/cities/grove/collections/assets/items"
METRIC = "EPSG:32612"
CORNER = (400_000.0, 4_900_000.0)
TO_LON_LAT = Transformer.from_crs(METRIC, 4326, always_xy=True)
TREES = np.add(CORNER, [(20.0, 20.0), (60.0, 20.0), (20.0, 60.0)])
GEOJSON = "application/geo+json"
MERGE_PATCH = "application/merge-patch+json"


def place(east_m: float, north_m: float) -> list[float]:
    return [round(float(one), 7) for one in TO_LON_LAT.transform(CORNER[0] + east_m, CORNER[1] + north_m)]


@pytest.fixture
def grove(database: Database) -> Database:
    """Three trees, seen once."""
    ground = shapely.box(*CORNER, *np.add(CORNER, 100))
    add_plain_city(
        database, "grove", metric_crs=METRIC, ground=ground, areas={"A": ground}, time_zone="America/Denver"
    )
    seen = make_seen(TREES, size_m=np.full(3, 5.0), score=np.full(3, 0.9), error_m=0.5, origin=CORNER)
    survey = make_survey(ground, datetime(2025, 6, 1, 18, tzinfo=UTC), seen)
    store_surveys(database, "grove", [survey], taxonomy=make_taxonomy())
    return database


@pytest.fixture
def client(grove: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    settings = Settings(home=tmp_path, allow_unauthenticated_writes=True)
    with served(create_app(settings, grove)) as url, httpx.Client(base_url=url) as opened:
        yield opened


def feature(coordinates: Any, **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": coordinates},
        "properties": properties,
    }


def post(client: httpx.Client, document: Any, **headers: str) -> httpx.Response:
    named = {"Content-Type": GEOJSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.post(ITEMS, json=document, headers=named)


def listed(client: httpx.Client) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in client.get(ITEMS).json()["features"]}


def decisions(client: httpx.Client) -> list[dict[str, Any]]:
    found = client.get("/cities/grove/collections/decisions/items").json()["features"]
    return [one["properties"] for one in found]


def test_what_is_added_is_an_asset_of_its_own_and_counts(client: httpx.Client, grove: Database) -> None:
    answer = post(client, feature(place(80, 80), **{"class": "tree", "reason": "planted"}))
    assert answer.status_code == 201
    location = answer.headers["location"]
    made = client.get(location).json()
    assert location.endswith(f"/items/{made['id']}")
    assert made["geometry"]["coordinates"] == pytest.approx(place(80, 80), abs=1e-7)
    assert len(listed(client)) == 4
    (row,) = count(grove, "grove", classes=["tree"])
    assert row.count == 4
    (said,) = decisions(client)
    assert (said["kind"], said["asset"], said["reason"], said["author"]) == (
        "add",
        made["id"],
        "planted",
        "local",
    )


def test_what_is_added_where_one_stands_is_that_one(client: httpx.Client) -> None:
    known = listed(client)
    answer = post(client, feature(place(20.5, 20.2), **{"class": "tree"}))
    assert answer.status_code == 201
    assert answer.headers["location"].rpartition("/")[2] in known
    assert len(listed(client)) == 3


def test_coordinates_of_a_body_may_be_in_another_crs(client: httpx.Client) -> None:
    lon, lat = place(80, 80)
    for crs, coordinates in (
        ("http://www.opengis.net/def/crs/EPSG/0/4326", [lat, lon]),
        ("<http://www.opengis.net/def/crs/EPSG/0/32612>", [CORNER[0] + 80, CORNER[1] + 80]),
    ):
        answer = post(client, feature(coordinates, **{"class": "tree"}), Content_Crs=crs)
        assert answer.status_code == 201, answer.text
        made = client.get(answer.headers["location"]).json()
        assert made["geometry"]["coordinates"] == pytest.approx([lon, lat], abs=2e-7)
    assert len(listed(client)) == 4


def test_a_patch_moves_and_verifies_and_says_so_by_decisions(client: httpx.Client) -> None:
    asset = sorted(listed(client))[0]
    path = f"{ITEMS}/{asset}"
    before = client.get(path).json()
    lon, lat = before["geometry"]["coordinates"]
    moved = {
        "geometry": {"type": "Point", "coordinates": [lon + 1e-5, lat]},
        "properties": {"verified": True},
    }
    answer = client.patch(path, json=moved, headers={"Content-Type": MERGE_PATCH})
    assert (answer.status_code, answer.content) == (204, b"")
    after = client.get(path).json()
    assert after["geometry"]["coordinates"] == pytest.approx([lon + 1e-5, lat], abs=2e-7)
    assert after["properties"]["verified"] is True
    assert after["properties"]["class"] == before["properties"]["class"]
    assert sorted(one["kind"] for one in decisions(client)) == ["move", "verify"]


def test_what_is_sent_back_as_it_was_changes_nothing(client: httpx.Client) -> None:
    """As QGIS puts a whole feature with all that it read."""
    asset = sorted(listed(client))[0]
    whole = client.get(f"{ITEMS}/{asset}").json()
    assert client.put(f"{ITEMS}/{asset}", json=whole, headers={"Content-Type": GEOJSON}).status_code == 204
    assert decisions(client) == []


def test_what_is_deleted_is_listed_no_longer_and_stays_known(client: httpx.Client) -> None:
    asset = sorted(listed(client))[0]
    assert client.delete(f"{ITEMS}/{asset}").status_code == 204
    assert asset not in listed(client)
    assert client.get(f"{ITEMS}/{asset}").json()["properties"]["status"] == "rejected"
    assert client.delete(f"{ITEMS}/nothing").status_code == 404


def test_a_write_on_another_state_than_the_one_known_is_refused(client: httpx.Client) -> None:
    asset = sorted(listed(client))[0]
    path = f"{ITEMS}/{asset}"
    tag = client.get(path).headers["etag"]
    verified = {"properties": {"verified": True}}
    for named, status in ((tag, 204), (tag, 412), ('"other"', 412), ("*", 204)):
        answer = client.patch(path, json=verified, headers={"Content-Type": MERGE_PATCH, "If-Match": named})
        assert answer.status_code == status, named
    assert client.delete(path, headers={"If-Match": tag}).status_code == 412
    assert client.delete(path, headers={"If-Match": client.get(path).headers["etag"]}).status_code == 204


@pytest.mark.parametrize(
    ("document", "status", "told"),
    [
        ([], 400, "no JSON object"),
        ({"type": "Feature"}, 400, "geometry"),
        ({"type": "FeatureCollection", "features": []}, 400, "Feature"),
        (feature([1], **{"class": "tree"}), 400, "geometry"),
        (feature(["1", 2], **{"class": "tree"}), 400, "geometry"),
        (feature([200, 95], **{"class": "tree"}), 400, "geometry.coordinates"),
        (feature([0, 0], **{"class": "tree"}), 422, "outside grove"),
        (feature("here", **{"class": "tree"}), 400, "geometry"),
        ({**feature([0, 0]), "geometry": {"type": "Polygon", "coordinates": []}}, 400, "geometry"),
        (feature(place(80, 80)), 400, "properties.class"),
        (feature(place(80, 80), **{"class": "dragon"}), 400, "dragon"),
        (feature(place(80, 80), **{"class": 3}), 400, "properties.class"),
        (feature(place(80, 80), height=3), 400, "height"),
        (feature(place(80, 80), **{"class": "tree", "at": "soon"}), 400, "properties.at"),
        (feature(place(80, 80), **{"class": "tree", "verified": "yes"}), 400, "properties.verified"),
        ({**feature([0, 0]), "properties": []}, 400, "properties"),
    ],
)
def test_a_body_that_is_no_asset_is_refused_by_name_and_stores_nothing(
    client: httpx.Client, document: Any, status: int, told: str
) -> None:
    answer = post(client, document)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert told in f"{problem['detail']} {problem['where']}"
    assert len(listed(client)) == 3
    assert decisions(client) == []


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_FEATURES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("Feature") | _VALUES,
        "id": _VALUES,
        "geometry": st.fixed_dictionaries(
            {
                "type": st.sampled_from(["Point", "Polygon"]) | _VALUES,
                "coordinates": st.lists(_VALUES, max_size=4),
            }
        )
        | st.lists(st.floats(-200, 200), min_size=2, max_size=3).map(
            lambda numbers: {"type": "Point", "coordinates": numbers}
        )
        | _VALUES,
        "properties": st.fixed_dictionaries(
            {},
            optional={
                name: _VALUES | st.just("tree")
                for name in ("class", "verified", "text", "reason", "at", "hits")
            },
        )
        | _VALUES,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=_FEATURES | _VALUES,
    crs=st.none() | st.text(st.characters(codec="ascii", categories=["L", "N", "P"])),
)
def test_no_body_makes_a_write_fail(client: httpx.Client, document: Any, crs: str | None) -> None:
    asset = "nothing" if document == {} else min(listed(client), default="nothing")
    headers = {} if crs is None else {"Content-Crs": crs}
    for method, path, kind in (
        ("POST", ITEMS, GEOJSON), ("PUT", f"{ITEMS}/{asset}", GEOJSON), ("PATCH", f"{ITEMS}/{asset}", MERGE_PATCH)
    ):  # fmt: skip
        answer = client.request(method, path, content=json.dumps(document),
                                headers={**headers, "Content-Type": kind})  # fmt: skip
        assert answer.status_code in (201, 204, 400, 404, 422), answer.text
        if answer.status_code >= 400:
            assert answer.json()["code"]


def test_bodies_of_other_types_and_lengths_are_refused(client: httpx.Client) -> None:
    assert client.post(ITEMS, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post(ITEMS, content=b"{", headers={"Content-Type": GEOJSON}).status_code == 400
    assert client.post(ITEMS, content=b" " * 9_000_000, headers={"Content-Type": GEOJSON}).status_code == 413


def test_other_collections_are_read_only(client: httpx.Client) -> None:
    for name in ("areas", "surveys", "observations", "decisions"):
        answer = client.post(
            f"/cities/grove/collections/{name}/items", json={}, headers={"Content-Type": GEOJSON}
        )
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


# --- one edit, many decisions -----------------------------------------------------------------------------------


def test_an_edit_that_moves_far_and_says_more_reaches_the_same_asset_with_all_of_it(
    client: httpx.Client,
) -> None:
    """Further than any gate, right onto the place where another one stood before."""
    known = listed(client)
    asset = next(
        one for one, feature in known.items() if feature["geometry"]["coordinates"][0] > place(50, 0)[0]
    )
    changed = {
        "geometry": {"type": "Point", "coordinates": place(95, 95)},
        "properties": {"verified": True, "text": "planted by the school", "reason": "seen on site"},
    }
    answer = client.patch(f"{ITEMS}/{asset}", json=changed, headers={"Content-Type": MERGE_PATCH})
    assert answer.status_code == 204, answer.text
    after = client.get(f"{ITEMS}/{asset}").json()
    assert after["geometry"]["coordinates"] == pytest.approx(place(95, 95), abs=2e-7)
    assert after["properties"]["verified"] is True
    said = {one["kind"]: one for one in decisions(client)}
    assert set(said) == {"describe", "verify", "move"}
    assert said["describe"]["text"] == "planted by the school"
    assert {one["asset"] for one in said.values()} == {asset}
    assert {one["reason"] for one in said.values()} == {"seen on site"}
    assert len(listed(client)) == len(known)


def test_an_edit_is_done_whole_or_not_at_all(client: httpx.Client) -> None:
    asset, before = sorted(listed(client).items())[0]
    wrong = {
        "geometry": {"type": "Point", "coordinates": [0, 0]},
        "properties": {"verified": True, "text": "mine"},
    }
    answer = client.patch(f"{ITEMS}/{asset}", json=wrong, headers={"Content-Type": MERGE_PATCH})
    assert answer.status_code == 422
    assert decisions(client) == []
    assert client.get(f"{ITEMS}/{asset}").json()["properties"] == before["properties"]


def test_what_a_patch_does_not_name_stays(client: httpx.Client) -> None:
    asset = sorted(listed(client))[0]
    for document in (
        {},
        {"properties": {}},
        {"properties": None},
        {"properties": {"width_m": 99.0, "text": None}},
    ):
        answer = client.patch(f"{ITEMS}/{asset}", json=document, headers={"Content-Type": MERGE_PATCH})
        assert answer.status_code == 204, answer.text
    assert decisions(client) == []


def test_an_asset_that_was_deleted_is_deleted_once(client: httpx.Client) -> None:
    asset = sorted(listed(client))[0]
    for _ in range(2):
        assert client.delete(f"{ITEMS}/{asset}?reason=felled").status_code == 204
    (said,) = decisions(client)
    assert (said["kind"], said["reason"]) == ("reject", "felled")
    again = post(client, feature(listed_place(client, asset), **{"class": "tree"}))
    assert again.headers["location"].endswith(f"/{asset}")
    assert asset in listed(client)


def listed_place(client: httpx.Client, asset: str) -> list[float]:
    coordinates: list[float] = client.get(f"{ITEMS}/{asset}").json()["geometry"]["coordinates"]
    return coordinates


def test_an_alias_is_edited_as_the_asset_that_it_stands_for(client: httpx.Client, grove: Database) -> None:
    kept, merged = (post(client, feature(place(80, north), **{"class": "tree"})) for north in (80, 84))
    ids = [answer.headers["location"].rpartition("/")[2] for answer in (kept, merged)]
    merge = NewDecision(kind=DecisionKind.MERGE, asset=ids[0], other_asset=ids[1])
    decide(grove, "grove", merge, taxonomy=make_taxonomy())
    assert client.get(f"{ITEMS}/{ids[1]}").json()["id"] == ids[0]
    for one in ids:
        found = client.get(f"{ITEMS}/{one}").json()
        answer = client.put(f"{ITEMS}/{one}", json=found, headers={"Content-Type": GEOJSON})
        assert answer.status_code == 204, answer.text
    assert client.delete(f"{ITEMS}/{ids[1]}").status_code == 204
    assert not set(ids) & set(listed(client))


def test_a_body_of_another_asset_than_the_address_is_refused(client: httpx.Client) -> None:
    one, other = sorted(listed(client))[:2]
    document = client.get(f"{ITEMS}/{other}").json()
    answer = client.put(f"{ITEMS}/{one}", json=document, headers={"Content-Type": GEOJSON})
    assert (answer.status_code, answer.json()["where"]) == (400, "id")
    assert decisions(client) == []


def test_an_addition_is_one_decision_and_verified(client: httpx.Client) -> None:
    answer = post(client, feature(place(80, 80), **{"class": "tree", "verified": True}))
    assert client.get(answer.headers["location"]).json()["properties"]["verified"] is True
    assert [one["kind"] for one in decisions(client)] == ["add"]


def test_r10_what_moves_cannot_be_added(client: httpx.Client) -> None:
    answer = post(client, feature(place(80, 80), **{"class": "car"}))
    assert (answer.status_code, answer.json()["where"]) == (400, "properties.class")
    assert decisions(client) == []


@pytest.mark.parametrize(
    ("properties", "where"),
    [
        ({"class": "dragon"}, "properties.class"),
        ({"class": "car"}, "properties.class"),
        ({"class": None}, "properties.class"),
        ({"verified": None}, "properties.verified"),
        ({"at": "2999-01-01", "text": "x"}, "properties.at"),
        ({"at": "0001-01-01T00:00:00+14:00", "text": "x"}, "properties.at"),
        ({"text": "x" * 2_001}, "properties.text"),
    ],
)
def test_a_property_that_cannot_be_set_is_named(
    client: httpx.Client, properties: dict[str, Any], where: str
) -> None:
    asset = sorted(listed(client))[0]
    answer = client.patch(
        f"{ITEMS}/{asset}", json={"properties": properties}, headers={"Content-Type": MERGE_PATCH}
    )
    assert (answer.status_code, answer.json()["where"]) == (400, where), answer.text
    assert "--" not in answer.json()["detail"]
    assert decisions(client) == []


def test_a_property_beside_the_properties_is_refused_by_name(client: httpx.Client) -> None:
    """As a foreign member it would be passed over, and its writer told that all is done."""
    asset = sorted(listed(client))[0]
    answer = client.patch(f"{ITEMS}/{asset}", json={"verified": True}, headers={"Content-Type": MERGE_PATCH})
    assert (answer.status_code, answer.json()["where"]) == (400, "verified"), answer.text
    assert decisions(client) == []


def test_a_crs_that_is_not_served_is_refused(client: httpx.Client) -> None:
    for crs in (
        "http://www.opengis.net/def/crs/EPSG/0/9999",
        "nonsense",
        "http://www.opengis.net/def/crs/EPSG/0/3857x",
    ):
        answer = post(client, feature(place(80, 80), **{"class": "tree"}), Content_Crs=crs)
        assert answer.status_code == 400
        assert "Content-Crs" in answer.json()["detail"]


# --- entity tags ------------------------------------------------------------------------------------------------


def test_a_write_tells_the_tag_of_what_it_made(client: httpx.Client) -> None:
    """Of PUT it may not: what is stored is not what was sent (RFC 9110, section 9.3.4)."""
    created = post(client, feature(place(80, 80), **{"class": "tree"}))
    location = created.headers["location"]
    assert created.headers["etag"] == client.get(location).headers["etag"]
    text = {"properties": {"text": "crooked"}}
    for _ in range(2):
        tag = client.get(location).headers["etag"]
        answer = client.patch(location, json=text, headers={"Content-Type": MERGE_PATCH, "If-Match": tag})
        assert answer.status_code == 204
        assert answer.headers["etag"] == client.get(location).headers["etag"] != tag
    whole = client.get(location).json()
    assert "etag" not in client.put(location, json=whole, headers={"Content-Type": GEOJSON}).headers


def test_of_two_writes_on_the_same_state_one_is_refused(client: httpx.Client) -> None:
    """Whoever has the city first: the other one's tag is looked at again once it is its turn."""
    asset = sorted(listed(client))[0]
    tag = client.get(f"{ITEMS}/{asset}").headers["etag"]

    def move(north: float) -> int:
        moved = {"geometry": {"type": "Point", "coordinates": place(50, north)}}
        headers = {"Content-Type": MERGE_PATCH, "If-Match": tag}
        return client.patch(f"{ITEMS}/{asset}", json=moved, headers=headers).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(move, (41.0, 42.0, 43.0, 44.0))) == [204, 412, 412, 412]
    assert [one["kind"] for one in decisions(client)] == ["move"]


# --- who may --------------------------------------------------------------------------------------------------


def test_nobody_writes_where_writing_was_not_allowed(grove: Database, tmp_path: Path) -> None:
    with served(create_app(Settings(home=tmp_path), grove)) as url, httpx.Client(base_url=url) as client:
        asset = sorted(listed(client))[0]
        answers = [
            post(client, feature(place(80, 80), **{"class": "tree"})),
            client.patch(f"{ITEMS}/{asset}", json={}, headers={"Content-Type": MERGE_PATCH}),
            client.put(f"{ITEMS}/{asset}", json={}, headers={"Content-Type": GEOJSON}),
            client.delete(f"{ITEMS}/{asset}"),
        ]
        assert [one.status_code for one in answers] == [403] * 4
        assert answers[0].json()["code"] == "not_allowed"
        # What is not allowed is not offered either: QGIS reads this, and nothing else.
        assert client.options(ITEMS).headers["allow"] == "GET, HEAD, OPTIONS"
        assert client.options(f"{ITEMS}/{asset}").headers["allow"] == "GET, HEAD, OPTIONS"
        declared = client.get("/cities/grove/conformance").json()["conformsTo"]
        assert not [uri for uri in declared if "ogcapi-features-4" in uri]
        paths = client.get("/cities/grove/api").json()["paths"]
        assert set(paths["/collections/assets/items"]) == {"get"}
        assert len(listed(client)) == 3


def test_where_it_is_allowed_it_is_offered_and_declared(client: httpx.Client) -> None:
    asset = sorted(listed(client))[0]
    assert client.options(ITEMS).headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert client.options(f"{ITEMS}/{asset}").headers["allow"] == "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"
    declared = client.get("/cities/grove/conformance").json()["conformsTo"]
    assert "http://www.opengis.net/spec/ogcapi-features-4/1.0/conf/create-replace-delete" in declared
    paths = client.get("/cities/grove/api").json()["paths"]
    one = paths["/collections/assets/items/{featureId}"]
    assert "post" in paths["/collections/assets/items"]
    assert {"put", "patch", "delete"} <= set(one)
    assert not {"post", "put"} & set(paths["/collections/areas/items"])


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_pages_of_other_sites_may_not_write(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post(
        ITEMS, json=feature(place(80, 80), **{"class": "tree"}), headers={"Content-Type": GEOJSON, **headers}
    )
    assert answer.status_code == 403
    assert len(listed(client)) == 3
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.delete(f"{ITEMS}/{sorted(listed(client))[0]}", headers=own).status_code == 204


def test_beyond_this_machine_it_cannot_be_allowed(
    grove: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(tmp_path))
    wrong = ["serve", "--allow-unauthenticated-writes", "--public-url", "https://trees.example"]
    assert run([*wrong, "--host", "0.0.0.0"]) == 78
    assert run(wrong) == 78
    assert "this machine alone" in capsys.readouterr().err


# --- as QGIS edits --------------------------------------------------------------------------------------------


def test_replay_of_the_requests_by_which_qgis_edits_a_layer(client: httpx.Client) -> None:
    """QGIS 3.44 and newer (src/providers/wfs/oapif): OPTIONS, POST, GET, PATCH twice, DELETE, without entity tags."""
    assert "POST" in client.options(ITEMS).headers["allow"]
    first = client.get(f"{ITEMS}?limit=10").json()["features"][0]["id"]
    allowed = client.options(f"{ITEMS}/{first}").headers["allow"]
    assert {"PUT", "PATCH", "DELETE"} <= {one.strip() for one in allowed.split(",")}
    every = dict.fromkeys(client.get("/cities/grove/collections/assets/schema").json()["properties"])
    every.pop("geom")
    new = feature(place(80, 80), **{**every, "class": "tree"})
    created = post(client, new, Content_Crs="http://www.opengis.net/def/crs/OGC/1.3/CRS84")
    made = created.headers["location"].rpartition("/items/")[2]
    assert (
        client.get(
            f"{ITEMS}/{made}", headers={"Accept": "application/geo+json, application/json"}
        ).status_code
        == 200
    )
    geometry = {"geometry": {"type": "Point", "coordinates": place(81, 80)}}
    assert client.patch(f"{ITEMS}/{made}", json=geometry, headers={"Content-Type": MERGE_PATCH}).is_success
    assert client.patch(
        f"{ITEMS}/{made}", json={"properties": {"verified": True}}, headers={"Content-Type": MERGE_PATCH}
    ).is_success
    assert client.delete(f"{ITEMS}/{made}").is_success
    assert made not in listed(client)


# --- who else writes --------------------------------------------------------------------------------------------


def test_a_write_while_another_job_writes_for_long_is_to_be_tried_again(
    client: httpx.Client, grove: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 200"
    monkeypatch.setitem(database_module._BEGINNINGS, (Patience.DECISION, False), impatient)
    with grove.transaction(Patience.JOB) as connection:
        lock_city(connection, get_city(connection, "grove").id)
        answer = post(client, feature(place(80, 80), **{"class": "tree"}))
        assert (answer.status_code, answer.json()["code"]) == (503, "store_busy")
        assert int(answer.headers["retry-after"]) > 0
        assert len(listed(client)) == 3
    assert post(client, feature(place(80, 80), **{"class": "tree"})).status_code == 201


# --- the collection of decisions --------------------------------------------------------------------------------


def test_decisions_are_features_that_can_be_asked_for_by_place_time_class_and_page(
    client: httpx.Client, grove: Database
) -> None:
    assets = sorted(listed(client))
    for asset, day in zip(assets, ("2025-07-01", "2025-08-01", "2025-09-01"), strict=True):
        document = {"properties": {"verified": True, "at": day, "reason": "=seen"}}
        headers = {"Content-Type": MERGE_PATCH}
        assert client.patch(f"{ITEMS}/{asset}", json=document, headers=headers).status_code == 204
    path = "/cities/grove/collections/decisions/items"
    every = client.get(path).json()
    assert (every["numberMatched"], every["numberReturned"]) == (3, 3)
    first = every["features"][0]
    assert first["properties"] == {
        "kind": "verify", "class": "tree", "asset": assets[0], "at": first["properties"]["at"],
        "author": "local", "reason": "=seen", "text": None, "retracts": None, "retracted": False,
        "recorded_at": first["properties"]["recorded_at"],
    }  # fmt: skip
    assert first["properties"]["at"].startswith("2025-07-01")
    assert client.get(f"{path}/{first['id']}").json()["properties"] == first["properties"]

    def asked(query: str) -> list[str]:
        found = client.get(f"{path}?{query}").json()
        assert found["numberMatched"] == len(found["features"])
        return [one["properties"]["asset"] for one in found["features"]]

    assert asked("datetime=2025-08-01") == [assets[1]]
    assert asked("datetime=2025-08-01/..") == assets[1:]
    assert asked("class=tree") == assets
    assert asked("class=bus") == []
    assert asked("area=A") == assets
    assert asked(f"asset={assets[2]}") == [assets[2]]
    assert asked("filter=at > TIMESTAMP('2025-08-15T00:00:00Z')") == [assets[2]]
    lon, lat = listed(client)[assets[0]]["geometry"]["coordinates"]
    assert asked(f"bbox={lon - 1e-5},{lat - 1e-5},{lon + 1e-5},{lat + 1e-5}") == [assets[0]]
    pages, address = [], f"{path}?limit=1"
    while address:
        page = client.get(address).json()
        pages += [one["properties"]["asset"] for one in page["features"]]
        address = next((one["href"] for one in page["links"] if one["rel"] == "next"), "")
    assert pages == assets

    retracted = NewDecision(kind=DecisionKind.RETRACT, retracts=first["id"])
    decide(grove, "grove", retracted, taxonomy=make_taxonomy())
    told = {one["id"]: one["properties"] for one in client.get(path).json()["features"]}
    assert told[first["id"]]["retracted"] is True
    (taken_back,) = [one for one in told.values() if one["kind"] == "retract"]
    assert taken_back["retracts"] == first["id"]
    assert client.get(f"{path}?f=csv").content.count(b"'=seen") == 3
