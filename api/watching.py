"""What passes through the service, for those who run it: a line in the log and figures for each request.

A plain ASGI layer, the outermost. The log has no query string, in which a caller's token may be, and no body. Figures
are by route and status alone: neither cities nor ids nor callers are in them, so that their number does not grow.
"""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any, TextIO

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from pythonjsonlogger.json import JsonFormatter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.admission import Room
from api.hanging_up import caller_of
from api.settings import LogFormat
from api.version import program_version
from inventory.store.database import Database

ACCESS_LOG = logging.getLogger("urban_inventory.access")
GONE = 499
"""In log and figures: the caller hung up before anything was answered, as nginx writes it."""
_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LOGGERS = ("urban_inventory", "uvicorn")


# --- figures -----------------------------------------------------------------------------------------------


FIGURES_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where this variable names a folder, the processes of a service write their figures there (``api/workers.py``)."""


class Figures:
    """The figures of one service; each has a registry of its own."""

    def __init__(self, room: Room, database: Database) -> None:
        self._room, self._database = room, database
        self._registry = registry = CollectorRegistry()
        name = "urban_inventory"
        self.requests = Counter(
            "requests", "Requests answered.", ["method", "route", "status"], name, registry=registry
        )
        self.seconds = Histogram(
            "request_seconds",
            "From a request to the end of its answer.",
            ["route"],
            name,
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self.sent = Counter("sent_bytes", "Bytes of bodies sent.", ["route"], name, registry=registry)
        self._refused = Counter(
            "requests_refused", "Requests refused for want of room.", ["status"], name, registry=registry
        )
        self._refusals_noted = dict.fromkeys(room.refused, 0)
        for status in room.refused:
            self._refused.labels(str(status))
        held = {
            said: Gauge(said, told, (), name, registry=registry, multiprocess_mode="livesum")
            for said, told in _HELD.items()
        }
        self.under_way = held["requests_under_way"]
        self._held = held
        self._noted: dict[str, int] = {}
        held["database_pool_size"].set(database.pool_size)
        build = Gauge(
            "build_info", "The program.", ["version"], name, registry=registry, multiprocess_mode="max"
        )
        build.labels(program_version()).set(1)
        ProcessCollector(registry=registry)
        self.note_held()

    def note_held(self) -> None:
        """Notes what is held and waited for now: at each request, since other processes cannot ask."""
        now = {
            "requests_placed": self._room.taken,
            "requests_waiting": self._room.waiting,
            "database_connections": self._database.connections_in_use(),
        }
        for name, value in now.items():
            # Writing one for other processes to read takes longer than all else here.
            if value != self._noted.get(name):
                self._held[name].set(value)
        self._noted = now
        for status, number in self._room.refused.items():
            if number > self._refusals_noted[status]:
                self._refused.labels(str(status)).inc(number - self._refusals_noted[status])
                self._refusals_noted[status] = number

    def written(self) -> bytes:
        """All of them as Prometheus reads them; of all processes, where there are several."""
        self.note_held()
        if FIGURES_FOLDER not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


_HELD = {
    "requests_under_way": "Requests being answered.",
    "requests_placed": "Requests that have a place.",
    "requests_waiting": "Requests in the line for a place.",
    "database_connections": "Connections of the pool in use.",
    "database_pool_size": "Connections that the pool may have.",
}


# --- the layer ---------------------------------------------------------------------------------------------


class Watching:
    """The layer."""

    def __init__(self, app: ASGIApp, *, figures: Figures) -> None:
        self._app, self._figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Made here, so that what layers within write into it is seen here.
        scope.setdefault("state", {})
        sent = _Sent(send)
        begun = time.perf_counter()
        self._figures.under_way.inc()
        self._figures.note_held()
        try:
            await self._app(scope, receive, sent)
        finally:
            self._figures.under_way.dec()
            self._figures.note_held()
            self._note(scope, sent, time.perf_counter() - begun)

    def _note(self, scope: Scope, sent: "_Sent", seconds: float) -> None:
        answered = scope["state"].get("answered", scope)
        route = route_of(answered)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        caller = caller_of(scope)
        is_cut = not sent.is_whole
        status = sent.status or (GONE if caller is not None and caller.is_gone else 500)
        self._figures.requests.labels(method, route, str(status)).inc()
        self._figures.seconds.labels(route).observe(seconds)
        self._figures.sent.labels(route).inc(sent.size)
        if ACCESS_LOG.isEnabledFor(logging.INFO):
            city = answered.get("path_params", {}).get("city")
            said = {
                "trace": scope["state"].get("trace"),
                "method": method,
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 1),
                "bytes": sent.size,
                **({} if city is None else {"city": str(city)[:64]}),
                **({"cut": True} if is_cut else {}),
            }
            ACCESS_LOG.info(
                "%s %s %s %.1f ms %d B%s", method, as_line(scope["path"]), status, seconds * 1000, sent.size,
                " cut" if is_cut else "", extra=said,
            )  # fmt: skip


class _Sent:
    """The ``send`` that remembers what went through."""

    def __init__(self, send: Send) -> None:
        self.status = self.size = 0
        self.is_whole = False
        """Whether the answer came to its end: else the caller hung up, or it broke."""
        self._send = send
        self._promised = -1

    async def __call__(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._promised = int(Headers(raw=message["headers"]).get("content-length", "-1"))
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
            # Who has all that was promised may be gone before we say that nothing follows.
            self.is_whole = not message.get("more_body", False) or self.size == self._promised


def route_of(scope: Mapping[str, Any]) -> str:
    """The template of the route that answered; “none” for an unknown address."""
    return getattr(scope.get("route"), "path", None) or "none"


# --- the log ------------------------------------------------------------------------------------------------


def as_line(path: str) -> str:
    """An address as it may stand in a line: nobody adds lines of their own by what they ask for."""
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in path[:200])


def log_requests(stream: TextIO, form: LogFormat) -> None:
    """Writes a line for each request, and all else that service and server log."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_json() if form is LogFormat.JSON else _Text())
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("urban_inventory").setLevel(logging.INFO)


def _json() -> logging.Formatter:
    return JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "at", "levelname": "level", "name": "logger"},
        datefmt=_INSTANT,
        timestamp=False,
        json_ensure_ascii=False,
    )


class _Text(logging.Formatter):
    """A line for people; that of a request ends with its number, by which a caller names it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", _INSTANT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        trace = getattr(record, "trace", None)
        return f"{line} [{trace}]" if trace and record.name == ACCESS_LOG.name else line


_INSTANT = "%Y-%m-%dT%H:%M:%S%z"
