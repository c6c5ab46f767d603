"""Questions that somebody waits for, and how they end when nobody does any more.

A door that answers strangers makes a ``Question`` for each of their requests. Whatever only reads for it is then bound
to it: when the stranger goes, the statement under way is cancelled and no further one begins. What writes goes on to
its end, so that nobody has to guess what a broken connection has left behind.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any

import psycopg
from sqlalchemy import Connection

from inventory.errors import StoreBusy

_CANCEL_S = 2.0


class Question:
    """What one caller asked: the connections that read for it now."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._reading: list[psycopg.Connection] = []
        self.is_over = False
        """Whether nobody waits for the answer any more."""

    def end(self) -> None:
        """Ends what is read for it; called from another thread than those that read. Does not wait for them."""
        # Under the lock, so that no connection gets to somebody else before its statement has been told.
        with self._turn:
            self.is_over = True
            for connection in self._reading:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=_CANCEL_S)

    @contextmanager
    def reads_with(self, connection: Connection) -> Iterator[None]:
        """Within it the connection works for this question.

        Raises:
            StoreBusy: nobody waits for the answer.
        """
        driver = _driver(connection)
        with self._turn:
            self.go_on()
            self._reading.append(driver)
        try:
            yield
        finally:
            with self._turn:
                self._reading.remove(driver)

    def is_read_with(self, connection: Connection) -> bool:
        """Whether the connection reads for this question."""
        return _driver(connection) in self._reading

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Within it nothing is cancelled: what tidies up is to come to its end."""
        with self._turn:
            yield

    def go_on(self) -> None:
        """Raises:
        StoreBusy: nobody waits for the answer.
        """
        if self.is_over:
            raise StoreBusy("nobody waits for this answer any more")


def _driver(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


class TidyCursor(psycopg.ServerCursor[Any]):
    """A server's cursor that is closed also when the question is ended at that very moment."""

    def close(self) -> None:
        """Closes it, on the server too."""
        question = asked_now()
        with question.undisturbed() if question is not None else nullcontext():
            super().close()


_ASKED: ContextVar[Question | None] = ContextVar("question", default=None)


def asked_now() -> Question | None:
    """The question that this thread or task works for; None where no door made one."""
    return _ASKED.get()


@contextmanager
def answering(question: Question) -> Iterator[None]:
    """Within it, and in threads begun from there with its context, all that is read is read for the question."""
    token = _ASKED.set(question)
    try:
        yield
    finally:
        _ASKED.reset(token)
