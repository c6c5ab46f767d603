"""Dated facts: looks at the ground and human decisions; nothing else changes an asset (R1).

Positions are in the city's metric CRS, instants are microseconds since 1970 UTC (``int64``), so that bulk
data stay columns. What is passed here is in force (R3) and adequate (R5) already; observations of an
implausible size never arrive (R6).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NewType

import numpy as np
import shapely
from numpy.typing import NDArray

Micros = NewType("Micros", int)
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

NEVER = np.iinfo(np.int64).max
"""An instant that does not come: a state that holds until now, or a look that did not happen."""


def to_micros(instant: datetime) -> Micros:
    """Microseconds since 1970 of an instant with a zone."""
    return Micros(int((instant - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000 + 0.5))


class DecisionKind(StrEnum):
    """What a person may say of an asset or a place (R11)."""

    VERIFY = "verify"
    REJECT = "reject"
    MOVE = "move"
    RECLASSIFY = "reclassify"
    DESCRIBE = "describe"
    ADD = "add"
    MERGE = "merge"
    SPLIT = "split"
    RETRACT = "retract"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """What one look of a model is worth for a class, from its card or, unvalidated, from the taxonomy.

    ``persistent_share`` is the share of a model's errors that repeat on unchanged ground (R8).
    """

    precision: float
    recall: float
    false_alarms_per_m2: float
    persistent_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Observations of one class in one survey, as columns of equal length, in the order of ``content``."""

    id: Integers
    x: Floats
    y: Floats
    error_m: Floats
    width_m: Floats
    height_m: Floats
    score: Floats
    content: Hashes

    def __len__(self) -> int:
        return len(self.id)

    @property
    def crown_m(self) -> Floats:
        """Diameter of the object: the mean of its box's sides."""
        return (self.width_m + self.height_m) / 2

    def take(self, rows: NDArray[Any]) -> "Observations":
        """The rows chosen, in their order."""
        return Observations(**{name: getattr(self, name)[rows] for name in OBSERVATION_COLUMNS})

    @staticmethod
    def concatenate(parts: "list[Observations]") -> "Observations":
        """All rows of all parts, in order."""
        return Observations(
            **{
                name: np.concatenate([getattr(part, name) for part in parts]) if parts else np.empty(0, dtype)
                for name, dtype in OBSERVATION_COLUMNS.items()
            }
        )


OBSERVATION_COLUMNS: dict[str, type] = {
    "id": np.int64,
    "x": np.float64,
    "y": np.float64,
    "error_m": np.float64,
    "width_m": np.float64,
    "height_m": np.float64,
    "score": np.float64,
    "content": np.uint64,
}


NO_OBSERVATIONS = Observations.concatenate([])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A systematic displacement of a scene against earlier looks, in metres, and the pairs that show it."""

    x_m: float
    y_m: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneLook:
    """One survey in force over one scene, for one class.

    ``observations`` lie where the scene's georeference puts them; ``seen`` takes the shift off. ``shift`` None:
    nothing to compare with, or too little of it to tell.
    """

    survey_id: int
    model: str
    reliability: Reliability
    ground_resolution_m: float
    surveyed: shapely.MultiPolygon
    content: str
    observations: Observations
    shift: Shift | None = None

    @property
    def seen(self) -> Observations:
        """The observations without the scene's shift."""
        if self.shift is None or (self.shift.x_m == 0 and self.shift.y_m == 0):
            return self.observations
        moved = self.observations
        return replace(moved, x=moved.x - self.shift.x_m, y=moved.y - self.shift.y_m)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One campaign's look at the ground: in effect when its last scene was taken (R4).

    ``scenes`` may be those of a part of the ground; ``leading`` is the first scene by content of all of them
    then. ``campaign`` numbers the look; without one its first survey does.
    """

    at: Micros
    scenes: tuple[SceneLook, ...]
    campaign: int = -1
    leading: SceneLook | None = None

    @property
    def number(self) -> int:
        """What tracks call the look by."""
        return self.campaign if self.campaign >= 0 else self.scenes[0].survey_id

    @property
    def first(self) -> SceneLook:
        """The scene whose model speaks for the look; a campaign's scenes are one model's in practice."""
        return self.leading or min(self.scenes, key=lambda scene: scene.content)

    @property
    def content(self) -> str:
        """What orders looks of one instant, whenever they came (R1)."""
        return self.first.content

    @property
    def reliability(self) -> Reliability:
        """What the look's model is worth."""
        return self.first.reliability


def model_number(model: str) -> int:
    """A number for a model's name or hash, the same in every city and order; ≥ 0."""
    return int.from_bytes(hashlib.blake2b(model.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A dated human statement about a place and class; ``sequence`` is the order of recording."""

    sequence: int
    kind: DecisionKind
    class_name: str
    at: Micros
    x: float
    y: float
    gate_m: float
    details: Mapping[str, Any] = field(default_factory=dict)
    retracts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of one class: all of it, or what bears on one piece of ground from an instant on."""

    class_name: str
    looks: tuple[Look, ...]
    decisions: tuple[Decision, ...]


def content_hashes(scene: str, boxes_px: NDArray[Any]) -> Hashes:
    """A hash per observation of what it is (its scene's pixels and its box), not of when it came (R1).

    Args:
        scene: the scene's hash, hexadecimal.
        boxes_px: (n, 4) box in the scene's pixels.
    """
    mixed = np.full(len(boxes_px), int(scene[:16], 16), dtype=np.uint64)
    for column in np.asarray(boxes_px, dtype=np.float32).reshape(-1, 4).T:
        mixed = mix(mixed ^ np.ascontiguousarray(column).view(np.uint32).astype(np.uint64))
    return mixed


def mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Generators, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
