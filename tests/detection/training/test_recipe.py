"""Recipes: complete or refused; the shipped one never trains on what it is measured on."""

import csv
import re
from pathlib import Path

import pytest

from detection.data_folder import data_path
from detection.errors import LabelsUnusable
from detection.training.recipe import read_recipe, simple_recipe, with_weights

SHIPPED = data_path("recipes", "trees-aerial.toml")
WHOLE = SHIPPED.read_text(encoding="utf-8")


def test_the_shipped_recipe_is_complete() -> None:
    recipe = read_recipe(SHIPPED)
    assert recipe.classes == ("tree",)
    assert recipe.schedule.batch == recipe.schedule.nominal_batch
    assert recipe.of_role("train")
    assert any(source.is_home for source in recipe.of_role("validate"))


def test_the_shipped_recipe_leaves_the_held_out_block_alone() -> None:
    # Patches 080 to 109 are the rows of the ortho from pixel 4096 on.
    sources = [s for s in read_recipe(SHIPPED).sources if "campo-grande" in s.pictures]
    assert sources
    for source in sources:
        assert source.regions
        assert all(y_max <= 4096 for _, _, _, y_max in source.regions)


def test_the_shipped_recipe_trains_and_validates_on_different_ground() -> None:
    sources = [s for s in read_recipe(SHIPPED).sources if "campo-grande" in s.pictures]
    for one in (r for s in sources if s.role == "train" for r in s.regions):
        for two in (r for s in sources if s.role == "validate" for r in s.regions):
            apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
            assert apart, (one, two)


@pytest.mark.parametrize("name", ["YELL", "OSBS", "HARV"])
def test_the_demos_scenes_and_partial_labels_are_trained_on_nowhere(name: str, shared: Path) -> None:
    for source in read_recipe(SHIPPED).of_role("train"):
        assert name not in source.pictures
        if source.select is not None:
            with (shared / source.select.table).open(newline="") as file:
                chosen = [
                    row[source.select.stem]
                    for row in csv.DictReader(file)
                    if all(row[c] in v for c, v in source.select.where.items())
                ]
            assert chosen
            assert not any(name in stem for stem in chosen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("window_px = 640", "window_px = 641"), "window_px"),
        (("batch = 16\nnominal", "batch = 0\nnominal"), r"schedule\.batch"),
        (('role = "train"', 'role = "test"'), r"sources\.0\.role"),
        (('version = "2"', "version = "), "cannot be read"),
        (('version = "2"', 'version = "2"\ncolour = "green"'), "colour"),
    ],
)
def test_a_faulty_recipe_says_which_line_is_wrong(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(WHOLE.replace(*change, 1), encoding="utf-8")
    with pytest.raises(LabelsUnusable, match=message):
        read_recipe(path)


def test_own_weights_are_vouched_for_by_naming_them(tmp_path: Path) -> None:
    weights = tmp_path / "own.pt"
    weights.write_bytes(b"weights")
    changed = with_weights(read_recipe(SHIPPED), weights)
    assert changed.weights == str(weights)
    assert re.fullmatch("[0-9a-f]{64}", changed.weights_sha256)
    with pytest.raises(LabelsUnusable, match="missing"):
        with_weights(changed, tmp_path / "none.pt")


def test_two_folders_make_a_recipe(tmp_path: Path) -> None:
    from detection.evaluation.labels import LabelFormat

    (tmp_path / "own.pt").write_bytes(b"weights")
    recipe = simple_recipe(
        name="own",
        classes=("tree", "bush"),
        images=(tmp_path / "a", tmp_path / "b"),
        labels=(tmp_path / "a", tmp_path / "b"),
        form=LabelFormat.YOLO,
        weights=tmp_path / "own.pt",
        ground_resolution_m=0.2,
    )
    assert [source.role for source in recipe.sources] == ["train", "validate"]
    assert recipe.range_m == (0.1, 0.4)
