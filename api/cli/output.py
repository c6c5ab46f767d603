"""What a person or a script reads: results on stdout; progress, notes and errors on stderr."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from api.problems import problem
from detection.errors import UrbanInventoryError

results = Console(soft_wrap=True, highlight=False)
# A file or a pipe has no edge to wrap at: one row, one line, so that ids and paths stay whole.
_without_edge = Console(width=10_000, highlight=False)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class Voice:
    """How much the program says beside its results; set once by the options before the command."""

    quiet: bool = False
    verbose: bool = False


voice = Voice()


def note(message: str) -> None:
    """Says something on stderr, unless ``--quiet``."""
    logging.getLogger("urban_inventory").info(message)
    if not voice.quiet:
        notes.print(message, markup=False)


def warn(message: str) -> None:
    """Says something on stderr that even ``--quiet`` must not hide."""
    logging.getLogger("urban_inventory").warning(message)
    notes.print(f"warning: {message}", markup=False, style="yellow")


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    typer.echo(orjson.dumps(value, option=options).decode())


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people; numbers to the right, “–” for what is not known."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    (results if results.is_terminal else _without_edge).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("[", r"\[")


def print_error(error: UrbanInventoryError, *, as_json: bool) -> None:
    """The one clear message of a refusal; under ``--json`` an object on stdout."""
    if as_json:
        print_json({"error": problem(error)})
        return
    notes.print(f"error: {error}", markup=False, style="red")


@contextmanager
def progress_bar(description: str, *, unit: str) -> Iterator["Bar"]:
    """A bar with rate and time left on stderr; silent under ``--quiet`` and where nobody watches."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
        disable=voice.quiet or not notes.is_terminal,
        transient=True,
    )
    with progress:
        yield Bar(progress, description)


class Bar:
    """A progress bar whose total may become known late."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=1, rate="")

    def __call__(self, done: float, total: float, rate: str = "") -> None:
        """Shows ``done`` of ``total``, and the rate in the caller's words."""
        self._progress.update(self._task, completed=done, total=max(total, 1), rate=rate)


def log_to(file: Path | None) -> None:
    """Sends the log to a file, one line an event."""
    logger = logging.getLogger("urban_inventory")
    logger.setLevel(logging.DEBUG if voice.verbose else logging.INFO)
    # A logger without any handler prints its warnings a second time.
    logger.addHandler(logging.NullHandler())
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    elif voice.verbose:
        logger.addHandler(logging.StreamHandler())
