"""Callers who hang up, and callers who are slow: what works for them ends, and what they hold is given back.

A plain ASGI layer around all that costs something. While a request is answered it watches the connection; when the
caller is gone the statement under way is cancelled (``inventory/store/questions.py``), a place in the line is given
up, and nothing more is sent. A caller who sends a body, or takes an answer, too slowly is treated as gone.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inventory.errors import BodyTooSlow
from inventory.store.questions import Question, answering

BODY_WITHIN_S = 60.0
"""A body of the largest size comes in this time over 1.2 Mbit/s; while it comes the request holds a place."""
TAKEN_WITHIN_S = 60.0
"""A caller who takes nothing for so long holds a place, and perhaps a connection of the database, for nothing."""
_LOG = logging.getLogger("urban_inventory")


class CallerGone(OSError):
    """Nobody takes the answer any more. An ``OSError``, as servers raise for a closed connection."""


class Caller:
    """One caller while their request is answered."""

    def __init__(
        self, receive: Receive, send: Send, *, has_body: bool, body_s: float, taken_s: float
    ) -> None:
        self.is_gone = False
        self.question = Question()
        self._receive, self._send = receive, send
        self._has_body = has_body
        self._body_s, self._taken_s = body_s, taken_s
        self._began = asyncio.get_running_loop().time()
        self._gone = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._waiting: anyio.CancelScope | None = None
        self._is_told = False
        self._is_answered = False
        if not has_body:
            self._begin_watching()

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Within it what is awaited ends when the caller hangs up.

        Raises:
            CallerGone: they did.
        """
        with anyio.CancelScope() as waiting:
            self._waiting = waiting
            if self.is_gone:
                waiting.cancel()
            yield
        self._waiting = None
        # What came to its end before the news is kept: somebody has to give it back.
        if waiting.cancelled_caught:
            raise CallerGone

    async def receive(self) -> Message:
        """What the caller sends; once the body is here, nothing but that they are gone.

        Raises:
            BodyTooSlow: the body does not come to its end in time.
        """
        if not self._has_body and not self._is_told:
            self._is_told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._watch is not None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout_at(self._began + self._body_s):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"the body did not come in {self._body_s:g} seconds", do="Send less, or over a faster line."
            ) from None
        if message["type"] == "http.disconnect":
            self.is_gone = True
        elif not message.get("more_body", False):
            self._begin_watching()
        return message

    async def send(self, message: Message) -> None:
        """Sends to the caller.

        Raises:
            CallerGone: they hung up, or take nothing any more.
        """
        if self.is_gone:
            raise CallerGone
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_answered = True
        try:
            async with asyncio.timeout(self._taken_s):
                await self._send(message)
        except TimeoutError:
            self.is_gone = True
            raise CallerGone from None

    def leave(self) -> None:
        """Ends the watching: the request is answered, or given up."""
        if self._watch is not None:
            self._watch.cancel()

    def _begin_watching(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._watching())

    async def _watching(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._is_answered:
            return
        self.is_gone = True
        self._gone.set()
        if self._waiting is not None:
            self._waiting.cancel()
        # A way to the server and back: not in the event loop.
        await anyio.to_thread.run_sync(self.question.end)


class HangingUp:
    """The layer."""

    def __init__(
        self, app: ASGIApp, *, body_s: float = BODY_WITHIN_S, taken_s: float = TAKEN_WITHIN_S
    ) -> None:
        self._app, self._body_s, self._taken_s = app, body_s, taken_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = Caller(receive, send, has_body=_has_body(scope), body_s=self._body_s, taken_s=self._taken_s)
        scope.setdefault("state", {})["caller"] = caller
        try:
            with answering(caller.question):
                await self._app(scope, caller.receive, caller.send)
        except Exception as error:
            # What was ended because nobody waits for it fails in its own way; nobody need hear of it.
            if not caller.is_gone:
                raise
            _LOG.debug("given up: %r", error)
        finally:
            caller.leave()


def caller_of(scope: Scope) -> Caller | None:
    """The caller whose request it is, where this layer is around."""
    found = scope.get("state", {}).get("caller")
    return found if isinstance(found, Caller) else None


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0"
