"""The house's rules of who may import whom: floors, and each heavy library in its one room."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("detection", "inventory", "api")

# Library → the only places that may import it.
ROOMS = {
    "rasterio": ["detection/imagery/"],
    "sqlalchemy": ["inventory/store/"],
    "geoalchemy2": ["inventory/store/"],
    "alembic": ["inventory/store/"],
    "psycopg": ["inventory/store/"],
    "onnxruntime": ["detection/providers.py"],
    "openvino": ["detection/providers.py"],
    "ultralytics": ["detection/ultralytics_detector.py", "detection/training/"],
    "torch": ["detection/ultralytics_detector.py", "detection/training/"],
    "fastapi": ["api/"],
    "starlette": ["api/"],
    "uvicorn": ["api/"],
    "typer": ["api/"],
    "rich": ["api/"],
    "distributed": ["detection/cluster.py"],
}
# What makes a rule depend on something else than its arguments.
IMPURE = {"pathlib", "time", "random", "os", "io", "secrets", "subprocess", "socket", "logging"}


@cache
def modules(folder: str) -> list[tuple[str, ast.Module]]:
    """Every module under a folder: its path in the project, and what stands in it."""
    return [
        (path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of the packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and _is_import_by_name(node):
            names |= {str(arg.value).partition(".")[0] for arg in node.args if _is_text(arg)}
    return names


@pytest.mark.parametrize("library", ROOMS)
def test_library_is_imported_in_its_rooms_alone(library: str) -> None:
    strays = [
        path
        for floor in FLOORS
        for path, tree in modules(floor)
        if library in imported(tree) and not path.startswith(tuple(ROOMS[library]))
    ]
    assert strays == []


def test_every_room_uses_the_library_it_is_named_for() -> None:
    """A rule about a library that nobody imports guards nothing: rename it or drop it."""
    used = {name for floor in FLOORS for _, tree in modules(floor) for name in imported(tree)}
    assert set(ROOMS) - used <= {"starlette", "geoalchemy2"}


def test_domain_has_no_clock_no_files_and_no_randomness() -> None:
    strays = {path: imported(tree) & IMPURE for path, tree in modules("inventory/domain")}
    assert {path: names for path, names in strays.items() if names} == {}


def test_domain_asks_nobody_what_time_it_is() -> None:
    strays = [
        f"{path}:{node.lineno}"
        for path, tree in modules("inventory/domain")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today", "default_rng"}
    ]
    assert strays == []


def test_settings_and_environment_are_read_on_the_top_floor_alone() -> None:
    """Floors below get values. Telling a library something through the environment is another thing."""
    strays = [
        f"{path}:{node.lineno}"
        for floor in ("detection", "inventory")
        for path, tree in modules(floor)
        for node in ast.walk(tree)
        if _reads_environment(node)
    ]
    assert strays == []


def test_every_folder_says_what_lives_in_it() -> None:
    folders = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    silent = [
        folder.relative_to(ROOT).as_posix()
        for folder in sorted(folders)
        if not (folder / "README.md").exists()
        and not _docstring(folder / "__init__.py")
        and folder.name != "versions"
    ]
    assert silent == []


def test_import_rules_of_the_project_file_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def _is_import_by_name(call: ast.Call) -> bool:
    """``import_module("…")``: how optional extras are imported."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name == "import_module"


def _is_text(node: ast.expr) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _reads_environment(node: ast.AST) -> bool:
    """``os.getenv(…)``, ``os.environ.get(…)``, or ``os.environ[…]`` outside of an assignment to it."""
    if isinstance(node, ast.Attribute):
        inner = node.value
        of_environment = isinstance(inner, ast.Attribute) and inner.attr == "environ"
        return node.attr == "getenv" or (node.attr == "get" and of_environment)
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        return isinstance(node.value, ast.Attribute) and node.value.attr == "environ"
    return False


def _docstring(module: Path) -> str | None:
    return ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) if module.exists() else None
