"""The registry of data sets, and the recipes that draw on it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from detection.data_folder import data_path
from detection.training.datasets import differing, folder_sha256, read_datasets
from detection.training.recipe import read_recipe

RECIPES = sorted(data_path("recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_source_of_a_shipped_recipe_is_registered_with_its_licence(recipe: Path) -> None:
    registry = read_datasets()
    for source in read_recipe(recipe).sources:
        known = registry[Path(source.pictures).parts[1]]
        assert (source.licence, source.origin) == (known.licence, known.origin)
        assert source.ground_resolution_m == pytest.approx(known.ground_resolution_m, rel=0.04)
        assert source.format in known.forms


def test_a_folders_hash_is_the_one_that_sha256sum_tells(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("images/b.jpg", "images/a.jpg", "labels.csv", "README.md"):
        (tmp_path / name).write_text(name)
    told = subprocess.check_output(
        "find . -type f ! -name README.md -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum",
        shell=True,
        cwd=tmp_path,
        text=True,
    )
    assert folder_sha256(tmp_path) == told.split()[0]
    # What operating systems leave behind is no data.
    for name in (".DS_Store", "images/._a.jpg", "images/Thumbs.db"):
        (tmp_path / name).write_text(name)
    assert folder_sha256(tmp_path) == told.split()[0]


def test_the_data_at_hand_are_those_registered(shared: Path) -> None:
    assert {name: folder_sha256(shared / "datasets" / name) for name in read_datasets()} == {
        name: known.sha256 for name, known in read_datasets().items()
    }


def test_changed_data_are_told(shared: Path, tmp_path: Path) -> None:
    recipe = read_recipe(data_path("recipes", "trees-naip.toml"))
    copied = tmp_path / "datasets" / "trees-naip"
    shutil.copytree(shared / "datasets" / "trees-naip", copied)
    assert differing(recipe, tmp_path) == []
    (copied / "points.csv").unlink()
    assert [data_set.name for data_set in differing(recipe, tmp_path)] == ["trees-naip"]
