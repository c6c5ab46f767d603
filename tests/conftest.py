"""Fixtures of all tests: a real database per test, cloned from one migrated template."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inventory.store.database import Database
from tests.support.database import (
    ClonedDatabase,
    DatabaseServer,
    cloned_database,
    running_server,
    short_lived_folder,
)


@pytest.fixture(scope="session")
def database_server() -> Iterator[DatabaseServer]:
    """The server of this run; started by the first test that needs one."""
    with running_server() as server:
        yield server


@pytest.fixture
def cloned(database_server: DatabaseServer) -> Iterator[ClonedDatabase]:
    """An empty database with the current schema, as URLs of its roles."""
    with cloned_database(database_server) as clone:
        yield clone


@pytest.fixture
def database(cloned: ClonedDatabase) -> Iterator[Database]:
    """An empty database with the current schema, as the service's role sees it."""
    opened = Database(cloned.service_url)
    yield opened
    opened.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A data folder for the installed program, whose embedded cluster goes with it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="ui-home-", dir=short_lived_folder()))
    # As root the database server runs as another user, who has to pass.
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data sets and models; tests that need it skip without it."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("URBAN_INVENTORY_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"shared data not found: {folder} (set URBAN_INVENTORY_SHARED)")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--training``: also the tests that need ultralytics and torch (see scripts/test)."""
    parser.addoption("--training", action="store_true", help="run the tests that train, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what needs the train extra, with the reason, unless it was asked for."""
    if config.getoption("--training"):
        return
    skip = pytest.mark.skip(reason="needs torch and ultralytics: scripts/test --training")
    for item in items:
        if item.get_closest_marker("training"):
            item.add_marker(skip)
