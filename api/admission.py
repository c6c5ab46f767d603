"""How many requests are answered at once: for each client, and for all together; the others wait in a line, briefly.

A plain ASGI layer. Who has too many under way is told so (429), and so is everybody where the service itself has no
room (503); both are told when to come again. Looks at the service's health pass by.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from api.callers import Network, client_of
from api.hanging_up import caller_of
from api.problem_answers import refusal

UNQUEUED = frozenset({"/healthz", "/readyz", "/metrics"})
_LINE_FACTOR = 8
"""So many times as many as may be answered at once may wait."""


class NoRoom(Exception):
    """A request has to come again later: the client's own limit (429), or the service's (503)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Line:
    """Places, and who waits for one, in their order.

    A place that gets free goes straight to who waits longest: nobody can come in between, and none is lost when its
    new owner gives up at that moment. All of it happens in one event loop, and nothing here waits but ``take``.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take_now(self) -> bool:
        """Takes a place if there is one: then nobody waits either."""
        if self.taken >= self.places:
            return False
        self.taken += 1
        return True

    async def take(self, within_s: float) -> None:
        """Waits for a place.

        Raises:
            TimeoutError: there was none for too long, or too many wait already.
        """
        if len(self._waiting) >= _LINE_FACTOR * self.places:
            raise TimeoutError
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(within_s):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                # It was ours already when we gave up.
                self.leave()
            else:
                with suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Gives the place to who waits next, else back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1


class Room:
    """The places of one service, and the lines before them.

    Args:
        each: requests of one client at once.
        all_together: requests of all clients at once.
        patience_s: longest wait.
        trusted: networks of proxies whose word about a client's address counts; this machine's own always does.
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

    @property
    def taken(self) -> int:
        """How many requests have a place."""
        return self._whole.taken

    @asynccontextmanager
    async def place(self, scope: Scope) -> AsyncIterator[None]:
        """A place for a request, once there is one.

        Raises:
            NoRoom: there was none for too long, or too many wait already.
            CallerGone: whoever asked hung up while they waited.
        """
        client = client_of(scope, self._trusted)
        line = self._clients.setdefault(client, _Line(self._each))
        deadline = asyncio.get_running_loop().time() + self._patience_s
        try:
            # Always in this order, so that who waits for the service's holds nothing but their own.
            await self._taken(line, 429, deadline, scope)
            try:
                await self._taken(self._whole, 503, deadline, scope)
                try:
                    yield
                finally:
                    self._whole.leave()
            finally:
                line.leave()
        finally:
            if not (line.taken or line.waiting):
                self._clients.pop(client, None)

    async def _taken(self, line: _Line, status: int, deadline: float, scope: Scope) -> None:
        if line.take_now():
            return
        caller = caller_of(scope)
        try:
            with caller.waits() if caller is not None else nullcontext():
                await line.take(deadline - asyncio.get_running_loop().time())
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
