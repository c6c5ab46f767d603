"""What changed between two dates, from the command line."""

from collections.abc import Sequence
from typing import Annotated

import typer

from api.cli import output
from api.cli.detection import JsonOption
from api.cli.options import CityOption, ClassOption, parse_classes, parse_day
from api.cli.store import open_store
from inventory.comparing import change
from inventory.domain.change import ChangeRow


def register(app: typer.Typer) -> None:
    """Adds ``change`` to the program."""
    app.command("change")(change_between)


def change_between(
    city: CityOption,
    from_day: Annotated[str, typer.Option("--from", metavar="DATE", help="The end of this local day.")],
    to_day: Annotated[str, typer.Option("--to", metavar="DATE", help="And the end of this one.")],
    classes: ClassOption = None,
    area: Annotated[str | None, typer.Option(help="Code of an area.")] = None,
    level: Annotated[str | None, typer.Option(help="All areas of a level, and what is outside them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what came and what went between two dates: new, gone, moved, reclassified, and the net change.

    A net is stated only where both dates were looked at by the same model.
    """
    if area is not None and level is not None:
        raise typer.BadParameter("name only one of --area and --level")
    with open_store() as (database, _):
        rows = change(
            database,
            city,
            parse_day(from_day),
            parse_day(to_day),
            classes=parse_classes(classes),
            area=area,
            level=level,
        )
    if as_json:
        output.print_json([row.as_json() for row in rows])
    else:
        print_changes(rows)


def print_changes(rows: list[ChangeRow]) -> None:
    """Changes as a table; what cannot be compared is said below it, once for all rows that share the reason."""
    if not rows:
        output.results.print("nothing is counted here")
        return
    # Only where something crossed: two columns of noughts say nothing.
    crossed = any(row.flow and (row.flow.entered or row.flow.left) for row in rows)
    crossings = ("entered", "left") if crossed else ()
    output.print_table(
        f"from {rows[0].from_day.isoformat()} to {rows[0].to_day.isoformat()}, with 90 % intervals",
        ("area", "class", "was", "is", "new", "gone", *crossings, *_FLOWS, "net", "interval"),
        [_cells(row, crossings) for row in rows],
    )
    if any(row.low is not None and row.flow and row.net != row.flow.new - row.flow.gone for row in rows):
        output.results.print(
            "new and gone: trees counted at one of the dates only. net: the change on the ground, from what both looks "
            "saw and missed, divided by what the model finds.",
            markup=False,
        )
    for text in dict.fromkeys(row.reason for row in rows if row.reason):
        places = dict.fromkeys(_place(row) for row in rows if row.reason == text)
        output.results.print(f"not comparable ({_some(list(places))}): {text}", markup=False)
    for row in rows:
        if row.note:
            output.results.print(f"{_place(row)}: {row.note}", markup=False)


_FLOWS = ("moved", "reclassified")


def _cells(row: ChangeRow, crossings: Sequence[str]) -> tuple[object, ...]:
    flow, counts = row.flow, (row.count_from, row.count_to)
    # Where nobody had looked, everything would be new.
    told = flow is not None and None not in counts
    names = ("new", "gone", *crossings, *_FLOWS)
    flows = [getattr(flow, name) if told else None for name in names]
    net = "–" if row.net is None else "0" if row.net == 0 else f"{row.net:+,.0f}"
    sure = f"{row.low:+,.0f} … {row.high:+,.0f}" if row.low is not None and row.high is not None else "–"
    return (_place(row), row.class_name, *counts, *flows, net, sure)


def _place(row: ChangeRow) -> str:
    return row.area if row.name == row.area else f"{row.area} {row.name}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
