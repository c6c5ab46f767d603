"""How many, from the command line."""

from pathlib import Path
from typing import Annotated

import typer
from shapely import MultiPolygon, Polygon

from api.cli import output
from api.cli.detection import JsonOption
from api.cli.options import AsOfOption, CityOption, ClassOption, parse_classes, parse_date
from api.cli.store import open_store
from detection.errors import CallerError
from inventory.counting import NOT_SURVEYED, count
from inventory.domain.tally import CountRow
from inventory.errors import JsonUnusable
from inventory.polygons import read_polygon
from inventory.store.database import Patience


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("count")(count_assets)


def count_assets(
    city: CityOption,
    classes: ClassOption = None,
    area: Annotated[str | None, typer.Option(help="Code of an area.")] = None,
    level: Annotated[str | None, typer.Option(help="All areas of a level, and what is outside them.")] = None,
    polygon: Annotated[
        Path | None, typer.Option(help="GeoJSON with one polygon or multipolygon, longitude first.")
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count assets in the city, an area, the areas of a level, or a polygon."""
    if sum(place is not None for place in (area, level, polygon)) > 1:
        raise typer.BadParameter("name only one of --area, --level and --polygon")
    with open_store() as (database, settings):
        rows = count(
            database,
            city,
            classes=parse_classes(classes),
            area=area,
            level=level,
            polygon=_polygon(polygon, settings.vertex_limit),
            as_of=parse_date(as_of),
            patience=Patience.EXPORT,
        )
    if as_json:
        output.print_json([row.as_json() for row in rows])
    else:
        print_counts(rows)


def print_counts(rows: list[CountRow]) -> None:
    """Counts as a table; “not surveyed” is a word, never a 0."""
    if not rows:
        output.results.print("no counts")
        return
    output.print_table(
        f"as of {rows[0].as_of.isoformat()}",
        ("area", "class", "count", "90 % interval", "surveyed", "newest look"),
        [
            (
                _place(row),
                row.class_name,
                row.count,
                f"{row.low:,.0f} – {row.high:,.0f}" if row.low is not None and row.high is not None else "–",
                f"{row.coverage:.0%}" if row.coverage is not None else NOT_SURVEYED,
                row.newest_look.isoformat() if row.newest_look else "–",
            )
            for row in rows
        ],
    )
    if all(row.area is None and row.count is None for row in rows):
        output.notes.print("nobody looked at any of this ground; is the polygon in the city?", markup=False)
    bases = sorted({row.basis for row in rows} - {NOT_SURVEYED})
    if bases:
        output.results.print(f"on the word of {', '.join(bases)}", markup=False)


def _place(row: CountRow) -> str:
    if row.area is None:
        return "polygon"
    return row.area if row.name in (None, row.area) else f"{row.area} {row.name}"


def _polygon(file: Path | None, vertex_limit: int) -> Polygon | MultiPolygon | None:
    if file is None:
        return None
    try:
        return read_polygon(_read(file), vertex_limit=vertex_limit)
    except JsonUnusable as error:
        raise JsonUnusable(
            f"{error.what} ({error.where})" if error.where else error.what,
            where=str(file),
            do="Save it as GeoJSON, UTF-8.",
        ) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CallerError(
            f"cannot be read: {error.strerror}", where=str(file), do="Check the path."
        ) from error
