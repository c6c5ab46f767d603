"""The registry of data sets, and the recipe that draws on it."""

from pathlib import Path

from detection.data_folder import data_path
from detection.training.datasets import read_datasets
from detection.training.recipe import read_recipe


def test_every_source_of_the_shipped_recipe_is_registered_with_its_licence() -> None:
    registry = read_datasets()
    for source in read_recipe(data_path("recipes", "trees-aerial.toml")).sources:
        known = registry[Path(source.pictures).parts[1]]
        assert (source.licence, source.origin) == (known.licence, known.origin)
        assert source.ground_resolution_m == known.ground_resolution_m
        assert source.format in known.forms


def test_the_registry_agrees_with_the_data_at_hand(shared: Path) -> None:
    missing = [name for name in read_datasets() if not (shared / "datasets" / name).is_dir()]
    assert missing == []
