"""The installation that a command works on: its settings and its open database."""

from collections.abc import Iterator
from contextlib import contextmanager

from api.settings import Settings, read_settings
from inventory.store.database import Database, open_database


@contextmanager
def open_store() -> Iterator[tuple[Database, Settings]]:
    """The installation's database and settings, for one command."""
    settings = read_settings()
    with open_database(
        settings.home, database_url=settings.database_url, pool_size=settings.pool_size
    ) as database:
        yield database, settings
