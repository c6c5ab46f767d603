"""``urban-inventory city``: add, list, show, remove."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import output
from api.cli.store import open_store
from api.problems import REFUSED
from detection.errors import CallerError
from inventory import onboarding, removing
from inventory.boundaries import AreaFile, Fields, Repair
from inventory.domain.datum import Datum
from inventory.domain.levels import Gap, Overlap
from inventory.domain.places import AreaVersion
from inventory.errors import TimeUnusable
from inventory.onboarding import CityOverview, CityReport, CityRequest, LevelReport

# As many overlaps, gaps and repairs as a person reads; --json has all of them.
_SHOWN = 5

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Cities and their areas.")

Code = Annotated[
    str, typer.Argument(help="The city's code in addresses: lower-case letters, digits, - and _.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Adds ``city`` to the program."""
    app.add_typer(group, name="city")


@group.command("add")
def add(
    code: Code,
    name: Annotated[str | None, typer.Option(help="The city's name; default: its code.")] = None,
    areas: Annotated[
        Path | None, typer.Option(help="Areas: GeoJSON, GeoPackage or Shapefile; the whole of its levels.")
    ] = None,
    level_field: Annotated[str | None, typer.Option(help="Field of the level.")] = None,
    code_field: Annotated[str | None, typer.Option(help="Field of the area's code.")] = None,
    name_field: Annotated[str | None, typer.Option(help="Field of the area's name.")] = None,
    parent_field: Annotated[str | None, typer.Option(help="Field of the parent's code.")] = None,
    level: Annotated[
        str | None, typer.Option(help="The level of all areas in the file; default: the file's name.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of a GeoPackage that has several.")] = None,
    boundary: Annotated[
        Path | None, typer.Option(help="The city's outline; default: the union of the top level.")
    ] = None,
    datum: Annotated[
        Datum | None, typer.Option(help="What the files' degrees mean; Chinese web maps: gcj02.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="IANA name, as Asia/Shanghai; default: from the position.")
    ] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(help="First day of what changes, YYYY-MM-DD; default: today.", metavar="DATE"),
    ] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="Mend the stored versions instead of making new ones.")
    ] = False,
    classes: Annotated[
        str | None, typer.Option("--class", help="Classes that the city counts: tree,car; default: tree.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a city, or bring its areas up to date.

    A file is the whole of each level it holds: areas missing from it end at --valid-from, changed ones get a
    new version from then on. The same file again changes nothing.
    """
    request = CityRequest(
        code=code,
        name=name,
        areas=_area_file(
            areas,
            Fields(level=level_field, code=code_field, name=name_field, parent=parent_field),
            level,
            layer,
        ),
        boundary=boundary,
        datum=datum,
        time_zone=time_zone,
        valid_from=_date(valid_from, "--valid-from"),
        correct=correct,
        classes=None if classes is None else tuple(dict.fromkeys(_split(classes))),
    )
    with open_store() as (database, _settings):
        report = onboarding.add_city(database, request, now=datetime.now(UTC))
    _say(report)
    if as_json:
        output.print_json(_report_json(report))
    else:
        _print_report(report)


@group.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the cities."""
    with open_store() as (database, _settings):
        overviews = onboarding.list_cities(database, now=datetime.now(UTC))
    if as_json:
        output.print_json([_overview_json(overview) for overview in overviews])
    elif not overviews:
        output.note("no cities yet: add one with “urban-inventory city add”")
    else:
        rows = [
            (
                overview.city.code,
                overview.city.name,
                ", ".join(f"{len(areas)} {level}" for level, areas in overview.levels.items()) or None,
                ", ".join(overview.classes),
                overview.city.time_zone,
            )
            for overview in overviews
        ]
        output.print_table("", ("city", "name", "areas", "counts", "time zone"), rows)


@group.command("show")
def show(
    code: Code,
    as_of: Annotated[
        str | None, typer.Option(help="The areas of this day, YYYY-MM-DD; default: today.", metavar="DATE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a city and its areas."""
    with open_store() as (database, _settings):
        overview = onboarding.show_city(database, code, now=datetime.now(UTC), on=_date(as_of, "--as-of"))
    if as_json:
        output.print_json(_overview_json(overview, with_areas=True))
        return
    city = overview.city
    output.print_table(
        "",
        (city.code, city.name),
        [
            ("counts", ", ".join(overview.classes)),
            ("time zone", city.time_zone),
            ("measures in", city.metric_crs),
            ("boundary", "given" if city.boundary_given else "union of the top level"),
            ("spans", " to ".join(_position(lon, lat) for lon, lat in _corners(city.boundary.bounds))),
            *((f"department {code}", name) for code, name in overview.departments),
        ],
    )
    for level, areas in overview.levels.items():
        output.results.print()
        rows = [
            (area.code, area.name, area.parent_code, area.area_m2 / 1e6, area.valid_from, area.valid_to)
            for area in areas
        ]
        columns = ("code", "name", "parent", "km²", "from", "until")
        output.print_table(f"{level} ({len(areas)})", columns, rows)


@group.command("remove")
def remove(
    code: Code,
    export: Annotated[
        Path | None, typer.Option(help="Where to save the city first; default: the home's “backups”.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a city with everything in it, after saving it to a GeoPackage."""
    with open_store() as (database, settings):
        now = datetime.now(UTC)
        holdings = removing.holdings_of(database, code)
        output.note(f"{holdings.name}: {holdings}")
        if not yes and not typer.confirm(f"Remove the city “{code}”?", err=True):
            output.note("nothing was removed")
            raise typer.Exit(REFUSED)
        file = export or settings.home / "backups" / f"{code}-{now:%Y%m%dT%H%M%SZ}.gpkg"
        removed = removing.remove_city(database, code, export_to=file, home=settings.home)
    if as_json:
        output.print_json({"removed": code, "export": str(file), "layers": removed.layers})
    else:
        output.print_table(
            f"“{code}” is removed; it is saved in {file}", ("layer", "rows"), list(removed.layers.items())
        )


# --- options -----------------------------------------------------------------------------------------------


def _area_file(path: Path | None, fields: Fields, level: str | None, layer: str | None) -> AreaFile | None:
    if path is not None:
        return AreaFile(path=path, fields=fields, level=level, layer=layer)
    if fields != Fields() or level is not None or layer is not None:
        raise CallerError("fields, level and layer are of a file of areas", do="Give that file with --areas.")
    return None


def _split(classes: str) -> list[str]:
    return [name.strip() for name in classes.split(",") if name.strip()]


def _date(text: str | None, option: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise TimeUnusable(f"{option} {text}: no such date", do="Write it as 2026-03-01.") from None


# --- results -----------------------------------------------------------------------------------------------


def _say(report: CityReport) -> None:
    """Repairs, overlaps and gaps, in words; on stderr, because the result goes on without them."""
    for message in report.notes:
        output.note(message)
    _say_some([_repair_text(repair) for repair in report.repairs], "repairs", output.note)
    _say_some([_overlap_text(overlap) for overlap in report.overlaps], "overlaps", output.warn)
    _say_some([_gap_text(gap) for gap in report.gaps], "gaps", output.warn)


def _say_some(messages: Sequence[str], what: str, say: Any) -> None:
    for message in messages[:_SHOWN]:
        say(message)
    if len(messages) > _SHOWN:
        say(f"… and {len(messages) - _SHOWN:,} more {what} (--json lists them)")


def _repair_text(repair: Repair) -> str:
    who = "the boundary" if repair.code is None else f"{repair.level} {repair.code}"
    before, after = _square(repair.before_m2), _square(repair.after_m2)
    ground = "its ground is as before" if before == after else f"{after} instead of {before}"
    return f"repaired {who}: {repair.what}; {ground}"


def _overlap_text(overlap: Overlap) -> str:
    low, high = overlap.codes
    return f"{overlap.level} {low} and {high} overlap by {_square(overlap.area_m2)}: {low} has it"


def _gap_text(gap: Gap) -> str:
    beside = f" beside {', '.join(gap.codes[:4])}" if gap.codes else ""
    return f"{gap.level}: {_square(gap.area_m2)}{beside} in no area"


def _square(area_m2: float) -> str:
    value, unit = (area_m2 / 1e6, "km²") if abs(area_m2) >= 1e5 else (area_m2, "m²")
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def _print_report(report: CityReport) -> None:
    city = report.city
    done = "added" if report.created else "brought up to date" if report.changed else "nothing changed"
    title = f"{city.name} ({city.code}): {done}"
    facts = f"counts {', '.join(report.classes)} · {city.time_zone} · {city.metric_crs}"
    rows = [
        (
            one.level,
            one.areas,
            one.area_m2 / 1e6,
            len(one.added),
            len(one.changed),
            len(one.ended),
            one.unchanged,
        )
        for one in report.levels
    ]
    output.results.print(title, style="bold", markup=False)
    output.results.print(facts, markup=False)
    if rows:
        columns = ("level", "areas", "km²", "new", "changed", "ended", "unchanged")
        output.print_table("", columns, rows)


def _report_json(report: CityReport) -> dict[str, Any]:
    return {
        "city": report.city.code,
        "name": report.city.name,
        "created": report.created,
        "changed": report.changed,
        "time_zone": report.city.time_zone,
        "metric_crs": report.city.metric_crs,
        "classes": report.classes,
        "valid_from": report.valid_from.isoformat(),
        "levels": [_level_json(one) for one in report.levels],
        "repairs": [
            {
                "level": repair.level,
                "code": repair.code,
                "what": repair.what,
                "before_m2": repair.before_m2,
                "after_m2": repair.after_m2,
            }
            for repair in report.repairs
        ],
        "overlaps": [{"level": o.level, "codes": o.codes, "area_m2": o.area_m2} for o in report.overlaps],
        "gaps": [{"level": gap.level, "codes": gap.codes, "area_m2": gap.area_m2} for gap in report.gaps],
        "notes": report.notes,
    }


def _level_json(one: LevelReport) -> dict[str, Any]:
    return {
        "level": one.level,
        "rank": one.rank,
        "areas": one.areas,
        "area_m2": one.area_m2,
        "added": one.added,
        "changed": one.changed,
        "ended": one.ended,
        "unchanged": one.unchanged,
    }


def _overview_json(overview: CityOverview, *, with_areas: bool = False) -> dict[str, Any]:
    city = overview.city
    found: dict[str, Any] = {
        "city": city.code,
        "name": city.name,
        "time_zone": city.time_zone,
        "metric_crs": city.metric_crs,
        "bbox": city.boundary.bounds,
        "boundary_given": city.boundary_given,
        "classes": overview.classes,
        "levels": [{"level": level, "areas": len(areas)} for level, areas in overview.levels.items()],
        "departments": [{"code": code, "name": name} for code, name in overview.departments],
    }
    if with_areas:
        found["areas"] = [_area_json(area) for areas in overview.levels.values() for area in areas]
    return found


def _area_json(area: AreaVersion) -> dict[str, Any]:
    return {
        "level": area.level,
        "code": area.code,
        "name": area.name,
        "parent": area.parent_code,
        "area_m2": area.area_m2,
        "valid_from": area.valid_from,
        "valid_to": area.valid_to,
    }


def _corners(bounds: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    x_min, y_min, x_max, y_max = bounds
    return [(x_min, y_min), (x_max, y_max)]


def _position(lon: float, lat: float) -> str:
    return f"{abs(lat):.3f}° {'N' if lat >= 0 else 'S'} {abs(lon):.3f}° {'E' if lon >= 0 else 'W'}"
