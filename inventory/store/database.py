"""The one place that opens database sessions.

A use case opens one transaction with the patience it needs and hands the connection to store functions;
these never commit. Sessions are the service's: a role that owns nothing (``roles.py``).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path

import psycopg
from sqlalchemy import Connection as Connection  # the type that use cases pass on, without SQLAlchemy
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from detection.errors import CallerError, UrbanInventoryError
from inventory.errors import SchemaBehind, StoreBusy, StoreError, StoreUnreachable
from inventory.store import migrate
from inventory.store.addresses import engine_url
from inventory.store.cluster import open_cluster
from inventory.store.questions import TidyCursor, asked_now

_MIGRATION_WAIT_S = 60.0
_POOL_WAIT_S = 10.0
_TRUSTED_S = 1.0
"""Who answered so short a while ago is not asked whether it is there."""
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A server behind a network that was cut is given up in half a minute, not after the hours that TCP waits."""
_RESTS_SINCE = "rests_since"
_LOCK_NOT_AVAILABLE = "55P03"
_QUERY_CANCELED = "57014"
_DATA_EXCEPTION = "22"
_INSUFFICIENT_PRIVILEGE = "42501"


class Patience(Enum):
    """How long a statement may run and wait for a lock, in milliseconds (0: without limit)."""

    HTTP = (5_000, 2_000)
    EXPORT = (120_000, 2_000)
    DECISION = (0, 30_000)
    JOB = (0, 0)


_HTTP_STATEMENT_MS, _HTTP_LOCK_MS = Patience.HTTP.value
_SESSION = f"-c timezone=UTC -c statement_timeout={_HTTP_STATEMENT_MS} -c lock_timeout={_HTTP_LOCK_MS}"
"""The patience of ``Patience.HTTP``, where a transaction says nothing else, and for statements on their own."""


def _beginning(patience: Patience, read_only: bool) -> str:
    said = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if read_only else "BEGIN"]
    if patience is Patience.HTTP:
        # Starting helpers, or compiling, takes longer than most answers, and takes the cores from who else asks.
        said += ["SET LOCAL max_parallel_workers_per_gather = 0", "SET LOCAL jit = off"]
    else:
        statement_ms, lock_ms = patience.value
        said += [f"SET LOCAL statement_timeout = {statement_ms}", f"SET LOCAL lock_timeout = {lock_ms}"]
    return "; ".join(said)


_BEGINNINGS = {
    (patience, read_only): _beginning(patience, read_only)
    for patience in Patience
    for read_only in (False, True)
}


class _Rehearsed(Exception):
    """Ends a rehearsal, and with it its transaction."""


class Database:
    """A PostGIS database of the inventory, its schema current."""

    def __init__(self, url: str, *, pool_size: int = 8, pool_wait_s: float = _POOL_WAIT_S) -> None:
        self.url = url
        self.pool_size = pool_size
        address = make_url(engine_url(url))
        alive = {name: value for name, value in _ALIVE.items() if name not in address.query}
        self._engine: Engine = create_engine(
            address,
            pool_size=pool_size,
            # More than these would be opened and closed at each answer; who comes too late waits.
            max_overflow=0,
            pool_timeout=pool_wait_s,
            # The driver begins nothing of its own: ``_BEGINNINGS`` does, in one way to the server and back.
            isolation_level="AUTOCOMMIT",
            connect_args={"connect_timeout": 10, "options": _SESSION, **alive},
        )
        event.listen(self._engine, "connect", _with_tidy_cursors)
        event.listen(self._engine, "checkin", _note_rest)
        event.listen(self._engine, "checkout", self._require_alive)
        # Before there is a cursor, which nobody would close.
        event.listen(self._engine, "before_execute", _go_on)

    @contextmanager
    def transaction(
        self, patience: Patience = Patience.HTTP, *, read_only: bool = False
    ) -> Iterator[Connection]:
        """One transaction; committed when the block ends well, undone when it does not.

        Raises:
            StoreUnreachable: the server does not answer, or went away.
            StoreBusy: a lock or an answer took longer than ``patience``; or it only reads, for a question
                (``questions.py``) whose answer nobody waits for any more.
        """
        with self._session(reading=read_only) as connection:
            # Together: each way to the server and back counts where many ask at once.
            connection.exec_driver_sql(_BEGINNINGS[patience, read_only])
            yield connection

    @contextmanager
    def statement(self) -> Iterator[Connection]:
        """For one statement that reads: a transaction by itself, without the ways to begin and to end one.

        What follows it, if anything does, sees what others have written meanwhile.

        Raises:
            StoreUnreachable, StoreBusy: as a transaction that only reads, with the patience of ``Patience.HTTP``.
        """
        with self._session(reading=True) as connection:
            yield connection

    @contextmanager
    def _session(self, *, reading: bool) -> Iterator[Connection]:
        question = asked_now() if reading else None
        try:
            with self._engine.begin() as connection, ExitStack() as bound:
                if question is not None:
                    bound.enter_context(question.reads_with(connection))
                yield connection
        except DBAPIError as error:
            raise _translated(error, reading=reading) from error
        except psycopg.Error as error:
            # Of what is read without SQLAlchemy's help.
            wrapped = OperationalError if isinstance(error, psycopg.OperationalError) else DBAPIError
            raise _translated(wrapped(None, None, error), reading=reading) from error
        except PoolTimeout as error:
            raise StoreBusy(
                "every connection to the database is in use", do="Try again in a moment."
            ) from error

    @contextmanager
    def rehearsal(self, patience: Patience = Patience.JOB) -> Iterator[Connection]:
        """A transaction that is always undone: to see what would be, and leave no trace.

        Raises:
            StoreUnreachable, StoreBusy: as ``transaction``.
        """
        with suppress(_Rehearsed), self.transaction(patience) as connection:
            yield connection
            raise _Rehearsed

    def connections_in_use(self) -> int:
        """How many connections of the pool are given out."""
        return int(self._engine.pool.checkedout())  # type: ignore[attr-defined]

    def look(self, step: Callable[[str], None]) -> str | None:
        """Takes a connection as any question does, and asks the database one thing.

        Args:
            step: is told what is done next, “pool” or “database”, so that who gives up waiting knows for what.

        Returns:
            The revision of the schema.

        Raises:
            StoreUnreachable, StoreBusy: as ``transaction``.
        """
        step("pool")
        with self.transaction(read_only=True) as connection:
            step("database")
            return migrate.current_revision(connection)

    def _require_alive(self, driver: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        """As the pool's own “pre-ping”, but of those alone that nobody has just used."""
        if time.monotonic() - record.info.get(_RESTS_SINCE, -_TRUSTED_S) < _TRUSTED_S:
            return
        try:
            self._engine.dialect.do_ping(driver)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the server went away meanwhile") from error

    def close(self) -> None:
        """Gives all connections back."""
        self._engine.dispose()


def _note_rest(_: object, record: ConnectionPoolEntry) -> None:
    record.info[_RESTS_SINCE] = time.monotonic()


def _with_tidy_cursors(driver: psycopg.Connection, _: object) -> None:
    driver.server_cursor_factory = TidyCursor


def _go_on(connection: Connection, *_: object) -> None:
    """Before each statement of a question: whether anybody waits for the answer."""
    question = asked_now()
    if question is not None and question.is_over and question.is_read_with(connection):
        question.go_on()


def _translated(error: DBAPIError, *, reading: bool) -> UrbanInventoryError:
    state = getattr(error.orig, "sqlstate", None) or ""
    if reading and state.startswith(_DATA_EXCEPTION):
        return CallerError(
            f"something cannot be computed: {str(error.orig).splitlines()[0]}",
            do="Look at the arithmetic of the filter.",
        )
    if state in (_LOCK_NOT_AVAILABLE, _QUERY_CANCELED):
        return StoreBusy(
            "the database did not answer in time" if state == _QUERY_CANCELED else "another job is writing",
            do="Try again in a moment.",
        )
    if error.connection_invalidated or isinstance(error, OperationalError):
        return StoreUnreachable(
            "the database does not answer",
            do="Run “urban-inventory doctor” to see what is wrong.",
        )
    if state == _INSUFFICIENT_PRIVILEGE:
        return StoreError(
            "the service's role lacks a right",
            do="Run “urban-inventory migrate” with URBAN_INVENTORY_OWNER_DATABASE_URL set.",
        )
    return StoreError(f"the database refused: {str(error.orig).splitlines()[0]}")


@contextmanager
def open_database(
    home: Path, *, database_url: str | None = None, pool_size: int = 8, keep_running: bool = False
) -> Iterator[Database]:
    """The database of an installation: the external one of ``database_url``, else the embedded one in ``home``.

    An embedded database is brought to this program's schema, after a dump; an external one is left to
    ``urban-inventory migrate``. With ``keep_running`` an embedded server that is killed is started again:
    for programs that stay up.

    Raises:
        SchemaBehind: the external database waits for ``migrate``, or is newer than the program.
        StoreUnreachable, ClusterUnusable, StoreBusy: no database can be had.
    """
    if database_url is not None:
        database = Database(database_url, pool_size=pool_size)
        try:
            _require_current_schema(database)
            yield database
        finally:
            database.close()
        return
    with open_cluster(home / "postgres") as cluster, ExitStack() as stack:
        # Programs that start together after an upgrade wait for the one that migrates.
        with cluster.exclusive("migration", wait_s=_MIGRATION_WAIT_S):
            migrate.upgrade_embedded(cluster.owner_url, backups=home / "backups")
        if keep_running:
            stack.enter_context(cluster.kept_running())
        database = Database(cluster.service_url, pool_size=pool_size)
        try:
            yield database
        finally:
            database.close()


def _require_current_schema(database: Database) -> None:
    with database.transaction() as connection:
        found = migrate.current_revision(connection)
    wanted = migrate.head_revision()
    if found != wanted:
        raise SchemaBehind(
            f"the database's schema is at {found or 'nothing'}, this program needs {wanted}",
            do="Run “urban-inventory migrate” with URBAN_INVENTORY_OWNER_DATABASE_URL set.",
        )
