"""Settings: the page is current, sources are told, passwords are not."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.cli.app import run
from api.problems import CONFIGURATION, DONE, REFUSED
from api.settings_table import settings_page
from tests.support.database import ClonedDatabase

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(tmp_path))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_page_of_settings_is_current() -> None:
    stale = "write it anew: urban-inventory settings --markdown > docs/settings.md"
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page(), stale


def test_source_of_each_setting_is_told_and_the_environment_wins(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "settings.toml").write_text("port = 8080\npool_size = 3\n", encoding="utf-8")
    monkeypatch.setenv("URBAN_INVENTORY_PORT", "9090")
    assert run(["settings", "--json"]) == DONE
    rows = told(capsys)
    assert rows["port"] == {"value": 9090, "source": "environment", "variable": "URBAN_INVENTORY_PORT"}
    assert (rows["pool_size"]["value"], rows["pool_size"]["source"]) == (3, "settings.toml")
    assert (rows["host"]["value"], rows["host"]["source"]) == ("127.0.0.1", "default")


def test_passwords_are_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("URBAN_INVENTORY_DATABASE_URL", "postgresql://u:geheim@h/d")
    monkeypatch.setenv("URBAN_INVENTORY_OWNER_DATABASE_URL", "postgresql://u@h/d?password=geheim")
    for arguments in (["settings"], ["settings", "--json"]):
        assert run(arguments) == DONE
        printed = capsys.readouterr()
        assert "***" in printed.out
        assert "geheim" not in printed.out + printed.err


def test_doctor_names_a_setting_that_cannot_be_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "settings.toml").write_text('port = "many"\n', encoding="utf-8")
    assert run(["doctor", "--json"]) == REFUSED
    (check,) = told(capsys)["checks"]
    assert (check["check"], check["ok"]) == ("settings", False)
    assert "URBAN_INVENTORY_PORT" in check["what"]
    assert run(["count", "--city", "x"]) == CONFIGURATION


def test_doctor_names_a_setting_that_nobody_reads(
    home: Path,
    cloned: ClonedDatabase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("URBAN_INVENTORY_DATABASE_URL", cloned.service_url)
    (home / "settings.toml").write_text("prot = 8080\n", encoding="utf-8")
    assert run(["doctor", "--json"]) == REFUSED
    checks = {check["check"]: check for check in told(capsys)["checks"]}
    assert "prot" in checks["settings"]["what"]
    assert checks["database"]["ok"]
