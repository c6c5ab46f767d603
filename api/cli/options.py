"""Options and arguments that several commands share."""

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from inventory.errors import TimeUnusable

CityOption = Annotated[str, typer.Option("--city", "-C", metavar="CODE", help="The city.")]
AuthorOption = Annotated[str, typer.Option(help="Who says so; kept in the history.")]
ClassOption = Annotated[
    str | None, typer.Option("--class", metavar="CLASS", help="Asset class, or several with commas.")
]
AsOfOption = Annotated[
    str | None, typer.Option("--as-of", metavar="DATE", help="End of this local day; default today.")
]
OutOption = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]


def parse_date(given: str | None) -> date | None:
    """A day as ``2025-06-30``.

    Raises:
        TimeUnusable: it is none.
    """
    return None if given is None else parse_day(given)


def parse_day(given: str) -> date:
    """A day as ``2025-06-30``.

    Raises:
        TimeUnusable: it is none.
    """
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise TimeUnusable(f"“{given}” is no date", do="Write it as 2025-06-30.") from None


def parse_classes(given: str | None) -> list[str] | None:
    """Names between commas."""
    if given is None:
        return None
    return [name.strip() for name in given.split(",") if name.strip()]
