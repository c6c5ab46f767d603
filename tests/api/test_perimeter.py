"""What holds for every answer: headers, hosts, methods, CORS, refusals, and the last resort."""

import logging
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.settings import Settings
from inventory.errors import StoreBusy
from inventory.store.database import Database
from tests.api.conftest import Service
from tests.support.server import served

EVERY_PATH = (
    "/", "/cities", "/cities/town", "/cities/town/", "/cities/town/conformance", "/cities/town/collections",
    "/cities/town/collections/assets", "/cities/town/collections/assets/items", "/cities/town/api",
    "/cities/town/collections/assets/items/a00001", "/cities/town/counts", "/attribution", "/openapi.json",
    "/static/pages.css",
)  # fmt: skip


@pytest.mark.parametrize("path", [*EVERY_PATH, "/nothing", "/cities/nowhere", "/cities/town?x=1"])
def test_every_answer_carries_the_headers_of_its_kind(service: Service, path: str) -> None:
    for accept in ("application/json", "text/html"):
        headers = service.get(path, accept=accept).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-trace-id"]
        assert "server" not in headers
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert ("script-src 'self'" in policy) == headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", EVERY_PATH)
def test_head_is_get_without_the_body(service: Service, path: str) -> None:
    got, headed = service.get(path), service.client.head(path)

    assert headed.status_code == got.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-type"] == got.headers["content-type"]


def test_plain_options_says_the_truth(service: Service) -> None:
    assert service.client.options("/cities/town/counts").headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert (
        service.client.options("/cities/town/collections/assets/items").headers["allow"]
        == "GET, HEAD, OPTIONS"
    )
    assert service.client.options("/nothing").status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_method_that_is_not_there_is_refused_with_those_that_are(service: Service, method: str) -> None:
    answer = service.client.request(method, "/cities/town/collections/areas/items")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert answer.headers["content-type"] == "application/problem+json"


def test_public_cities_are_open_to_any_page_without_credentials(service: Service) -> None:
    origin = {"Origin": "https://evil.example"}
    got = service.client.get("/cities/town/collections/assets/items", headers=origin)
    asked = service.client.options(
        "/cities/town/counts",
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    )

    assert got.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in got.headers
    exposed = got.headers["access-control-expose-headers"].split(", ")
    assert {"Content-Crs", "Retry-After", "X-Request-Id"} <= set(exposed)
    assert asked.status_code == 204
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "Content-Type" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in service.client.get("/source", headers=origin).headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a@127.0.0.1", "127.0.0.1:x", ""])
def test_we6_a_foreign_host_is_refused_and_in_no_link(service: Service, host: str) -> None:
    answer = service.get(
        "/cities/town/", host=host, x_forwarded_host="evil.example", forwarded="host=evil.example"
    )

    assert answer.status_code in (400, 421)
    assert "evil" not in answer.text
    poisoned = service.get("/cities/town/", x_forwarded_host="evil.example", forwarded="host=evil.example")
    assert "evil" not in poisoned.text


def test_we6_with_a_public_url_links_start_with_it(service: Service, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, public_url="https://trees.example/inventory")
    with served(create_app(settings, service.database)) as url, httpx.Client(base_url=url) as client:
        usual = ("trees.example", "TREES.example.", "trees.example:443", "trees.example.:443")
        for host in (*usual, url.removeprefix("http://")):
            links = client.get("/cities/town/", headers={"Host": host}).json()["links"]
            assert all(link["href"].startswith("https://trees.example/inventory/") for link in links)
        assert client.get("/", headers={"Host": "other.example"}).status_code == 421
        assert client.get("/", headers={"Host": "trees.example:80"}).status_code == 421


def test_a_refusal_is_a_problem_with_what_and_what_to_do(service: Service) -> None:
    answer = service.get("/cities/nowhere/collections")
    problem = answer.json()

    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (404, 404, "unknown_name")
    assert "nowhere" in problem["what"]
    assert "town" in problem["do"]
    assert problem["trace"] == answer.headers["x-trace-id"]


def failing(tmp_path: Path, database: Database) -> FastAPI:
    app = create_app(Settings(home=tmp_path), database)

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("SELECT secret FROM /srv/place")

    @app.get("/busy")
    def busy() -> None:
        raise StoreBusy("the database did not answer in time", do="Try again in a moment.")

    return app


def test_we10_what_nothing_foresaw_is_told_to_nobody_but_the_log(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.ERROR, logger="urban_inventory"),
        served(failing(tmp_path, service.database)) as url,
    ):
        answer = httpx.get(f"{url}/fails")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.json()["trace"] in caplog.text
    assert "SELECT secret" in caplog.text


def test_a_busy_store_says_when_to_come_again(service: Service, tmp_path: Path) -> None:
    with served(failing(tmp_path, service.database)) as url:
        answer = httpx.get(f"{url}/busy")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["code"] == "store_busy"


def test_a_file_of_the_pages_is_not_sent_again(service: Service) -> None:
    first = service.get("/static/pages.css")
    again = service.get("/static/pages.css", if_none_match=first.headers["etag"])
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/__init__.py", "/static/..%2f__init__.py", "/static//etc/passwd",
             "/static/", "/static/vendor"]
)  # fmt: skip
def test_only_files_of_the_pages_are_served(service: Service, path: str) -> None:
    assert service.get(path).status_code == 404


@pytest.mark.parametrize(
    "path", ["/cities/a%00b", "/cities/town/collections/assets/items/a%00b", "/cities/town/counts?class=%00",
             "/cities/town/collections/assets/items?area=%00", "/cities/town/collections/areas/items?level=a%00"]
)  # fmt: skip
def test_a_nul_is_refused_wherever_it_stands(service: Service, path: str) -> None:
    assert service.get(path).status_code == 400


def test_every_route_of_our_openapi_has_an_example(service: Service) -> None:
    described = service.get("/openapi.json").json()

    assert described["openapi"].startswith("3.1")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method != "get" and "200" not in operation["responses"]:
                body = operation.get("requestBody", {"content": {"": {"example": None}}})
                assert any("example" in content for content in body["content"].values()), (method, path)
                continue
            contents = operation["responses"]["200"]["content"]
            assert any("example" in content for content in contents.values()) or path == "/source", (
                method,
                path,
            )
