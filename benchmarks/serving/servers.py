"""Our service and its peers as processes that listen on loopback, and a load of many connections."""

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import numpy as np
import psutil

from benchmarks.peers import peers_python
from benchmarks.serving.rival import SCHEMA, TABLE

_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a load brought."""

    per_s: float
    median_ms: float
    p99_ms: float
    bytes_most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: its address and process."""

    url: str
    process: psutil.Process

    def resident_bytes(self) -> int:
        """Memory of all its processes together; what they share is counted in each."""
        return sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)])


def load(url: str, paths: Sequence[str], *, connections: int, seconds: float | None = None) -> Served:
    """Asks for the paths over so many connections: again and again for some seconds, or (None) each once."""
    address = urlsplit(url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    turn, position = threading.Lock(), 0
    taken: list[float] = []
    sizes: list[int] = []
    failed: list[str] = []
    deadline = None if seconds is None else time.perf_counter() + seconds

    def next_path() -> str | None:
        nonlocal position
        with turn:
            if failed or (position >= len(paths) if deadline is None else time.perf_counter() >= deadline):
                return None
            position += 1
            return paths[(position - 1) % len(paths)]

    def ask() -> None:
        connection = http.client.HTTPConnection(host, port, timeout=300)
        while path := next_path():
            begun = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            size = len(answer.read())
            if answer.status not in (200, 204):
                failed.append(f"{answer.status} {path}")
            taken.append(time.perf_counter() - begun)
            sizes.append(size)
        connection.close()

    begun = time.perf_counter()
    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(f"{url}: {failed[0]}")
    milliseconds = 1000 * np.array(taken)
    return Served(
        per_s=len(taken) / (time.perf_counter() - begun),
        median_ms=float(np.median(milliseconds)),
        p99_ms=float(np.quantile(milliseconds, 0.99)),
        bytes_most=max(sizes),
    )


@contextmanager
def ours(home: Path) -> Iterator[Server]:
    """``urban-inventory serve`` over a home."""
    command = [sys.executable, "-c", "from api.cli.app import main; main()", "serve", "--port"]
    environment = {**os.environ, "URBAN_INVENTORY_HOME": str(home)}
    # Its log has a line for each request.
    with _started(command, environment, "{port}", "/cities", quiet=True) as server:
        yield server


@contextmanager
def tipg(database_url: str, workers: int) -> Iterator[Server]:
    """tipg over the rival's table, without the caches of its own that would answer for it."""
    environment = {
        **os.environ,
        "DATABASE_URL": _with_host_in_place(database_url),
        "TIPG_DB_SCHEMAS": f'["{SCHEMA}"]',
        "TIPG_MAX_FEATURES_PER_TILE": "10000",
    }
    command = [str(peers_python("servers")), "-m", "uvicorn", "tipg.main:app", "--log-level", "warning"]
    command += ["--workers", str(workers), "--port"]
    with _started(command, environment, "{port}", f"/collections/{SCHEMA}.{TABLE}") as server:
        yield server


def _with_host_in_place(database_url: str) -> str:
    """The address with the socket's folder as its host, percent-encoded, which is where tipg looks."""
    at = urlsplit(database_url)
    asked = dict(parse_qsl(at.query))
    host = quote(asked["host"], safe="") if "host" in asked else at.hostname
    port = asked.get("port", at.port or 5432)
    return f"postgresql://{at.username}@{host}:{port}{at.path}"


_PYGEOAPI = """
server: {{bind: {{host: 127.0.0.1, port: {port}}}, url: "http://127.0.0.1:{port}", mimetype: application/json,
  encoding: utf-8, gzip: false, languages: [en-US], limits: {{default_items: 1000, max_items: 10000}},
  map: {{url: "x", attribution: "x"}}}}
logging: {{level: ERROR}}
metadata:
  identification: {{title: t, description: d, keywords: [k], keywords_type: theme, terms_of_service: x, url: x}}
  license: {{name: x, url: x}}
  provider: {{name: x, url: x}}
  contact: {{name: x, email: x, url: x}}
resources:
  trees:
    type: collection
    title: t
    description: d
    keywords: [k]
    extents: {{spatial: {{bbox: [-180, -90, 180, 90], crs: "http://www.opengis.net/def/crs/OGC/1.3/CRS84"}}}}
    providers:
      - type: feature
        name: PostgreSQL
        data:
          {{host: "{host}", port: {database_port}, dbname: "{dbname}", user: "{user}", password: "",
          search_path: [{schema}]}}
        id_field: id
        table: {table}
        geom_field: geom
        count: false
"""


@contextmanager
def pygeoapi(database_url: str, workers: int) -> Iterator[Server]:
    """pygeoapi over the rival's table, under gunicorn."""
    python = peers_python("servers")
    at = urlsplit(database_url)
    asked = dict(parse_qsl(at.query))
    with tempfile.TemporaryDirectory(prefix="ui-pygeoapi-") as folder:
        config, described = Path(folder) / "config.yml", Path(folder) / "openapi.yml"
        port = _free_port()
        config.write_text(
            _PYGEOAPI.format(
                port=port,
                host=asked.get("host", at.hostname),
                database_port=asked.get("port", at.port or 5432),
                dbname=at.path.lstrip("/"),
                user=at.username,
                schema=SCHEMA,
                table=TABLE,
            )
        )
        environment = {**os.environ, "PYGEOAPI_CONFIG": str(config), "PYGEOAPI_OPENAPI": str(described)}
        make = [
            str(python.with_name("pygeoapi")),
            "openapi",
            "generate",
            str(config),
            "--output-file",
            str(described),
        ]
        subprocess.run(make, check=True, env=environment, stdout=subprocess.DEVNULL)
        command = [
            str(python),
            "-m",
            "gunicorn",
            "--workers",
            str(workers),
            "pygeoapi.flask_app:APP",
            "--bind",
        ]
        with _started(command, environment, "127.0.0.1:{port}", "/collections/trees", port=port) as server:
            yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _started(
    command: list[str], environment: dict[str, str], bind: str, ready: str, *,
    port: int | None = None, quiet: bool = False,
) -> Iterator[Server]:  # fmt: skip
    """A process that serves on a free port, once it answers; ended with all its children."""
    port = port or _free_port()
    process = subprocess.Popen(
        [*command, bind.format(port=port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        stdin=subprocess.DEVNULL,
    )
    watched = psutil.Process(process.pid)
    try:
        _wait_for(process, port, ready)
        yield Server(url=f"http://127.0.0.1:{port}", process=watched)
    finally:
        children = watched.children(recursive=True) if watched.is_running() else []
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()


def _wait_for(process: "subprocess.Popen[bytes]", port: int, path: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}: {process.args}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"a server did not answer within {_START_S:g} s: {process.args}")
