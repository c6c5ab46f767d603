"""Does the tree model's count hold on city blocks that it has not seen? Five blocks, each left out in turn.

    python -m benchmarks.left_out --data ../shared --work FOLDER --json

The recipe's training rows of the city are cut into five blocks of 102 × 307 m. A network is trained shortly on the
recipe's other sources, once; then five times further on the city without one block. Each chooses its threshold as
the recipe says, on the validation rows, before it looks at the block that it was not shown. Trainings are far
shorter than the shipped one's: the figures tell how counts scatter between blocks, not how good the model is.

An interrupted run goes on after the last whole training. Prints ``blocks`` (``true``, ``counted``, ``error``,
``threshold``), ``median`` and ``worst`` of the absolute errors. Takes an hour on two cores without bfloat16.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from detection.data_folder import data_path
from detection.evaluation.look import production_look_with
from detection.models import Model, load_model
from detection.training.calibrate import look_at_validation
from detection.training.fit import fit
from detection.training.recipe import Recipe, Source, read_recipe, with_weights
from detection.training.train import train
from detection.training.windows import make_window_set

CITY = "trees-campo-grande"
#: x_min, y_min, x_max, y_max in pixels of the ortho: two columns of six patches each.
BLOCKS = tuple((left, 0, left + 1024, 3072) for left in range(0, 5120, 1024))
#: The training rows below the blocks, which are always trained on.
REST = (0, 3072, 2048, 3584)


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what the recipe's paths are below")
    parser.add_argument("--work", type=Path, required=True, help="folder for windows and weights")
    parser.add_argument("--base-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of each of the five trainings")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    recipe = read_recipe(data_path("recipes", "trees-aerial.toml"))
    base = _base(recipe, given.data, given.work / "base", given.base_epochs)
    blocks = []
    for number, block in enumerate(BLOCKS):
        print(f"block {number + 1} of {len(BLOCKS)}", file=sys.stderr)
        without = with_weights(_without(recipe, block, given.epochs), base)
        model = _trained(without, given.data, given.work / f"block-{number}")
        blocks.append(_counted(recipe, model, given.data, block))
    errors = np.abs([block["error"] for block in blocks])
    told = {
        "blocks": blocks,
        "median": round(float(np.median(errors)), 4),
        "worst": round(float(errors.max()), 4),
    }
    print(json.dumps(told) if given.json else "\n".join(f"{key}: {value}" for key, value in told.items()))


def _is_city(source: Source) -> bool:
    return source.name == CITY and source.role == "train"


def _base(recipe: Recipe, data: Path, work: Path, epochs: int) -> Path:
    """Weights trained on all sources but the city."""
    weights = work / "fit" / "weights" / "last.pt"
    done = work / "done"
    if not done.is_file():
        elsewhere = _shortened(
            recipe, epochs, tuple(source for source in recipe.sources if not _is_city(source))
        )
        windows = make_window_set(elsewhere, data, work / "windows")
        weights = fit(elsewhere, windows.data_file, data / elsewhere.weights, work / "fit")
        done.touch()
    return weights


def _without(recipe: Recipe, block: tuple[int, int, int, int], epochs: int) -> Recipe:
    """The recipe on the city without a block, and on a fifth of the other sources' windows."""
    regions = (*(other for other in BLOCKS if other != block), REST)
    sources = tuple(
        source.model_copy(update={"regions": regions})
        if _is_city(source)
        else source.model_copy(update={"windows": max(source.windows // 5, 1)})
        if source.role == "train"
        else source
        for source in recipe.sources
    )
    return _shortened(recipe, epochs, sources)


def _shortened(recipe: Recipe, epochs: int, sources: tuple[Source, ...]) -> Recipe:
    schedule = recipe.schedule.model_copy(update={"epochs": epochs, "close_mosaic": 1})
    return recipe.model_copy(update={"schedule": schedule, "sources": sources, "variants": ()})


def _trained(recipe: Recipe, data: Path, work: Path) -> Model:
    card = work / "model" / "card.toml"
    done = work / "done"
    if not done.is_file():
        train(recipe, data, work, card.parent, say=lambda text: print(text, file=sys.stderr))
        done.touch()
    return load_model(card)


def _counted(recipe: Recipe, model: Model, data: Path, block: tuple[int, int, int, int]) -> dict[str, float]:
    (city,) = (source for source in recipe.sources if _is_city(source))
    unseen = city.model_copy(update={"role": "validate", "regions": (block,), "windows": 0})
    only = recipe.model_copy(update={"sources": (unseen,)})
    (looked,) = look_at_validation(only, data, production_look_with(model))
    true, counted = len(looked.ground.truth_px), len(looked.ground.detected_px)
    return {
        "true": true,
        "counted": counted,
        "error": round((counted - true) / true, 4),
        "threshold": model.card.threshold["tree"],
    }


if __name__ == "__main__":
    main()
