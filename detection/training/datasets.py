"""The registry of data sets (``data/datasets.toml``): what recipes may name, with licences."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from detection.data_folder import data_path
from detection.evaluation.labels import LabelFormat


class DataSet(BaseModel):
    """One data set: what is on it, how finely, under which licence, and who may use which part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    classes: tuple[str, ...]
    ground_resolution_m: float = Field(gt=0)
    forms: tuple[LabelFormat, ...]
    licence: str = Field(min_length=1)
    origin: str
    train: str
    validate_on: str = Field(alias="validate")
    held_out: str


def read_datasets(path: Path | None = None) -> dict[str, DataSet]:
    """The shipped registry, or another file of its form, by name."""
    file = path or data_path("datasets.toml")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: DataSet(name=name, **table) for name, table in tables.items()}
