"""States that SQL alone wrote are packed by and by; counts are right before, between and after."""

import time

import shapely
from sqlalchemy import text

from inventory.counting import count
from inventory.packing import kept_packed, pack_waiting
from inventory.store import cities
from inventory.store.database import Database, Patience
from tests.support.city import make_city

CODE = "plain"
MANY = 6_000
HALF = shapely.box(99.0, 21.0, 100.0495, 23.0)


def fill(database: Database, assets: int = MANY) -> None:
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, CODE).assets(
            [(100 + i % 100 / 1000, 22 + i // 100 / 1000) for i in range(assets)]
        )


def counted(database: Database) -> int | None:
    (row,) = count(database, CODE, classes=["tree"], polygon=HALF)
    return row.count


def waiting(database: Database) -> int:
    with database.transaction(read_only=True) as connection:
        return int(connection.execute(text("SELECT count(*) FROM urban_inventory.leaf_delta")).scalar_one())


def version(database: Database) -> int:
    with database.transaction(read_only=True) as connection:
        found = cities.version_of(connection, CODE)
        assert found is not None
        return found[1]


def test_many_waiting_deltas_are_packed_and_counts_stay_as_they_were(database: Database) -> None:
    fill(database)
    before = version(database)
    assert (counted(database), waiting(database)) == (MANY // 2, MANY)
    assert pack_waiting(database) == [CODE]
    assert (counted(database), waiting(database)) == (MANY // 2, 0)
    assert version(database) != before
    assert pack_waiting(database) == []


def test_few_waiting_deltas_are_left_where_they_are(database: Database) -> None:
    fill(database, 50)
    assert pack_waiting(database) == []
    assert (counted(database), waiting(database)) == (50, 50)


def test_a_city_that_somebody_writes_is_left_for_later(database: Database) -> None:
    fill(database)
    with database.transaction(Patience.JOB) as writer:
        cities.lock_city(writer, cities.get_city(writer, CODE).id)
        assert pack_waiting(database) == []
    assert pack_waiting(database) == [CODE]


def test_what_is_written_past_the_lock_while_packing_is_counted_and_packed_later(database: Database) -> None:
    fill(database)
    remove = text(
        "DELETE FROM urban_inventory.asset_state WHERE id IN (SELECT min(id) FROM urban_inventory.asset_state)"
    )
    with database.transaction(Patience.JOB) as packer:
        city = cities.get_city(packer, CODE)
        assert cities.try_lock_city(packer, city.id)
    with database.transaction(Patience.JOB) as late:
        late.execute(
            text(
                "INSERT INTO urban_inventory.leaf_delta (city_id, class, lon, lat, at, listed, verified)"
                " VALUES (:city, 'tree', 1000000000, 220000000, '2025-01-01', 1, 0)"
            ),
            {"city": city.id},
        )
        assert pack_waiting(database) == [CODE]
    assert (counted(database), waiting(database)) == (MANY // 2 + 1, 1)
    with database.transaction(Patience.JOB) as connection:
        connection.execute(remove)
    assert counted(database) == MANY // 2


def test_a_service_packs_by_itself(database: Database) -> None:
    fill(database)
    with kept_packed(database, every_s=0.02):
        deadline = time.monotonic() + 20
        while waiting(database) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert (counted(database), waiting(database)) == (MANY // 2, 0)
