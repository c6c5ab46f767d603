"""Callers who hang up or are slow, and who they are: nobody keeps what others need."""

import asyncio
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from sqlalchemy import text
from starlette.middleware import Middleware

from api.app import create_app
from api.callers import client_of
from api.hanging_up import HangingUp
from api.requests import Store, read_body
from api.settings import Settings
from inventory.store import cities
from inventory.store.database import Database, Patience
from tests.support.city import make_city
from tests.support.database import ClonedDatabase
from tests.support.server import served

_SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"


def sleepers(database: Database) -> int:
    with database.transaction() as connection:
        return int(connection.execute(text(_SLEEPING)).scalar_one())


def soon(condition: Callable[[], bool], within_s: float = 3.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@contextmanager
def begun(url: str, path: str, *, method: str = "GET", headers: str = "") -> Iterator[socket.socket]:
    """A connection on which a request has been sent; closing it is hanging up."""
    place = urlsplit(url)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port or 80), timeout=20) as opened:
        opened.sendall(f"{method} {path} HTTP/1.1\r\nHost: {place.netloc}\r\n{headers}\r\n".encode())
        yield opened


def slow_app(database: Database, tmp_path: Path, **settings: Any) -> FastAPI:
    """The service with routes that take four seconds of the database's time."""
    app = create_app(Settings(home=tmp_path, **settings), database)

    @app.get("/reads")
    def reads(store: Store) -> Response:
        with store.transaction(read_only=True) as connection:
            connection.execute(text("SELECT pg_sleep(4)"))
        return Response("slept")

    @app.get("/reads-again")
    def reads_again(store: Store) -> Response:
        # Between two statements there is nothing to cancel: the next one must not begin.
        with store.transaction(read_only=True) as connection:
            for _ in range(40):
                connection.execute(text("SELECT 1"))
                time.sleep(0.1)
        return Response("read")

    @app.get("/writes")
    def writes(store: Store) -> Response:
        with store.transaction(Patience.JOB) as connection:
            connection.execute(text("SELECT pg_sleep(1)"))
            cities.lock_city(connection, cities.get_city(connection, "town").id)
        return Response("written")

    @app.post("/reads-a-body")
    async def reads_a_body(request: Request) -> Response:
        return Response(str(len(await read_body(request, 1_000_000))))

    return app


@pytest.fixture
def slow(database: Database, tmp_path: Path) -> Iterator[str]:
    with served(slow_app(database, tmp_path)) as url:
        yield url


# --- hanging up ---------------------------------------------------------------------------------------------


def test_who_hangs_up_ends_the_statement_that_runs_for_them(slow: str, database: Database) -> None:
    with begun(slow, "/reads"):
        assert soon(lambda: sleepers(database) == 1)
    assert soon(lambda: sleepers(database) == 0, 1.0)
    assert soon(lambda: database.connections_in_use() == 0)


def test_who_hangs_up_between_two_statements_gets_no_further_one(slow: str, database: Database) -> None:
    with begun(slow, "/reads-again"):
        assert soon(lambda: database.connections_in_use() == 1)
    assert soon(lambda: database.connections_in_use() == 0, 1.0)


def test_what_somebody_writes_is_finished_though_they_hang_up(slow: str, database: Database) -> None:
    def version() -> int:
        with database.transaction(read_only=True) as connection:
            found = cities.version_of(connection, "town")
        assert found is not None
        return found[1]

    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "town")
    before = version()
    with begun(slow, "/writes"):
        assert soon(lambda: sleepers(database) == 1)
    assert version() == before
    assert soon(lambda: version() > before)


def test_hanging_up_harms_nobody_else_on_the_same_connection(cloned: ClonedDatabase, tmp_path: Path) -> None:
    database = Database(cloned.service_url, pool_size=1)
    with served(slow_app(database, tmp_path)) as url, httpx.Client(base_url=url) as client:
        for _ in range(15):
            with begun(url, "/reads"):
                assert soon(lambda: database.connections_in_use() == 1)
            assert client.get("/cities").status_code == 200
    database.close()


def test_a_hang_up_is_no_failure_in_the_log_but_told_as_one(
    slow: str, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="urban_inventory.access")
    with begun(slow, "/reads"):
        assert soon(lambda: sleepers(database) == 1)
    assert soon(lambda: "/reads" in caplog.text)
    assert {one.levelname for one in caplog.records} == {"INFO"}
    assert 'route="/reads",status="499"' in httpx.get(f"{slow}/metrics").text


def test_who_hangs_up_while_they_wait_leaves_the_line(database: Database, tmp_path: Path) -> None:
    app = slow_app(database, tmp_path, client_requests=1)
    with served(app) as url, begun(url, "/reads"):
        assert soon(lambda: sleepers(database) == 1)
        with begun(url, "/reads"), begun(url, "/reads"):
            assert soon(lambda: app.state.room.waiting == 2)
        assert soon(lambda: app.state.room.waiting == 0, 1.0)
        assert sleepers(database) == 1


def test_who_asks_too_much_is_refused_with_a_problem_and_others_are_not(
    database: Database, tmp_path: Path
) -> None:
    app = slow_app(database, tmp_path, client_requests=1, wait_s=0.2)
    with served(app) as url, begun(url, "/reads"):
        assert soon(lambda: sleepers(database) == 1)
        refused = httpx.get(f"{url}/cities")
        other = httpx.get(f"{url}/cities", headers={"X-Forwarded-For": "198.51.100.1"})
        figures = httpx.get(f"{url}/metrics").text
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["retry-after"]
    assert refused.json()["trace"] == refused.headers["x-request-id"]
    assert other.status_code == 200
    assert 'urban_inventory_requests_refused_total{status="429"} 1.0' in figures


# --- slowness -----------------------------------------------------------------------------------------------


async def _asgi(app: Any, *, received: list[dict[str, Any]], sending_s: float = 0.0) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if received:
            return received.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    async def send(message: Any) -> None:
        await asyncio.sleep(sending_s)
        sent.append(message)

    headers = [(b"content-length", b"10")] if received else []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "state": {"trace": "t"},
             "query_string": b""}  # fmt: skip
    await app(scope, receive, send)
    return sent


def test_a_body_that_does_not_come_is_waited_for_so_long_alone() -> None:
    app = FastAPI(middleware=[Middleware(HangingUp, body_s=0.2)])
    from api.problem_answers import add_handlers

    add_handlers(app)

    @app.post("/")
    async def taken(request: Request) -> Response:
        return Response(await read_body(request, 100))

    part = {"type": "http.request", "body": b"half", "more_body": True}
    begun_at = time.monotonic()
    sent = asyncio.run(_asgi(app, received=[part]))
    assert time.monotonic() - begun_at < 2
    assert sent[0]["status"] == 408
    assert b"body_too_slow" in sent[1]["body"]


def test_who_takes_nothing_of_an_answer_is_given_up() -> None:
    closed = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        finally:
            closed.set()

    begun_at = time.monotonic()
    asyncio.run(_asgi(HangingUp(endless, taken_s=0.2), received=[], sending_s=5))
    assert time.monotonic() - begun_at < 2
    assert closed.is_set()


def test_a_body_longer_than_its_limit_is_refused_whatever_it_says_of_itself(slow: str) -> None:
    def endless() -> Iterator[bytes]:
        yield from (b"x" * 100_000 for _ in range(20))

    answer = httpx.post(f"{slow}/reads-a-body", content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_who_reads_slowly_keeps_no_connection_from_others(cloned: ClonedDatabase, tmp_path: Path) -> None:
    database = Database(cloned.service_url, pool_size=1, pool_wait_s=2)
    with database.transaction(Patience.JOB) as connection:
        place = make_city(connection, "many")
        place.assets([(100 + i % 100 / 1000, 22 + i // 100 / 1000) for i in range(6_000)])
    path = "/cities/many/collections/assets/items?limit=6000"
    with served(create_app(Settings(home=tmp_path), database)) as url, ExitStack() as readers:
        for _ in range(3):
            # More than what fits between the two, and nobody takes it.
            reader = readers.enter_context(begun(url, path))
            assert reader.recv(12) == b"HTTP/1.1 200"
        assert httpx.get(f"{url}/cities/many/counts").status_code == 200
        whole = httpx.get(f"{url}{path}")
    assert len(whole.json()["features"]) == 6_000
    assert len(whole.content) > 1_500_000
    database.close()


# --- connections of the database ------------------------------------------------------------------------------


def test_who_waits_in_vain_for_a_connection_is_told_when_to_come_again(
    cloned: ClonedDatabase, tmp_path: Path
) -> None:
    database = Database(cloned.service_url, pool_size=1, pool_wait_s=0.3)
    with served(slow_app(database, tmp_path)) as url, begun(url, "/reads"):
        assert soon(lambda: database.connections_in_use() == 1)
        answer = httpx.get(f"{url}/cities")
        ready = httpx.get(f"{url}/readyz", timeout=5)
        alive = httpx.get(f"{url}/healthz")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_busy")
    assert answer.headers["retry-after"]
    assert (ready.status_code, list(ready.json()["checks"])) == (503, ["pool"])
    assert alive.status_code == 200
    database.close()


def test_a_statement_that_takes_too_long_is_told_as_busy(database: Database, tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path), database)

    @app.get("/too-long")
    def too_long(store: Store) -> Response:
        with store.transaction(read_only=True) as connection:
            connection.execute(text("SET LOCAL statement_timeout = 100"))
            connection.execute(text("SELECT pg_sleep(4)"))
        return Response("slept")

    with served(app) as url:
        answer = httpx.get(f"{url}/too-long")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
        503,
        "store_busy",
        "5",
    )


def test_health_is_told_though_all_threads_are_taken(cloned: ClonedDatabase, tmp_path: Path) -> None:
    database = Database(cloned.service_url, pool_size=2, pool_wait_s=3)
    with (
        served(slow_app(database, tmp_path, client_requests=200, requests_at_once=200)) as url,
        ThreadPoolExecutor(60) as many,
    ):
        asked = [many.submit(httpx.get, f"{url}/reads", timeout=30) for _ in range(60)]
        assert soon(lambda: database.connections_in_use() == 2)
        time.sleep(0.3)
        for path, status in (("/healthz", 200), ("/metrics", 200), ("/readyz", 503)):
            began = time.monotonic()
            assert httpx.get(f"{url}{path}").status_code == status
            assert time.monotonic() - began < 1.8, path
        statuses = [one.result().status_code for one in asked]
    assert set(statuses) == {200, 503}
    database.close()


def test_a_database_that_hangs_is_found_out_within_a_second_or_so(tmp_path: Path) -> None:
    # It takes the connection and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none")
        with served(create_app(Settings(home=tmp_path), database)) as url:
            for _ in range(3):
                began = time.monotonic()
                answer = httpx.get(f"{url}/readyz", timeout=10)
                assert time.monotonic() - began < 2.5
                assert (answer.status_code, list(answer.json()["checks"])) == (503, ["database"])
    database.close()


# --- who it is ----------------------------------------------------------------------------------------------

_TRUSTED = [ipaddress.ip_network("10.0.0.0/8")]


def client(peer: str, *headers: tuple[str, str]) -> str:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return client_of({"type": "http", "client": (peer, 1), "headers": raw}, _TRUSTED)


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        # What a client writes itself stands on the left, and counts for nothing.
        ("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        # A proxy on this machine speaks for others without being named.
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "", "127.0.0.1"),
    ],
)
def test_a_client_is_known_by_the_last_address_that_is_no_proxy_of_ours(
    peer: str, forwarded: str, found: str
) -> None:
    assert client(peer, ("X-Forwarded-For", forwarded)) == found


def test_a_line_that_the_client_wrote_does_not_hide_the_one_that_the_proxy_added() -> None:
    assert (
        client("10.0.0.1", ("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "198.51.100.1"))
        == "198.51.100.1"
    )


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ("for=198.51.100.1", "198.51.100.1"),
        ('for=1.2.3.4, For="198.51.100.1:80";proto=https;by=10.0.0.9', "198.51.100.1"),
        ('for="[2001:db8:1:2:3:4:5:6]:4711"', "2001:db8:1:2::"),
        ("for=_hidden", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_as_its_standard_has_it(forwarded: str, found: str) -> None:
    assert client("10.0.0.1", ("Forwarded", forwarded)) == found


def test_the_addresses_of_one_ipv6_subscriber_are_one_client() -> None:
    assert client("2001:db8:1:2::1") == client("2001:db8:1:2:ffff::9") != client("2001:db8:1:3::1")
