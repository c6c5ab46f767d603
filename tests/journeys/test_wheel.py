"""The wheel holds all that the program needs, and runs away from its checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built as for a release: without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("urban_inventory-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own, as pip would lay them out."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, code: str) -> str:
    """What a program prints that imports the installed packages, and nothing of the checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=installed.parent,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_wheel_holds_every_file_of_the_packages_and_of_data(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "detection", "inventory", "api", "data"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    wanted = {f"detection/_{name}" if name.startswith("data/") else name for name in listed}
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert wanted - held == set()


def test_wheel_holds_the_map_library_with_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        vendor = {name: archive.getinfo(name) for name in archive.namelist() if "/vendor/maplibre/" in name}
    names = {name.rpartition("/")[2] for name in vendor}
    assert {"maplibre-gl.mjs", "maplibre-gl-worker.mjs", "maplibre-gl.css", "LICENSE.txt"} <= names
    assert all(info.file_size > 1000 for info in vendor.values())


def test_wheel_carries_the_rest_of_the_source(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    for name in ("pyproject.toml", "LICENSE", "README.md", "scripts/setup", "locks/service.lock"):
        assert f"api/_source/{name}" in held


def test_wheel_holds_nothing_that_machines_leave_behind(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        left = [name for name in archive.namelist() if "__pycache__" in name or "node_modules" in name]
    assert left == []


def test_installed_program_finds_its_data_and_its_migrations(installed: Path) -> None:
    code = (
        "from detection.data_folder import data_path; from inventory.store.migrate import head_revision;"
        "from detection.taxonomy import shipped_taxonomy; shipped_taxonomy(); head_revision();"
        "print(data_path('taxonomy.toml'))"
    )
    assert run(installed, code) == str(installed / "detection/_data/taxonomy.toml")


def test_installed_program_answers_help(installed: Path) -> None:
    code = "import sys; from api.cli.app import main; main(['--help'])"
    assert "urban-inventory" in run(installed, code)
