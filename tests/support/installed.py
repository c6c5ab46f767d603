"""The drawn town as an installation: its home, its models and its database, for tests of the command line."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from api.cli.app import run
from inventory.store.database import Database
from tests.support.database import ClonedDatabase
from tests.support.town import CODE, Town, make_town


def install_town(
    cloned: ClonedDatabase, database: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Town:
    """The town in ``home``, counted by “squares”; commands run in it from now on."""
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(home))
    monkeypatch.setenv("URBAN_INVENTORY_DATABASE_URL", cloned.service_url)
    monkeypatch.setenv("COLUMNS", "140")
    town = make_town(database, home)
    assert run(["--quiet", "models", "use", "squares", "--city", CODE]) == 0
    return town


def ingest(town: Town, name: str, day: str, trees: Sequence[tuple[int, int]], *options: str) -> None:
    """``urban-inventory ingest`` of a picture drawn with these trees."""
    file = town.picture(name, trees)
    assert run(["--quiet", "ingest", str(file), "--city", CODE, "--taken-at", day, *options]) == 0
