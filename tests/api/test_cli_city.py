"""``urban-inventory city`` as a person and a script meet it."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.cli.app import run
from tests.support.areas import COUNTIES, square, write_areas
from tests.support.database import ClonedDatabase


@pytest.fixture
def installation(cloned: ClonedDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, on a database of its own."""
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("URBAN_INVENTORY_DATABASE_URL", cloned.service_url)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def _json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_city_is_added_shown_listed_and_removed(
    installation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_areas(installation / "counties.geojson", COUNTIES)
    add = ["city", "add", "puer", "--name", "普洱", "--areas", str(file)]

    assert run(add) == 0
    said = capsys.readouterr()
    assert "普洱 (puer): added" in said.out
    assert "time zone Asia/Shanghai" in said.err

    assert run([*add, "--json"]) == 0
    again = _json(capsys)
    assert (again["city"], again["created"], again["changed"]) == ("puer", False, False)
    assert again["levels"][0]["unchanged"] == 2

    assert run(["city", "show", "puer", "--json"]) == 0
    shown = _json(capsys)
    assert [(area["code"], area["name"]) for area in shown["areas"]] == [
        ("530802", "思茅区"),
        ("530821", "宁洱哈尼族彝族自治县"),
    ]
    assert run(["city", "show", "puer"]) == 0
    assert "宁洱哈尼族彝族自治县" in capsys.readouterr().out

    assert run(["city", "list", "--json"]) == 0
    assert [city["city"] for city in _json(capsys)] == ["puer"]

    assert run(["city", "remove", "puer", "--yes", "--json"]) == 0
    removed = _json(capsys)
    assert removed["layers"]["areas"] == 2
    assert Path(removed["export"]).parent == installation / "home" / "backups"
    assert Path(removed["export"]).is_file()
    assert run(["city", "list"]) == 0
    assert "no cities yet" in capsys.readouterr().err


def test_removal_asks_and_takes_no_for_an_answer(
    installation: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_areas(installation / "counties.geojson", COUNTIES)
    run(["city", "add", "puer", "--areas", str(file)])
    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda question, **_: asked.append(question))
    assert run(["city", "remove", "puer"]) == 1
    assert asked == ["Remove the city “puer”?"]
    assert "nothing was removed" in capsys.readouterr().err
    run(["city", "list", "--json"])
    assert [city["city"] for city in _json(capsys)] == ["puer"]


def test_overlaps_are_warned_of_even_when_quiet(
    installation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(square(0, 0, 2), {"code": "a"}), (square(1, 0, 2), {"code": "b"})]
    file = write_areas(installation / "wards.gpkg", rows)
    assert run(["--quiet", "city", "add", "puer", "--areas", str(file)]) == 0
    assert "warning: wards a and b overlap by" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--areas", "missing.geojson"], "boundaries_unusable"),
        (["--areas", "{file}", "--valid-from", "2026-02-30"], "time_unusable"),
        (["--areas", "{file}", "--time-zone", "Asia/Puer"], "unknown_name"),
        (["--areas", "{file}", "--class", "tre"], "unknown_name"),
        (["--code-field", "ref"], "bad_request"),
        ([], "bad_request"),
    ],
)
def test_what_is_refused_is_said_in_one_object_and_stored_nowhere(
    installation: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: str
) -> None:
    file = write_areas(installation / "counties.geojson", COUNTIES)
    given = [option.format(file=file) for option in options]
    assert run(["city", "add", "puer", *given, "--json"]) == 1
    assert _json(capsys)["error"]["code"] == code
    run(["city", "list", "--json"])
    assert _json(capsys) == []
