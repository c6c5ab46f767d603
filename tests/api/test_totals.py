"""Totals of items: exact wherever they are given, and the number of what is there to be counted one by one."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from inventory.store import feature_pages, features
from inventory.store.features import Box, Collection, Wanted, When
from tests.api.conftest import MANY, Service

NOW = When(as_of=datetime(2026, 6, 1, tzinfo=UTC), now=True)
_EDGES = st.one_of(
    # On the points of the city, between them, and anywhere.
    st.integers(min_value=-2, max_value=102).map(lambda n: n / 1000),
    st.integers(min_value=-4, max_value=204).map(lambda n: n / 2000),
    st.floats(min_value=-0.01, max_value=0.11),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(west=_EDGES, south=_EDGES, east=_EDGES, north=_EDGES)
def test_the_total_of_a_box_is_what_lies_in_it_borders_included(
    service: Service, west: float, south: float, east: float, north: float
) -> None:
    (west, east), (south, north) = sorted((west, east)), sorted((south, north))
    box = Box(west=100 + west, south=22 + south, east=100 + east, north=22 + north)
    with service.database.transaction(read_only=True) as connection:
        city = features.city_on_page(connection, "many")
        wanted = Wanted(boxes=(box,), when=NOW)
        found = feature_pages.page_of(connection, city, Collection.ASSETS, wanted, limit=MANY)
        total = feature_pages.total(connection, city, Collection.ASSETS, wanted, patience_ms=4_000)

    assert total == len(found.rows)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    day=st.integers(min_value=-2, max_value=400),
    box=st.sampled_from(["", "&bbox=100,22,100.05,22.1", "&bbox=100.011,22.011,100.2,22.2"]),
    condition=st.sampled_from(
        ["", "&class=tree", "&class=car", "&class=tree,car", "&status=gone", "&area=A"]
    ),
    name=st.sampled_from(["assets", "observations", "observations?current=true"]),
)
def test_the_total_is_the_number_of_items_whatever_is_asked(
    service: Service, day: int, box: str, condition: str, name: str
) -> None:
    on = (datetime(2025, 5, 30) + timedelta(days=day)).date()
    name, _, more = name.partition("?")
    address = f"/cities/town/collections/{name}/items?datetime={on}{box}{condition}&{more or 'lang=en'}"
    page = service.get(address).json()
    if name == "observations" and "status" in condition:
        # What was seen has no status: that is refused, not passed over.
        assert (page["status"], page["where"]) == (400, "status")
        return
    hits = service.get(f"{address}&resultType=hits").json()

    assert page["numberMatched"] == page["numberReturned"] == hits["numberMatched"] == len(page["features"])


def test_boxes_over_the_antimeridian_are_counted_on_both_sides(service: Service) -> None:
    page = service.get("/cities/fiji/collections/assets/items?bbox=179,-20,-179,-15&limit=1").json()

    assert (page["numberMatched"], page["numberReturned"]) == (2, 1)


def test_a_box_is_counted_without_looking_at_its_assets(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    known = feature_pages.listed_in_box

    def counting(*arguments: object, **more: object) -> object:
        asked.append(1)
        return known(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_pages, "listed_in_box", counting)
    page = service.get("/cities/many/collections/assets/items?bbox=100,22,100.05,22.05&limit=5").json()
    assert (page["numberMatched"], len(asked)) == (51 * 51, 1)
    # What packed points do not know is not asked of them.
    for condition in ("status=present", "datetime=2025-01-01/2026-01-01"):
        service.get(f"/cities/many/collections/assets/items?bbox=100,22,100.05,22.05&limit=5&{condition}")
    assert len(asked) == 1


def test_a_total_that_takes_too_long_is_left_out_and_the_page_comes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_pages, "_count", lambda *_: text("SELECT pg_sleep(20)::text"))
    began = datetime.now()
    answer: httpx.Response = service.get("/cities/many/collections/assets/items?status=present&limit=5")

    assert (datetime.now() - began).total_seconds() < 3
    page = answer.json()
    assert "numberMatched" not in page
    assert "ogc-numbermatched" not in answer.headers
    assert page["numberReturned"] == 5
    assert [link for link in page["links"] if link["rel"] == "next"]
