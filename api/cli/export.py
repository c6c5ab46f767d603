"""``export``: the inventory as a file for other programs."""

import time
from typing import Annotated

import typer

from api.cli import output
from api.cli.detection import JsonOption
from api.cli.options import AsOfOption, CityOption, ClassOption, OutOption, parse_classes, parse_date
from api.cli.store import open_store
from inventory.exporting import STATUSES, ExportFormat, export_assets, format_of


def register(app: typer.Typer) -> None:
    """Adds ``export`` to the program."""
    app.command("export")(export)


def export(
    city: CityOption,
    out: OutOption,
    form: Annotated[
        ExportFormat | None, typer.Option("--format", help="Default: by the file's suffix.")
    ] = None,
    classes: ClassOption = None,
    area: Annotated[str | None, typer.Option(metavar="CODE", help="Only assets in this area.")] = None,
    as_of: AsOfOption = None,
    status: Annotated[
        str | None,
        typer.Option(help="present, doubtful, gone, rejected (several with commas) or all; default: listed."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write assets with all that is public about them: GeoJSON, GeoPackage, FlatGeobuf, GeoParquet or CSV.

    By default what is listed, so that the rows are the count.
    """
    started = time.monotonic()
    form = format_of(out, form)
    with open_store() as (database, _settings):
        done = export_assets(
            database,
            city,
            out,
            form,
            classes=parse_classes(classes),
            area=area,
            as_of=parse_date(as_of),
            statuses=STATUSES if status == "all" else parse_classes(status),
        )
    if as_json:
        output.print_json(
            {
                "city": done.city,
                "file": str(done.file),
                "format": done.format.value,
                "assets": done.assets,
                "as_of": done.as_of.isoformat(),
                "classes": done.classes,
                "bytes": done.file.stat().st_size,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
    else:
        output.results.print(f"{done.assets:,} assets written to {done.file}", markup=False)
        if done.left_out:
            names = ", ".join(done.left_out)
            output.notes.print(
                f"left out: {names}, a stock that moves, no assets (for it: --class {','.join(done.left_out)})",
                markup=False,
            )
