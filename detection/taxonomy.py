"""The classes that can be counted, as ``data/taxonomy.toml`` states them."""

import tomllib
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from detection.data_folder import data_path
from detection.errors import UnknownName


class ClassKind(StrEnum):
    """Whether things of a class keep an identity through the years, or are a stock (R10)."""

    STATIC = "static"
    MOBILE = "mobile"


class SceneKind(StrEnum):
    """From where a scene looks at the ground."""

    NADIR = "nadir"
    OBLIQUE = "oblique"
    STREET = "street"
    FIXED = "fixed"


class CautiousEvidence(BaseModel):
    """What is assumed of a model that nobody has evaluated (R13)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recall: float = Field(gt=0, le=1)
    precision: float = Field(gt=0, le=1)
    false_alarms_per_km2: float = Field(gt=0)
    persistent_share: float = Field(ge=0, le=1)


class AssetClass(BaseModel):
    """One class: its kind, plausible sizes in ground metres, and which looks can see it (R5, R6)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: ClassKind
    label: dict[str, str]
    size_m: tuple[float, float]
    scene_kinds: tuple[SceneKind, ...]
    ground_resolution_m: tuple[float, float]
    models: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    cautious: CautiousEvidence

    def sees(self, scene_kind: SceneKind, ground_resolution_m: float) -> bool:
        """Whether a scene of this kind and ground resolution is an adequate look (R5)."""
        finest, coarsest = self.ground_resolution_m
        return scene_kind in self.scene_kinds and finest <= ground_resolution_m <= coarsest


class Taxonomy(BaseModel):
    """All classes by name."""

    model_config = ConfigDict(frozen=True)

    classes: dict[str, AssetClass]

    def plausible(self, names: NDArray[Any], longer_m: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each thing's longer side lies within its class's range (R6); False for unknown classes.

        Args:
            names: (n,) classes; longer_m: (n,) metres on the ground.
        """
        fits = np.zeros(len(names), bool)
        for name in set(names.tolist()) & set(self.classes):
            smallest, largest = self.classes[name].size_m
            fits |= (names == name) & (longer_m >= smallest) & (longer_m <= largest)
        return fits

    def get(self, name: str) -> AssetClass:
        """The class of this name.

        Raises:
            UnknownName: no such class; the message lists those that exist.
        """
        try:
            return self.classes[name]
        except KeyError:
            known = ", ".join(sorted(self.classes))
            raise UnknownName(f"no asset class “{name}”", do=f"Known classes: {known}.") from None


def read_taxonomy(path: Path) -> Taxonomy:
    """Reads a taxonomy file; its tables are the classes."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return Taxonomy(classes={name: AssetClass(name=name, **table) for name, table in tables.items()})


@cache
def shipped_taxonomy() -> Taxonomy:
    """The taxonomy in ``data/taxonomy.toml``, read once."""
    return read_taxonomy(data_path("taxonomy.toml"))
