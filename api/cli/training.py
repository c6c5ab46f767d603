"""Commands ``train`` and ``evaluate``: making models, and saying what they are worth."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from api.cli import output
from api.cli.detection import JsonOption, TrustOption, model_registry, parse_mapping, sweep_progress
from api.settings import read_settings
from detection.data_folder import data_path
from detection.errors import CallerError, UnknownName
from detection.evaluation.card import (
    evaluation_entry,
    evidence_of_class,
    with_evaluation,
    write_card,
)
from detection.evaluation.evaluate import (
    Evaluation,
    MatchRule,
    cut_into_blocks,
    evaluate_pictures,
    evaluate_scene,
)
from detection.evaluation.labels import ClassNames, LabelFormat, read_labelled_pictures
from detection.evaluation.look import look_with
from detection.evaluation.measures import POINT_REACH_M, Figures
from detection.evaluation.mosaic import layout_beside
from detection.evaluation.picture import draw_matches
from detection.evaluation.worst import draw_worst
from detection.models import Model

#: Resolution assumed of pictures that do not say theirs: that of common aerial programmes.
USUAL_RESOLUTION_M = 0.10
#: An evaluation of fewer objects says little of a count.
FEW_OBJECTS = 100

_Names = Annotated[str | None, typer.Option(help="Names of the class numbers in the labels: tree,bush.")]
_Map = Annotated[
    list[str] | None, typer.Option("--map", help="A label's name as a class of the model: vehicle=car.")
]


def register(app: typer.Typer) -> None:
    """Adds this group's commands."""
    app.command()(train)
    app.command()(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of a model, or a folder with card.toml.")],
    images: Annotated[Path | None, typer.Option(help="Folder of pictures.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Their labels: folder or file.")] = None,
    label_format: Annotated[LabelFormat | None, typer.Option("--format", help="Form of the labels.")] = None,
    scene: Annotated[Path | None, typer.Option(help="A georeferenced scene, with --truth.")] = None,
    truth: Annotated[Path | None, typer.Option(help="GeoJSON of the objects on the scene.")] = None,
    split: Annotated[str | None, typer.Option(help="Only objects whose property “split” is this.")] = None,
    names: _Names = None,
    mapping: _Map = None,
    resolution_m: Annotated[
        float | None, typer.Option(min=0.001, help="Ground resolution of pictures without position.")
    ] = None,
    distance_m: Annotated[
        float, typer.Option(min=0.01, help="Labels that are points: how far their detection may lie.")
    ] = POINT_REACH_M,
    class_agnostic: Annotated[
        bool, typer.Option("--class-agnostic", help="Take all classes for one.")
    ] = False,
    mosaic: Annotated[bool, typer.Option(help="Lay patches together where a patches.csv says how.")] = True,
    picture: Annotated[
        Path | None, typer.Option(help="Write hits, misses and false alarms as a picture.")
    ] = None,
    worst: Annotated[
        Path | None, typer.Option(help="Write the ten surest false alarms as a picture.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write-card", help="Write the figures into the model's card.")
    ] = False,
    trust_model: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on labelled pictures or a labelled scene.

    AP at IoU 0.5 over merged objects; precision and recall one-to-one at IoU 0.4, at the model's
    threshold (points: within --distance-m).
    """
    rule = MatchRule(point_reach_m=distance_m, class_agnostic=class_agnostic)
    if write and class_agnostic:
        raise CallerError("a card speaks of each class", do="Leave out --class-agnostic, or --write-card.")
    for file in (picture, worst):
        _require_png(file, may_be_folder=file is picture)
    found = model_registry().find(model)
    card = found.card
    class_names = ClassNames(wanted=card.output.classes, given=_listed(names), mapping=parse_mapping(mapping))
    thresholds = np.array([card.threshold[name] for name in card.output.classes])
    with output.progress_bar("looking", unit="windows") as bar:
        if scene is not None and truth is not None and images is None:
            look = look_with(found, is_trusted=trust_model, progress=sweep_progress(bar))
            evaluation = evaluate_scene(look, scene, truth, class_names, thresholds, split=split, rule=rule)
            data = scene.parent.name or scene.name
        elif images is not None and labels is not None and label_format is not None and scene is None:
            labelled = read_labelled_pictures(images, labels, label_format, class_names)
            evaluation = evaluate_pictures(
                look_with(found, is_trusted=trust_model),
                labelled,
                thresholds,
                ground_resolution_m=resolution_m or _assumed_resolution(),
                layout=layout_beside(images) if mosaic else None,
                rule=rule,
                progress=lambda done, total, rate: bar(done, total, rate),
            )
            data = images.parent.name or images.name
        else:
            raise CallerError(
                "nothing to measure on",
                do="Give --images, --labels and --format, or --scene and --truth.",
            )
    if picture is not None:
        _draw(evaluation, picture)
    if worst is not None:
        shown = draw_worst(evaluation, card.output.classes, worst)
        output.note(f"{shown} false alarms drawn to {worst}")
    if write:
        _write_into_card(found, evaluation, data, split or "all")
    _print(evaluation.figures, as_json=as_json)


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe: its file, or the name of a shipped one.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that the recipe's paths are below. [default: the data mirror, else here]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the finished model. [default: models/NAME]")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of windows and checkpoints. [default: OUT/training]")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Without a recipe: folder of pictures.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Without a recipe: their labels.")] = None,
    label_format: Annotated[
        LabelFormat | None, typer.Option("--format", help="Without a recipe: form of the labels.")
    ] = None,
    validation_images: Annotated[
        Path | None, typer.Option(help="Without a recipe: pictures to choose the threshold on.")
    ] = None,
    validation_labels: Annotated[Path | None, typer.Option(help="Without a recipe: their labels.")] = None,
    name: Annotated[str, typer.Option(help="Without a recipe: the new model's name.")] = "own-model",
    classes: Annotated[str, typer.Option(help="Without a recipe: classes, comma between.")] = "tree",
    weights: Annotated[
        Path | None, typer.Option(help="Initial weights (.pt), instead of the recipe's.")
    ] = None,
    resolution_m: Annotated[
        float, typer.Option(min=0.001, help="Without a recipe: ground resolution of the pictures.")
    ] = USUAL_RESOLUTION_M,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    names: _Names = None,
    mapping: _Map = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model: labelled folders → ultralytics → threshold → ONNX → card."""
    from detection.training import recipe as recipes
    from detection.training.train import train as run_training

    if recipe is not None:
        chosen = recipes.read_recipe(_recipe_path(recipe))
        if weights is not None:
            chosen = recipes.with_weights(chosen, weights)
    elif images and labels and label_format and validation_images and validation_labels and weights:
        chosen = recipes.simple_recipe(
            name=name,
            classes=_listed(classes),
            images=(images, validation_images),
            labels=(labels, validation_labels),
            form=label_format,
            weights=weights,
            ground_resolution_m=resolution_m,
            names=_listed(names),
            mapping=parse_mapping(mapping),
        )
    else:
        raise CallerError(
            "nothing to train on",
            do="Name a recipe, or give --images, --labels, --format, --validation-images, "
            "--validation-labels and --weights.",
        )
    if epochs is not None:
        chosen = chosen.model_copy(update={"schedule": chosen.schedule.model_copy(update={"epochs": epochs})})
    target = out or Path("models") / chosen.name
    model = run_training(
        chosen,
        data or _data_at_hand(),
        work or target / "training",
        target,
        resume=resume,
        say=output.note,
    )
    evidence = model.card.evidence
    result: dict[str, Any] = {
        "model": model.card.name,
        "card": str(model.card_path),
        "threshold": model.card.threshold,
        "validation": [entry.model_dump(mode="json") for entry in model.card.evaluation],
    }
    if as_json:
        output.print_json(result)
        return
    output.print_table(
        f"{model.card.name} {model.card.version}: {model.path}",
        ("class", "threshold", "precision", "recall"),
        [
            (label, value, *(_pair(evidence[label]) if label in evidence else (None, None)))
            for label, value in model.card.threshold.items()
        ],
    )


def _require_png(file: Path | None, *, may_be_folder: bool) -> None:
    """Before the work is done that it would show."""
    if file is None or (may_be_folder and not file.suffix):
        return
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg") or not file.parent.is_dir():
        raise CallerError(
            "no picture can be written there", where=str(file), do="Name a PNG in a folder that exists."
        )


def _data_at_hand() -> Path:
    """The mirror where it is a folder, else the folder that the command was given in."""
    mirror = read_settings().data_mirror
    return Path(mirror) if mirror and Path(mirror).is_dir() else Path()


def _assumed_resolution() -> float:
    output.note(
        f"Pictures without position are taken for {USUAL_RESOLUTION_M:.2f} m a pixel; "
        "--resolution-m says otherwise."
    )
    return USUAL_RESOLUTION_M


def _recipe_path(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    shipped = data_path("recipes", f"{name}.toml")
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in data_path("recipes").glob("*.toml")))
    raise UnknownName(f"no recipe “{name}”", do=f"Shipped recipes: {known}.")


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _draw(evaluation: Evaluation, path: Path) -> None:
    """One picture for one image; a folder of pictures for several."""
    if len(evaluation.images) == 1:
        draw_matches(evaluation.pictures[0](), evaluation.matched(0), path)
        return
    for index, image in enumerate(evaluation.images):
        target = path / f"{Path(image.name).stem}.png"
        draw_matches(evaluation.pictures[index](), evaluation.matched(index), target)


def _write_into_card(model: Model, evaluation: Evaluation, data: str, split: str) -> None:
    card, grounds = model.card, evaluation.images
    large = [block for ground in grounds for block in cut_into_blocks(ground, 102.4)]
    evidence = {}
    for index, name in enumerate(card.output.classes):
        found = evidence_of_class(index, grounds, [*evaluation.blocks, *large], evaluation.thresholds)
        if found is not None:
            evidence[name] = found
    reach = next((ground.point_reach_m for ground in grounds if ground.points), None)
    entry = evaluation_entry(data, split, evaluation.figures, point_reach_m=reach)
    path = model.card_path or model.path.parent / "card.toml"
    write_card(with_evaluation(card, entry, evidence), path)
    output.note(f"The card has the figures now: {path}")
    if evaluation.figures.count_true < FEW_OBJECTS:
        output.note(
            f"Its intervals rest on {evaluation.figures.count_true} objects, too few for a planner to rely on; "
            "measure on more before you use it."
        )


def _pair(evidence: Any) -> tuple[float, float]:
    return evidence.precision, evidence.recall


_FIRST = (
    "ap50",
    "precision",
    "recall",
    "threshold",
    "count_true",
    "count_predicted",
    "count_error",
    "per_image_mae",
)


def _print(figures: Figures, *, as_json: bool) -> None:
    values = asdict(figures)
    if as_json:
        output.print_json(values)
        return
    rows: list[tuple[str, object]] = [(key.replace("_", " "), values[key]) for key in _FIRST]
    rows += [
        ("count error, 90 % interval", _interval(figures.count_error_interval)),
        ("AP50, 90 % interval", _interval(figures.ap50_interval)),
        ("false alarms per km²", figures.false_alarms_per_km2),
        ("position error, m", figures.position_error_m),
        ("images", figures.images),
        ("area, km²", figures.area_km2),
    ]
    output.print_table("", ("figure", "value"), rows)
    if figures.recall_by_size:
        output.print_table(
            "\nrecall by size",
            ("up to, m", "objects", "recall"),
            [("more" if row[0] is None else f"{row[0]:g}", *row[1:]) for row in figures.recall_by_size],
        )
    if figures.error_by_density:
        output.print_table(
            "\ncount error by density", ("objects per km²", "blocks", "error"), figures.error_by_density
        )
    if figures.score_calibration:
        output.print_table("\nscores", ("mean score", "detections", "share real"), figures.score_calibration)


def _interval(pair: tuple[float, float] | None) -> str | None:
    return None if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"
