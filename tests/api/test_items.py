"""Items: which features a request matches, and that paging shows each of them once."""

import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import FEW, MANY, Service

ASSETS = "/cities/town/collections/assets/items"


def ids_of(service: Service, path: str) -> list[str]:
    answer = service.get(path)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert page["numberMatched"] == len(page["features"])
    return [feature["id"] for feature in page["features"]]


def all_pages(service: Service, path: str, *, replace_limit: int | None = None) -> list[dict[str, Any]]:
    pages = [service.get(path).json()]
    while following := [link["href"] for link in pages[-1]["links"] if link["rel"] == "next"]:
        href = following[0] if replace_limit is None else f"{following[0]}&limit={replace_limit}"
        pages.append(service.client.get(href).json())
    return pages


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(min_value=4, max_value=FEW + 4),
    box=st.sampled_from(["", "&bbox=100,22,100.05,22.05", "&bbox=100.01,22.01,100.02,22.03"]),
)
def test_pages_together_are_the_whole_each_feature_once(service: Service, limit: int, box: str) -> None:
    pages = all_pages(service, f"/cities/few/collections/assets/items?limit={limit}{box}")
    ids = [feature["id"] for page in pages for feature in page["features"]]

    assert len(set(ids)) == len(ids) == pages[0]["numberMatched"]
    assert all(page["numberReturned"] == limit for page in pages[:-1])
    assert all(page["numberMatched"] == len(ids) for page in pages)


def test_the_suites_four_pages_of_the_maximum_reach_everything(service: Service) -> None:
    pages = all_pages(service, "/cities/many/collections/assets/items?limit=10", replace_limit=10_000)

    assert len(pages) <= 5
    assert sum(page["numberReturned"] for page in pages) == MANY


def test_offset_goes_on_with_a_cursor(service: Service) -> None:
    address = "/cities/many/collections/assets/items?limit=1000"
    whole = [feature["id"] for page in all_pages(service, address) for feature in page["features"]]
    rest = [
        feature["id"] for page in all_pages(service, f"{address}&offset=2500") for feature in page["features"]
    ]

    assert rest == whole[2_500:]
    assert "cursor" in service.get(f"{address}&offset=100001").json()["do"]


def test_the_next_link_is_in_the_header_too(service: Service) -> None:
    answer = service.get("/cities/many/collections/assets/items?limit=5")
    (following,) = [link["href"] for link in answer.json()["links"] if link["rel"] == "next"]

    assert answer.links["next"]["url"] == following
    assert answer.headers["ogc-numbermatched"] == str(MANY)


def test_callers_who_hang_up_leave_nothing_behind(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    request = f"GET /cities/many/collections/assets/items?limit=10000 HTTP/1.1\r\nHost: {host}\r\n\r\n"
    for _ in range(12):
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(request.encode())
            caller.recv(64)
    for _ in range(12):
        assert service.get("/cities/few/collections/assets/items").json()["numberReturned"] == FEW

    # Lines about requests apart, where another test has turned them on: to hang up is no failure.
    assert [one for one in caplog.records if one.levelname != "INFO"] == []


def test_hits_are_the_total_without_features(service: Service) -> None:
    page = service.get("/cities/many/collections/assets/items?resultType=hits").json()

    assert (page["numberMatched"], page["numberReturned"], page["features"]) == (MANY, 0, [])


def test_r8_what_is_listed_now_is_what_is_counted(service: Service) -> None:
    (row,) = service.get("/cities/town/counts?class=tree").json()["counts"]

    assert ids_of(service, ASSETS) == ["a00001", "a00002", "a00004", "a00006"]
    assert row["count"] == 4


@pytest.mark.parametrize(
    ("day", "ids"),
    [
        ("2025-05-31", []),
        ("2025-06-01", ["a00001", "a00002", "a00003", "a00006"]),
        ("2026-02-01T", ["a00001", "a00002", "a00003", "a00004", "a00006"]),
        ("2026-03-05", ["a00001", "a00002", "a00004", "a00006"]),
        ("2026-03-05T01:59:59Z", ["a00001", "a00002", "a00003", "a00004", "a00006"]),
        ("0000-01-01T00:00:00Z", []),
        ("9999-01-01T00:00:00Z", ["a00001", "a00002", "a00004", "a00006"]),
    ],
)
def test_datetime_asks_what_is_listed_as_of_then(service: Service, day: str, ids: list[str]) -> None:
    assert ids_of(service, f"{ASSETS}?datetime={day}") == ids


@pytest.mark.parametrize(
    ("interval", "ids"),
    [
        ("../2025-12-31", ["a00001", "a00002", "a00003", "a00006"]),
        ("2026-03-06/..", ["a00001", "a00002", "a00004", "a00006"]),
        ("2026-03-01/2026-03-05", ["a00001", "a00002", "a00003", "a00004", "a00006"]),
        ("../..", ["a00001", "a00002", "a00003", "a00004", "a00006"]),
        ("../2025-05-31", []),
    ],
)
def test_an_interval_asks_what_was_listed_at_any_time_in_it(
    service: Service, interval: str, ids: list[str]
) -> None:
    assert ids_of(service, f"{ASSETS}?datetime={interval}") == ids


def test_as_of_a_date_items_and_count_are_the_same_number(service: Service) -> None:
    for day in ("2025-06-01", "2026-02-01", "2026-03-05"):
        for area in ("A", "B"):
            (row,) = service.get(f"/cities/town/counts?class=tree&area={area}&as_of={day}").json()["counts"]
            assert (row["count"] or 0) == len(ids_of(service, f"{ASSETS}?datetime={day}&area={area}"))


def test_filters_by_class_area_and_status(service: Service) -> None:
    assert ids_of(service, f"{ASSETS}?class=car") == []
    assert ids_of(service, f"{ASSETS}?class=tree,car&area=B") == ["a00004"]
    assert ids_of(service, f"{ASSETS}?area=A&level=district") == ["a00001", "a00002"]
    assert ids_of(service, f"{ASSETS}?status=gone") == ["a00005"]
    assert ids_of(service, f"{ASSETS}?class=bus") == []


@pytest.mark.parametrize(
    ("collection", "parameter", "value", "status"),
    [
        ("assets", "class", "nothing", 404),
        ("assets", "class", "tree,nothing", 404),
        ("assets", "status", "absent", 404),
        ("assets", "area", "nowhere", 404),
        ("areas", "level", "planet", 404),
        ("counts", "level", "planet", 404),
        ("surveys", "class", "", 404),
        # Of other collections: as a condition that is passed over it would look like an answer.
        ("assets", "level", "district", 400),
        ("assets", "current", "true", 400),
        ("areas", "class", "tree", 400),
        ("areas", "status", "gone", 400),
        ("surveys", "current", "true", 400),
        ("counts", "status", "gone", 400),
        ("decisions", "status", "gone", 400),
    ],
)
def test_a_condition_that_means_nothing_is_refused_by_name(
    service: Service, collection: str, parameter: str, value: str, status: int
) -> None:
    answer = service.get(f"/cities/town/collections/{collection}/items?{parameter}={value}")

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert parameter in answer.json()["detail"]


def test_r10_the_stock_of_mobile_classes_is_current_observations(service: Service) -> None:
    observations = "/cities/town/collections/observations/items"

    assert len(ids_of(service, observations)) == 8
    assert len(ids_of(service, f"{observations}?current=true")) == 2
    assert ids_of(service, f"{observations}?current=true&datetime=2025-05-31") == []
    assert len(ids_of(service, f"{observations}?class=tree")) == 6
    assert ids_of(service, f"{observations}?datetime=2025-06-02/..") == []
    assert len(ids_of(service, f"{observations}?area=A")) == 5


def test_areas_and_surveys_take_their_filters(service: Service) -> None:
    assert ids_of(service, "/cities/town/collections/areas/items?level=district") == [
        "district:A",
        "district:B",
    ]
    assert ids_of(service, "/cities/town/collections/areas/items?area=B") == ["district:B"]
    assert ids_of(service, "/cities/town/collections/areas/items?datetime=1990-01-01/2000-01-01") != []
    assert ids_of(service, "/cities/town/collections/surveys/items?class=car,bus") == ["v1"]
    assert ids_of(service, "/cities/town/collections/surveys/items?class=bus") == []
    assert ids_of(service, "/cities/town/collections/surveys/items?datetime=2025-06-01&area=A") == ["v1"]


def test_a_box_over_the_antimeridian_holds_both_sides_and_not_the_rest(service: Service) -> None:
    assert len(ids_of(service, "/cities/fiji/collections/assets/items?bbox=179,-20,-179,-15")) == 2
    assert len(ids_of(service, "/cities/fiji/collections/assets/items?bbox=-179,-20,179,-15")) == 1


def test_the_border_of_a_box_belongs_to_it(service: Service) -> None:
    assert ids_of(service, f"{ASSETS}?bbox=100.01,22.01,100.02,22.02") == ["a00001", "a00002"]


def test_r15_an_asset_names_its_newest_evidence(service: Service) -> None:
    feature = service.get(f"{ASSETS}/a00004").json()

    assert feature["id"] == "a00004"
    said = feature["properties"]
    assert (said["class"], said["status"], said["listed"], said["verified"]) == (
        "tree",
        "present",
        True,
        True,
    )
    assert (said["survey"], said["evidence_kind"], said["evidence"]) == ("v1", "survey", "v1")
    assert (said["width_m"], said["position_error_m"]) == (5, 1)
    assert feature["geometry"] == {"type": "Point", "coordinates": [100.06, 22.01]}


def test_r7_an_alias_finds_the_asset_that_it_stands_for(service: Service) -> None:
    found = service.get("/cities/few/collections/assets/items/a00002").json()

    assert found["id"] == "a00001"
    assert found["links"][0]["href"].endswith("/items/a00001")


@pytest.mark.parametrize("unknown", ["nothing", "..%2F..%2Fetc", "%F0%9F%8C%B3", "x" * 3_000])
def test_an_unknown_id_is_not_found(service: Service, unknown: str) -> None:
    for name in ("assets", "areas", "surveys", "observations"):
        assert service.get(f"/cities/town/collections/{name}/items/{unknown}").status_code == 404
