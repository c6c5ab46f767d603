"""Health, figures, compression, entity tags, logs, and how many requests are answered at once."""

import asyncio
import io
import json
import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.admission import Admission, Room
from api.app import create_app
from api.settings import LogFormat, Settings
from api.watching import log_requests
from inventory.store import cities
from inventory.store.database import Database, Patience
from tests.api.conftest import Service
from tests.support.city import make_city
from tests.support.server import served

ITEMS = "/cities/town/collections/assets/items"


@pytest.fixture
def client(database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service of its own, over a city of 300 trees."""
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "town").assets([(100 + i % 20 / 300, 22 + i // 20 / 300) for i in range(300)])
    with served(create_app(Settings(home=tmp_path), database)) as url, httpx.Client(base_url=url) as opened:
        yield opened


def test_it_lives_and_is_ready(service: Service) -> None:
    assert service.get("/healthz").json()["status"] == "ok"
    ready = service.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (
        200,
        {"pool": "ok", "database": "ok", "schema": "ok"},
    )


def test_it_is_not_ready_without_its_database_but_lives(tmp_path: Path) -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with served(create_app(Settings(home=tmp_path), database)) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        answer = httpx.get(f"{url}/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert answer.headers["retry-after"]


def test_figures_are_by_route_and_status_and_name_no_city(service: Service) -> None:
    service.get(f"{ITEMS}/a00001")
    service.get("/cities/town/nothing")
    figures = service.get("/metrics").text
    route = 'route="/cities/{city}/collections/{collection}/items/{feature:path}"'
    assert any(
        line.startswith("urban_inventory_requests_total") and route in line and 'status="200"' in line
        for line in figures.splitlines()
    )
    assert "urban_inventory_request_seconds_bucket" in figures
    assert "urban_inventory_database_connections" in figures
    assert "town" not in figures


def test_figures_are_not_told_through_a_proxy_unless_everybody_may_read_them(
    service: Service, database: Database, tmp_path: Path
) -> None:
    assert service.get("/metrics", x_forwarded_for="203.0.113.7").status_code == 404
    with served(create_app(Settings(home=tmp_path, metrics="everybody"), database)) as url:
        assert httpx.get(f"{url}/metrics", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 200
    with served(create_app(Settings(home=tmp_path, metrics="nobody"), database)) as url:
        assert httpx.get(f"{url}/metrics").status_code == 404


# --- compression ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_answers_are_compressed_as_the_caller_likes(service: Service, encoding: str) -> None:
    path = "/cities/many/collections/assets/items?limit=1000"
    plain = service.get(path, accept_encoding="identity")
    packed = service.get(path, accept_encoding=encoding)
    assert packed.headers["content-encoding"] == encoding
    assert "content-encoding" not in plain.headers
    assert "Accept-Encoding" in packed.headers["vary"]
    assert packed.json()["features"] == plain.json()["features"]
    assert packed.num_bytes_downloaded < plain.num_bytes_downloaded / 4


@pytest.mark.parametrize("refused", ["gzip;q=0", "identity", "*", "deflate", "gzip;q=nonsense"])
def test_who_does_not_name_an_encoding_gets_none(service: Service, refused: str) -> None:
    answer = service.get("/cities/many/collections/assets/items?limit=100", accept_encoding=refused)
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "identity"])
def test_a_long_answer_is_compressed_while_it_is_made(
    database: Database, tmp_path: Path, encoding: str
) -> None:
    made = 0

    def parts() -> Iterator[bytes]:
        nonlocal made
        for number in range(2_000):
            made += 1
            yield random.Random(number).randbytes(24_000).hex().encode()

    app = create_app(Settings(home=tmp_path), database)
    app.add_api_route("/long", lambda: StreamingResponse(parts(), media_type="application/geo+json"))
    with (
        served(app) as url,
        httpx.stream("GET", f"{url}/long", headers={"Accept-Encoding": encoding}, timeout=30) as answer,
    ):
        assert answer.headers.get("content-encoding", "identity") == encoding
        next(answer.iter_raw(1_000))
        time.sleep(0.3)
        # What the two ends hold between them, and no more: 96 MB were to come.
        assert 0 < made < 700


def test_files_that_are_compressed_in_themselves_are_not_again(service: Service) -> None:
    answer = service.get("/cities/many/collections/assets/download?f=gpkg", accept_encoding="gzip")
    assert "content-encoding" not in answer.headers


# --- entity tags ----------------------------------------------------------------------------------------------

KEPT = [
    "/cities/town",
    "/cities/town/conformance",
    "/cities/town/collections",
    "/cities/town/collections/assets",
    "/cities/town/collections/assets/schema",
    "/cities/town/collections/assets/items?limit=5",
    "/cities/town/counts",
    "/cities/town/api",
]


@pytest.mark.parametrize("path", KEPT)
def test_who_has_an_answer_is_told_so_until_the_city_changes(
    client: httpx.Client, database: Database, path: str
) -> None:
    first = client.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for named in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
        again = client.get(path, headers={"If-None-Match": named})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.head(path, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(path, headers={"If-None-Match": "*"}).status_code == 304
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    with database.transaction(Patience.JOB) as connection:
        cities.lock_city(connection, cities.get_city(connection, "town").id)
    changed = client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_a_feature_keeps_its_tag_until_it_changes_itself(client: httpx.Client, database: Database) -> None:
    path = f"{ITEMS}/a00001"
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    change = (
        "UPDATE urban_inventory.asset_state SET verified = true"
        " WHERE listed AND asset_id = (SELECT {} FROM urban_inventory.asset)"
    )
    for which, status in (("max(id)", 304), ("min(id)", 200)):
        with database.transaction(Patience.JOB) as connection:
            connection.exec_driver_sql(change.format(which))
        assert client.get(path, headers={"If-None-Match": tag}).status_code == status


def test_tags_differ_by_address_and_by_form(client: httpx.Client) -> None:
    tags = [
        client.get(path, headers={"Accept": accept}).headers["etag"]
        for path in KEPT[:2]
        for accept in ("application/json", "text/html")
    ]
    assert len(set(tags)) == 4


def test_states_that_sql_alone_changed_change_the_tag(client: httpx.Client, database: Database) -> None:
    tag = client.get(ITEMS).headers["etag"]
    with database.transaction(Patience.JOB) as connection:
        connection.exec_driver_sql("UPDATE urban_inventory.asset_state SET verified = true WHERE listed")
    assert client.get(ITEMS, headers={"If-None-Match": tag}).status_code == 200


# --- numbers of requests, and the log ----------------------------------------------------------------------


def test_a_callers_own_number_is_ours_where_it_is_one(service: Service) -> None:
    answer = service.get("/cities/none", x_request_id="job-2026.11_26", accept="application/json")
    assert answer.headers["x-request-id"] == answer.json()["trace"] == "job-2026.11_26"
    for odd in ("short", "a" * 65, "with space", "<script>alert</script>"):
        assert service.get("/cities/town", x_request_id=odd).headers["x-request-id"] != odd


@contextmanager
def logged(form: LogFormat) -> Iterator[io.StringIO]:
    """What is written meanwhile; a line comes a moment after its answer."""
    stream = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("urban_inventory", "uvicorn")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    log_requests(stream, form)
    try:
        yield stream
    finally:
        for logger, handlers, level in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)


def line_of(stream: io.StringIO, trace: str) -> str:
    """The one line of a request."""
    deadline = time.monotonic() + 5
    while trace not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    (line,) = [one for one in stream.getvalue().splitlines() if trace in one]
    return line


def test_a_request_is_one_line_of_json_without_what_must_stay_unsaid(service: Service) -> None:
    with logged(LogFormat.JSON) as stream:
        service.get(f"{ITEMS}?limit=1&token=secret", x_request_id="a-known-number")
        line = json.loads(line_of(stream, "a-known-number"))
    assert {name: line[name] for name in ("trace", "method", "status", "city", "level")} == {
        "trace": "a-known-number",
        "method": "GET",
        "status": 200,
        "city": "town",
        "level": "INFO",
    }
    assert line["route"].endswith("/items")
    assert line["ms"] > 0
    assert line["bytes"] > 100
    assert "secret" not in stream.getvalue()


def test_a_request_is_one_readable_line_of_text(service: Service) -> None:
    with logged(LogFormat.TEXT) as stream:
        service.get(f"{ITEMS}?limit=1&token=secret", x_request_id="a-known-number")
        line = line_of(stream, "a-known-number")
    assert re.fullmatch(rf"\S+ GET {ITEMS} 200 \d+\.\d ms \d+ B \[a-known-number\]", line), line
    assert "secret" not in stream.getvalue()


def test_nobody_writes_lines_of_their_own_into_the_log(service: Service) -> None:
    with logged(LogFormat.TEXT) as stream:
        service.get("/cities/none%0A2026-01-01T00:00:00 GET /forged 200", x_request_id="a-forged-line")
        line = line_of(stream, "a-forged-line")
    assert "/forged" in line
    assert "\\x0a" in line


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("HEAD", "/cities/town", 200, "/cities/{city}"),
        ("OPTIONS", "/cities/town", 204, "none"),
        ("GET", "/nothing", 404, "none"),
        ("GET", "/cities/nowhere", 404, "/cities/{city}"),
    ],
)
def test_every_request_has_its_line_whatever_answered_it(
    service: Service, method: str, path: str, status: int, route: str
) -> None:
    with logged(LogFormat.JSON) as stream:
        service.client.request(method, path, headers={"X-Request-Id": "a-known-number"})
        line = json.loads(line_of(stream, "a-known-number"))
    assert (line["method"], line["status"], line["route"]) == (method, status, route)
    assert method == "GET" or line["bytes"] == 0


def test_a_refused_host_has_its_line_too(service: Service) -> None:
    with logged(LogFormat.JSON) as stream:
        service.get("/cities/town", host="evil.example", x_request_id="a-known-number")
        assert json.loads(line_of(stream, "a-known-number"))["status"] == 421


# --- how many at once ---------------------------------------------------------------------------------------


class _Slow:
    """An application that answers when told, and knows how many requests it had at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.now = self.most = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.now -= 1


async def _ask(app: Any, client: str, path: str = "/cities") -> int:
    status: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": (client, 1), "state": {}}
    await app(scope, receive, send)
    return status[0]


def _room(**settings: Any) -> Room:
    return Room(**{"each": 2, "all_together": 3, "patience_s": 30.0, **settings})


def test_a_client_has_so_many_requests_answered_and_the_others_wait_their_turn() -> None:
    async def scenario() -> None:
        slow, room = _Slow(), _room()
        app = Admission(slow, room=room)
        asked = [asyncio.create_task(_ask(app, "one")) for _ in range(5)]
        asked += [asyncio.create_task(_ask(app, "other"))]
        await asyncio.sleep(0.05)
        assert (slow.most, room.waiting) == (3, 3)
        # Whoever looks whether it lives waits for nobody.
        health = asyncio.create_task(_ask(app, "one", "/healthz"))
        await asyncio.sleep(0.01)
        assert slow.now == 4
        slow.go.set()
        assert await asyncio.gather(*asked, health) == [200] * 7
        assert (room.waiting, room._clients, room._whole.taken) == (0, {}, 0)

    asyncio.run(scenario())


def test_who_waits_too_long_is_told_whose_limit_it_was() -> None:
    async def scenario() -> None:
        slow, room = _Slow(), _room(patience_s=0.05)
        app = Admission(slow, room=room)
        asked = [asyncio.create_task(_ask(app, "one")) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert await _ask(app, "one") == 429
        asked.append(asyncio.create_task(_ask(app, "second")))
        await asyncio.sleep(0.01)
        assert await _ask(app, "third") == 503
        slow.go.set()
        assert await asyncio.gather(*asked) == [200] * 3
        assert await _ask(app, "one") == 200
        assert room.refused == {429: 1, 503: 1}

    asyncio.run(scenario())


def test_a_line_that_is_too_long_takes_nobody_more() -> None:
    async def scenario() -> None:
        slow, room = _Slow(), _room(each=1, all_together=1)
        app = Admission(slow, room=room)
        asked = [asyncio.create_task(_ask(app, "one")) for _ in range(9)]
        await asyncio.sleep(0.05)
        assert await _ask(app, "one") == 429
        slow.go.set()
        assert await asyncio.gather(*asked) == [200] * 9

    asyncio.run(scenario())


def test_who_hangs_up_while_waiting_leaves_the_line() -> None:
    async def scenario() -> None:
        slow, room = _Slow(), _room(each=1, all_together=1)
        app = Admission(slow, room=room)
        first = asyncio.create_task(_ask(app, "one"))
        await asyncio.sleep(0.01)
        gone = [asyncio.create_task(_ask(app, client)) for client in ("one", "one", "other")]
        await asyncio.sleep(0.01)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert room.waiting == 0
        slow.go.set()
        assert await first == 200
        assert await _ask(app, "other") == 200
        assert (room._clients, room._whole.taken) == ({}, 0)

    asyncio.run(scenario())


def test_no_place_is_lost_whoever_gives_up_when() -> None:
    async def scenario(seed: int) -> None:
        chance = random.Random(seed)
        room = _room(each=2, all_together=3, patience_s=0.02)

        async def answered(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01)))
            await send({"type": "http.response.start", "status": 200, "headers": []})

        app = Admission(answered, room=room)
        asked = []
        for _ in range(150):
            asked.append(asyncio.create_task(_ask(app, chance.choice("abcdef"))))
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
            if chance.random() < 0.3:
                chance.choice(asked).cancel()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {one for one in outcomes if isinstance(one, int)} <= {200, 429, 503}
        assert (room.taken, room.waiting, room._clients) == (0, 0, {})
        # All places are there for who comes next.
        assert await asyncio.gather(*(_ask(app, name) for name in "abc")) == [200] * 3

    for seed in range(20):
        asyncio.run(scenario(seed))
