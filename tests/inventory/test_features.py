"""Features by their id: of the city that has the code now, and as of today there."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, text

from detection.errors import UnknownName
from inventory.store.database import Database, Patience
from inventory.store.features import Collection, text_of
from tests.support.city import make_city

EAST, WEST = "Pacific/Kiritimati", "Pacific/Pago_Pago"
"""25 hours apart: it is never the same day in both."""


def answered(database: Database, code: str, collection: Collection, public_id: str) -> bytes:
    with database.statement() as connection:
        return text_of(connection, code, collection, public_id)


def change(connection: Connection, statement: str, **values: str) -> None:
    connection.execute(text(statement), values)


def test_a_city_that_gave_its_code_to_another_one_is_no_longer_answered_for(database: Database) -> None:
    with database.transaction(Patience.JOB) as connection:
        tree = make_city(connection, "old").asset(100.01, 22.01)
        assert make_city(connection, "new").asset(100.02, 22.02) == tree, "the same id in another city"
    assert b"100.01," in answered(database, "old", Collection.ASSETS, tree)
    with database.transaction(Patience.JOB) as connection:
        renamed = "UPDATE urban_inventory.city SET code = :after WHERE code = :before"
        change(connection, renamed, before="old", after="gone")
        change(connection, renamed, before="new", after="old")
    assert b"100.02," in answered(database, "old", Collection.ASSETS, tree)
    assert b"100.01," in answered(database, "gone", Collection.ASSETS, tree)
    with pytest.raises(UnknownName, match="no city"):
        answered(database, "new", Collection.ASSETS, tree)


def test_areas_are_those_of_today_where_the_city_is_by_the_zone_it_has_now(database: Database) -> None:
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "isle", time_zone=WEST).area("A", (100.0, 22.0, 100.1, 22.1))
        change(
            connection,
            "UPDATE urban_inventory.area_version SET valid = daterange(CAST(:day AS date), NULL)",
            day=str(datetime.now(ZoneInfo(EAST)).date()),
        )
    with pytest.raises(UnknownName, match="no feature"):
        answered(database, "isle", Collection.AREAS, "district:A")
    with database.transaction(Patience.JOB) as connection:
        change(connection, "UPDATE urban_inventory.city SET time_zone = :zone", zone=EAST)
    assert b'"district:A"' in answered(database, "isle", Collection.AREAS, "district:A")


def test_a_statement_on_its_own_ends_in_time_and_leaves_no_transaction(database: Database) -> None:
    with database.statement() as connection:
        patience, lock = (
            connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("statement_timeout", "lock_timeout")
        )
        first, second = (connection.execute(text("SELECT now()")).scalar_one() for _ in range(2))
    assert (patience, lock) == ("5s", "2s")
    assert first < second <= datetime.now(UTC) + timedelta(minutes=1)
    with database.transaction(Patience.JOB) as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "0"
