"""The rules of the OGC's executable suite for Features 1.0, and what GIS clients read beyond them."""

from datetime import datetime
from typing import Any

import pytest

from tests.api.conftest import Service

OPENAPI = "application/vnd.oai.openapi+json;version=3.0"
CORE = "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core"
CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
COLLECTIONS = ("assets", "areas", "surveys", "observations", "decisions", "counts")
ETS_BOXES = (
    "-1.5,50,1.5,53", "-80,-5,-70,5", "177,65,-177,70", "-180,85,180,90", "-180,-90,180,-85", "100,22,100.1,22.1",
)  # fmt: skip


def links_of(document: dict[str, Any], rel: str) -> list[dict[str, str]]:
    return [link for link in document["links"] if link["rel"] == rel]


def assert_is_a_page_of_features(document: dict[str, Any], limit: int | None = None) -> None:
    assert document["type"] == "FeatureCollection"
    assert document["numberReturned"] == len(document["features"])
    assert datetime.fromisoformat(document["timeStamp"]).tzinfo is not None
    for rel in ("self", "alternate"):
        assert all(link["type"] and link["href"] for link in links_of(document, rel))
        assert links_of(document, rel)
    assert limit is None or len(document["features"]) <= limit
    for feature in document["features"]:
        for lon, lat in positions(feature["geometry"]["coordinates"]):
            assert -180 <= lon <= 180
            assert -90 <= lat <= 90


def positions(part: Any) -> list[Any]:
    return (
        [part] if isinstance(part[0], int | float) else [each for inner in part for each in positions(inner)]
    )


def resolved(description: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    found = {}
    for parameter in description["paths"][path]["get"]["parameters"]:
        if "$ref" in parameter:
            name = parameter["$ref"].rpartition("/")[2]
            found[name] = description["components"]["parameters"][name]
        else:
            found[parameter["name"]] = parameter
    return found


def value_of(schema: dict[str, Any]) -> str:
    """A value that a schema allows."""
    of_format = {"date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01"}
    of_type = {"number": "0.5", "integer": "1", "boolean": "true", "string": "tree"}
    return of_format.get(schema.get("format", "")) or of_type[schema["type"]]


@pytest.mark.parametrize("path", ["/cities/town", "/cities/town/"])
def test_the_landing_page_answers_with_and_without_a_slash(service: Service, path: str) -> None:
    answer = service.get(path, accept="application/json")

    assert answer.status_code == 200
    assert answer.http_version == "HTTP/1.1"
    rels = {link["rel"]: link["type"] for link in answer.json()["links"]}
    assert rels["service-desc"] == OPENAPI
    assert {"self", "alternate", "conformance", "data", "service-doc"} <= rels.keys()


def test_the_one_data_link_has_no_query(service: Service) -> None:
    (data,) = links_of(service.get("/cities/town/").json(), "data")

    assert data["href"] == f"{service.url}/cities/town/collections"


def test_every_link_of_every_document_is_absolute_and_answers_with_its_type(service: Service) -> None:
    seen: dict[str, str] = {}
    for path in ["/", "/cities", "/cities/town/", "/cities/town/conformance", "/cities/town/collections",
                 "/cities/town/collections/assets/items?limit=2"]:  # fmt: skip
        document = service.get(path).json()
        inner = [
            link
            for key in ("collections", "cities")
            for each in document.get(key, [])
            for link in each["links"]
        ]
        seen |= {link["href"]: link["type"] for link in document["links"] + inner}
    for href, media_type in seen.items():
        assert href.startswith(f"{service.url}/")
        answer = service.client.get(href, headers={"Accept": media_type})
        assert answer.status_code == 200, href
        if "openapi" not in href:
            assert answer.headers["content-type"].partition(";")[0] == media_type.partition(";")[0], href


def test_conformance_declares_only_what_answers(service: Service) -> None:
    declared = service.get("/cities/town/conformance").json()["conformsTo"]

    assert CORE in declared
    assert len(set(declared)) == len(declared)
    assert service.get("/cities/town/").json()["conformsTo"] == declared
    # What QGIS looks for before it sends filters, and before it asks for a schema.
    for needed in (
        "ogcapi-features-2/1.0/conf/crs",
        *(f"ogcapi-features-3/1.0/conf/{name}" for name in ("filter", "features-filter", "queryables")),
        *(f"cql2/1.0/conf/{name}" for name in ("basic-cql2", "cql2-text", "basic-spatial-operators")),
        "ogcapi-features-5/1.0/conf/schemas",
    ):
        assert f"http://www.opengis.net/spec/{needed}" in declared


def test_collections_describe_themselves_alike_in_the_list_and_alone(service: Service) -> None:
    listed = service.get("/cities/town/collections").json()

    assert [each["id"] for each in listed["collections"]] == list(COLLECTIONS)
    for each in listed["collections"]:
        assert service.get(f"/cities/town/collections/{each['id']}").json() == each
        assert each["crs"][0] == each["storageCrs"] == CRS84
        items = [link for link in links_of(each, "items") if link["type"] == "application/geo+json"]
        assert [link["href"] for link in items] == [
            f"{service.url}/cities/town/collections/{each['id']}/items"
        ]
        box = each["extent"]["spatial"]["bbox"][0]
        assert service.get(
            f"/cities/town/collections/{each['id']}/items?bbox={','.join(map(str, box))}"
        ).json()


def test_item_count_is_the_number_of_items(service: Service) -> None:
    for name in COLLECTIONS:
        count = service.get(f"/cities/town/collections/{name}").json()["itemCount"]
        page = service.get(f"/cities/town/collections/{name}/items").json()
        assert count == page["numberMatched"] == page["numberReturned"] == len(page["features"])


@pytest.mark.parametrize("name", COLLECTIONS)
@pytest.mark.parametrize("box", ETS_BOXES)
def test_boxes_of_the_suite_are_answered(service: Service, name: str, box: str) -> None:
    answer = service.get(f"/cities/town/collections/{name}/items?bbox={box}")

    assert answer.status_code == 200
    assert_is_a_page_of_features(answer.json())


@pytest.mark.parametrize("name", COLLECTIONS)
def test_limit_is_kept_clamped_or_refused(service: Service, name: str) -> None:
    address = f"/cities/many/collections/{name}/items"

    for most in (1, 100):
        assert_is_a_page_of_features(service.get(f"{address}?limit={most}").json(), most)
    assert service.get(f"{address}?limit=1000000").status_code == 200
    for limit in ("unlimited", "0", "-1", "1.5", "", "9" * 5_000):
        assert service.get(f"{address}?limit={limit}").status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/conformance",
        "/collections",
        "/collections/assets",
        "/collections/assets/items",
        "/api",
        "/counts",
    ],
)
def test_unknown_parameters_are_refused_and_token_is_always_known(service: Service, path: str) -> None:
    assert service.get(f"/cities/town{path}?surely_unknown=1").status_code == 400
    answer = service.get(f"/cities/town{path}?token=s3cret&lang=zh&f=json")
    assert answer.status_code == 200
    assert "s3cret" not in answer.text + str(answer.headers)


def test_a_repeated_parameter_counts_by_its_last_value(service: Service) -> None:
    page = service.get("/cities/town/collections/assets/items?limit=1&limit=2").json()

    assert page["numberReturned"] == 2


def test_a_feature_alone_has_the_links_of_one(service: Service) -> None:
    for name in COLLECTIONS:
        first = service.get(f"/cities/town/collections/{name}/items?limit=1").json()["features"][0]
        answer = service.get(f"/cities/town/collections/{name}/items/{first['id']}")
        alone = answer.json()
        assert answer.headers["content-type"] == "application/geo+json"
        assert {"self", "alternate", "collection"} == {link["rel"] for link in alone["links"]}
        assert service.client.get(links_of(alone, "self")[0]["href"]).json() == alone
        assert {key: alone[key] for key in first} == first


def test_the_description_is_openapi_3_0_with_what_clients_match_literally(service: Service) -> None:
    answer = service.get("/cities/town/api", accept=OPENAPI)
    described = answer.json()

    assert answer.headers["content-type"] == OPENAPI
    assert described["openapi"].startswith("3.0.")
    assert described["servers"] == [{"url": f"{service.url}/cities/town"}]
    limit = described["components"]["parameters"]["limit"]["schema"]
    assert limit == {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1_000}
    for name in COLLECTIONS:
        parameters = resolved(described, f"/collections/{name}/items")
        assert {"limit", "bbox", "datetime"} <= parameters.keys()
        for each in parameters.values():
            assert each["in"] == "query"
            assert (each["style"], each["explode"], each["required"]) == ("form", False, False)
    box = described["components"]["parameters"]["bbox"]["schema"]
    assert box == {"type": "array", "minItems": 4, "maxItems": 6, "items": {"type": "number"}}


def test_every_reference_of_the_description_leads_somewhere(service: Service) -> None:
    described = service.get("/cities/town/api").json()

    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [each for inner in part.values() for each in references(inner)]
        return [each for inner in part for each in references(inner)] if isinstance(part, list) else []

    for reference in set(references(described)):
        found: Any = described
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


def test_everything_the_description_names_answers(service: Service) -> None:
    described = service.get("/cities/town/api").json()

    for path, methods in described["paths"].items():
        if "get" not in methods:
            continue
        address = path.replace("{featureId}", "v1") if "surveys" in path else path
        if "{" not in address:
            assert service.get(f"/cities/town{address}").status_code == 200, address
    for name in COLLECTIONS:
        for each, definition in resolved(described, f"/collections/{name}/items").items():
            value = {"bbox": "100,22,101,23", "datetime": "2026-01-01", "current": "true", "offset": "1",
                     "limit": "5", "bom": "false", "cursor": "MQ", "area": "A", "filter": "true",
                     "class": "tree", "status": "gone", "level": "district", "bbox-crs": CRS84}.get(each)  # fmt: skip
            schema = definition["schema"]
            for one in [value] if value else schema.get("enum") or [value_of(schema)]:
                # A level says which of the areas with a code is meant.
                along = {"area": "A"} if each == "level" else {}
                answer = service.client.get(
                    f"/cities/town/collections/{name}/items", params={definition["name"]: one, **along}
                )
                assert answer.status_code == 200, (name, each, answer.text)


def test_a_layer_opens_in_the_order_in_which_qgis_asks(service: Service) -> None:
    landing = service.get("/cities/town", accept="application/json").json()
    described = service.client.get(
        links_of(landing, "service-desc")[0]["href"], headers={"Accept": f"{OPENAPI}, application/json"}
    ).json()
    assert described["components"]["parameters"]["limit"]["schema"]["maximum"] >= 2_500
    collection = service.client.get(f"{links_of(landing, 'data')[0]['href']}/assets").json()
    assert collection["itemCount"] == 4
    conformance = service.client.get(links_of(landing, "conformance")[0]["href"]).json()
    assert any(uri.endswith("cql2-text") for uri in conformance["conformsTo"])
    queryables = service.get(
        "/cities/town/collections/assets/queryables", accept="application/schema+json"
    ).json()["properties"]
    geometry = [
        name
        for name, one in queryables.items()
        if one.get("$ref", "").startswith("https://geojson.org/schema/")
    ]
    assert geometry == ["geom"]
    assert all(isinstance(one["type"], str) for name, one in queryables.items() if name != "geom")
    items = "/cities/town/collections/assets/items"
    first = service.get(f"{items}?limit=10", accept="application/geo+json, application/json").json()
    assert isinstance(first["numberMatched"], int)
    assert "POST" not in service.client.options(items).headers["allow"]
    filtered = service.get(
        f"{items}?limit=1000&class=tree&datetime=0000-01-01T00:00:00Z/2026-01-01T00:00:00Z"
    ).json()
    assert {feature["properties"]["class"] for feature in filtered["features"]} == {"tree"}


def test_a_crs_other_than_crs84_is_refused(service: Service) -> None:
    items = "/cities/town/collections/assets/items"

    assert service.client.get(items, params={"crs": CRS84, "bbox-crs": CRS84}).status_code == 200
    for name in ("crs", "bbox-crs"):
        answer = service.client.get(items, params={name: "http://www.opengis.net/def/crs/0/unsupported"})
        assert answer.status_code == 400
    assert service.get(items).headers["content-crs"] == f"<{CRS84}>"
