"""Packing what was written past the program: counts in polygons stay fast whoever wrote the states.

Our own writers pack as they go. States that SQL alone wrote wait as deltas, which every count has to read.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from detection.errors import UrbanInventoryError
from inventory.store import cities, leaves
from inventory.store.database import Database, Patience

_EVERY_S = 10.0
_LOG = logging.getLogger("urban_inventory")


def pack_waiting(database: Database) -> list[str]:
    """Packs the deltas of every city in which many wait; those that somebody writes are left for later.

    Returns:
        The codes of the cities that were packed.
    """
    with database.transaction(Patience.JOB, read_only=True) as connection:
        due = [city for city in cities.list_cities(connection) if leaves.is_due(connection, city)]
    packed = []
    for city in due:
        with database.transaction(Patience.JOB) as connection:
            if cities.try_lock_city(connection, city.id):
                leaves.pack(connection, city)
                packed.append(city.code)
    return packed


@contextmanager
def kept_packed(database: Database, *, every_s: float = _EVERY_S) -> Iterator[None]:
    """Within it a thread looks again and again whether anything waits; for programs that stay up."""
    ends = threading.Event()

    def look() -> None:
        while not ends.wait(every_s):
            try:
                pack_waiting(database)
            except UrbanInventoryError as error:
                # Counts are right without; the next look may find the database well again.
                _LOG.warning("packing what waits failed: %s", error)

    thread = threading.Thread(target=look, name="packing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
