"""The life of one asset, in plain words: ``asset``."""

from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from api.cli import output
from api.cli.detection import JsonOption
from api.cli.options import AsOfOption, CityOption, parse_date
from api.cli.store import open_store
from inventory.domain.life import Event, EventKind
from inventory.life_picture import draw_life
from inventory.lives import Life, life_of


def register(app: typer.Typer) -> None:
    """Adds ``asset`` to the program."""
    app.command("asset")(show_asset)


def show_asset(
    asset: Annotated[str, typer.Argument(metavar="ID", help="Id of the asset, or an alias of it.")],
    city: CityOption,
    as_of: AsOfOption = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw its crops through the years.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell the life of one asset: seen, missed, gone, decided, counted or not, each with whose word it was."""
    with open_store() as (database, _):
        life = life_of(database, city, asset, as_of=parse_date(as_of))
    if picture is not None:
        shown = draw_life(life, picture)
        output.note(f"{shown:,} look{'s' if shown != 1 else ''} drawn to {picture}")
    if as_json:
        output.print_json(life.as_json())
    else:
        print_life(life)


def print_life(life: Life) -> None:
    """The asset in a few lines, then what happened to it."""
    say = _Words(life)
    for line in say.head():
        output.results.print(line, markup=False)
    if life.events:
        output.results.print()
        output.print_table("", ("date", "what happened", "on whose word"), say.rows())
    if life.record:
        last = life.record[-1]
        output.results.print()
        output.results.print(
            f"written down in {len(life.record):,} change{'s' if len(life.record) > 1 else ''}, the last on "
            f"{say.day(last.at)} ({last.cause} {last.subject or ''}".rstrip()
            + f", by {last.author})",
            markup=False,
        )


class _Words:
    """Plain words for one life, dates by the city's clock."""

    def __init__(self, life: Life) -> None:
        self._life, self._zone = life, ZoneInfo(life.city.time_zone)

    def day(self, at: datetime) -> str:
        """The local date."""
        return at.astimezone(self._zone).date().isoformat()

    def head(self) -> list[str]:
        """What is so now."""
        life, names, state = self._life, self._life.names, self._life.state
        lines = []
        if life.asked != names.public_id:
            lines.append(f"{life.asked} is an alias of {names.public_id}")
        if state is None:
            said = "nothing speaks of it: not yet seen, or its evidence is withdrawn or purged"
            return [*lines, f"{names.class_name} {names.public_id} in {life.city.code}: {said}"]
        counted = "counted" if state.listed else "not counted"
        asked = ["verified"] if state.verified else []
        asked += ["in review"] if state.review else []
        said = ", ".join([state.status, counted, *asked])
        lines.append(f"{state.class_name} {names.public_id} in {life.city.code}: {said}")
        if not state.listed and state.status in ("present", "doubtful"):
            lines.append(f"not counted: others near it are more probable than it ({state.probability:.0%})")
        lon, lat = state.lon_lat
        lines.append(
            f"at {lon:.6f}, {lat:.6f} (longitude, latitude; ± {state.error_m:.1f} m), {state.crown_m:.1f} m across; "
            f"first seen {self.day(state.first_seen)}, last seen {self.day(state.last_seen)}"
        )
        if names.aliases:
            lines.append(f"also known as {', '.join(names.aliases)}")
        if names.replaces:
            lines.append(f"stands where {names.replaces} stood")
        return lines

    def rows(self) -> list[tuple[str, str, str]]:
        """One row an event; being counted is told beside what caused it."""
        rows: list[tuple[str, str, str]] = []
        before: Event | None = None
        for event in self._life.events:
            counted = event.event in (EventKind.LISTED, EventKind.UNLISTED)
            if counted and before is not None and before.at == event.at:
                day, what, word = rows[-1]
                rows[-1] = day, f"{what}; {self._what(event)}", word
            else:
                rows.append((self.day(event.at), self._what(event), self._word(event)))
            before = event
        return rows

    def _what(self, event: Event) -> str:
        told = self._happened(event) or self._decided(event)
        taken_back = event.details.get("taken_back_by")
        return f"{told} (taken back: {taken_back})" if taken_back else told

    def _happened(self, event: Event) -> str | None:
        match event.event:
            case EventKind.NOT_YET:
                return "looked at: not there yet"
            case EventKind.FIRST_SEEN:
                replaces = self._life.names.replaces
                return f"first seen, where {replaces} had stood" if replaces else "first seen"
            case EventKind.SEEN:
                after = {"doubtful": " after it was missed", "gone": " after it was thought gone"}
                return "seen again" + after.get(event.details.get("after", ""), "")
            case EventKind.MISSED:
                return self._missed(event)
            case EventKind.GONE if event.interval is not None:
                last_seen, first_missed = (self.day(at) for at in event.interval)
                return f"missed again: gone, after {last_seen} and by {first_missed}"
            case EventKind.NOT_JUDGED:
                return "only partly in view: neither seen nor missed"
            case EventKind.LISTED:
                return "counted from here on"
            case EventKind.UNLISTED:
                return "no longer counted"
            case EventKind.REPLACED:
                return f"replaced by {event.details['by']}"
        return None

    def _missed(self, event: Event) -> str:
        if event.details.get("review"):
            return "missed: doubtful, and a person is asked again"
        return f"missed: {'still ' if event.status in ('gone', 'rejected') else ''}{event.status}"

    def _decided(self, event: Event) -> str:
        details = event.details
        match event.event:
            case "verify":
                return "verified"
            case "reject":
                return "rejected"
            case "add" if details.get("known_already"):
                return "verified: added by hand, and known already"
            case "add":
                return "added by hand"
            case "move" if "by_m" in details:
                return f"moved by {details['by_m']:.1f} m"
            case "reclassify":
                return f"said to be a {details['class']}" if "class" in details else "reclassified"
            case "describe":
                return f"described: {details['text']}" if "text" in details else "described"
            case "merge":
                return f"merged with {details['with']}" if "with" in details else "merged with another"
            case "split":
                return "split in two"
            case "retract":
                return f"decision {details.get('retracts', '')} taken back"
        return event.event

    def _word(self, event: Event) -> str:
        if event.decision is not None:
            reason = f": {event.decision.reason}" if event.decision.reason else ""
            return f"{event.decision.author}, decision {event.decision.public_id}{reason}"
        if event.look is not None:
            look = event.look
            return f"{look.model} on {look.source}, survey {look.survey}"
        return "the ranking of its surroundings"
