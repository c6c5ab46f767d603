"""The doctor finds what is wrong, names it, and says how to mend it; what is right it leaves in peace."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from detection.models import ModelRegistry
from inventory import evidence_changes
from inventory.doctor import Check, examine
from inventory.store import cluster
from inventory.store.database import Database
from tests.support.database import ClonedDatabase
from tests.support.scenes import scattered
from tests.support.town import CODE, SIDE_PX, Town, make_town

TREES = scattered(SIDE_PX, SIDE_PX, count=12, gap_px=60)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Town:
    return make_town(database, tmp_path)


def found(town: Town, url: str, **options: bool) -> dict[str, Check]:
    """All checks by name; the data folder is the town's."""
    home = town.folder / "home"
    home.mkdir(exist_ok=True)
    checks = examine(
        home,
        database_url=url,
        registry=town.registry,
        taxonomy=town.taxonomy,
        say=lambda _: None,
        **options,
    )
    return {check.name: check for check in checks}


def wrong(checks: dict[str, Check]) -> set[str]:
    assert all(check.do for check in checks.values() if not check.ok)
    return {name for name, check in checks.items() if not check.ok}


def test_sound_installation_is_found_sound(town: Town, cloned: ClonedDatabase) -> None:
    town.ingest(town.picture("one", TREES), "2024-05-01")
    checks = found(town, cloned.service_url)
    assert wrong(checks) == set()
    assert "urban_inventory_service, unprivileged" in checks["database role"].what
    assert {f"{CODE}: models", f"{CODE}: imagery", f"{CODE}: sums"} < set(checks)


def test_scene_whose_file_moved_is_named_until_it_is_located(town: Town, cloned: ClonedDatabase) -> None:
    file = town.picture("one", TREES)
    (outcome,) = town.ingest(file, "2024-05-01")
    moved = file.rename(file.with_name("moved.tif"))
    checks = found(town, cloned.service_url)
    assert wrong(checks) == {f"{CODE}: imagery"}
    check = checks[f"{CODE}: imagery"]
    assert f"scene {outcome.scene}: {file} is not there" in check.what
    assert f"scene locate {outcome.scene}" in (check.do or "")
    assert outcome.scene is not None
    evidence_changes.locate_scene(town.database, CODE, outcome.scene, moved)
    assert wrong(found(town, cloned.service_url)) == set()


def test_scene_whose_pixels_changed_is_named(town: Town, cloned: ClonedDatabase) -> None:
    file = town.picture("one", TREES)
    town.ingest(file, "2024-05-01")
    with rasterio.open(file, "r+") as dataset:
        dataset.write(np.zeros((3, 8, 8), np.uint8), window=((0, 8), (0, 8)))
    assert "holds other pixels" in found(town, cloned.service_url)[f"{CODE}: imagery"].what


def test_old_change_is_seen_by_a_thorough_look(town: Town, cloned: ClonedDatabase) -> None:
    file = town.picture("one", TREES)
    town.ingest(file, "2024-05-01")
    town.picture("one", TREES[1:])
    os.utime(file, (0, 0))
    assert wrong(found(town, cloned.service_url)) == set()
    assert wrong(found(town, cloned.service_url, thorough=True)) == {f"{CODE}: imagery"}


def test_sum_that_is_not_its_rows_is_named_and_rebuild_mends_it(town: Town, cloned: ClonedDatabase) -> None:
    town.ingest(town.picture("one", TREES), "2024-05-01")
    engine = create_engine(cloned.owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE urban_inventory.area_count_delta SET listed = listed + 1 WHERE area_version_id = 0")
        )
    engine.dispose()
    checks = found(town, cloned.service_url)
    assert wrong(checks) == {f"{CODE}: sums"}
    assert "city, tree: 13 summed, 12 listed" in checks[f"{CODE}: sums"].what
    evidence_changes.rebuild(town.database, CODE, taxonomy=town.taxonomy)
    assert wrong(found(town, cloned.service_url)) == set()


def test_model_that_is_not_the_one_of_its_card_is_named(town: Town, cloned: ClonedDatabase) -> None:
    network = town.registry.get("squares").path
    network.write_bytes(network.read_bytes() + b"\0")
    assert wrong(found(town, cloned.service_url)) == {"model squares"}


def test_class_without_a_model_is_named(town: Town, cloned: ClonedDatabase, tmp_path: Path) -> None:
    nobody = Town(
        database=town.database,
        registry=ModelRegistry([tmp_path / "no-models"]),
        taxonomy=town.taxonomy,
        folder=town.folder,
    )
    checks = found(nobody, cloned.service_url)
    assert "no model at hand for tree" in checks[f"{CODE}: models"].what


def test_role_that_may_too_much_is_named(town: Town, cloned: ClonedDatabase) -> None:
    checks = found(town, cloned.owner_url)
    assert wrong(checks) == {"database role"}
    assert "owns the schema" in checks["database role"].what


def test_folder_that_everybody_may_write_is_named(town: Town, cloned: ClonedDatabase) -> None:
    home = town.folder / "home"
    home.mkdir()
    home.chmod(0o777)
    assert wrong(found(town, cloned.service_url)) == {"data folder"}


def test_cluster_of_a_removed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PLACES", tmp_path / "clusters")
    for name in ("kept", "gone"):
        place = tmp_path / "clusters" / name
        place.mkdir(parents=True)
        (place / "belongs-to").write_text(f"{tmp_path / name}\n", encoding="utf-8")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "location").write_text(f"{tmp_path / 'clusters' / 'kept'}\n", encoding="utf-8")
    assert cluster.places_left_behind() == [(tmp_path / "clusters" / "gone", tmp_path / "gone")]


def test_database_that_does_not_answer_is_one_check_among_others(town: Town) -> None:
    checks = found(town, "postgresql://nobody@127.0.0.1:1/nothing")
    assert "database" in wrong(checks)
    assert checks["Python"].ok
