"""``serve``: the HTTP service and its pages."""

import os
import socket
import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from api.cli import output
from api.settings import LOOPBACK_NAMES, Settings, read_settings
from inventory.errors import ConfigurationError
from inventory.packing import kept_packed
from inventory.store.database import Database, open_database
from inventory.store.features import city_names

# A slow caller may hold a connection so long; what runs when the program is told to stop gets as long.
_IDLE_S = 30
_MOST_WORKERS = 4
_CONCURRENT = 2_000
"""Connections: what is answered at once, and who waits, is for the settings to say (``api/admission.py``)."""


def register(app: typer.Typer) -> None:
    """Adds ``serve`` to the program."""
    app.command("serve")(serve)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 without it.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 8000 without it.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Address under which users reach the service; needed beyond loopback.")
    ] = None,
    allow_unauthenticated_writes: Annotated[
        bool,
        typer.Option(
            "--allow-unauthenticated-writes", help="Anybody on this machine may write; on loopback alone."
        ),
    ] = False,
) -> None:
    """Serve the cities’ pages and their OGC API until Ctrl-C."""
    settings = serving_settings(host, port, public_url, allow_unauthenticated_writes or None)
    with (
        listening_socket(settings.host, settings.port) as listener,
        open_database(
            settings.home,
            database_url=settings.database_url,
            pool_size=settings.pool_size,
            keep_running=True,
        ) as database,
        kept_packed(database),
    ):
        serve_on(listener, settings, database)


def serve_on(listener: socket.socket, settings: Settings, database: Database) -> None:
    """Serves on a socket that listens already, until the program is told to stop."""
    # Here, not above: the web framework takes a second to import, which no other command should wait for.
    import uvicorn

    from api import workers
    from api.app import create_app
    from api.limited_head import LimitedHead
    from api.watching import log_requests

    log_requests(sys.stderr, settings.log_format)
    output.results.print(_addresses(listener, settings, database), markup=False)
    options: dict[str, Any] = {
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "http": LimitedHead,
        "limit_concurrency": _CONCURRENT,
        "timeout_keep_alive": _IDLE_S,
        "timeout_graceful_shutdown": _IDLE_S,
    }
    processes = settings.workers or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
    if processes > 1:
        workers.serve(listener, settings, database, workers=processes, **options)
    else:
        uvicorn.Server(uvicorn.Config(create_app(settings, database), **options)).run(sockets=[listener])


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one.

    Raises:
        ConfigurationError: the port is taken, or not ours to take; or the host is no address here.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Named as TCP, or asyncio leaves Nagle's algorithm on: with clients that delay what they acknowledge every
        # answer on a kept connection would then take 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen there: {error.strerror or error}",
            where=f"{host}:{port}",
            do="Choose another port with --port, or stop the program that has it.",
        ) from error
    return listener


def serving_settings(
    host: str | None, port: int | None, public_url: str | None, writes: bool | None = None
) -> Settings:
    """The installation's settings with what the command line says of the service.

    Raises:
        ConfigurationError: beyond loopback without a public address, or an address that is none.
    """
    given = {
        "host": host,
        "port": port,
        "public_url": public_url,
        "allow_unauthenticated_writes": writes,
    }
    found = read_settings()
    try:
        settings = Settings(**{**found.model_dump(), **{k: v for k, v in given.items() if v is not None}})
    except ValidationError as error:
        raise ConfigurationError(f"--public-url: {error.errors()[0]['msg']}") from error
    if settings.host not in LOOPBACK_NAMES and settings.public_url is None:
        raise ConfigurationError(
            "beyond loopback the service must know its public address",
            where=f"--host {settings.host}",
            do="Add --public-url https://…, the address of the proxy that users open.",
        )
    if settings.allow_unauthenticated_writes and (
        settings.host not in LOOPBACK_NAMES or settings.public_url is not None
    ):
        raise ConfigurationError(
            "writes without accounts are for this machine alone",
            where=f"--host {settings.host}" if settings.public_url is None else "--public-url",
            do="Leave --allow-unauthenticated-writes out, or serve on 127.0.0.1 without a public address.",
        )
    return settings


def _addresses(listener: socket.socket, settings: Settings, database: Database) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    base = str(settings.public_url).rstrip("/") if settings.public_url else f"http://{shown}:{port}"
    with database.transaction(read_only=True) as connection:
        cities = city_names(connection)
    lines = [f"{name}: {base}/cities/{code}/" for code, name in cities]
    return "\n".join(lines or [f"{base}/ (no city yet: urban-inventory city add …)"])
