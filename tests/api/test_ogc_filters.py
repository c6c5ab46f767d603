"""Filters, coordinate reference systems and schemas, over HTTP and as clients send them."""

import json
from typing import Any
from urllib.parse import quote

import cql2
import pytest
import shapely
from pyproj import Transformer

from tests.api.conftest import Service

ITEMS = "/cities/town/collections/assets/items"
EPSG = "http://www.opengis.net/def/crs/EPSG/0"
CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"


def ids(service: Service, path: str = ITEMS, **parameters: str) -> list[str]:
    named = {name.replace("_", "-"): value for name, value in parameters.items()}
    answer = service.client.get(path, params=named)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document.get("numberMatched", len(document["features"])) == len(document["features"])
    return sorted(feature["id"] for feature in document["features"])


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ("class = 'tree'", ["a00001", "a00002", "a00004", "a00006"]),
        # As QGIS writes it: everything in parentheses, identifiers with other signs in quotes.
        ("((\"class\" = 'tree') AND (S_INTERSECTS(geom,BBOX(100,22,100.05,22.1))))", ["a00001", "a00002"]),
        ("verified = true", ["a00004"]),
        ('(NOT ("verified" = true)) AND "width_m" > ( - (5))', ["a00001", "a00002", "a00006"]),
        ("id IN ('a00001', 'a00006')", ["a00001", "a00006"]),
        ("S_INTERSECTS(geom,POINT(100.2 22.2))", ["a00006"]),
        ("first_seen > TIMESTAMP('2025-12-31T00:00:00.000Z')", ["a00004"]),
        ("false", []),
    ],
)
def test_assets_are_filtered_by_cql2(service: Service, filter_: str, found: list[str]) -> None:
    assert ids(service, filter=filter_, filter_lang="cql2-text") == found
    assert ids(service, filter=filter_) == found
    as_json = json.dumps(cql2.parse_text(filter_).to_json())
    assert ids(service, filter=as_json, filter_lang="cql2-json") == found


def test_filters_hold_beside_other_conditions_and_in_hits_and_downloads(service: Service) -> None:
    asked = {"filter": "class = 'tree'", "bbox": "100,22,100.05,22.1"}
    assert ids(service, **asked) == ["a00001", "a00002"]
    hits = service.client.get(ITEMS, params={**asked, "resultType": "hits"}).json()
    assert (hits["numberMatched"], hits["features"]) == (2, [])
    whole = service.client.get("/cities/town/collections/assets/download", params={**asked, "f": "csv"}).text
    assert whole.count("a0000") == 2
    first = service.client.get(ITEMS, params={"filter": "class = 'tree'", "limit": "3"}).json()
    following = next(link["href"] for link in first["links"] if link["rel"] == "next")
    assert [each["id"] for each in service.client.get(following).json()["features"]] == ["a00006"]


@pytest.mark.parametrize(
    ("collection", "filter_", "count"),
    [
        ("areas", "code = 'A' AND level = 'district'", 1),
        ("areas", "S_INTERSECTS(geom, POINT(100.06 22.01))", 1),
        ("surveys", "model LIKE '%'", 1),
        ("observations", "class = 'tree'", 6),
    ],
)
def test_every_collection_is_filtered(service: Service, collection: str, filter_: str, count: int) -> None:
    assert len(ids(service, f"/cities/town/collections/{collection}/items", filter=filter_)) == count


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"filter": "nothing = 1"}, "nothing"),
        ({"filter": "class ="}, "CQL2 text"),
        ({"filter": ""}, "empty"),
        ({"filter": "{", "filter-lang": "cql2-json"}, "JSON"),
        ({"filter": '{"op": 1}', "filter-lang": "cql2-json"}, "CQL2"),
        ({"filter": "true", "filter-lang": "sql"}, "filter-lang"),
        ({"filter": "true", "filter-crs": "EPSG:1"}, "filter-crs"),
        ({"filter": "(" * 90 + "true" + ")" * 90}, "nested"),
        ({"filter": "S_INTERSECTS(geom,POINT(200 22))"}, "±90"),
        ({"filter": "width_m * 1e300 * 1e300 > 0"}, "computed"),
        ({"probability": "high"}, "probability"),
        ({"verified": "perhaps"}, "verified"),
        ({"crs": f"{EPSG}/2154"}, "crs"),
        ({"bbox": "1,2,3,4", "bbox-crs": "urn:x"}, "bbox-crs"),
        ({"crs": f"{EPSG}/4326", "f": "csv"}, "CSV"),
    ],
)
def test_a_filter_or_crs_that_means_nothing_is_refused_by_name(
    service: Service, parameters: dict[str, str], told: str
) -> None:
    answer = service.client.get(ITEMS, params=parameters)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.json()["detail"]


def test_simple_queryables_are_parameters_too(service: Service) -> None:
    assert ids(service, verified="true") == ["a00004"]
    assert ids(service, **{"id": "a00001"}) == ["a00001"]
    assert service.client.get("/cities/town/collections/areas/items?verified=true").status_code == 400


# --- coordinate reference systems ----------------------------------------------------------------------------


def served_crs(service: Service) -> list[str]:
    found: list[str] = service.get("/cities/town/collections/assets").json()["crs"]
    return found


def test_crs84_comes_first_and_the_citys_own_is_among_them(service: Service) -> None:
    names = served_crs(service)
    assert names[0] == CRS84
    assert {f"{EPSG}/4326", f"{EPSG}/3857"} <= set(names)
    assert service.get("/cities/town/collections").json()["collections"][0]["crs"] == names
    # A Chinese city has China's own.
    assert f"{EPSG}/4490" in names


def test_answers_have_the_axes_of_the_authority(service: Service) -> None:
    plain = service.client.get(f"{ITEMS}/a00001").json()["geometry"]["coordinates"]
    for name in served_crs(service):
        wanted = Transformer.from_crs(
            "OGC:CRS84", f"EPSG:{name.rpartition('/')[2]}" if name != CRS84 else "OGC:CRS84"
        )
        for path in (f"{ITEMS}/a00001", f"{ITEMS}?id=a00001"):
            answer = service.client.get(path, params={"crs": name})
            assert answer.headers["content-crs"] == f"<{name}>"
            document: Any = answer.json()
            place = document.get("geometry") or document["features"][0]["geometry"]
            assert place["coordinates"] == pytest.approx(wanted.transform(*plain), abs=0.006), name
    swapped = service.client.get(f"{ITEMS}/a00001", params={"crs": f"{EPSG}/4326"}).json()["geometry"][
        "coordinates"
    ]
    assert swapped == [plain[1], plain[0]]


def test_a_box_in_another_crs_holds_what_lies_in_it_there(service: Service) -> None:
    assert ids(service, bbox="22,100,22.1,100.05", bbox_crs=f"{EPSG}/4326") == ids(
        service, bbox="100,22,100.05,22.1"
    )
    every = service.client.get(ITEMS).json()["features"]
    for name in served_crs(service):
        number = name.rpartition("/")[2]
        if name == CRS84 or number in ("4326", "4490"):
            continue
        there = Transformer.from_crs("OGC:CRS84", f"EPSG:{number}")
        low, high = there.transform(100.005, 22.005), there.transform(100.065, 22.025)
        box = shapely.box(*low, *high)
        inside = sorted(
            one["id"]
            for one in every
            if shapely.intersects_xy(box, *there.transform(*one["geometry"]["coordinates"]))
        )
        assert ids(service, bbox=",".join(map(str, [*low, *high])), bbox_crs=name) == inside
        stated = f"S_INTERSECTS(geom,BBOX({','.join(map(str, [*low, *high]))}))"
        assert ids(service, filter=stated, filter_crs=name) == inside


# --- schemas --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", ["assets", "areas", "surveys", "observations"])
def test_schemas_say_what_features_hold(service: Service, collection: str) -> None:
    root = f"/cities/town/collections/{collection}"
    links = service.get(root).json()["links"]
    rels = {link["rel"]: link["href"] for link in links if link["type"] == "application/schema+json"}
    assert rels["http://www.opengis.net/def/rel/ogc/1.0/queryables"].endswith(f"{root}/queryables")
    schema = service.client.get(rels["http://www.opengis.net/def/rel/ogc/1.0/schema"]).json()
    (geometry,) = [
        one for one in schema["properties"].values() if one.get("x-ogc-role") == "primary-geometry"
    ]
    assert "type" not in geometry
    order = [one["x-ogc-propertySeq"] for one in schema["properties"].values()]
    assert order == list(range(1, len(order) + 1))
    features = service.get(f"{root}/items").json()["features"]
    names = set(schema["properties"]) - {"id", "geom"}
    assert all(set(feature["properties"]) == names for feature in features)
    whole = service.client.get(rels["describedby"]).json()
    assert set(whole["properties"]["properties"]["properties"]) == names
    kinds = {"string": str, "number": int | float, "integer": int, "boolean": bool}
    for feature in features:
        for name, value in feature["properties"].items():
            assert value is None or isinstance(value, kinds[schema["properties"][name]["type"]]), name


# --- as QGIS opens a layer and filters it -------------------------------------------------------------------------

_ALL_FOUR = {
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/filter",
    "http://www.opengis.net/spec/ogcapi-features-3/1.0/conf/features-filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-text",
}


def test_replay_of_the_requests_by_which_qgis_opens_a_layer_and_pushes_filters_down(service: Service) -> None:
    """QGIS 3.44 and newer (src/providers/wfs/oapif/qgsoapifprovider.cpp, init), in its order, by its own links."""
    get = service.client.get
    landing = get("/cities/town", headers={"Accept": "application/json"}).json()
    link = {one["rel"]: one["href"] for one in landing["links"] if one.get("type") != "text/html"}
    described = get(
        link["service-desc"],
        headers={"Accept": "application/vnd.oai.openapi+json;version=3.0, application/json"},
    ).json()
    limit = described["components"]["parameters"]["limit"]["schema"]
    page_size = min(max(1_000, limit["default"]), limit["maximum"])
    equalities = {
        one["name"]
        for one in described["paths"]["/collections/assets/items"]["get"]["parameters"]
        if one.get("in") == "query" and one.get("style") == "form" and one.get("explode") is False
    }
    assert {"verified", "width_m"} <= equalities
    address = f"{link['data'].partition('?')[0]}/assets"
    collection = get(address).json()
    assert collection["itemCount"] == 4
    assert set(get(link["conformance"]).json()["conformsTo"]) >= _ALL_FOUR
    queryables = get(f"{address}/queryables", headers={"Accept": "application/schema+json"}).json()[
        "properties"
    ]
    geometry = next(
        name
        for name, one in queryables.items()
        if one.get("$ref", "").startswith("https://geojson.org/schema/")
    )
    assert len(get(f"{address}/items?limit=10").json()["features"]) == 4
    assert "POST" not in service.client.options(f"{address}/items").headers["allow"]
    schema = next(one["href"] for one in collection["links"] if one["rel"].endswith("/rel/ogc/1.0/schema"))
    fields = get(schema, headers={"Accept": "application/schema+json"}).json()["properties"]
    assert fields["first_seen"]["format"] == "date-time"
    assert {"class", "status", "width_m"} <= set(fields) & set(queryables)

    # A layer's own filter with an expression of the user, in its dialect, and what is in view.
    stated = (
        '(("class" = \'tree\') AND ((NOT ("verified" = true)))) AND '
        "((\"first_seen\" < TIMESTAMP('2026-01-02T03:04:05.000Z')) AND "
        f"(S_INTERSECTS({geometry},BBOX(100,22,100.3,22.3))))"
    )
    asked = f"filter={quote(stated)}&filter-lang=cql2-text&limit={page_size}&bbox=-180,-90,180,90"
    page = get(
        f"{address}/items?{asked}", headers={"Accept": "application/geo+json, application/json"}
    ).json()
    assert sorted(one["id"] for one in page["features"]) == ["a00001", "a00002", "a00006"]
    # Without a server that filters it would send equalities, and dates of the calendar's ends.
    plain = get(
        f"{address}/items?verified=true&datetime=0000-01-01T00:00:00Z/9999-12-31T00:00:00Z&limit={page_size}"
    )
    assert plain.status_code == 200
