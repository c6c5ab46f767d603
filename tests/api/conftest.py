"""One service over one database of three cities, for all tests that only read."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from inventory.store.database import Database, Patience
from tests.support.city import make_city
from tests.support.database import DatabaseServer, cloned_database
from tests.support.server import served

FELLED = datetime(2026, 3, 5, 2, 0, tzinfo=UTC)
PLANTED = datetime(2026, 2, 1, 2, 0, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}"
MANY = 6_000
FEW = 41


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The running service: its address, and a client that starts there."""

    url: str
    client: httpx.Client
    database: Database

    def get(self, path: str, **headers: str) -> httpx.Response:
        """GET with the headers given; underscores in their names stand for hyphens."""
        return self.client.get(
            path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


@pytest.fixture(scope="session")
def service(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, read by many tests; none of them writes."""
    home = tmp_path_factory.mktemp("home")
    with cloned_database(database_server) as clone:
        database = Database(clone.service_url)
        fill(database)
        with (
            served(create_app(Settings(home=Path(home)), database)) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            yield Service(url=url, client=client, database=database)
        database.close()


def fill(database: Database) -> None:
    """``town``: 6 trees over two areas and time, 2 cars; ``fiji``: over the antimeridian."""
    with database.transaction(Patience.JOB) as connection:
        town = make_city(connection, "town", name=HOSTILE, classes=("tree", "car"))
        town.area("A", (100.0, 22.0, 100.05, 22.1), name=HOSTILE)
        town.area("B", (100.05, 22.0, 100.1, 22.1))
        town.assets([(100.01, 22.01), (100.02, 22.02)], areas=["A"])
        town.asset(100.03, 22.03, areas=["A"], valid_to=FELLED)
        town.asset(100.06, 22.01, areas=["B"], valid_from=PLANTED, verified=True)
        town.asset(100.07, 22.02, areas=["B"], listed=False, status="gone")
        town.asset(100.2, 22.2)
        town.assets([(100.011, 22.011), (100.012, 22.012)], areas=["A"], class_="car")
        town.decision("verify", "a00004", 100.06, 22.01, reason="seen on site")
        town.cover(None, share=0.5)
        town.cover("A")
        fiji = make_city(connection, "fiji", box=(176.0, -20.0, 180.0, -15.0), time_zone="Pacific/Fiji")
        fiji.assets([(179.9, -17.0), (-179.9, -17.0), (178.0, -17.0)])
        few = make_city(connection, "few")
        few.assets([(100 + i % 7 / 100, 22 + i // 7 / 100) for i in range(FEW)])
        few.alias("a00002", of="a00001")
        many = make_city(connection, "many", name="普洱")
        side = 100
        many.assets([(100 + i % side / 1000, 22 + i // side / 1000) for i in range(MANY)])
