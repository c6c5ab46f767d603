"""``urban-inventory change`` as a person and a script meet it."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.cli.app import run
from inventory.store.database import Database
from tests.support.database import ClonedDatabase
from tests.support.installed import ingest, install_town
from tests.support.town import CODE, GRID, Town

KEYS = {
    "area",
    "class",
    "from",
    "to",
    "new",
    "gone",
    "moved",
    "reclassified",
    "net",
    "low",
    "high",
    "comparable",
}
YEARS = ["--from", "2024-12-31", "--to", "2026-12-31"]


@pytest.fixture
def town(
    cloned: ClonedDatabase,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Town:
    """Six trees felled and four planted after the first of three yearly surveys."""
    town = install_town(cloned, database, tmp_path, monkeypatch)
    ingest(town, "one", "2024-05-01", GRID[:45])
    for year in (2025, 2026):
        ingest(town, str(year), f"{year}-05-01", GRID[6:])
    capsys.readouterr()
    return town


def test_change_prints_one_row_a_place_and_class(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["change", "--city", CODE, *YEARS, "--level", "district", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert all(row.keys() >= KEYS for row in rows)
    assert [row["area"] for row in rows] == ["E", "W", "outside"]
    assert sum(row["net"] or 0 for row in rows) == -2
    assert run(["change", "--city", CODE, *YEARS, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["area"], row["class"], row["from"], row["to"]) == (CODE, "tree", "2024-12-31", "2026-12-31")
    assert (row["new"], row["gone"], row["moved"], row["reclassified"]) == (4, 6, 0, 0)
    assert (row["net"], row["low"], row["high"], row["comparable"]) == (-2, None, None, True)


def test_change_says_what_cannot_be_compared_and_why(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["change", "--city", CODE, *YEARS, "--level", "district"]) == 0
    said = capsys.readouterr().out
    assert "from 2024-12-31 to 2026-12-31" in said
    assert "not comparable (outside): not surveyed by either date" in said
    assert "West" in said


@pytest.mark.parametrize(
    ("options", "code", "exit_code"),
    [
        (["--from", "2024-13-01", "--to", "2025-01-01"], "time_unusable", 1),
        (["--from", "2025-01-01", "--to", "2024-01-01"], "time_unusable", 1),
        ([*YEARS, "--area", "X"], "unknown_name", 1),
        ([*YEARS, "--level", "street"], "unknown_name", 1),
        ([*YEARS, "--class", "tre"], "unknown_name", 1),
        ([*YEARS, "--area", "W", "--level", "district"], None, 2),
        (["--from", "2025-01-01"], None, 2),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_message(
    town: Town, capsys: pytest.CaptureFixture[str], options: list[str], code: str | None, exit_code: int
) -> None:
    assert run(["change", "--city", CODE, *options, "--json"]) == exit_code
    out = capsys.readouterr().out
    assert code is None or json.loads(out)["error"]["code"] == code
