"""OWSLib as a client: it follows paths, not links, and asks without saying what it accepts."""

import json
import warnings
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from owslib.ogcapi.features import Features

from tests.api.conftest import Service


@pytest.fixture
def town(service: Service) -> Any:
    return Features(f"{service.url}/cities/town")


def test_it_reads_the_city_its_collections_and_what_it_conforms_to(town: Any) -> None:
    assert town.feature_collections() == ["assets", "areas", "surveys", "observations", "decisions", "counts"]
    assert any(uri.endswith("cql2-text") for uri in town.conformance()["conformsTo"])
    assert town.api()["openapi"].startswith("3.0")
    assert town.collection("assets")["itemCount"] == 4


def test_it_reads_items_one_by_one_and_in_pages(town: Any) -> None:
    page = town.collection_items("assets", limit=2, offset=2)
    assert [one["id"] for one in page["features"]] == ["a00004", "a00006"]
    assert page["numberMatched"] == 4
    assert town.collection_item("assets", "a00001")["id"] == "a00001"


def test_its_boxes_and_filters_are_ours(town: Any) -> None:
    boxed = town.collection_items("assets", bbox=[100.0, 22.0, 100.05, 22.05])
    assert [one["id"] for one in boxed["features"]] == ["a00001", "a00002"]
    filtered = town.collection_items("assets", filter="verified = true")
    assert [one["id"] for one in filtered["features"]] == ["a00004"]


def test_it_reads_queryables_and_the_schema(town: Any) -> None:
    assert "probability" in town.collection_queryables("assets")["properties"]
    assert "probability" in town.collection_schema("assets")["properties"]


def test_its_habit_of_posting_a_query_is_told_what_to_do_instead(service: Service) -> None:
    answer = service.client.post(
        "/cities/town/collections/assets/items",
        content=json.dumps({"op": "=", "args": [{"property": "class"}, "tree"]}),
        headers={"Content-Type": "application/query-cql-json"},
    )
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
