"""The reference of all commands as Markdown, made from the program itself: ``docs/cli.md``.

``python -m api.cli.reference > docs/cli.md`` writes it; a test tells when that was forgotten.
"""

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

import typer
from typer.main import get_command

from api import problems

_NAME = "urban-inventory"
_EXIT_CODES = (
    (problems.DONE, "done"),
    (
        problems.REFUSED,
        "refused: an input, a name or a date that cannot be used; with several files, of any of them",
    ),
    (problems.USAGE, "usage: no such command or option"),
    (problems.STORE, "the database does not answer, or cannot be started"),
    (problems.BUSY, "busy: another program holds what is needed; try again"),
    (
        problems.CONFIGURATION,
        "configuration: a setting, an optional dependency, or a schema behind the program",
    ),
    (problems.INTERRUPTED, "interrupted by Ctrl-C; what is finished is kept"),
)
_HEAD = """
# Commands

Made from the program by `python -m api.cli.reference > docs/cli.md`; a test fails when it is stale.

Results go to stdout; progress, notes and errors to stderr. With `--json` a command prints one JSON document on
stdout, a refusal as `{"error": {"code", "what", "where", "do"}}`. Options before the command (`--quiet`,
`--verbose`, `--log-file`) hold for all. A date is a whole local day of the city.

## Exit codes

| code | means |
|---|---|
"""


def reference() -> str:
    """The whole page: exit codes, then every command in the order of ``--help``."""
    # Here, not above: the program's own module imports every group.
    from api.cli.app import app

    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in _EXIT_CODES)
    commands = (_section(name, command) for name, command in commands_of(get_command(app)))
    return f"{_HEAD.lstrip()}{codes}\n" + "\n".join(commands)


def commands_of(command: Any, name: str = _NAME) -> Iterator[tuple[str, Any]]:
    """Every command below one, groups first, with the words that call it; hidden ones are left out."""
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands_of(inner, f"{name} {word}")


def parameters_of(name: str, command: Any) -> list[tuple[Any, str, str]]:
    """Each visible parameter, how it is written, and its help (empty where it has none)."""
    context = command.context_class(command, info_name=name)
    records = [(one, one.get_help_record(context)) for one in command.params if not one.hidden]
    return [
        (one, record[0], record[1]) for one, record in records if record is not None and one.name != "help"
    ]


def _section(name: str, command: Any) -> str:
    lines = [f"## {name}", "", cleandoc(command.help or "").replace("\n\n", "\n \n").replace("\n ", "\n"), ""]
    if hasattr(command, "commands"):
        words = ", ".join(f"`{word}`" for word, inner in command.commands.items() if not inner.hidden)
        lines += [f"Commands: {words}.", ""]
    parameters = parameters_of(name, command)
    if parameters:
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{_cell(written)}` | {_cell(told)} |" for _, written, told in parameters]
        lines.append("")
    return "\n".join(lines)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", r"\|")


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
