"""What passes through the service, for those who run it: a line in the log and figures for each request.

A plain ASGI layer. The log has no query string, in which a caller's token may be, and no body. Figures are by route and
status alone: neither cities nor ids nor callers are in them, so that their number does not grow.
"""

import logging
import time
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pythonjsonlogger.json import JsonFormatter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCESS_LOG = logging.getLogger("urban_inventory.access")
_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Figures:
    """The figures of one service; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
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
        self.under_way = Gauge("requests_under_way", "Requests being answered.", (), name, registry=registry)
        self.waiting = Gauge("requests_waiting", "Requests in the line.", (), name, registry=registry)
        self.refused = Gauge(
            "requests_refused", "Requests refused for want of room.", ["status"], name, registry=registry
        )
        self.connections = Gauge(
            "database_connections", "Connections of the pool in use.", (), name, registry=registry
        )


class Watching:
    """The layer."""

    def __init__(self, app: ASGIApp, *, figures: Figures) -> None:
        self._app, self._figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = {"status": 500, "bytes": 0}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
            elif message["type"] == "http.response.body":
                seen["bytes"] += len(message.get("body", b""))
            await send(message)

        begun = time.perf_counter()
        self._figures.under_way.inc()
        try:
            await self._app(scope, receive, sending)
        finally:
            self._figures.under_way.dec()
            self._note(scope, seen["status"], seen["bytes"], time.perf_counter() - begun)

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        route = route_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._figures.requests.labels(method, route, str(status)).inc()
        self._figures.seconds.labels(route).observe(seconds)
        self._figures.sent.labels(route).inc(size)
        if ACCESS_LOG.isEnabledFor(logging.INFO):
            ACCESS_LOG.info(
                "%s %s %s", method, scope["path"][:200], status,
                extra=_said(scope, method, route, status, size, seconds),
            )  # fmt: skip


def route_of(scope: Scope) -> str:
    """The template of the route that answered; “none” for an unknown address."""
    return getattr(scope.get("route"), "path", None) or "none"


def _said(scope: Scope, method: str, route: str, status: int, size: int, seconds: float) -> dict[str, Any]:
    city = scope.get("path_params", {}).get("city")
    return {
        "trace": scope.get("state", {}).get("trace"),
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "bytes": size,
        **({} if city is None else {"city": str(city)[:64]}),
    }


def log_requests(stream: TextIO) -> None:
    """Writes a line of JSON for each request, and for all else that the service logs."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=_NAMES, timestamp=False)
    )
    service = logging.getLogger("urban_inventory")
    service.setLevel(logging.INFO)
    service.addHandler(handler)


_NAMES = {"asctime": "at", "levelname": "level", "name": "logger"}
