"""A real PostGIS for the tests: one server for all of them, one fresh database for each.

The server is an embedded cluster in a temporary folder, shared by pytest's workers. With
``URBAN_INVENTORY_TEST_DATABASE_URL`` (a superuser's) that server is used instead.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
from sqlalchemy import make_url

from inventory.store import migrate, roles
from inventory.store.cluster import open_cluster, remove_cluster

TEMPLATE = "urban_inventory_template"
_EXTERNAL = "URBAN_INVENTORY_TEST_DATABASE_URL"
_PASSWORD = "only-for-tests"

Superuser = psycopg.Connection[tuple[object, ...]]


class DatabaseServer(Protocol):
    """What the tests need of a server: addresses for roles, and a way to make databases."""

    def url(self, role: str, database: str = ...) -> str:
        """SQLAlchemy URL for a role."""
        ...

    def connect_as_superuser(self, database: str = ...) -> Superuser:
        """A connection that commits each statement."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClonedDatabase:
    """A database of one test, its schema current and empty; SQLAlchemy URLs by role."""

    name: str
    owner_url: str
    service_url: str
    reader_url: str
    backup_url: str


class ExternalServer:
    """A server that somebody else runs, by its superuser's URL."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        with self.connect_as_superuser(self._url.database or "postgres") as connection:
            # Held until the connection ends: pytest's workers prepare one after the other.
            connection.execute("SELECT pg_advisory_lock(715)")
            for statement in roles.cluster_statements():
                connection.execute(statement.encode())
            for role in roles.ROLES:
                connection.execute(f"ALTER ROLE {role} PASSWORD '{_PASSWORD}'".encode())

    def url(self, role: str, database: str = "postgres") -> str:
        """SQLAlchemy URL for a role, with the tests' password."""
        ours = self._url.set(username=role, password=_PASSWORD, database=database)
        return ours.render_as_string(hide_password=False)

    def connect_as_superuser(self, database: str = "postgres") -> Superuser:
        """A connection that commits each statement."""
        url = self._url.set(drivername="postgresql", database=database)
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def short_lived_folder() -> Path:
    """Where the tests' clusters lie: in memory where there is room, since nothing of them has to last.

    Never pytest's own temporary folder: as root, the server's user could not enter it.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 3 * 1024**3
    return memory if roomy else Path(tempfile.gettempdir())


@contextmanager
def running_server() -> Iterator[DatabaseServer]:
    """The server of this test run, with the migrated template database in it."""
    external = os.environ.get(_EXTERNAL)
    if external:
        server = ExternalServer(external)
        _make_template(server)
        yield server
        return
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
    folder = short_lived_folder() / f"ui-test-{run[:16]}"
    cluster = open_cluster(folder, durable=False)
    try:
        with cluster.exclusive("template", wait_s=120):
            _make_template(cluster)
        yield cluster
    finally:
        if cluster.close():
            remove_cluster(folder)


@contextmanager
def cloned_database(server: DatabaseServer) -> Iterator[ClonedDatabase]:
    """A copy of the template, dropped at the end whoever is still connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with server.connect_as_superuser() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {roles.OWNER}".encode())
        for statement in roles.connect_statements(name):
            connection.execute(statement.encode())
        try:
            yield ClonedDatabase(
                name=name,
                owner_url=server.url(roles.OWNER, name),
                service_url=server.url(roles.SERVICE, name),
                reader_url=server.url(roles.READER, name),
                backup_url=server.url(roles.BACKUP, name),
            )
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _make_template(server: DatabaseServer) -> None:
    """Migrate a database once; clones of it cost some 25 ms."""
    with server.connect_as_superuser() as connection:
        connection.execute("SELECT pg_advisory_lock(716)")
        query = "SELECT datistemplate FROM pg_database WHERE datname = %s"
        if connection.execute(query, [TEMPLATE]).fetchone() == (True,):
            return
        connection.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0 ENCODING 'UTF8'".encode())
        with server.connect_as_superuser(TEMPLATE) as inside:
            for statement in roles.database_statements(TEMPLATE):
                inside.execute(statement.encode())
        migrate.upgrade(server.url(roles.OWNER, TEMPLATE))
        # Marked last: a template without the mark is one whose making was cut short.
        connection.execute(f"ALTER DATABASE {TEMPLATE} IS_TEMPLATE true".encode())
