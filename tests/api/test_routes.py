"""What every route keeps, whoever added it: the routes are taken from the application's own description."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from inventory.domain.tiles import tile_of
from inventory.store.database import Connection, Database, Patience
from inventory.store.features import Collection
from tests.api.conftest import Service, fill
from tests.support.database import DatabaseServer, cloned_database
from tests.support.server import served

_TILE = tile_of(100.02, 22.02, 14)
_KNOWN = {
    "city": "town", "collection": "assets", "grid": "WebMercatorQuad", "feature": "a00001",
    "zoom": "14", "row": str(_TILE.row), "column": str(_TILE.column), "scene": "none", "item": "none",
}  # fmt: skip
_MAY_BE_UNKNOWN = ("{scene}", "{item}")
"""The city of the tests has no imagery: routes under a scene say that there is none."""
_WITHOUT_FORMS = ("/healthz", "/readyz", "/metrics", "/source")
"""For programs that look after the service, and the archive."""
_STAC = re.compile("/stac/collections/{collection}")


def described() -> dict[str, Any]:
    app = create_app(Settings(), Database("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    paths: dict[str, Any] = app.openapi()["paths"]
    return paths


ALL = described()
READ = sorted(path for path in ALL if "get" in ALL[path])
WRITTEN = sorted(
    (method, path) for path in ALL for method in ALL[path] if method in ("post", "put", "patch", "delete")
)


def address(template: str, **other: str) -> str:
    """An address of something that exists, as far as the city of the tests has it."""
    values = {**_KNOWN, **({"collection": "scenes"} if _STAC.search(template) else {}), **other}
    return re.sub(r"{(\w+)(:path)?}", lambda found: values[found[1]], template)


class _NeverInTheLoop(Database):
    """A database that nobody asks from within the event loop, where all others would wait for the answer."""

    def transaction(
        self, patience: Patience = Patience.HTTP, *, read_only: bool = False
    ) -> AbstractContextManager[Connection]:
        _assert_out_of_the_loop()
        return super().transaction(patience, read_only=read_only)

    def statement(self) -> AbstractContextManager[Connection]:
        _assert_out_of_the_loop()
        return super().statement()


def _assert_out_of_the_loop() -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise AssertionError("asked in the event loop")


@pytest.fixture(scope="module")
def narrow(
    database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A service with one connection to its database, which anybody may write to."""
    with cloned_database(database_server) as clone:
        database = _NeverInTheLoop(clone.service_url, pool_size=1, pool_wait_s=2)
        fill(database)
        home = Path(tmp_path_factory.mktemp("home"))
        app = create_app(Settings(home=home, allow_unauthenticated_writes=True), database)
        with served(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client
        database.close()


def assert_problem(answer: httpx.Response) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert problem["what"]
    assert problem["trace"] == answer.headers["x-request-id"]
    return problem


def test_there_are_routes_to_look_at() -> None:
    assert len(READ) > 20
    assert len(WRITTEN) > 3


@pytest.mark.parametrize("path", READ)
def test_a_route_needs_one_connection_and_never_a_second_while_it_has_one(
    narrow: httpx.Client, path: str
) -> None:
    every = (
        [str(one) for one in Collection] if "{collection}" in path and not _STAC.search(path) else ["scenes"]
    )
    for collection in every:
        for accept in ("application/json", "text/html"):
            asked = address(path, collection=collection)
            answer = narrow.get(asked, headers={"Accept": accept})
            # What one collection has another may lack; none may keep anybody waiting.
            is_there = collection in ("assets", "scenes") and not any(one in path for one in _MAY_BE_UNKNOWN)
            assert answer.status_code in ((200, 204) if is_there else (200, 204, 404)), (
                asked,
                answer.text[:300],
            )


@pytest.mark.parametrize("path", READ)
def test_an_unknown_parameter_is_refused_by_name(service: Service, path: str) -> None:
    answer = service.get(f"{address(path)}?clasz=tree")
    assert answer.status_code == 400
    assert "clasz" in assert_problem(answer)["what"]


@pytest.mark.parametrize("path", [path for path in READ if path not in _WITHOUT_FORMS])
def test_a_form_that_nothing_has_is_refused_by_name(service: Service, path: str) -> None:
    answer = service.get(f"{address(path)}?f=docx")
    assert answer.status_code == 400
    assert "docx" in assert_problem(answer)["what"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (path, one["name"])
        for path in READ
        for one in ALL[path]["get"].get("parameters", [])
        if "integer" in str(one["schema"])
    ],
)
@pytest.mark.parametrize("odd", ["1_0", " 1", "1.0", "1e1", "+1", "", "１", "0x1"])
def test_a_number_is_written_in_digits(service: Service, path: str, name: str, odd: str) -> None:
    in_path = f"{{{name}}}" in path
    asked = address(path, **({name: quote(odd, safe="")} if in_path else {}))
    answer = service.client.get(asked, params=None if in_path else {name: odd})
    # Without a number the address of a tile is another one.
    assert answer.status_code == 400 or (in_path and not odd and answer.status_code == 404)
    assert_problem(answer)


@pytest.mark.parametrize("path", READ)
def test_head_and_options_are_answered_as_get_is(service: Service, path: str) -> None:
    got, headed = service.get(address(path)), service.client.head(address(path))
    assert headed.status_code == got.status_code
    assert headed.content == b""
    for name in ("content-type", "etag", "cache-control", "vary"):
        assert headed.headers.get(name) == got.headers.get(name), name
    allowed = service.client.options(address(path)).headers["allow"].split(", ")
    assert {"GET", "HEAD", "OPTIONS"} <= set(allowed)


@pytest.mark.parametrize("path", [path for path in READ if "{city}" in path])
def test_an_unknown_city_is_a_problem_that_names_it(service: Service, path: str) -> None:
    answer = service.get(address(path, city="atlantis"))
    assert answer.status_code == 404
    assert "atlantis" in assert_problem(answer)["what"]


@pytest.mark.parametrize("path", [path for path in READ if "{city}" in path])
def test_an_unknown_city_is_a_page_for_people(service: Service, path: str) -> None:
    answer = service.get(address(path, city="atlantis"), accept="text/html")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


@pytest.mark.parametrize("path", READ)
def test_what_has_a_tag_is_not_sent_again(service: Service, path: str) -> None:
    first = service.get(address(path))
    if "etag" not in first.headers:
        # No city's data: the program's own pages, and what is never the same.
        assert (
            "{city}" not in path or first.status_code != 200 or "immutable" in first.headers["cache-control"]
        )
        return
    again = service.get(address(path), if_none_match=first.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", READ)
def test_bytes_that_no_name_has_are_refused(service: Service, path: str) -> None:
    for odd in ("%00", "a%0Ab", "%7F"):
        assert service.get(f"{address(path)}{odd}").status_code in (400, 404)


@pytest.mark.parametrize(("method", "path"), WRITTEN)
def test_a_body_beyond_the_limit_is_refused(narrow: httpx.Client, method: str, path: str) -> None:
    if "requestBody" not in ALL[path][method]:
        return
    (media_type, *_) = ALL[path][method]["requestBody"]["content"]

    def endless() -> Iterator[bytes]:
        yield from (b" " * 1024**2 for _ in range(12))

    answer = narrow.request(method, address(path), content=endless(), headers={"Content-Type": media_type})
    assert answer.status_code == 413
    assert_problem(answer)


@pytest.mark.parametrize(("method", "path"), WRITTEN)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"[" * 100_000, b"\xff\xfe"])
def test_a_body_that_says_nothing_is_a_problem(
    narrow: httpx.Client, method: str, path: str, body: bytes
) -> None:
    if "requestBody" not in ALL[path][method]:
        return
    (media_type, *_) = ALL[path][method]["requestBody"]["content"]
    answer = narrow.request(method, address(path), content=body, headers={"Content-Type": media_type})
    assert 400 <= answer.status_code < 500, answer.text[:200]
    assert_problem(answer)


@pytest.mark.parametrize(("method", "path"), WRITTEN)
def test_the_example_of_a_body_is_answered_and_asks_nothing_in_the_event_loop(
    narrow: httpx.Client, method: str, path: str
) -> None:
    for media_type, content in ALL[path][method].get("requestBody", {"content": {}})["content"].items():
        answer = narrow.request(
            method, address(path), json=content["example"], headers={"Content-Type": media_type}
        )
        assert answer.status_code < 500, answer.text[:300]
        if answer.status_code >= 400:
            assert_problem(answer)
