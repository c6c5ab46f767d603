"""The abstract tests of Features Parts 3 and 5 and of CQL2 over every collection and every queryable; nothing fails."""

import json
from collections.abc import Iterator
from typing import Any

import cql2
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import Service

COLLECTIONS = ("assets", "areas", "surveys", "observations", "decisions", "counts")
ROOT = "/cities/town/collections"
REL = "http://www.opengis.net/def/rel/ogc/1.0"
CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf"
LAT_LON = "http://www.opengis.net/def/crs/EPSG/0/4326"
DRAFT = "https://json-schema.org/draft/2020-12/schema"

PREDICATES = {
    "text": [
        "{q} = 'a'", "{q} <> 'a'", "{q} < 'a'", "{q} >= '香'", "{q} IS NULL", "{q} IS NOT NULL", "{q} LIKE 'a_%'",
        "{q} NOT LIKE ''", "{q} IN ('a','b')", "{q} NOT IN ('a')", "{q} BETWEEN 'a' AND 'b'",
        "CASEI({q}) = casei('ÄÉ')",
        "CASEI({q}) LIKE casei('A%')", "ACCENTI({q}) = accenti('äöü')", "ACCENTI(CASEI({q})) IN (accenti(casei('ÄÉ')))",
        "{q} = {q}", "'a' <> {q}", "'a' LIKE {q}",
    ],
    "number": [
        "{q} = 3.14", "{q} <> 3", "{q} < -1", "{q} >= 1e3", "{q} IS NULL", "{q} IN (1,2.5)", "{q} NOT BETWEEN 1 AND 0",
        "{q} * 2 + 1 > {q} - 3 % 2", "{q} / {q} = 1", "{q} div 2 = 1", "{q} ^ 2 >= 0", "1 < {q}", "{q} > ( - (5))",
    ],
    "boolean": ["{q} = true", "{q} <> false", "{q}", "NOT {q}", "{q} IS NULL", "{q} IN (true,false)", "{q} = {q}"],
    "instant": [
        "{q} = TIMESTAMP('2022-04-16T10:13:19Z')", "{q} < TIMESTAMP('1970-01-01T00:00:00.5Z')",
        "{q} >= DATE('2022-04-16')",
        "{q} IS NULL", "{q} > '2022-04-16'", "{q} BETWEEN '2022-04-16' AND TIMESTAMP('2022-04-16T10:13:19+08:00')",
        "T_AFTER({q},DATE('2022-04-16'))", "T_BEFORE({q},TIMESTAMP('2022-04-16T10:13:19Z'))",
        "T_DURING({q},INTERVAL('..','2022-12-31'))",
        "T_INTERSECTS(INTERVAL({q},'..'),INTERVAL('2021-01-01','2021-12-31'))",
        "T_DISJOINT({q},{q})", "T_EQUALS({q},INTERVAL('2022-01-01T00:00:00Z','2022-12-31T23:59:59Z'))", "{q} = {q}",
        *(f"T_{name}(INTERVAL({{q}},{{q}}),INTERVAL('2021-01-01','2021-12-31'))"
          for name in ("CONTAINS", "FINISHEDBY", "FINISHES", "MEETS", "METBY", "OVERLAPPEDBY", "OVERLAPS", "STARTEDBY",
                       "STARTS")),
    ],
    "geometry": [
        "S_INTERSECTS({q},BBOX(-180,-90,180,90))", "S_INTERSECTS({q},BBOX(150,-90,-150,90))",
        "S_INTERSECTS({q},POINT(7.02 49.92))", "S_INTERSECTS({q},LINESTRING(-180 -45, 0 -45))",
        "S_INTERSECTS({q},MULTILINESTRING((-180 -45, 0 -45), (0 45, 180 45)))",
        "S_INTERSECTS({q},MULTIPOINT(7 49, 90 18))",
        "S_INTERSECTS({q},MULTIPOLYGON(((0 0,10 0,10 10,0 10,0 0))))",
        "S_INTERSECTS({q},GEOMETRYCOLLECTION(POINT(7.02 49.92), POLYGON((0 0, 10 0, 10 10, 0 10, 0 0))))",
        *(f"S_{name}({{q}},POLYGON((100 22,101 22,101 23,100 23,100 22)))"
          for name in ("EQUALS", "DISJOINT", "TOUCHES", "CROSSES", "WITHIN", "CONTAINS", "OVERLAPS")),
        "S_WITHIN(POINT(100 22),{q})", "S_DISJOINT({q},{q})", "{q} IS NULL",
    ],
}  # fmt: skip
PREDICATES["date"] = PREDICATES["instant"]
REFUSED = [
    "S_INTERSECTS({q},POINT(90 180))", "S_INTERSECTS({q},MULTIPOINT(7.02 49.92, 90 180))", "{q} = {q}", "{q} > 1",
]  # fmt: skip


def kind_of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "geometry"
    named = {"date-time": "instant", "date": "date"}.get(schema.get("format", ""))
    of_type = {"string": "text", "number": "number", "integer": "number", "boolean": "boolean"}
    return named or of_type[schema["type"]]


def queryables(service: Service, collection: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = service.get(f"{ROOT}/{collection}/queryables").json()["properties"]
    return found


def asked(service: Service, collection: str, **parameters: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in parameters.items()}
    return service.client.get(f"{ROOT}/{collection}/items", params=named)


def quoted(name: str) -> str:
    return f'"{name}"'


# --- queryables and filters (Part 3) -------------------------------------------------------------------------


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_the_queryables_are_a_json_schema_at_its_own_address(service: Service, collection: str) -> None:
    described = service.get(f"{ROOT}/{collection}").json()
    for rel in (f"{REL}/queryables", "queryables"):
        (link,) = [one for one in described["links"] if one["rel"] == rel]
        answer = service.client.get(link["href"], headers={"Accept": link["type"]})
        assert answer.headers["content-type"] == "application/schema+json"
        document = answer.json()
        assert (document["$schema"], document["$id"], document["type"]) == (DRAFT, link["href"], "object")
        assert document["additionalProperties"] is False
        jsonschema.Draft202012Validator.check_schema(document)
        for name, one in document["properties"].items():
            assert "title" in one or name == "geom"
            assert isinstance(one.get("type", ""), str)
            assert ("type" in one) != ("x-ogc-role" in one)


@pytest.mark.parametrize("resource", ["queryables", "schema", "feature-schema"])
def test_a_schema_comes_as_plain_json_to_who_takes_only_that(service: Service, resource: str) -> None:
    """GDAL 3.6 asks so, and prints an error where it gets application/schema+json."""
    for accept, media_type in (
        ("application/geo+json, application/json", "application/json"),
        ("application/schema+json", "application/schema+json"),
        ("*/*", "application/schema+json"),
    ):
        answer = service.get(f"{ROOT}/assets/{resource}", accept=accept)
        assert answer.headers["content-type"] == media_type


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_every_queryable_takes_every_predicate_of_its_kind_in_both_encodings(
    service: Service, collection: str
) -> None:
    for name, schema in queryables(service, collection).items():
        for predicate in PREDICATES[kind_of(schema)]:
            text = predicate.format(q=quoted(name))
            answer = asked(service, collection, filter=text, resultType="hits")
            assert answer.status_code == 200, (text, answer.text)
            as_json = json.dumps(cql2.parse_text(text).to_json())
            again = asked(
                service, collection, filter=as_json, filter_lang="cql2-json", resultType="hits"
            ).json()
            assert again["numberMatched"] == answer.json()["numberMatched"], text


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("datetime", "yesterday"),
        ("datetime", "2026-01-02/2026-01-01"),
        ("first_seen", "2026-13-01"),
        ("width_m", "broad"),
        ("filter", "first_seen > DATE('2026-13-01')"),
        ("filter", "nope = 1"),
        ("bbox", "1,2"),
    ],
)
def test_a_refusal_names_the_parameter(service: Service, parameter: str, value: str) -> None:
    answer = asked(service, "assets", **{parameter: value})

    assert answer.status_code == 400
    assert parameter in answer.json()["detail"]


def test_a_time_before_the_calendar_of_some_zones_is_answered(service: Service) -> None:
    answer = asked(service, "assets", datetime="0001-01-01T00:00:00+14:00", resultType="hits")

    assert (answer.status_code, answer.json()["numberMatched"]) == (200, 0)


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_what_the_standard_refuses_is_refused_everywhere(service: Service, collection: str) -> None:
    for text in (one.format(q="geom") for one in REFUSED):
        answer = asked(service, collection, filter=text)
        assert answer.status_code == 400, text
        assert answer.json()["detail"]
    for text in ("this_is_no_queryable = 'foo'", "this_is_no_queryable IS NULL", "no_function(id) = 1"):
        assert text.split("(")[0].split(" ")[0] in asked(service, collection, filter=text).json()["detail"]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a_queryable_as_a_parameter_is_an_equality(service: Service, collection: str) -> None:
    features = asked(service, collection).json()["features"]
    tried = 0
    for name, schema in queryables(service, collection).items():
        values = [{"id": each["id"], **each["properties"]}.get(name) for each in features]
        known = [value for value in values if value is not None]
        if not known or "$ref" in schema:
            continue
        said = str(known[0]).lower() if isinstance(known[0], bool) else str(known[0])
        answer = service.client.get(f"{ROOT}/{collection}/items", params={name: said})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["numberMatched"] == len(found["features"]) > 0, name
        if kind_of(schema) in ("text", "boolean"):
            assert len(found["features"]) == values.count(known[0]), name
        tried += 1
    assert tried > 3


def test_all_conditions_hold_together(service: Service) -> None:
    one, two, three = "class = 'tree'", "100,22,100.065,22.05", "2025-07-01/2026-02-10"
    alone = [
        {each["id"] for each in asked(service, "assets", **said).json()["features"]}
        for said in (
            {"filter": one, "datetime": three}, {"bbox": two, "datetime": three}, {"datetime": three},
        )
    ]  # fmt: skip
    together = asked(service, "assets", filter=one, bbox=two, datetime=three).json()["features"]
    assert {each["id"] for each in together} == alone[0] & alone[1] & alone[2] != alone[2]


def test_a_filter_is_cql2_text_unless_it_says_otherwise(service: Service) -> None:
    as_json = '{"op":"=","args":[{"property":"class"},"tree"]}'
    assert asked(service, "assets", filter=as_json).status_code == 400
    assert asked(service, "assets", filter=as_json, filter_lang="cql2-json").status_code == 200
    assert asked(service, "assets", filter="class='tree'", filter_lang="cql2-json").status_code == 400


@pytest.mark.parametrize("parameters", [
    {"filter": "S_INTERSECTS(geom,BBOX(179,-18,-179,-16))"},
    {"filter": "S_INTERSECTS(geom,BBOX(-18,179,-16,-179))", "filter-crs": LAT_LON},
    {
        "filter": '{"op":"s_intersects","args":[{"property":"geom"},{"bbox":[179,-18,-179,-16]}]}',
        "filter-lang": "cql2-json",
    },
    {"bbox": "179,-18,-179,-16"},
    {"bbox": "-18,179,-16,-179", "bbox-crs": LAT_LON},
], ids=["text", "latitude first", "json", "bbox", "bbox latitude first"])  # fmt: skip
def test_a_box_over_the_antimeridian_is_one_however_it_is_said(
    service: Service, parameters: dict[str, str]
) -> None:
    found = service.client.get("/cities/fiji/collections/assets/items", params=parameters).json()["features"]
    assert [each["id"] for each in found] == ["a00001", "a00002"]


def test_every_declared_class_of_cql2_answers(service: Service) -> None:
    witnesses = {
        "cql2-text": "id = 'x'", "cql2-json": "id = 'x'", "basic-cql2": "NOT (width_m > 1 AND class <> 'x') OR true",
        "advanced-comparison-operators": "class LIKE 't%' AND width_m BETWEEN 1 AND 2 AND hits IN (1)",
        "case-insensitive-comparison": "CASEI(class) = CASEI('TREE')",
        "accent-insensitive-comparison": "ACCENTI(class) = ACCENTI('trée')",
        "basic-spatial-functions": "S_INTERSECTS(geom,POINT(1 2))",
        "basic-spatial-operators": "S_INTERSECTS(geom,BBOX(1,2,3,4))",
        "basic-spatial-functions-plus": "S_INTERSECTS(geom,LINESTRING(1 2,3 4))",
        "spatial-functions": "S_WITHIN(geom,BBOX(1,2,3,4))",
        "temporal-functions": "T_AFTER(first_seen,DATE('2026-01-01'))",
        "arithmetic": "width_m * 2 > 1", "property-property": "width_m > height_m",
    }  # fmt: skip
    declared = service.get("/cities/town/conformance").json()["conformsTo"]
    assert {one.rpartition("/")[2] for one in declared if one.startswith(CQL2)} == set(witnesses)
    for text in witnesses.values():
        assert asked(service, "assets", filter=text).status_code == 200, text


# --- schemas (Part 5) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_features_are_what_their_schemas_say(service: Service, collection: str) -> None:
    schema = service.get(f"{ROOT}/{collection}/schema").json()
    whole = service.get(f"{ROOT}/{collection}/feature-schema").json()
    for document in (schema, whole):
        jsonschema.Draft202012Validator.check_schema(document)
        assert document["$schema"] == DRAFT
        assert all(isinstance(kind, str) for kind in types_in(document))
    roles = [one.get("x-ogc-role") for one in schema["properties"].values()]
    assert roles.count("id") == roles.count("primary-geometry") == 1
    assert all(one["title"] for one in schema["properties"].values() if "type" in one)
    # Of the geometry only what is not on somebody else's server, and of the properties all that is known.
    whole["properties"]["geometry"] = {"type": ["object", "null"]}
    for feature in asked(service, collection).json()["features"]:
        known = {name: value for name, value in feature["properties"].items() if value is not None}
        jsonschema.validate(
            {**feature, "properties": known}, whole, format_checker=jsonschema.FormatChecker()
        )


def types_in(schema: dict[str, Any]) -> Iterator[Any]:
    """The types of a schema, and of the schemas of its properties."""
    if "type" in schema:
        yield schema["type"]
    for inner in schema.get("properties", {}).values():
        yield from types_in(inner)


# --- nothing fails -------------------------------------------------------------------------------------------

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3),
    st.sampled_from(["2026-01-01", "2026-01-01T00:00:00Z", "..", "tree"]),
)  # fmt: skip
_NODES = st.recursive(
    st.one_of(
        _SCALARS,
        st.sampled_from(["class", "width_m", "verified", "first_seen", "geom", "id", "none"]).map(
            lambda name: {"property": name}
        ),
        st.sampled_from([
            {"type": "Point", "coordinates": [100, 22]}, {"bbox": [100, 22, 101, 23]}, {"date": "2026-01-01"},
            {"timestamp": "2026-01-01T00:00:00Z"}, {"interval": ["..", "2026-01-01"]},
        {"type": "Polygon", "coordinates": []},
            {"type": "LineString", "coordinates": [[1, 2], [1, 2]]}, {"bbox": [1, 2]}, {"date": 3}, {"interval": []},
        ]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(
            st.sampled_from([
                "and", "or", "not", "=", "<>", "<", ">=", "like", "in", "between", "isNull", "casei", "accenti",
        "+", "-", "/",
                "^", "div", "s_intersects", "s_within", "t_after", "t_during", "t_meets", "foo",
            ]),
            st.lists(inner, max_size=3),
        ).map(lambda it: {"op": it[0], "args": it[1]}),
        st.lists(inner, max_size=2).map(lambda ends: {"interval": ends}),
        st.lists(st.floats(), max_size=6).map(lambda numbers: {"bbox": numbers}),
        st.tuples(st.sampled_from(["Point", "MultiPoint", "Polygon"]), st.lists(inner, max_size=3)).map(
            lambda it: {"type": it[0], "coordinates": it[1]}
        ),
    ),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(stated=_NODES, collection=st.sampled_from(COLLECTIONS))
def test_no_json_makes_anything_fail(service: Service, stated: Any, collection: str) -> None:
    answer = asked(service, collection, filter=json.dumps(stated), filter_lang="cql2-json")
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


_PIECES = st.sampled_from([
    "class", "width_m", "verified", "first_seen", "geom", "'tree'", "1", "-2.5", "true", "NULL", "(", ")", ",", "=",
        "<>", "<",
    "AND", "OR", "NOT", "LIKE", "IN", "BETWEEN",
        "IS", "+", "*", "/", "^", "div", "CASEI(", "S_INTERSECTS(",
        "BBOX(", "POINT(",
    "POLYGON((", "T_AFTER(", "INTERVAL(", "DATE('2026-01-01')", "TIMESTAMP('", "'", "\"", "\\", "香",
])  # fmt: skip


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(pieces=st.lists(_PIECES, max_size=12))
def test_no_text_makes_anything_fail(service: Service, pieces: list[str]) -> None:
    answer = asked(service, "assets", filter=" ".join(pieces))
    assert answer.status_code in (200, 400), answer.text
