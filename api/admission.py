"""How many requests are answered at once: for each client, and for all together; the others wait in a line, briefly.

A plain ASGI layer. Who has too many under way is told so (429), and so is everybody where the service itself has no
room (503); both are told when to come again. Looks at the service's health pass by.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problem_answers import refusal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNQUEUED = frozenset({"/healthz", "/readyz", "/metrics"})
_LINE_FACTOR = 8
"""So many times as many as may be answered at once may wait."""


class NoRoom(Exception):
    """A request has to come again later: the client's own limit (429), or the service's (503)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(slots=True)
class _Line:
    """Places, and who waits for one."""

    places: int
    taken: int = 0
    waiting: int = 0
    freed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self) -> None:
        """Waits for a place."""
        if self.taken < self.places and not self.waiting:
            self.taken += 1
            return
        self.waiting += 1
        try:
            async with self.freed:
                await self.freed.wait_for(lambda: self.taken < self.places)
                self.taken += 1
        finally:
            self.waiting -= 1

    async def leave(self) -> None:
        """Gives the place to who waits next."""
        self.taken -= 1
        async with self.freed:
            self.freed.notify()


class Room:
    """The places of one service, and the lines before them.

    Args:
        each: requests of one client at once.
        all_together: requests of all clients at once.
        patience_s: longest wait.
        trusted: networks of proxies whose word about a client's address counts.
    """

    def __init__(
        self, *, each: int, all_together: int, patience_s: float, trusted: Sequence[Network] = ()
    ) -> None:
        self._each, self._patience_s, self._trusted = each, patience_s, tuple(trusted)
        self._whole = _Line(all_together)
        self._clients: dict[str, _Line] = {}
        self.refused = {429: 0, 503: 0}

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._whole.waiting + sum(line.waiting for line in self._clients.values())

    @asynccontextmanager
    async def place(self, scope: Scope) -> AsyncIterator[None]:
        """A place for a request, once there is one.

        Raises:
            NoRoom: there was none for too long, or too many wait already.
        """
        client = client_of(scope, self._trusted)
        line = self._clients.setdefault(client, _Line(self._each))
        try:
            await self._taken(line, 429)
            try:
                await self._taken(self._whole, 503)
                try:
                    yield
                finally:
                    await asyncio.shield(self._whole.leave())
            finally:
                await asyncio.shield(line.leave())
        finally:
            if not (line.taken or line.waiting) and self._clients.get(client) is line:
                del self._clients[client]

    async def _taken(self, line: _Line, status: int) -> None:
        try:
            if line.waiting >= _LINE_FACTOR * line.places:
                raise TimeoutError
            async with asyncio.timeout(self._patience_s):
                await line.take()
        except TimeoutError:
            self.refused[status] += 1
            raise NoRoom(status) from None


class Admission:
    """The layer."""

    def __init__(self, app: ASGIApp, *, room: Room) -> None:
        self._app, self._room = app, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNQUEUED:
            await self._app(scope, receive, send)
            return
        try:
            async with self._room.place(scope):
                await self._app(scope, receive, send)
        except NoRoom as full:
            await _answer(full.status, scope)(scope, receive, send)


def client_of(scope: Scope, trusted: Sequence[Network]) -> str:
    """Who asks: the peer's address or, where that is a trusted proxy, the last address before those that are."""
    peer = scope["client"][0] if scope.get("client") else "unknown"
    if not _is_trusted(peer, trusted):
        return peer
    named = Headers(scope=scope).get("x-forwarded-for", "")
    for address in reversed([part.strip() for part in named.split(",")[-20:]]):
        if address and not _is_trusted(address, trusted):
            return address[:64]
    return peer


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    with suppress(ValueError):
        known = ipaddress.ip_address(address)
        return any(known in network for network in trusted)
    return False


def _answer(status: int, scope: Scope) -> ASGIApp:
    trace = scope.get("state", {}).get("trace", "")
    if status == 429:
        return refusal(
            429,
            "too_many_requests",
            "too many requests of yours are under way",
            trace=trace,
            do="Wait for them.",
        )
    return refusal(503, "busy", "the service has no room just now", trace=trace, do="Try again in a moment.")
