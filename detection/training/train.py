"""The whole way of a model: recipe → windows → weights → ONNX → threshold → card."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detection.errors import ModelError
from detection.evaluation.card import (
    STATED_PERSISTENT_SHARE,
    evaluation_entry,
    evidence_of_class,
    write_card,
)
from detection.evaluation.evaluate import cut_into_blocks
from detection.evaluation.look import look_with, production_look_with, weak_look_with
from detection.evaluation.measures import measure
from detection.models import (
    CardInput,
    CardOutput,
    CardTrainingData,
    Model,
    ModelCard,
    load_model,
)
from detection.training.calibrate import (
    ValidationGround,
    blocks_of_several_sizes,
    calibrated_thresholds,
    counted_share,
    look_at_validation,
    persistent_share,
)
from detection.training.datasets import differing
from detection.training.export import describe, export_onnx, sha256_of
from detection.training.fit import fit
from detection.training.recipe import Recipe, Variant
from detection.training.windows import WindowSet, make_window_set


def train(
    recipe: Recipe,
    data_folder: Path,
    work: Path,
    out: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Model:
    """Trains a model by its recipe and writes ``model.onnx`` and ``card.toml`` into ``out``.

    Args:
        data_folder: what the recipe's paths are below.
        work: folder for windows and checkpoints; with ``resume`` that of the interrupted training.
        say: told at each step what is being done.

    Raises:
        MissingExtra: ultralytics is not installed.
        LabelsUnusable, ModelUntrusted, ModelError: see ``fit`` and ``make_window_set``.
    """
    for data_set in differing(recipe, data_folder):
        say(
            f"{data_set.name} is not the data that the model was made from (data/datasets.toml, "
            f"SHA-256 {data_set.sha256[:12]}…): the result will differ"
        )
    said = work / "recipe.json"
    _check_same_recipe(recipe, said, resume=resume)
    say("cutting windows")
    windows = make_window_set(recipe, data_folder, work / "windows", seed=recipe.schedule.seed)
    said.write_text(recipe.model_dump_json(), encoding="utf-8")
    say(f"training {recipe.schedule.epochs} epochs")
    weights = fit(recipe, windows.data_file, data_folder / recipe.weights, work / "fit", resume=resume)
    return finish(recipe, data_folder, weights, windows, out, say=say)


def finish(
    recipe: Recipe,
    data_folder: Path,
    weights: Path,
    windows: WindowSet,
    out: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Model:
    """From trained weights to a model with threshold, evidence and card; variants' cards go beside its folder."""
    say("exporting to ONNX")
    network = out / "model.onnx"
    sha256 = export_onnx(weights, network, recipe)
    card = _card(recipe, sha256, windows)
    write_card(card, out / "card.toml")
    say("choosing the threshold on validation data")
    card = judge(recipe, load_model(out / "card.toml"), data_folder)
    describe(network, recipe, float(card.threshold[recipe.classes[0]]))
    write_card(card.model_copy(update={"sha256": sha256_of(network)}), out / "card.toml")
    model = load_model(out / "card.toml")
    for variant in recipe.variants:
        say(f"choosing the threshold of {variant.name}")
        write_variant(recipe, variant, model, data_folder)
    return model


def write_variant(recipe: Recipe, variant: Variant, model: Model, data_folder: Path) -> Model:
    """Judges a model's variant and writes its card into a folder beside the model's; the network stays where it is."""
    folder = model.path.parent.parent / variant.name
    card = model.card.model_copy(
        update={
            "name": variant.name,
            "description": variant.description,
            "file": f"../{model.path.parent.name}/{model.path.name}",
            "input": model.card.input.model_copy(update={"views": variant.views}),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_card(judge(recipe, replace(model, card=card), data_folder), folder / "card.toml")
    return load_model(folder / "card.toml")


def judge(recipe: Recipe, model: Model, data_folder: Path) -> ModelCard:
    """The model's card with thresholds and evidence from the recipe's validation sources.

    The threshold is chosen on detections down to a low score, then corrected once for what the
    production sweep loses at it: an object that its owning window sees too weakly.
    """
    weak = look_at_validation(recipe, data_folder, weak_look_with(model))
    first = _with_thresholds(recipe, model, calibrated_thresholds(recipe, weak))
    counted = look_at_validation(recipe, data_folder, production_look_with(first))
    aim = 1 / np.maximum(counted_share(recipe, counted), 0.5)
    chosen = _with_thresholds(recipe, model, calibrated_thresholds(recipe, weak, aim))
    validation = look_at_validation(recipe, data_folder, look_with(chosen), twice=True)
    return _judged(recipe, chosen.card, validation)


def _with_thresholds(recipe: Recipe, model: Model, thresholds: NDArray[np.float64]) -> Model:
    values = dict(zip(recipe.classes, np.round(thresholds, 4).tolist(), strict=True))
    return replace(model, card=model.card.model_copy(update={"threshold": values}))


def _check_same_recipe(recipe: Recipe, said: Path, *, resume: bool) -> None:
    if resume and not said.is_file():
        raise ModelError("there is no training to resume", where=str(said.parent))
    if said.is_file() and json.loads(said.read_text(encoding="utf-8")) != recipe.model_dump(mode="json"):
        if resume:
            raise ModelError(
                "the recipe has changed since this training began",
                where=str(said.parent),
                do="Start anew in another folder, or put the recipe back.",
            )
        # Windows of another recipe are another data set.
        shutil.rmtree(said.parent / "windows", ignore_errors=True)
        said.unlink()


def _card(recipe: Recipe, sha256: str, windows: WindowSet) -> ModelCard:
    return ModelCard(
        name=recipe.name,
        version=recipe.version,
        file="model.onnx",
        sha256=sha256,
        licence=recipe.licence,
        description=recipe.description,
        input=CardInput(
            ground_resolution_m=recipe.ground_resolution_m,
            range_m=recipe.range_m,
            window_px=recipe.window_px,
            margin_px=recipe.margin_px,
            colours=recipe.colours,
        ),
        output=CardOutput(head="one-to-many", classes=recipe.classes, merge_iou=recipe.merge_iou),
        threshold=dict.fromkeys(recipe.classes, 0.25),
        training_data=tuple(
            CardTrainingData(
                name=source.name,
                images=windows.pictures[source.name],
                objects=windows.objects[source.name],
                licence=source.licence,
                source=source.origin,
            )
            for source in recipe.of_role("train")
        ),
    )


def _judged(recipe: Recipe, card: ModelCard, validation: list[ValidationGround]) -> ModelCard:
    """The card with evidence and the figures of each validation source."""
    thresholds = np.array([card.threshold[name] for name in recipe.classes])
    judging = [item.ground for item in validation if item.is_home]
    share = persistent_share(validation, thresholds)
    blocks = blocks_of_several_sizes(validation)
    domains = [
        [item.ground for item in validation if item.source == source]
        for source in dict.fromkeys(item.source for item in validation)
    ]
    evidence = {}
    for index, name in enumerate(recipe.classes):
        found = evidence_of_class(
            index,
            judging,
            blocks,
            thresholds,
            domains=domains,
            persistent_share=STATED_PERSISTENT_SHARE if share is None else share,
        )
        if found is not None:
            evidence[name] = found
    entries = []
    for source in dict.fromkeys(item.source for item in validation):
        grounds = [item.ground for item in validation if item.source == source]
        chosen = any(item.calibrates for item in validation if item.source == source)
        split = "validation (threshold chosen on it)" if chosen else "validation"
        pieces = [block for ground in grounds for block in cut_into_blocks(ground)]
        parts = pieces if len(grounds) == 1 else None
        entries.append(evaluation_entry(source, split, measure(grounds, thresholds, blocks=parts)))
    return card.model_copy(
        update={
            "evidence": evidence,
            "evaluation": tuple(entries),
        }
    )
