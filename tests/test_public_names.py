"""What a floor offers to those above it: the modules that each room's ``__all__`` lists, and nothing else."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = {"detection": ("inventory", "api", "benchmarks"), "inventory": ("api", "benchmarks")}
ROOMS = (
    "detection",
    "detection.evaluation",
    "detection.imagery",
    "detection.training",
    "inventory",
    "inventory.domain",
    "inventory.store",
)


@cache
def imported_from_above(floor: str) -> dict[str, str]:
    """Every module or name of a floor that a floor above imports, dotted, and where."""
    found: dict[str, str] = {}
    for path in (path for above in ABOVE[floor] for path in sorted((ROOT / above).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith(f"{floor}."):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                found |= {f"{node.module}.{alias.name}": where for alias in node.names}
    return found


def needed_names(floor: str) -> dict[tuple[str, str], str]:
    """(room, name in it) of all that floors above import, and where."""
    needed: dict[tuple[str, str], str] = {}
    for dotted, where in imported_from_above(floor).items():
        parts = dotted.split(".")
        for length in range(1, len(parts)):
            if (room := ".".join(parts[:length])) in ROOMS:
                needed[room, parts[length]] = where
    return needed


def offered(room: str) -> set[str]:
    return set(import_module(room).__all__)


@pytest.mark.parametrize("floor", ABOVE)
def test_floors_above_import_only_what_is_offered(floor: str) -> None:
    strays = {
        f"{room}.{name}": where
        for (room, name), where in needed_names(floor).items()
        if name not in offered(room)
    }
    assert strays == {}, "offer it in the room's __all__, or import something offered"


@pytest.mark.parametrize("floor", ABOVE)
def test_nothing_is_offered_that_nobody_above_imports(floor: str) -> None:
    needed = set(needed_names(floor))
    rooms = [room for room in ROOMS if f"{room}.".startswith(f"{floor}.")]
    assert [f"{room}.{name}" for room in rooms for name in offered(room) if (room, name) not in needed] == []


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_offered_exists(room: str) -> None:
    folder = ROOT / room.replace(".", "/")
    here = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert offered(room) <= here


@pytest.mark.parametrize("floor", ABOVE)
def test_no_private_name_crosses_a_floor(floor: str) -> None:
    assert [name for name in imported_from_above(floor) if name.rpartition(".")[2].startswith("_")] == []
