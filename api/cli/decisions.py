"""What people say of assets, one by one or as a file, and what later imagery asks them again: decide, reviews."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from api.cli import output
from api.cli.detection import JsonOption
from api.cli.options import AuthorOption, CityOption, ClassOption, parse_classes
from api.cli.store import open_store
from detection.taxonomy import shipped_taxonomy
from inventory.dates import parse_instant
from inventory.decision_files import decide_file
from inventory.decisions import Decided, NewDecision, decide_one
from inventory.domain.evidence import DecisionKind
from inventory.domain.places import City
from inventory.errors import DecisionUnusable
from inventory.reviewing import open_reviews
from inventory.store.reviews import Review


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("decide")(decide_asset)
    app.command("reviews")(list_reviews)


# --- decide ------------------------------------------------------------------------------------------------


def decide_asset(
    city: CityOption,
    kind: Annotated[DecisionKind | None, typer.Argument(help="What you say; not with --file.")] = None,
    asset: Annotated[str | None, typer.Option(help="Id of the asset it is about.")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="For add and reclassify.")] = None,
    lon_lat: Annotated[
        str | None, typer.Option(metavar="LON,LAT", help="For add, move and split: the place, EPSG:4326.")
    ] = None,
    other: Annotated[str | None, typer.Option("--with", help="For merge: the other asset.")] = None,
    decision: Annotated[str | None, typer.Option(help="For retract: the decision taken back.")] = None,
    text: Annotated[str | None, typer.Option(help="For describe: what is to be known of it.")] = None,
    at: Annotated[str | None, typer.Option(metavar="DATE", help="Since when it is so; default now.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the history.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE.geojson",
            help="Points with the properties decision, at, reason and, as needed, asset, class, author, to, with, "
            "retracts, text; all are recorded, or none.",
        ),
    ] = None,
    author: AuthorOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Say something of an asset or a place; it outweighs what models see, up to its date."""
    if file is not None:
        given = (kind, asset, class_name, lon_lat, other, decision, text, at, reason)
        if any(value is not None for value in given):
            raise typer.BadParameter("with --file, the file says everything but --city and --author")
        _decide_file(city, file, author, as_json=as_json)
        return
    if kind is None:
        raise typer.BadParameter("say what: decide KIND …, or --file FILE.geojson")
    new = NewDecision(
        kind=kind,
        asset=asset,
        class_name=class_name,
        lon_lat=_lon_lat(lon_lat),
        other_asset=other,
        retracts=decision,
        at=None if at is None else parse_instant(at),
        author=author,
        reason=reason,
        details={"text": text} if text else {},
    )
    with open_store() as (database, _):
        decided = decide_one(database, city, new, taxonomy=shipped_taxonomy())
    if as_json:
        output.print_json(decided.as_json())
    else:
        output.results.print(f"decision {decided.decision} recorded: {_found(decided)}", markup=False)


def _decide_file(city: str, file: Path, author: str, *, as_json: bool) -> None:
    with open_store() as (database, _):
        decided = decide_file(database, city, file, taxonomy=shipped_taxonomy(), author=author)
    if as_json:
        output.print_json([one.as_json() for one in decided])
        return
    output.print_table(
        "",
        ("feature", "decision", "kind", "what it found"),
        [(number, one.decision, one.kind.value, _found(one)) for number, one in enumerate(decided, start=1)],
    )
    what = "recorded" if decided[0].is_new else "recorded before from the same file; nothing was changed"
    output.results.print(f"{len(decided):,} decision{'s' if len(decided) != 1 else ''} {what}")


def _found(decided: Decided) -> str:
    if decided.kind is DecisionKind.ADD and decided.made is not None:
        return f"a new asset, {decided.made}"
    if decided.kind is DecisionKind.ADD and decided.asset is not None:
        return f"{decided.asset} was known here already, and is verified"
    if decided.made is not None and decided.asset is not None:
        return f"about {decided.asset}; its second half is {decided.made}"
    if decided.asset is None:
        return "nothing stands there on its date; it waits for imagery"
    counted = "counted" if decided.is_counted else "not counted"
    if decided.kind is DecisionKind.MERGE and decided.named not in (None, decided.asset):
        return f"{decided.named} is an alias of {decided.asset} now, which is {counted}"
    return f"about {decided.asset}, which is {counted}"


def _lon_lat(given: str | None) -> tuple[float, float] | None:
    if given is None:
        return None
    try:
        lon, lat = (float(part) for part in given.split(","))
    except ValueError:
        raise DecisionUnusable(f"“{given}” is no place", do="Write LON,LAT, e.g. 100.97,22.83.") from None
    return lon, lat


# --- reviews -----------------------------------------------------------------------------------------------


def list_reviews(city: CityOption, classes: ClassOption = None, as_json: JsonOption = False) -> None:
    """List verified assets that later imagery did not see; they stay counted until a person answers."""
    with open_store() as (database, _):
        place, found = open_reviews(database, city, classes=parse_classes(classes))
    if as_json:
        output.print_json([_review(one) for one in found])
        return
    if not found:
        output.note(f"no open reviews in {city}")
        return
    output.print_table("", ("asset", "class", "missed", "by", "said before", "position"), _rows(place, found))
    output.results.print()
    one = found[0].asset
    output.results.print(
        f"It stands: urban-inventory decide verify --city {city} --asset {one} --at DATE --reason …\n"
        f"It is gone: urban-inventory decide reject --city {city} --asset {one} --at DATE --reason …\n"
        f"Look at it: urban-inventory asset {one} --city {city} --picture {one}.png",
        markup=False,
    )


def _rows(city: City, found: list[Review]) -> list[tuple[object, ...]]:
    zone = ZoneInfo(city.time_zone)

    def day(at: datetime) -> str:
        return at.astimezone(zone).date().isoformat()

    return [
        (
            one.asset,
            one.class_name,
            f"since {day(one.since)}",
            ", ".join(f"{model}, survey {survey}" for survey, _, model, _ in one.missed_by[:1])
            + (f" and {len(one.missed_by) - 1} more" if len(one.missed_by) > 1 else ""),
            f"{one.kind} by {one.author}, {day(one.decided_at)}" + (f": {one.reason}" if one.reason else "")
            if one.kind and one.decided_at
            else "–",
            f"{one.lon_lat[0]:.6f}, {one.lon_lat[1]:.6f}",
        )
        for one in found
    ]


def _review(one: Review) -> dict[str, Any]:
    decided = None
    if one.decision is not None and one.decided_at is not None:
        decided = {
            "decision": one.decision,
            "kind": one.kind,
            "at": one.decided_at.isoformat(),
            "author": one.author,
            "reason": one.reason,
        }
    return {
        "asset": one.asset,
        "class": one.class_name,
        "status": one.status,
        "listed": one.listed,
        "since": one.since.isoformat(),
        "last_seen": one.last_seen.isoformat(),
        "position": {"type": "Point", "coordinates": [round(degree, 7) for degree in one.lon_lat]},
        "position_error_m": round(one.error_m, 2),
        "decided": decided,
        "missed_by": [
            {"survey": survey, "scene": scene, "model": model, "taken_at": taken_at.isoformat()}
            for survey, scene, model, taken_at in one.missed_by
        ],
    }
