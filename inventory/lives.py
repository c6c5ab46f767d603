"""The life of one asset, told from the evidence: seen, missed, gone, decided, listed (R7–R9, R11, R14)."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from inventory.domain.life import Event, LifeLook, LifeState, Recorded, events_of
from inventory.domain.places import City
from inventory.store import cities, lives
from inventory.store.database import Connection, Database
from inventory.store.lives import Names
from inventory.store.states import end_of_day

_CENTIMETRE_DIGITS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """An asset and all that happened to it, as of an instant.

    Attributes:
        asked: the id asked for; another than ``names.public_id`` is an alias of it.
        state: what is said as of the instant; None: not there yet, or its evidence is withdrawn.
        looks: surveys in force that saw it or its ground, oldest first.
        record: every change that was ever written of it (R14), whenever it was.
    """

    city: City
    asked: str
    names: Names
    state: LifeState | None
    events: tuple[Event, ...]
    looks: tuple[LifeLook, ...]
    record: tuple[Recorded, ...]

    def as_json(self) -> dict[str, Any]:
        """The object of ``asset --json``; the position is a GeoJSON Point, longitude first."""
        state = self.state
        return {
            "id": self.names.public_id,
            "aliases": list(self.names.aliases),
            "asked": self.asked,
            "class": state.class_name if state else self.names.class_name,
            "listed": bool(state and state.listed),
            "status": state.status if state else None,
            "verified": bool(state and state.verified),
            "review": bool(state and state.review),
            "position": _point(state) if state else None,
            "position_error_m": round(state.error_m, 2) if state else None,
            "crown_m": round(state.crown_m, 2) if state else None,
            "first_seen": state.first_seen.isoformat() if state else None,
            "last_seen": state.last_seen.isoformat() if state else None,
            "replaces": self.names.replaces,
            "replaced_by": list(self.names.replaced_by),
            "events": [event.as_json() for event in self.events],
            "record": [
                {"at": one.at.isoformat(), "cause": one.cause, "subject": one.subject, "author": one.author}
                for one in self.record
            ],
        }


def _point(state: LifeState) -> dict[str, Any]:
    return {"type": "Point", "coordinates": [round(degree, _CENTIMETRE_DIGITS) for degree in state.lon_lat]}


def life_of(database: Database, city_code: str, asset: str, *, as_of: date | None = None) -> Life:
    """The life of an asset by its id or an alias of it.

    Args:
        as_of: tell it until the end of this local day; None: all that is known.

    Raises:
        UnknownName: no such city, or the city never gave this id.
    """
    with database.transaction(read_only=True) as connection:
        city = cities.get_city(connection, city_code)
        until = None if as_of is None else end_of_day(as_of, city.time_zone)
        return _life(connection, city, asset, until)


def _life(connection: Connection, city: City, asset: str, until: datetime | None) -> Life:
    names = lives.names_of(connection, city, asset)
    states = lives.states_of(connection, city, names.id)
    looks = lives.looks_at(connection, city, names)
    written, record = lives.recorded_causes(connection, city, names.id)
    events = events_of(
        states,
        looks,
        lives.decisions_on(connection, city, names),
        written=written,
        replaced_by=lives.first_seen_of(connection, city, names.replaced_by),
    )
    begun = [state for state in states if until is None or state.valid_from <= until]
    return Life(
        city=city,
        asked=asset,
        names=names,
        state=begun[-1] if begun else None,
        events=tuple(event for event in events if until is None or event.at <= until),
        looks=tuple(look for look in looks if until is None or look.at <= until),
        record=record,
    )
