"""Downloads under way: how many, what they leave behind, and what happens when nobody waits any more."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Connection, text

from api.app import create_app
from api.settings import Settings
from inventory import feature_file_child
from inventory.store import feature_pages
from tests.api.conftest import MANY, Service
from tests.support.server import served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def slow(service: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A service of one download at once, whose child takes its time."""
    waiting = home / "waiting_child.py"
    waiting.write_text("import sys, time\nsys.stdin.buffer.read(10)\ntime.sleep(60)\n")
    monkeypatch.setattr("inventory.downloading._CHILD", (sys.executable, str(waiting)))
    settings = Settings(home=home, downloads_at_once=1)
    with (
        served(create_app(settings, service.database)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def begin(client: httpx.Client, path: str) -> socket.socket:
    """Sends a request and waits for nothing."""
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    caller = socket.create_connection((host, port))
    caller.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    return caller


def left_in(home: Path) -> list[Path]:
    folder = home / "cache" / "downloads"
    return list(folder.iterdir()) if folder.is_dir() else []


def soon(condition: object) -> bool:
    assert callable(condition)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_one_more_download_than_allowed_is_told_to_come_back(slow: httpx.Client, home: Path) -> None:
    path = "/cities/many/collections/assets/download"
    with begin(slow, f"{path}?f=gpkg"):
        assert soon(lambda: left_in(home))
        refused = slow.get(f"{path}?f=geojson")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "(1)" in refused.json()["what"]
        assert slow.get("/cities/many/collections/assets/items?limit=1").status_code == 200


def test_who_hangs_up_leaves_no_file_no_child_and_a_free_place(slow: httpx.Client, home: Path) -> None:
    path = "/cities/many/collections/assets/download"
    for _ in range(3):
        # A place is free a moment after its file is gone, or its last byte sent.
        time.sleep(0.3)
        with begin(slow, f"{path}?f=flatgeobuf"):
            assert soon(lambda: left_in(home))
        assert soon(lambda: not left_in(home))
    assert soon(lambda: slow.get(f"{path}?f=csv").status_code == 200)


def test_who_hangs_up_while_it_is_sent_frees_the_place_too(service: Service, home: Path) -> None:
    settings = Settings(home=home, downloads_at_once=1)
    with (
        served(create_app(settings, service.database)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for form in ("geojson", "gpkg", "csv", "geojsonseq", "parquet"):
            path = f"/cities/many/collections/assets/download?f={form}"
            with begin(client, path) as caller:
                caller.recv(64)
            assert soon(lambda path=path: client.get(path).status_code == 200), form
        assert left_in(home) == []


def test_a_file_that_cannot_be_written_is_a_problem_without_a_path(
    slow: httpx.Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = home / "failing_child.py"
    failing.write_text("import sys\nsys.exit(f'no space left: {sys.argv}')\n")
    monkeypatch.setattr("inventory.downloading._CHILD", (sys.executable, str(failing)))
    answer = slow.get("/cities/many/collections/assets/download?f=gpkg")

    assert answer.status_code == 503
    assert answer.json()["code"] == "store_error"
    assert str(home) not in answer.text
    assert left_in(home) == []


def test_what_a_killed_service_left_goes_with_the_next_download(service: Service, home: Path) -> None:
    left = home / "cache" / "downloads" / "left"
    left.mkdir(parents=True)
    (left / "assets.gpkg").write_bytes(b"half")
    with (
        served(create_app(Settings(home=home), service.database)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert client.get("/cities/few/collections/assets/download?f=gpkg").status_code == 200
    assert left_in(home) == []


def test_the_child_says_in_a_line_what_it_cannot_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", feature_file_child.__name__, "gpkg", str(tmp_path / "none" / "a.gpkg")]
    ended = subprocess.run(command, input=b"", capture_output=True, timeout=60)

    assert ended.returncode != 0


def test_what_is_streamed_is_not_held(service: Service) -> None:
    """Chunks of a download come one by one: the first is sent before the last is made."""
    path = "/cities/many/collections/assets/download?f=geojson"
    with service.client.stream("GET", path, headers={"Accept-Encoding": "identity"}) as answer:
        parts = [len(part) for part in answer.iter_raw()]

    assert len(parts) >= MANY // 1_000
    assert max(parts) < sum(parts) / 3


@pytest.mark.parametrize("form", ["geojson", "gpkg"])
def test_who_hangs_up_ends_the_query(
    service: Service, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    def sleeping(connection: Connection, *_: object) -> Iterator[tuple[int, ...]]:
        connection.execute(text("SELECT pg_sleep(60)"))
        yield ()

    monkeypatch.setattr(feature_pages, "rows_of", sleeping)
    settings = Settings(home=home, downloads_at_once=1)
    with (
        served(create_app(settings, service.database)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        path = f"/cities/many/collections/assets/download?f={form}"
        with begin(client, path):
            assert soon(lambda: sleepers(service) == 1)
        assert soon(lambda: sleepers(service) == 0)
        monkeypatch.undo()
        assert soon(lambda: client.get(path).status_code == 200)
    # Beside the line about each request nothing is logged: it is no failure.
    assert not [one for one in caplog.records if one.levelname != "INFO"]


def sleepers(service: Service) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    with service.database.transaction() as connection:
        return int(connection.execute(text(query)).scalar_one())


@pytest.mark.parametrize("form", ["geojson", "geojsonseq", "csv", "gpkg"])
def test_a_filter_that_cannot_be_read_is_refused_before_anything_is_sent(service: Service, form: str) -> None:
    answer = service.get(f"/cities/town/collections/surveys/download?taken_at=never&f={form}")
    assert (answer.status_code, answer.json()["code"]) == (400, "filter_invalid")
