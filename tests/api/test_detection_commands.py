"""The commands that need no database, as a user gives them."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest

from api.cli.app import run
from api.cli.detection import parse_mapping
from detection.errors import CallerError
from tests.support.networks import make_model, write_card
from tests.support.scenes import make_scene_file

TREES = [(20, 30), (150, 110), (300, 220)]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(tmp_path / "home"))
    write_card(make_model(tmp_path / "home" / "models" / "squares"))
    return "squares"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene_file(tmp_path / "a.tif", trees=TREES, cars=[(60, 60)])


def test_detect_writes_boxes_on_the_ground(
    tmp_path: Path, model: str, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.geojson"
    assert run(["detect", str(scene), "-o", str(out), "--model", model, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["objects"], told["model"]) == (4, "squares")
    found = geopandas.read_file(out)
    assert found.crs.to_epsg() == 4326
    assert found["class"].value_counts().to_dict() == {"tree": 3, "car": 1}
    assert found["width_m"].tolist() == pytest.approx([0.8] * 4, abs=0.01)
    metric = found.to_crs(32612)
    assert metric.area.tolist() == pytest.approx([0.64] * 4, abs=0.01)
    centres = np.stack([metric.centroid.x, metric.centroid.y], axis=1)
    assert np.abs(centres - [541_002.4, 4_976_996.6]).sum(axis=1).min() < 0.02


def test_detect_prints_points_where_no_file_is_named(
    model: str, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--quiet", "detect", str(scene), "--model", model, "--points"]) == 0
    collection = json.loads(capsys.readouterr().out)
    assert {feature["geometry"]["type"] for feature in collection["features"]} == {"Point"}
    assert len(collection["features"]) == 4


def test_a_size_that_its_class_cannot_have_is_flagged(
    tmp_path: Path, model: str, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.geojson"
    assert run(["detect", str(scene), "-o", str(out), "--model", model, "--json"]) == 0
    # Squares of 0.8 m: a small tree, and no car.
    assert json.loads(capsys.readouterr().out)["implausible"] == 1
    found = geopandas.read_file(out)
    assert dict(zip(found["class"], found["plausible"], strict=True)) == {"tree": True, "car": False}


def test_models_add_keeps_a_model_of_the_user_s_own(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_model(tmp_path / "made", name="mine")
    card = write_card(made)
    assert run(["models", "add", str(made.path), "--card", str(card), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mine"
    assert run(["models", "list", "--json"]) == 0
    assert "mine" in {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert run(["models", "add", str(tmp_path / "none.onnx")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_detect_refuses_a_bad_file_in_one_message(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_text("no image")
    assert run(["detect", str(bad), "--model", model, "--json", "-o", str(tmp_path / "o.geojson")]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "scene_unreadable"
    assert "bad.tif" in error["where"]
    assert not (tmp_path / "o.geojson").exists()


def test_inspect_says_what_is_wrong_and_exits_with_one(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    undated = make_scene_file(tmp_path / "undated.tif", taken_at=None)
    assert run(["inspect", str(undated), "--model", model, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is False
    blocking = [finding for finding in report["findings"] if finding["severity"] == "blocking"]
    assert [finding["code"] for finding in blocking] == ["scene_without_date"]
    assert report["scene"]["crs"] == "EPSG:32612"
    assert report["scene"]["ground_resolution_m"] == pytest.approx(0.1, rel=1e-3)


def test_inspect_of_a_good_file_exits_with_zero(
    model: str, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(scene), "--model", model]) == 0
    assert "resolution" in capsys.readouterr().out


def test_models_are_listed_with_what_they_see(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed[model]["classes"] == ["tree", "car"]
    assert listed[model]["validated"] is False


def test_an_unknown_model_is_named(scene: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["detect", str(scene), "--model", "nobody", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unknown_name"


def test_a_broken_card_hides_no_other_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(tmp_path))
    (tmp_path / "models/broken").mkdir(parents=True)
    (tmp_path / "models/broken/card.toml").write_text("name = 3")
    assert run(["models", "list"]) == 1
    shown = capsys.readouterr()
    assert "trees-aerial" in shown.out
    assert str(tmp_path / "models/broken/card.toml") in shown.err.replace("\n", "")


@pytest.mark.parametrize("pair", ["tree", "tree=", "=tree", "a=b=c", "="])
def test_a_mapping_of_another_form_is_refused(pair: str) -> None:
    with pytest.raises(CallerError, match="label=class"):
        parse_mapping([pair])


def test_a_label_has_one_class() -> None:
    assert parse_mapping(["vehicle=car", " bus = bus ", "vehicle=car"]) == {"vehicle": "car", "bus": "bus"}
    with pytest.raises(CallerError, match="two classes"):
        parse_mapping(["vehicle=car", "vehicle=bus"])
