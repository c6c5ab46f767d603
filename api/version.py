"""The program's version, installed or run from a checkout."""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_NAME = "urban-inventory"


@cache
def program_version() -> str:
    """The installed distribution's version; in a bare checkout, its project file's."""
    try:
        return version(_NAME)
    except PackageNotFoundError:
        project = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
