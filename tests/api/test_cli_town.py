"""The commands about one asset, decisions, reviews and models, as a person and a script meet them."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyproj import Transformer

from api.cli.app import run
from inventory.store.database import Database
from tests.support.database import ClonedDatabase
from tests.support.installed import ingest, install_town
from tests.support.scenes import ORIGIN, UTM
from tests.support.town import CODE, GRID, Town

TREE = GRID[24]
REST = [place for place in GRID if place != TREE]
ASSET_KEYS = {"id", "aliases", "class", "listed", "status", "position", "first_seen", "last_seen", "events"}
LON, LAT = Transformer.from_crs(UTM, 4326, always_xy=True).transform(
    ORIGIN[0] + (TREE[0] + 4) * 0.2, ORIGIN[1] - (TREE[1] + 4) * 0.2
)


@pytest.fixture
def town(
    cloned: ClonedDatabase,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Town:
    town = install_town(cloned, database, tmp_path, monkeypatch)
    ingest(town, "one", "2023-05-01", GRID, "--source", "drone", "--attribution", "Town Fliers")
    capsys.readouterr()
    return town


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, exit_code: int = 0) -> Any:
    assert run([*arguments, "--city", CODE, "--json"]) == exit_code
    return json.loads(capsys.readouterr().out)


def words(capsys: pytest.CaptureFixture[str], *arguments: str, exit_code: int = 0) -> str:
    assert run([*arguments, "--city", CODE]) == exit_code
    said = capsys.readouterr()
    return " ".join((said.out + said.err).split())


def write(town: Town, *features: dict[str, Any]) -> str:
    file = town.folder / "decisions.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return str(file)


def feature(**said: Any) -> dict[str, Any]:
    properties = {"decision": "verify", "at": "2023-06-01", "reason": "stood before it", **said}
    geometry = {"type": "Point", "coordinates": [LON, LAT]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def verified(town: Town, capsys: pytest.CaptureFixture[str]) -> str:
    (decided,) = answer(capsys, "decide", "--file", write(town, feature(author="ana")))
    assert decided.keys() == {"decision", "kind", "asset", "made", "status"}
    return str(decided["asset"])


def test_the_life_of_an_asset_is_told_in_json_and_in_words(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = verified(town, capsys)
    life = answer(capsys, "asset", asset)
    assert life.keys() >= ASSET_KEYS
    assert (life["id"], life["class"], life["listed"], life["status"]) == (asset, "tree", True, "present")
    assert life["position"]["type"] == "Point"
    assert life["position"]["coordinates"] == pytest.approx([LON, LAT], abs=1e-5)
    assert [event["event"] for event in life["events"]] == ["first_seen", "listed", "verify"]
    first, _, verify = life["events"]
    assert first["survey"]
    assert first["scene"]
    assert (verify["author"], verify["reason"]) == ("ana", "stood before it")
    said = words(capsys, "asset", asset)
    assert f"tree {asset} in town: present, counted, verified" in said
    assert "2023-05-01 first seen; counted from here on" in said
    assert "ana, decision" in said


def test_the_picture_of_a_life_is_drawn(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    asset = verified(town, capsys)
    picture = town.folder / "life.png"
    assert "1 look drawn" in words(capsys, "asset", asset, "--picture", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    error = answer(capsys, "asset", asset, "--picture", str(town.folder / "life.none"), exit_code=1)
    assert "cannot be written" in error["error"]["what"]


def test_an_asset_nobody_knows_is_refused(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "asset", "nobody", exit_code=1)["error"]["code"] == "unknown_name"
    assert answer(capsys, "asset", "nobody", "--as-of", "x", exit_code=1)["error"]["code"] == "time_unusable"


def test_a_review_is_listed_until_a_person_answers(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    asset = verified(town, capsys)
    assert answer(capsys, "reviews") == []
    assert "no open reviews in town" in words(capsys, "reviews")
    ingest(town, "two", "2024-05-01", REST)
    capsys.readouterr()
    (review,) = answer(capsys, "reviews")
    assert (review["asset"], review["decided"]["author"]) == (asset, "ana")
    assert review["since"].startswith("2024-05-01")
    assert [miss["taken_at"][:4] for miss in review["missed_by"]] == ["2024"]
    said = words(capsys, "reviews")
    assert f"decide verify --city town --asset {asset}" in said
    assert "verify by ana, 2023-06-01: stood before it" in said
    answer(capsys, "decide", "reject", "--asset", asset, "--at", "2024-06-01", "--reason", "felled")
    assert answer(capsys, "reviews") == []


def test_decide_says_which_asset_it_met_or_made(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    add = ("decide", "add", "--class", "tree", "--at", "2023-06-01", "--lon-lat")
    met = answer(capsys, *add, f"{LON},{LAT}")
    assert met["made"] is None
    assert "was known here already, and is verified" in words(capsys, *add, f"{LON},{LAT}")
    made = answer(capsys, *add, f"{LON + 0.00006},{LAT}")
    assert made["asset"] == made["made"] != met["asset"]
    assert "a new asset" in words(capsys, *add, f"{LON - 0.00006},{LAT}")


def test_a_file_is_stored_whole_or_not_at_all(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = feature(decision="reject"), feature(decision="felled")
    refused = answer(capsys, "decide", "--file", write(town, good, bad), exit_code=1)["error"]
    assert (refused["code"], refused["what"]) == (
        "decisions_unusable",
        "1 of 2 features cannot be used, so nothing was stored",
    )
    assert "feature 2: “felled” is no decision" in refused["do"]
    assert answer(capsys, "count")[0]["count"] == len(GRID)
    said = words(capsys, "decide", "--file", write(town, good))
    assert "1 decision recorded" in said
    assert answer(capsys, "count")[0]["count"] == len(GRID) - 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["decide"],
        ["decide", "fell"],
        ["decide", "verify", "--file", "x.geojson"],
        ["decide", "--file", "x.geojson", "--asset", "y"],
        ["asset"],
        ["models", "compare", "squares"],
    ],
)
def test_what_is_asked_for_wrongly_is_a_matter_of_usage(town: Town, arguments: list[str]) -> None:
    assert run([*arguments, "--city", CODE]) == 2


def test_models_are_compared_and_chosen_and_chosen_back(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    def counted() -> Any:
        return [answer(capsys, "count", *place) for place in ((), ("--level", "district"))]

    before = counted()
    picture = town.folder / "differences.png"
    compared = answer(capsys, "models", "compare", "squares", "cubes", "--picture", str(picture))
    assert compared["picture"] is None
    assert [outcome["status"] for outcome in compared["shadow"]] == ["not_in_force"]
    assert compared["counts"][0] == {
        "area": CODE, "name": "Town", "class": "tree", "old": 49, "new": 49, "change": 0,
    }  # fmt: skip
    assert counted() == before
    said = words(capsys, "models", "compare", "squares", "cubes")
    assert "both have seen 1 scene" in said
    assert "nothing is changed; to use it: urban-inventory models use cubes --city town" in said
    answer(capsys, "models", "use", "cubes")
    answer(capsys, "models", "use", "squares")
    assert counted() == before
    same = answer(capsys, "models", "compare", "cubes", "cubes", exit_code=1)
    assert same["error"]["code"] == "bad_request"
    nobody = answer(capsys, "models", "compare", "cubes", "nobody", exit_code=1)
    assert nobody["error"]["code"] == "unknown_name"


def test_export_of_pmtiles_says_what_the_file_has_and_takes_no_conditions_of_tables(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    file = town.folder / "town.pmtiles"
    assert f"{len(GRID)} assets in" in words(capsys, "export", "-o", str(file))
    said = answer(capsys, "export", "-o", str(file))
    assert (said["format"], said["assets"], said["deepest_zoom"]) == ("pmtiles", len(GRID), 15)
    assert said["bytes"] == file.stat().st_size
    refused = words(capsys, "export", "-o", str(file), "--area", "W", exit_code=1)
    assert "--area" in refused
