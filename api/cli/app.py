"""The program ``urban-inventory``: its commands put together, its errors turned into exit codes."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from api import problems
from api.cli import admin as admin_commands
from api.cli import change as change_commands
from api.cli import city as city_commands
from api.cli import cluster as cluster_commands
from api.cli import counting, decisions, evidence, export, output, serve, training
from api.cli import demo as demo_commands
from api.cli import detection as detection_commands
from api.cli import ingest as ingest_commands
from api.cli import life as life_commands
from detection.errors import UrbanInventoryError
from inventory.memory import keep_freed_memory

# In the order of --help: a first look, the main job, what follows it, the house.
_ORDER = [
    "demo",
    "city",
    "inspect",
    "detect",
    "ingest",
    "count",
    "change",
    "export",
    "survey",
    "scene",
    "asset",
    "decide",
    "reviews",
    "rebuild",
    "models",
    "train",
    "evaluate",
    "serve",
    "settings",
    "doctor",
    "migrate",
    "cluster",
]


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        place = {name: number for number, name in enumerate(_ORDER)}
        return sorted(super().list_commands(ctx), key=lambda name: place.get(name, len(place)))


app = typer.Typer(
    name="urban-inventory",
    cls=_InOrder,
    help="Counts what stands and moves in a city: imagery → detections → observations → assets → counts.",
    epilog="Exit codes: 0 done, 1 refused, 2 usage, 69 database, 75 busy, 78 configuration, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"urban-inventory {version_of('urban-inventory')}")
        raise typer.Exit


@app.callback()
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but results and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on stderr.")] = False,
    log_file: Annotated[Path | None, typer.Option(help="Append the log to this file.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    output.voice.quiet = quiet
    output.voice.verbose = verbose
    output.log_to(log_file)


# A group registers its own commands.
_GROUPS: tuple[ModuleType, ...] = (
    city_commands,
    detection_commands,
    ingest_commands,
    counting,
    change_commands,
    life_commands,
    decisions,
    evidence,
    export,
    training,
    serve,
    demo_commands,
    admin_commands,
    cluster_commands,
)
for _group in _GROUPS:
    _group.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and leaves the process with its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    keep_freed_memory()
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Runs one command line; returns its exit code (``problems.py``)."""
    try:
        outcome = app(arguments, standalone_mode=False, prog_name="urban-inventory")
    except UrbanInventoryError as error:
        output.print_error(error, as_json="--json" in arguments)
        return problems.outcome_of(error).exit_code
    except typer.TyperException as error:
        _show(error)
        return problems.USAGE
    except (KeyboardInterrupt, typer.Abort):
        output.notes.print("interrupted: what is finished is kept; the same command goes on from there")
        return problems.INTERRUPTED
    except BrokenPipeError:
        # The reader of our pipe has gone (… | head): nothing is left to say.
        sys.stderr.close()
        return problems.DONE
    return outcome if isinstance(outcome, int) else problems.DONE


def _show(error: typer.TyperException) -> None:
    show = getattr(error, "show", None)
    if callable(show):
        show()
    else:
        output.notes.print(f"error: {error.format_message()}", markup=False, style="red")
