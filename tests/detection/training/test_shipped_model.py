"""The shipped models: small, honest, and the ones of their cards."""

from pathlib import Path

import numpy as np
import pytest

from detection.data_folder import data_path
from detection.detector import build_detector
from detection.models import Model, load_model
from detection.sweep import sweep
from detection.taxonomy import shipped_taxonomy
from detection.training.recipe import read_recipe

NAMES = sorted(path.parent.name for path in data_path("models").glob("*/card.toml"))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Model:
    return load_model(data_path("models", request.param, "card.toml"))


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load_model(data_path("models", "trees-aerial", "card.toml"))


def test_all_of_them_are_here() -> None:
    assert set(NAMES) >= {"trees-aerial", "trees-aerial-thorough", "trees-naip", "vehicles-aerial"}


def test_it_fits_into_git(model: Model) -> None:
    assert model.path.stat().st_size <= 12 * 1024**2


def test_its_network_is_the_one_its_card_describes(model: Model) -> None:
    side = model.card.input.window_px
    (boxes,) = build_detector(model).detect(np.full((1, side, side, 3), 128, np.uint8))
    assert len(boxes) == 0


def test_every_training_source_of_the_recipe_stands_on_the_card_with_its_licence(model: Model) -> None:
    # A variant is made by the recipe of the model whose network it uses.
    recipe = read_recipe(data_path("recipes", f"{model.path.resolve().parent.name}.toml"))
    assert model.card.name in {recipe.name, *(variant.name for variant in recipe.variants)}
    on_card = {(row.name, row.licence) for row in model.card.training_data}
    assert on_card == {(source.name, source.licence) for source in recipe.of_role("train")}


def test_the_taxonomy_lists_it_for_the_classes_that_it_sees(model: Model) -> None:
    for name in model.card.output.classes:
        assert model.card.name in shipped_taxonomy().get(name).models


@pytest.mark.parametrize(
    ("name", "scene", "counts"),
    [
        ("trees-aerial", "datasets/trees-campo-grande/ortho.tif", {"tree": 1489}),
        (
            "vehicles-aerial",
            "datasets/ortho-manila/5b90f92da0d7280005fab355_4310.tif",
            {"car": 96},
        ),
    ],
)
def test_what_it_counts_on_a_real_scene_is_what_it_counted_when_it_was_shipped(
    shared: Path, name: str, scene: str, counts: dict[str, int]
) -> None:
    model = load_model(data_path("models", name, "card.toml"))
    (result,) = sweep([shared / scene], model)
    seen = result.observations
    for class_name, wanted in counts.items():
        found = int((seen.class_index == seen.classes.index(class_name)).sum())
        # Processors round differently: a few objects lie at the threshold.
        assert found == pytest.approx(wanted, rel=0.01, abs=1)


def test_the_vehicle_card_says_how_it_does_on_streets_that_it_never_saw() -> None:
    card = load_model(data_path("models", "vehicles-aerial", "card.toml")).card
    rows = {row.data: row for row in card.evaluation}
    assert rows["cars-madison, sequence 3"].ap50 >= 0.90
    crossroad = rows["cars-munich"]
    assert 2 * crossroad.precision * crossroad.recall / (crossroad.precision + crossroad.recall) >= 0.85


def test_the_card_of_public_imagery_says_how_it_does_on_tiles_that_it_never_saw() -> None:
    card = load_model(data_path("models", "trees-naip", "card.toml")).card
    (held_out,) = (row for row in card.evaluation if row.split.startswith("held-out"))
    assert min(held_out.precision, held_out.recall) >= 0.65


def test_the_card_says_how_it_does_on_the_held_out_block(shipped: Model) -> None:
    (held_out,) = (row for row in shipped.card.evaluation if row.split.startswith("held-out"))
    assert held_out.ap50 >= 0.65
    assert abs(held_out.count_error) <= 0.10
    blocks = held_out.model_dump()["block_counts"]
    assert [sum(column) for column in zip(*blocks, strict=True)] == [
        held_out.count_true,
        held_out.count_predicted,
    ]
    assert shipped.card.is_validated
