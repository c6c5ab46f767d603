"""Where the files of ``data/`` lie: in a checkout beside the packages, in a wheel inside this one."""

from pathlib import Path


def data_path(*parts: str) -> Path:
    """Path of a file or folder of ``data/``, e.g. ``data_path("models", "trees-aerial")``."""
    packaged = Path(__file__).parent / "_data"
    folder = packaged if packaged.is_dir() else Path(__file__).parent.parent / "data"
    return folder.joinpath(*parts)
