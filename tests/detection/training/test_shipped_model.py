"""The shipped tree model: small, honest, and the one of its card."""

import pytest

from detection.data_folder import data_path
from detection.detector import build_detector
from detection.models import Model, load_model
from detection.training.recipe import read_recipe


@pytest.fixture(scope="module")
def shipped() -> Model:
    return load_model(data_path("models", "trees-aerial", "card.toml"))


def test_it_fits_into_git(shipped: Model) -> None:
    assert shipped.path.stat().st_size <= 12 * 1024**2


def test_its_network_is_the_one_its_card_describes(shipped: Model) -> None:
    import numpy as np

    side = shipped.card.input.window_px
    (boxes,) = build_detector(shipped).detect(np.full((1, side, side, 3), 128, np.uint8))
    assert len(boxes) == 0


def test_every_training_source_of_the_recipe_stands_on_the_card_with_its_licence(
    shipped: Model,
) -> None:
    recipe = read_recipe(data_path("recipes", "trees-aerial.toml"))
    on_card = {(row.name, row.licence) for row in shipped.card.training_data}
    assert on_card == {(source.name, source.licence) for source in recipe.of_role("train")}


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
