"""Recipes: what a model is trained on and how, as a file (``data/recipes/NAME.toml``).

A recipe names its sources by folder below a data folder given at run time, so that the same recipe
works on every machine; nothing is downloaded.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from detection.errors import LabelsUnusable
from detection.evaluation.labels import LabelFormat


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(_Frozen):
    """Which pictures of a folder: by the beginning of their name, or by a table beside them.

    Of the table those rows whose columns have one of the values; ``stem`` names the column with the
    picture's name, with or without suffix.
    """

    prefix: str = ""
    table: str = ""
    stem: str = ""
    where: dict[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _says_which(self) -> "Selection":
        if not self.prefix and not (self.table and self.stem):
            raise ValueError("give prefix, or table and stem")
        return self


class Repair(_Frozen):
    """One label set right by a person who looked again.

    Attributes:
        picture: name without suffix.
        at: x, y in pixels of the picture; the box that holds it, of several the one with the nearest middle.
        label: the class that it is; empty: nothing is there.
    """

    picture: str
    at: tuple[float, float]
    label: str


class Source(_Frozen):
    """A labelled folder, or one labelled scene, and its share of the windows.

    Attributes:
        role: ``train``: drawn from at random; ``validate``: laid out window by window, to choose
            the threshold on; never both.
        windows: how many windows are drawn (``train`` only).
        regions: (x_min, y_min, x_max, y_max) in pixels of the picture; windows stay inside one.
            Empty: the whole picture.
        labels_only: the recipe's classes that it labels; things of the others stand in its pictures unlabelled
            and are no background: the loss leaves them out. Empty: all.
        turned: share of pieces turned by any angle (``train`` only), beside the eight ways to lay a square. Only for
            sources whose objects stand along the picture's sides, or are round: the box of a turned one is made
            from its own.
        roundness: how a turned box is made: 0 as a rectangle's, 1 as an ellipse's (crowns); vehicles lie between.
        repairs: labels set right after a second look.
        point_box_m: side of the box given to a label that is a point.
        calibrates: whether the threshold is chosen on this source (``validate`` only); each such
            source is one domain, and their relative count errors average to zero.
        is_home: whether precision, recall and false alarms of the card's evidence are measured on
            it: the kind of ground that the model is for (``validate`` only).
    """

    name: str
    role: Literal["train", "validate"]
    pictures: str
    labels: str
    format: LabelFormat
    ground_resolution_m: float = Field(gt=0)
    windows: int = Field(default=0, ge=0)
    regions: tuple[tuple[int, int, int, int], ...] = ()
    select: Selection | None = None
    names: tuple[str, ...] = ()
    map: dict[str, str] = {}
    labels_only: tuple[str, ...] = ()
    turned: float = Field(default=0.0, ge=0, le=1)
    roundness: float = Field(default=0.5, ge=0, le=1)
    repairs: tuple[Repair, ...] = ()
    point_box_m: float = Field(default=4.0, gt=0)
    calibrates: bool = True
    is_home: bool = True
    licence: str = "none stated"
    origin: str = ""


class Schedule(_Frozen):
    """The training itself, in ultralytics' terms.

    ``nominal_batch`` equals ``batch`` by default: ultralytics' own 64 would gather gradients of many
    batches into one step and make a short training far shorter.

    Attributes:
        device: ``auto`` is the first GPU where there is one, else the processor; or what torch calls it.
        workers: processes that load windows; 0 on a processor, which has no time to spare for them, is
            half its cores beside a GPU.
    """

    epochs: int = Field(default=12, gt=0)
    batch: int = Field(default=4, gt=0)
    nominal_batch: int = Field(default=4, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_epochs: float = Field(default=0.5, ge=0)
    mosaic: float = Field(default=0.4, ge=0, le=1)
    close_mosaic: int = Field(default=2, ge=0)
    cosine: bool = False
    device: str = "auto"
    threads: int = Field(default=2, gt=0)
    workers: int = Field(default=0, ge=0)
    cache: bool = False
    bf16: bool = True
    seed: int = 0


class Variant(_Frozen):
    """The same network under another name, looked with ``views`` times at each window (``detection.views``)."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    views: Literal[2, 4, 8]


class Recipe(_Frozen):
    """A model in the making, and the ``variants`` whose cards are written beside it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str
    description: str
    licence: str
    classes: tuple[str, ...] = Field(min_length=1)
    ground_resolution_m: float = Field(gt=0)
    range_m: tuple[float, float]
    window_px: int = Field(default=640, gt=0, multiple_of=32)
    margin_px: int = Field(default=96, ge=0)
    merge_iou: float = Field(default=0.5, gt=0, le=1)
    colours: Literal["natural", "infrared"] = "natural"
    scale_jitter: tuple[float, float] = (0.7, 1.45)
    smallest_cut_px: float = Field(default=8.0, ge=0)
    weights: str
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    schedule: Schedule = Schedule()
    sources: tuple[Source, ...] = Field(min_length=1)
    variants: tuple[Variant, ...] = ()

    @model_validator(mode="after")
    def _partial_labels_are_kept_apart(self) -> "Recipe":
        partial = [source for source in self.sources if source.labels_only]
        for source in partial:
            if unknown := set(source.labels_only) - set(self.classes):
                raise ValueError(f"{source.name}: labels_only names {', '.join(sorted(unknown))}")
        if partial and self.schedule.mosaic:
            raise ValueError("mosaic would mix pictures of sources that label different classes: set it to 0")
        return self

    def of_role(self, role: Literal["train", "validate"]) -> tuple[Source, ...]:
        """Sources of one role, in the recipe's order."""
        return tuple(source for source in self.sources if source.role == role)


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        LabelsUnusable: not TOML, incomplete, or with unknown keys; the message names each.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabelsUnusable(f"the recipe cannot be read: {error}", where=str(path)) from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'recipe'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise LabelsUnusable(f"the recipe is incomplete or wrong: {faults}", where=str(path)) from error


def with_weights(recipe: Recipe, weights: Path) -> Recipe:
    """The recipe with other initial weights; naming the file is vouching for it.

    Raises:
        LabelsUnusable: there is no such file.
    """
    return recipe.model_copy(
        update={"weights": str(weights.resolve()), "weights_sha256": _sha256_of(weights)}
    )


def simple_recipe(
    *,
    name: str,
    classes: tuple[str, ...],
    images: tuple[Path, Path],
    labels: tuple[Path, Path],
    form: LabelFormat,
    weights: Path,
    ground_resolution_m: float,
    names: tuple[str, ...] = (),
    mapping: Mapping[str, str] | None = None,
    windows: int = 400,
) -> Recipe:
    """A recipe for one labelled folder to train on and one to choose the threshold on.

    Args:
        images, labels: (training, validation).
        windows: how many are drawn for an epoch.

    Raises:
        LabelsUnusable: the weights are missing.
    """
    sources = tuple(
        Source(
            name=f"{name} {role}",
            role=role,
            pictures=str(pictures.resolve()),
            labels=str(beside.resolve()),
            format=form,
            ground_resolution_m=ground_resolution_m,
            windows=windows if role == "train" else 0,
            names=names,
            map=dict(mapping or {}),
            licence="the user's own",
        )
        for role, pictures, beside in zip(_ROLES, images, labels, strict=True)
    )
    return Recipe(
        name=name,
        version="1",
        description=f"{', '.join(classes)}; trained on a folder of the user's own",
        licence="AGPL-3.0 (weights trained with ultralytics)",
        classes=classes,
        ground_resolution_m=ground_resolution_m,
        range_m=(ground_resolution_m / 2, ground_resolution_m * 2),
        weights=str(weights.resolve()),
        weights_sha256=_sha256_of(weights),
        sources=sources,
    )


_ROLES: tuple[Literal["train"], Literal["validate"]] = ("train", "validate")


def _sha256_of(weights: Path) -> str:
    if not weights.is_file():
        raise LabelsUnusable("the initial weights are missing", where=str(weights))
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
