"""Docs say what is true: commands exist, the reference is current, links lead somewhere, every folder speaks."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from typer.main import get_command

from api.cli.app import app
from api.cli.reference import commands_of, parameters_of, reference
from tests.support.database import ClonedDatabase

ROOT = Path(__file__).parents[1]
COMMANDS = dict(commands_of(get_command(app)))
FLOORS = ("detection", "inventory", "api")
#: Modules whose tiles are what a web map asks for.
FOR_WEB_MAPS = {"tiles.py", "tiling.py", "tile_archives.py", "showing.py", "map_tiles.py"}
#: Folders that another one's README speaks for.
SPOKEN_FOR = {"inventory/store/migrations/versions"}


def pages() -> list[Path]:
    """Every page that people read, except what others wrote."""
    beside = list(ROOT.glob("*.md"))
    below = [
        path
        for folder in (*FLOORS, "data", "docs", "tests", "benchmarks", "scripts", "deploy")
        for path in sorted((ROOT / folder).rglob("*.md"))
        if "vendor" not in path.parts and "node_modules" not in path.parts
    ]
    return [*sorted(beside), *below]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def command_lines(page: Path) -> Iterator[list[str]]:
    """Whole calls of the program, from blocks of shell."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].rpartition("/")[2] == "urban-inventory":
                yield words[1:]


def mentions(page: Path) -> Iterator[str]:
    """What stands in running text as ``urban-inventory …``: the words of a command, options perhaps."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(?:\.venv/bin/)?urban-inventory ([^`]+)`", text.replace("\n", " "))
    yield from re.findall(r"^    (?:\.venv/bin/)?urban-inventory (.+)$", text, re.MULTILINE)


def command_in(words: list[str]) -> tuple[str, list[str]]:
    """The command that words begin with, and the rest of them."""
    name = "urban-inventory"
    while words and f"{name} {words[0]}" in COMMANDS:
        name, words = f"{name} {words[0]}", words[1:]
    return name, words


def options_of(command: Any) -> set[str]:
    return {"--help", *(flag for one in command.params for flag in (*one.opts, *one.secondary_opts))}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_commands_in_code_blocks_would_run(page: Path) -> None:
    for words in command_lines(page):
        name, rest = command_in(words)
        command = COMMANDS[name]
        assert not hasattr(command, "commands"), f"no such command: {' '.join(words)}"
        try:
            command.make_context(name, rest)
        except typer.TyperException as error:
            pytest.fail(f"urban-inventory {' '.join(words)}: {error}")


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_commands_in_running_text_exist(page: Path) -> None:
    for mention in mentions(page):
        name, rest = command_in(mention.split())
        command = COMMANDS[name]
        if hasattr(command, "commands"):
            assert not rest or rest[0] in ("…", *options_of(command)), f"no such command: {mention}"
        if command.context_settings.get("ignore_unknown_options"):
            continue  # what follows belongs to another program
        flags = {word.partition("=")[0].rstrip(",.;:") for word in rest if word.startswith("--")}
        assert flags <= options_of(command), f"no such option: {mention}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert (command.help or "").strip(), f"{name} has no help"
    silent = [written for one, written, _ in parameters_of(name, command) if not (one.help or "").strip()]
    assert silent == []


def test_reference_of_commands_is_current() -> None:
    stale = "write it anew: python -m api.cli.reference > docs/cli.md"
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == reference(), stale


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [
        target.partition("#")[0] for target in found if "://" not in target and not target.startswith("#")
    ]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_scripts_that_pages_name_exist(page: Path) -> None:
    named = re.findall(r"(?<![\w/])(?:\./)?scripts/([a-z]+)\b", page.read_text(encoding="utf-8"))
    assert [script for script in named if not (ROOT / "scripts" / script).is_file()] == []


def test_every_page_in_docs_is_reached_from_its_index() -> None:
    reached = {ROOT / "docs/README.md"}
    frontier = set(reached)
    while frontier:
        links = {
            (page.parent / target.partition("#")[0]).resolve()
            for page in frontier
            for target in re.findall(r"\]\(([^)\s]+\.md[^)\s]*)\)", page.read_text(encoding="utf-8"))
            if "://" not in target
        }
        frontier = {link for link in links if link.is_file()} - reached
        reached |= frontier
    assert [name_of(page) for page in sorted((ROOT / "docs").rglob("*.md")) if page not in reached] == []


def test_every_folder_of_the_house_has_a_readme() -> None:
    code = {path.parent for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    others = {
        ROOT / name
        for name in ("data", "data/models", "data/recipes", "tests", "benchmarks", "docs", "scripts")
    }
    silent = {
        folder.relative_to(ROOT).as_posix()
        for folder in code | others
        if not (folder / "README.md").is_file()
    }
    assert silent - SPOKEN_FOR == set()


def test_decisions_are_numbered_listed_and_complete() -> None:
    folder = ROOT / "docs/decisions"
    found = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    assert [path.name[:4] for path in found] == [f"{number:04}" for number in range(1, len(found) + 1)]
    index = (folder / "README.md").read_text(encoding="utf-8")
    for path in found:
        text = path.read_text(encoding="utf-8")
        parts = (
            "Date",
            "Status",
            "Context",
            "Options",
            "Decision",
            "Consequences",
            "What would change our mind",
        )
        assert [part for part in parts if f"**{part}" not in text] == [], path.name
        assert f"({path.name})" in index


def test_python_in_docs_is_python() -> None:
    for page in pages():
        for block in blocks(page, "python"):
            ast.parse(block, filename=name_of(page))


def test_sql_in_docs_runs_as_the_reader(cloned: ClonedDatabase) -> None:
    statements = blocks(ROOT / "docs/gis.md", "sql")
    assert statements
    with psycopg.connect(cloned.reader_url.replace("+psycopg", "", 1)) as connection:
        for statement in statements:
            assert connection.execute(statement.encode()).fetchall() == []


def test_locks_name_no_address() -> None:
    locks = [*ROOT.glob("locks/*"), *ROOT.glob("benchmarks/*.lock"), ROOT / "api/web/package-lock.json"]
    assert [name_of(lock) for lock in locks if "://" in _without_funding(lock)] == []


def _without_funding(lock: Path) -> str:
    """npm notes where its authors may be thanked: no place that anything is fetched from."""
    return re.sub(r'"url": "[^"]*"', "", lock.read_text(encoding="utf-8"))


@pytest.mark.parametrize("floor", ["detection", "inventory"])
def test_code_says_window_and_observation(floor: str) -> None:
    """A tile is what a web map asks for; a patch is a piece of somebody's data set."""
    wrong = {"tile", "tiles", "chip", "chips", "sighting", "sightings", "gsd"}
    strays = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / floor).rglob("*.py"))
        if path.name not in FOR_WEB_MAPS
        for name in _identifiers(ast.parse(path.read_text(encoding="utf-8")))
        if wrong & set(re.split(r"_|(?<=[a-z])(?=[A-Z])", name.lower() if name.isupper() else name))
    ]
    assert strays == []


def _identifiers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name):
            yield node.id
