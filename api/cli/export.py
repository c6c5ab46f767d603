"""``export``: the inventory as a file for other programs."""

import time
from typing import Annotated, Any

import typer

from api.cli import output
from api.cli.detection import JsonOption
from api.cli.options import AsOfOption, CityOption, ClassOption, OutOption, parse_classes, parse_date
from api.cli.store import open_store
from detection.errors import CallerError
from inventory.exporting import STATUSES, Exported, ExportFormat, export_assets, format_of
from inventory.tile_archives import ArchivedTiles, export_tiles


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

    By default what is listed, so that the rows are the count. PMTiles: the map of the city as one file, zoom by zoom.
    """
    started = time.monotonic()
    form = format_of(out, form)
    names, day = parse_classes(classes), parse_date(as_of)
    if form is ExportFormat.PMTILES and (area or status):
        raise CallerError(
            "tiles hold what is listed, of the whole city",
            do="Leave out --area and --status, or name a table’s format.",
        )
    done: Exported | ArchivedTiles
    with open_store() as (database, _settings):
        if form is ExportFormat.PMTILES:
            done = export_tiles(database, city, out, classes=names, as_of=day)
        else:
            statuses = STATUSES if status == "all" else parse_classes(status)
            done = export_assets(
                database, city, out, form, classes=names, area=area, as_of=day, statuses=statuses
            )
    if as_json:
        output.print_json(_document(done, form, time.monotonic() - started))
    elif isinstance(done, ArchivedTiles):
        output.results.print(
            f"{done.assets:,} assets in {done.tiles:,} tiles, zoom 0 to {done.deepest_zoom}, written to {done.file}",
            markup=False,
        )
    else:
        output.results.print(f"{done.assets:,} assets written to {done.file}", markup=False)
        if done.left_out:
            names_left = ", ".join(done.left_out)
            output.notes.print(
                f"left out: {names_left}, a stock that moves, no assets (for it: --class {','.join(done.left_out)})",
                markup=False,
            )


def _document(done: Exported | ArchivedTiles, form: ExportFormat, seconds: float) -> dict[str, Any]:
    document = {
        "city": done.city,
        "file": str(done.file),
        "format": form.value,
        "assets": done.assets,
        "as_of": done.as_of.isoformat(),
        "classes": done.classes,
        "bytes": done.file.stat().st_size,
        "seconds": round(seconds, 3),
    }
    if isinstance(done, ArchivedTiles):
        document |= {"tiles": done.tiles, "deepest_zoom": done.deepest_zoom}
    return document
