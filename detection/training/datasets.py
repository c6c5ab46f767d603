"""The registry of data sets (``data/datasets.toml``): what recipes may name, where to get it, under which licence."""

import hashlib
import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from detection.data_folder import data_path
from detection.evaluation.labels import LabelFormat
from detection.training.recipe import Recipe


class DataSet(BaseModel):
    """One data set: what is on it, how finely, under which licence, and who may use which part.

    Attributes:
        repository, commit, paths: where its files, or those that they were made from, were published.
        sha256: see ``folder_sha256``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    classes: tuple[str, ...]
    ground_resolution_m: float = Field(gt=0)
    forms: tuple[LabelFormat, ...]
    licence: str = Field(min_length=1)
    origin: str
    repository: str = Field(pattern=r"^github\.com/[^/]+/[^/]+$")
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    paths: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    train: str
    validate_on: str = Field(alias="validate")
    held_out: str


_NO_DATA = re.compile(r"README\.md|\.DS_Store|\._.*|Thumbs\.db|desktop\.ini")


def read_datasets(path: Path | None = None) -> dict[str, DataSet]:
    """The shipped registry, or another file of its form, by name."""
    file = path or data_path("datasets.toml")
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: DataSet(name=name, **table) for name, table in tables.items()}


def folder_sha256(folder: Path) -> str:
    """The SHA-256 of a folder's files by name: of the lines ``<SHA-256>  <path>``, as ``sha256sum`` writes them.

    In order of their paths below the folder. A README of it is not part of the data, nor is what operating systems
    leave behind (``.DS_Store``, ``._*``, ``Thumbs.db``, ``desktop.ini``).
    """
    files = sorted(
        (file.relative_to(folder).as_posix(), file)
        for file in folder.rglob("*")
        if file.is_file() and not _NO_DATA.fullmatch(file.name)
    )
    lines = [f"{_file_sha256(file)}  {name}\n" for name, file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def differing(recipe: Recipe, data_folder: Path) -> list[DataSet]:
    """The registered data sets of a recipe whose files below ``data_folder/datasets`` are not those registered.

    Sources that are not registered are the user's own, and a missing folder is found out when it is read.
    """
    registry = read_datasets()
    named = {
        Path(source.pictures).parts[1]
        for source in recipe.sources
        if len(Path(source.pictures).parts) > 1 and Path(source.pictures).parts[0] == "datasets"
    }
    folders = {name: data_folder / "datasets" / name for name in sorted(named & set(registry))}
    return [
        registry[name]
        for name, folder in folders.items()
        if folder.is_dir() and folder_sha256(folder) != registry[name].sha256
    ]


def _file_sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
