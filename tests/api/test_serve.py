"""The command ``serve``: where it listens, what it refuses, how it ends."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from api.cli.app import run
from api.cli.serve import listening_socket
from api.limited_head import LIMIT_BYTES
from inventory.errors import ConfigurationError
from tests.support.database import ClonedDatabase

PROGRAM = [sys.executable, "-c", "from api.cli.app import main; main()"]


@pytest.fixture
def installation(cloned: ClonedDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(tmp_path))
    monkeypatch.setenv("URBAN_INVENTORY_DATABASE_URL", cloned.service_url)


def test_a_port_that_is_taken_is_refused_with_another_way() -> None:
    with listening_socket("127.0.0.1", 0) as taken, pytest.raises(ConfigurationError) as refused:
        listening_socket("127.0.0.1", taken.getsockname()[1])

    assert "--port" in str(refused.value)


def test_answers_are_sent_at_once_and_wait_for_no_acknowledgement() -> None:
    # asyncio turns Nagle's algorithm off for sockets that say they are TCP, and for no others.
    with listening_socket("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_beyond_loopback_a_public_url_is_required(
    installation: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--host", "0.0.0.0"]) == 78
    assert "--public-url" in capsys.readouterr().err


def test_a_public_url_that_is_none_is_refused(installation: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--public-url", "not an address"]) == 78
    assert "--public-url" in capsys.readouterr().err


def test_it_prints_its_address_answers_and_ends_with_ctrl_c(installation: None) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split(" ")[0]
        assert httpx.get(address).json()["cities"] == []
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 130
    assert "Traceback" not in complaints


@contextmanager
def serving(workers: int) -> Iterator[tuple[str, psutil.Process]]:
    with subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "URBAN_INVENTORY_WORKERS": str(workers)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split(" ")[0], psutil.Process(process.pid)
        finally:
            process.kill()


def workers_of(supervisor: psutil.Process) -> list[psutil.Process]:
    return [one for one in supervisor.children() if is_there(one) and "spawn_main" in " ".join(one.cmdline())]


def is_there(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def sums(address: str) -> dict[str, float]:
    lines = [line for line in httpx.get(f"{address}metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_several_processes_answer_as_one_and_tell_their_figures_together(installation: None) -> None:
    with serving(workers=2) as (address, supervisor):
        until(lambda: len(workers_of(supervisor)) == 2)
        # Each on a connection of its own, so that either may take it.
        for _ in range(40):
            assert httpx.get(f"{address}cities").status_code == 200
        told = sums(address)
        assert told['urban_inventory_requests_total{method="GET",route="/cities",status="200"}'] == 40
        # Eight connections are shared, not held twice.
        assert told["urban_inventory_database_pool_size"] == 8
        assert not any("pid=" in name for name in told)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(timeout=30) == 0


def test_a_process_that_dies_is_replaced_and_none_outlives_the_program(installation: None) -> None:
    with serving(workers=2) as (address, supervisor):
        until(lambda: len(workers_of(supervisor)) == 2)
        assert httpx.get(f"{address}cities").status_code == 200
        lost = workers_of(supervisor)[0]
        lost.kill()
        until(lambda: len([one for one in workers_of(supervisor) if one.pid != lost.pid]) == 2)
        assert httpx.get(f"{address}cities", timeout=30).status_code == 200
        left = workers_of(supervisor)
        supervisor.kill()
        until(lambda: not any(map(is_there, left)))


def test_a_process_that_dies_while_it_starts_is_replaced_as_soon(installation: None) -> None:
    with serving(workers=2) as (address, supervisor):
        # Not yet able to answer its supervisor, which asks the first of them first.
        until(lambda: len(workers_of(supervisor)) == 2)
        lost = workers_of(supervisor)[0]
        time.sleep(0.7)
        lost.kill()
        until(lambda: len([one for one in workers_of(supervisor) if one.pid != lost.pid]) == 2)
        assert httpx.get(f"{address}cities", timeout=30).status_code == 200


def test_a_head_without_end_is_refused_and_one_that_comes_bit_by_bit_is_not(installation: None) -> None:
    with serving(workers=1) as (address, _):
        port = httpx.URL(address).port or 0
        with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
            for part in ("GET /cities HT", "TP/1.1\r\nHo", "st: localhost\r", "\nConnection: close\r\n\r\n"):
                slow.sendall(part.encode())
                time.sleep(0.1)
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as endless:
            endless.sendall(b"GET /cities HTTP/1.1\r\nHost: localhost\r\n")
            sent = 0
            try:
                while not select.select([endless], [], [], 0)[0]:
                    endless.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
                    sent += 1010
                    assert sent < 10 * LIMIT_BYTES
                    time.sleep(0.01)
                assert endless.recv(100).startswith(b"HTTP/1.1 400")
            except ConnectionError:
                # Closed with more of it under way.
                pass


@pytest.mark.parametrize("form", ["text", "json"])
def test_it_says_on_stderr_what_it_answered(
    installation: None, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("URBAN_INVENTORY_LOG_FORMAT", form)
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split(" ")[0]
        httpx.get(f"{address}cities?token=secret", headers={"X-Request-Id": "a-known-number"})
        with socket.create_connection(("127.0.0.1", httpx.URL(address).port or 0)) as broken:
            # What the server itself complains of is a line of the same kind.
            broken.sendall(b"no request at all\r\n\r\n")
            broken.recv(100)
        process.send_signal(signal.SIGINT)
        _, lines = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()

    assert "a-known-number" in lines
    assert "secret" not in lines
    if form == "json":
        said = [json.loads(line) for line in lines.splitlines() if line]
        assert {"urban_inventory.access", "uvicorn.error"} <= {one["logger"] for one in said}
    else:
        assert re.search(r"(?m)^\S+ GET /cities 200 \d+\.\d ms \d+ B \[a-known-number\]$", lines)
