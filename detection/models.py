"""Models and their cards: what a network sees, at which resolution, and how well.

A model is a folder with ``card.toml`` and the network beside it. Shipped models lie in
``data/models``; ``models add`` puts a user's own into the data folder. A card is complete or refused.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from detection.data_folder import data_path
from detection.errors import ModelError, UnknownName
from detection.taxonomy import SceneKind


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardInput(_Frozen):
    """What the network is fed: windows of ``window_px`` at ``ground_resolution_m`` metres a pixel.

    ``colours``: natural, or near infrared, red, green in place of red, green, blue. ``views``: how many times each
    window is looked at (``detection.views``); a threshold holds for its number of views.
    """

    ground_resolution_m: float = Field(gt=0)
    range_m: tuple[float, float]
    scene_kinds: tuple[SceneKind, ...] = (SceneKind.NADIR,)
    window_px: int = Field(gt=0, multiple_of=32)
    margin_px: int = Field(ge=0)
    colours: Literal["natural", "infrared"] = "natural"
    views: Literal[1, 2, 4, 8] = 1

    @model_validator(mode="after")
    def _core_remains(self) -> "CardInput":
        if 2 * self.margin_px >= self.window_px:
            raise ValueError("margin_px leaves no core: 2 × margin_px must be below window_px")
        return self

    @property
    def stride_px(self) -> int:
        """Side of a window's core: the ground that it owns."""
        return self.window_px - 2 * self.margin_px


class CardOutput(_Frozen):
    """What the network answers. Heads but ``end-to-end`` are merged by us.

    ``objectness`` is that of YOLO before v8, ``retinanet`` that of DeepForest as GeoDeep exports it.
    """

    head: Literal["one-to-many", "objectness", "retinanet", "end-to-end"]
    classes: tuple[str, ...] = Field(min_length=1)
    merge_iou: float = Field(default=0.5, gt=0, le=1)


class CardEvidence(_Frozen):
    """What one look of this model is worth for one class (R8, R13), measured on validation data.

    ``relative_error`` and ``dispersion`` are e and φ of R13; ``persistent_share`` is the share of errors that
    repeat when the same ground is looked at again.
    """

    precision: float = Field(gt=0, le=1)
    recall: float = Field(gt=0, le=1)
    false_alarms_per_km2: float = Field(ge=0)
    persistent_share: float = Field(ge=0, le=1)
    relative_error: float = Field(ge=0)
    dispersion: float = Field(ge=0)
    position_error_m: float = Field(gt=0)


class CardEvaluation(BaseModel):
    """One measurement on labelled data that the network never saw; further fields are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    data: str
    split: str
    ap50: float
    precision: float
    recall: float
    count_true: int
    count_predicted: int
    count_error: float


class CardTrainingData(_Frozen):
    """A source the network was trained on."""

    name: str
    images: int
    objects: int
    licence: str
    source: str


class ModelCard(_Frozen):
    """Everything the program must know of a model; read once from ``card.toml``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str
    description: str
    input: CardInput
    output: CardOutput
    threshold: dict[str, float]
    evidence: dict[str, CardEvidence] = {}
    evaluation: tuple[CardEvaluation, ...] = ()
    training_data: tuple[CardTrainingData, ...] = ()

    @model_validator(mode="after")
    def _every_class_has_a_threshold(self) -> "ModelCard":
        missing = set(self.output.classes) - set(self.threshold)
        if missing:
            raise ValueError(f"[threshold] lacks {', '.join(sorted(missing))}")
        return self

    @property
    def model_sha256(self) -> str:
        """What tells this model from others in a city: the network's hash; with several views another model's."""
        if self.input.views == 1:
            return self.sha256
        return hashlib.sha256(f"{self.sha256} {self.input.views} views".encode()).hexdigest()

    @property
    def is_validated(self) -> bool:
        """Whether every class has measured evidence; otherwise its counts carry no interval (R13)."""
        return not self.unvalidated

    @property
    def unvalidated(self) -> tuple[str, ...]:
        """The classes without measured evidence."""
        return tuple(name for name in self.output.classes if name not in self.evidence)

    def sees(self, scene_kind: SceneKind, ground_resolution_m: float) -> bool:
        """Whether the model may look at a scene of this kind and ground resolution."""
        finest, coarsest = self.input.range_m
        return scene_kind in self.input.scene_kinds and finest <= ground_resolution_m <= coarsest


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A card and the file of its network, found on this machine.

    ``card_path``: where the card was read; None for one that was made up. Several cards may share a network.
    """

    card: ModelCard
    path: Path
    card_path: Path | None = None


def read_card(path: Path) -> ModelCard:
    """Reads ``card.toml``.

    Raises:
        ModelError: not TOML, incomplete, or with unknown keys; the message names each.
    """
    return card_of(read_tables(path), path)


def read_tables(path: Path) -> dict[str, Any]:
    """What a ``card.toml`` says, unchecked.

    Raises:
        ModelError: it cannot be read, or is not TOML.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(f"the model card cannot be read: {error}", where=str(path)) from error
    return told


def card_of(told: Mapping[str, Any], path: Path) -> ModelCard:
    """The card that a file's tables say.

    Raises:
        ModelError: incomplete, or with unknown keys; the message names each.
    """
    try:
        return ModelCard.model_validate(told)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'card'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ModelError(f"the model card is incomplete or wrong: {faults}", where=str(path)) from error


class ModelRegistry:
    """The models on this machine: shipped ones first, whose names are reserved, then the user's own."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = (data_path("models"), *folders)

    def names(self) -> tuple[str, ...]:
        """Names of all models, shipped first, each once."""
        found = (card.parent.name for folder in self._folders for card in sorted(folder.glob("*/card.toml")))
        return tuple(dict.fromkeys(found))

    def find(self, name_or_path: str) -> Model:
        """The model of a name, of a card's path, or of a folder with a card in it.

        Raises:
            UnknownName: no such model.
            ModelError: card or network missing, or the network is not the one of the card.
        """
        path = Path(name_or_path)
        if path.is_dir() and (path / "card.toml").is_file():
            return load_model(path / "card.toml")
        return load_model(path) if path.is_file() and path.suffix == ".toml" else self.get(name_or_path)

    def get(self, name: str) -> Model:
        """The model of this name, its network's hash checked against the card.

        Raises:
            UnknownName: no such model.
            ModelError: card or network missing, or the network is not the one of the card.
        """
        for folder in self._folders:
            card_path = folder / name / "card.toml"
            if card_path.is_file():
                return load_model(card_path)
        known = ", ".join(self.names()) or "none"
        raise UnknownName(f"no model “{name}”", do=f"Models at hand: {known}.")


def load_model(card_path: Path) -> Model:
    """The model of a card, its network's SHA-256 compared with the card's.

    Raises:
        ModelError: the network is missing or another one than the card speaks of.
    """
    card = read_card(card_path)
    path = card_path.parent / card.file
    if not path.is_file():
        raise ModelError("the network of the model card is missing", where=str(path))
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != card.sha256:
        raise ModelError(
            f"the network is not the one of its card: SHA-256 {sha256[:12]}…, card {card.sha256[:12]}…",
            where=str(path),
            do="Put the original file back, or write its own card.",
        )
    return Model(card=card, path=path, card_path=card_path)
