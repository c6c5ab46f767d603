"""Behind a real proxy with TLS, under a prefix: ``deploy/nginx.conf`` as it is shipped, but for names and ports."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from tests.api.conftest import Service
from tests.support.server import served

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
NGINX, OPENSSL = shutil.which("nginx", path=_PLACES), shutil.which("openssl")
needs_nginx = pytest.mark.skipif(
    NGINX is None or OPENSSL is None,
    reason="nginx or openssl is not installed: apt-get install nginx openssl",
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def configured(folder: Path, *, port: int, upstream: str) -> Path:
    """The shipped server, in a configuration that needs no rights and leaves nothing behind."""
    shipped = CONFIGURATION.read_text()
    ours = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server_name trees.example.org;": "server_name localhost;",
        "/etc/ssl/certs/trees.example.org.pem": str(folder / "certificate.pem"),
        "/etc/ssl/private/trees.example.org.key": str(folder / "key.pem"),
        "http://127.0.0.1:8000/": f"{upstream}/",
    }
    for theirs, here in ours.items():
        assert shipped.count(theirs) == 1, theirs
        shipped = shipped.replace(theirs, here)
    kept = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;"
        f" events {{}} http {{ access_log off; {kept}\n{shipped} }}"
    )
    return file


@pytest.fixture
def proxied(service: Service, tmp_path: Path) -> Iterator[httpx.Client]:
    port = free_port()
    public = f"https://localhost:{port}/inventory"
    subprocess.run(
        [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out",
         tmp_path / "certificate.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    settings = Settings(home=tmp_path, public_url=public)
    with served(create_app(settings, service.database)) as upstream:
        file = configured(tmp_path, port=port, upstream=upstream)
        command = [str(NGINX), "-c", str(file), "-p", str(tmp_path), "-e", str(tmp_path / "error.log")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as proxy:
            try:
                _wait_for(port, proxy)
                trusted = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
                with httpx.Client(base_url=public, verify=trusted, timeout=30) as client:
                    yield client
            finally:
                proxy.terminate()


def _wait_for(port: int, proxy: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if proxy.poll() is not None:
            raise RuntimeError(f"nginx ended: {proxy.stderr and proxy.stderr.read()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("nginx does not listen")


def addresses(document: Any) -> Iterator[str]:
    """Every address in a JSON document, however deep."""
    if isinstance(document, dict):
        yield from (
            document[key] for key in ("href", "attribution") if str(document.get(key)).startswith("http")
        )
        yield from (tile for tile in document.get("tiles", []) if isinstance(tile, str))
        for value in document.values():
            yield from addresses(value)
    elif isinstance(document, list):
        for value in document:
            yield from addresses(value)


def on_page(text: str) -> list[str]:
    return [unescape(one) for one in re.findall(r'(?:href|src|data-\w+)="((?:https?:)?/[^"]*)"', text)]


@needs_nginx
def test_every_address_of_every_document_leads_back_through_the_proxy(proxied: httpx.Client) -> None:
    public = str(proxied.base_url).rstrip("/")
    todo, seen, types = [f"{public}/", f"{public}/cities/town/api"], set(), set()
    while todo and len(seen) < 150:
        address = todo.pop(0)
        # Addresses in descriptions of the API are examples.
        if address in seen or "{" in address or address.endswith(("/source", "/openapi.json")):
            continue
        seen.add(address)
        answer = proxied.get(address)
        assert answer.status_code in (200, 204), address
        kind = answer.headers.get("content-type", "").partition(";")[0]
        types.add(kind)
        found = (
            list(addresses(answer.json()))
            if kind.endswith("json")
            else on_page(answer.text)
            if "html" in kind
            else []
        )
        for each in found:
            if "opengis.net" not in each:
                assert each.startswith(f"{public}/"), (address, each)
        todo += found
    assert len(seen) > 60
    assert {"application/json", "application/geo+json", "text/html", "text/css"} <= types


@needs_nginx
def test_the_proxys_number_of_a_request_is_ours_and_figures_stay_inside(proxied: httpx.Client) -> None:
    answer = proxied.get("/cities/nowhere", headers={"Accept": "application/json"})
    assert re.fullmatch("[0-9a-f]{32}", answer.json()["trace"])
    assert proxied.get("/metrics").status_code == 404
    assert proxied.get("/healthz").status_code == 200


@needs_nginx
def test_answers_keep_their_encoding_and_tags_through_the_proxy(proxied: httpx.Client) -> None:
    path = "/cities/many/collections/assets/items?limit=1000"
    first = proxied.get(path, headers={"Accept-Encoding": "zstd, br, gzip"})
    assert first.headers["content-encoding"] == "zstd"
    assert proxied.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
