"""What holds for every answer, whatever made it: headers, hosts, HEAD, OPTIONS, CORS, the last resort.

One plain ASGI layer around the application, so that answers to errors and unknown addresses pass it too.
"""

import logging
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problem_answers import host_refused, last_resort, nothing_here, unreadable_address
from api.settings import LOOPBACK_NAMES
from api.watching import as_line

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(self), camera=(), microphone=()",
    "X-Frame-Options": "DENY",
}
_VARY = "Accept, Accept-Encoding, Authorization, Cookie, Origin"
# The map's worker is a file of ours, so no blob: is needed; MapLibre makes images from data and blob URLs.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self';"
    " connect-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self';"
    " object-src 'none'"
)
_TAKEN = "Accept, Content-Type, Content-Crs, If-Match, If-None-Match, Prefer, X-Request-Id"
_DATA_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_EXPOSED = (
    "Content-Crs, Content-Disposition, Link, Location, ETag, OGC-NumberMatched, OGC-NumberReturned, Retry-After,"
    " X-Request-Id, X-Trace-Id"
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
"""A caller's own number for a request, which then is ours too: in the log, and in what a refusal says."""
_LOG = logging.getLogger("urban_inventory")


class Perimeter:
    """The outermost layer.

    Args:
        public_url: the configured address; None where the service is reached by loopback names only.
        open_to_all: whether a path may be read from any web page (CORS without credentials).
        hidden: whether a request is answered, but not offered by ``Allow``.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Callable[[], Iterable[BaseRoute]],
        public_url: str | None,
        open_to_all: Callable[[str], bool],
        hidden: Callable[[Scope], bool] | None = None,
    ) -> None:
        self._app = app
        self._routes = routes
        self._public_host = _names_of(public_url) if public_url else None
        self._open_to_all = open_to_all
        self._hidden = hidden

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(self, scope, send)
        try:
            await self._answer(scope, receive, answer)
        except Exception:
            # The last resort: whatever a handler did not foresee is logged whole, and told to nobody.
            _LOG.exception(
                "trace %s: %s failed",
                answer.trace,
                as_line(scope.get("path", "")),
                extra={"trace": answer.trace},
            )
            if answer.started:
                raise
            await last_resort(answer.trace)(scope, receive, answer)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        scope.setdefault("state", {})["trace"] = answer.trace
        if Headers(scope=scope).get("accept-encoding", "").strip() == "*":
            # Who says so means “whatever”, and often cannot read what we would choose.
            kept = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
            scope = {**scope, "headers": kept}
        method = scope["method"]
        if not self._is_our_host(Headers(scope=scope).get("host", "")):
            await host_refused(answer.trace)(scope, receive, answer)
        elif not scope["path"].isprintable() and any(
            unicodedata.category(one) == "Cc" for one in scope["path"]
        ):
            # No name of ours has any; patterns of routes stop at a line feed, the database's text at a NUL.
            await unreadable_address(answer.trace)(scope, receive, answer)
        elif method == "OPTIONS":
            await self._options(scope)(scope, receive, answer)
        else:
            if method == "HEAD":
                # As GET, without the body, on every route; routes with a long body need not make it.
                scope["state"]["head_only"] = True
                scope = {**scope, "method": "GET"}
            # The layers without see which route answered.
            scope["state"]["answered"] = scope
            await self._app(scope, receive, answer)

    def _is_our_host(self, host: str) -> bool:
        host = host.lower()
        if self._public_host is not None and host in self._public_host:
            return True
        try:
            parts = urlsplit(f"//{host}")
            return parts.hostname in LOOPBACK_NAMES and "@" not in host and (parts.port or 0) >= 0
        except ValueError:
            return False

    def _options(self, scope: Scope) -> Response:
        allowed = self.allowed(scope)
        if not allowed:
            return nothing_here(scope["state"]["trace"])
        return Response(status_code=204, headers={"Allow": ", ".join(allowed)})

    def allowed(self, scope: Scope) -> list[str]:
        """The methods that the address answers, truly; none for an unknown address."""
        found = [method for method in _METHODS if self._is_routed({**scope, "method": method})]
        if "GET" in found:
            found.insert(1, "HEAD")
        return [*found, "OPTIONS"] if found else []

    def _is_routed(self, scope: Scope) -> bool:
        if self._hidden is not None and self._hidden(scope):
            return False
        return any(route.matches(scope)[0] is Match.FULL for route in self._routes())

    def dress(self, scope: Scope, headers: MutableHeaders, trace: str, status: int) -> None:
        """Adds to an answer's headers what its kind must carry."""
        for name, value in _COMMON.items():
            headers.setdefault(name, value)
        is_page = headers.get("content-type", "").startswith("text/html")
        headers.setdefault("Content-Security-Policy", _PAGE_POLICY if is_page else _DATA_POLICY)
        if is_page:
            headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        tag = scope.get("state", {}).get("etag")
        if tag is not None and status in (200, 304):
            headers.setdefault("ETag", tag)
            # Kept, and asked about each time: whoever writes gives the city another tag.
            headers.setdefault("Cache-Control", "private, no-cache")
        headers.setdefault("Cache-Control", "private, no-store")
        headers["Vary"] = _VARY
        headers["X-Trace-Id"] = trace
        headers["X-Request-Id"] = trace
        if status == 405:
            headers["Allow"] = ", ".join(self.allowed(scope))
        if self._open_to_all(scope["path"]):
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            headers["Access-Control-Allow-Origin"] = "*"
            headers["Access-Control-Expose-Headers"] = _EXPOSED
            if scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope):
                headers["Access-Control-Allow-Methods"] = headers.get("allow", "")
                headers["Access-Control-Allow-Headers"] = _TAKEN
                headers["Access-Control-Max-Age"] = "600"


def _names_of(public_url: str) -> frozenset[str]:
    """How the configured host may be named: proxies add the usual port, some callers the root's dot."""
    at = urlsplit(public_url)
    name, usual = at.hostname or "", {"https": 443, "http": 80}.get(at.scheme)
    names = {at.netloc.lower()}
    if at.port is None or at.port == usual:
        names |= {f"{one}{port}" for one in (name, f"{name}.") for port in ("", f":{usual}")}
    return frozenset(names)


class _Answer:
    """The ``send`` that dresses an answer on its way out."""

    def __init__(self, perimeter: Perimeter, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.trace = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.started = False
        self._perimeter = perimeter
        self._scope = scope
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            self._perimeter.dress(self._scope, headers, self.trace, message["status"])
        elif message["type"] == "http.response.body" and self._scope["method"] == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)
