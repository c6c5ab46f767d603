"""What changed between two dates: what came, what went, by area and class (R7, R12, R13)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from detection.errors import Conflict, UnknownName
from inventory.counting import OUTSIDE, classes_asked
from inventory.domain.change import ChangeRow, Flow, LookedAt, net_between, why_not_comparable
from inventory.domain.places import Area, AreaVersion, City
from inventory.errors import TimeUnusable
from inventory.store import changes, cities, counts, coverage, evidence
from inventory.store.counts import Covered
from inventory.store.database import Connection, Database, Patience
from inventory.store.states import end_of_day

_NO_IDENTITY = "things of this class have no identity: two counts of them are two samples"
_NOTHING = Flow()


def change(
    database: Database,
    city_code: str,
    from_day: date,
    to_day: date,
    *,
    classes: Sequence[str] | None = None,
    area: str | None = None,
    level: str | None = None,
    patience: Patience = Patience.EXPORT,
) -> list[ChangeRow]:
    """The change between the ends of two local days; rows as those of ``count``.

    Each date is counted in the areas that were in force on it; where a border was drawn anew between, the row's
    note says so. The net is not the difference of the two counts: false alarms come and go with neither, so that
    a difference of counts falls short of a change (``domain/change.py``).

    Args:
        classes: those compared; None: all that the city counts.
        area: a code; of several levels with this code, each gives a row.
        level: its areas, and what is outside of them.

    Raises:
        UnknownName: no such city, class counted there, level or area on either date.
        TimeUnusable: the dates are in the wrong order.
        Conflict: the city was last folded by a version of the program that kept less than a change needs.
    """
    if from_day > to_day:
        raise TimeUnusable(
            f"{from_day.isoformat()} comes after {to_day.isoformat()}", do="Give the earlier date to --from."
        )
    with database.transaction(patience, read_only=True) as connection:
        city = cities.get_city(connection, city_code)
        names = classes_asked(connection, city, classes)
        _require_folded(connection, city, names)
        comparing = _Comparing(connection, city, names, from_day, to_day)
        if area is not None:
            return comparing.areas(area)
        if level is not None:
            return comparing.level(level)
        return comparing.city()


def _require_folded(connection: Connection, city: City, names: Sequence[str]) -> None:
    if any(evidence.any_unfolded(connection, city, name) for name in names):
        raise Conflict(
            f"what is stored of {city.name} was folded by an earlier version of this program",
            do=f"Fold it anew, once; ids and counts stay: urban-inventory rebuild --city {city.code}.",
        )


class _Place(NamedTuple):
    """A row's place, and the number under which its coverage is kept at each date (None: not there then)."""

    code: str
    name: str
    covered_from: int | None
    covered_to: int | None


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two dates: its areas and its coverage."""

    day: date
    at: datetime
    versions: dict[Area, AreaVersion]


class _Comparing:
    """One question's city, dates and classes."""

    def __init__(
        self, connection: Connection, city: City, classes: list[str], from_day: date, to_day: date
    ) -> None:
        self._connection, self._city, self._classes = connection, city, classes
        self._sides = tuple(self._side(day) for day in (from_day, to_day))
        self._cards = counts.cards(connection, city, classes)
        self._static = changes.static_classes(connection)
        self._ranks = {
            version.area: version.level_rank for side in self._sides for version in side.versions.values()
        }

    def city(self) -> list[ChangeRow]:
        """The city as a whole."""
        place = _Place(self._city.code, self._city.name, coverage.CITY, coverage.CITY)
        return self._rows({None: place}, [])

    def areas(self, code: str) -> list[ChangeRow]:
        """The areas with a code, one of each level that has it on either date."""
        found = [area for area in self._areas() if area.code == code]
        if not found:
            raise UnknownName(
                f"no area “{code}” in {self._city.code} on either date",
                do=f"Areas: {_listing(area.code for area in self._areas())}.",
            )
        return [row for area in found for row in self._of_level([area], outside=False)]

    def level(self, level: str) -> list[ChangeRow]:
        """A level's areas on either date, and what is outside of them."""
        found = [area for area in self._areas() if area.level == level]
        if not found:
            levels = dict.fromkeys(area.level for area in self._areas())
            raise UnknownName(
                f"no level “{level}” in {self._city.code} on either date", do=f"Levels: {_listing(levels)}."
            )
        return self._of_level(found, outside=True)

    def _side(self, day: date) -> _Side:
        versions = cities.areas_as_of(self._connection, self._city, day)
        return _Side(
            day, end_of_day(day, self._city.time_zone), {version.area: version for version in versions}
        )

    def _areas(self) -> list[Area]:
        """Areas of either date: top level first, by code."""
        return sorted(self._ranks, key=lambda area: (self._ranks[area], *area))

    def _of_level(self, areas: list[Area], *, outside: bool) -> list[ChangeRow]:
        was, now = self._sides
        places: dict[str | None, _Place] = {}
        for area in areas:
            known = [side.versions[area] for side in (now, was) if area in side.versions]
            versions = [side.versions[area].id if area in side.versions else None for side in self._sides]
            places[area.code] = _Place(area.code, known[0].name, versions[0], versions[1])
        if outside:
            number = coverage.outside_of(self._ranks[areas[0]])
            places[None] = _Place(OUTSIDE, OUTSIDE, number, number)
        return self._rows(places, areas)

    def _rows(self, by_code: Mapping[str | None, _Place], areas: list[Area]) -> list[ChangeRow]:
        """Rows of the places, by the code that their assets' areas have; None: in no area of those given."""
        was, now = self._sides
        of_from, of_to = (
            [side.versions[area].id for area in areas if area in side.versions] for side in self._sides
        )
        places = list(by_code.values())
        covered_from = self._covered([place.covered_from for place in places], was.at)
        covered_to = self._covered([place.covered_to for place in places], now.at)
        flows = changes.flows_between(
            self._connection,
            self._city,
            first=was.at,
            second=now.at,
            versions_from=of_from,
            versions_to=of_to,
            classes=[name for name in self._classes if name in self._static],
            grew=_share(covered_to) > _share(covered_from),
        )
        found = {(by_code[code], name): flow for (code, name), flow in flows.items() if code in by_code}
        return [
            self._row(
                place,
                name,
                found.get((place, name), _NOTHING),
                covered_from.get((place.covered_from, name)),
                covered_to.get((place.covered_to, name)),
            )
            for place in places
            for name in self._classes
        ]

    def _covered(self, numbers: list[int | None], at: datetime) -> Mapping[tuple[int | None, str], Covered]:
        known = [number for number in numbers if number is not None]
        found = counts.coverage_as_of(self._connection, self._city, known, self._classes, at)
        return {(number, name): covered for (number, name), covered in found.items()}

    def _row(
        self, place: _Place, name: str, flow: Flow, was: Covered | None, now: Covered | None
    ) -> ChangeRow:
        static = name in self._static
        reason = self._reason(place, name, was, now)
        net = low = high = None
        if reason is None and was is not None and now is not None:
            card = self._cards[now.models[0], name]
            change_ = net_between(
                flow,
                recall=card.recall,
                error=card.error,
                same_look=was.newest_look == now.newest_look,
            )
            net, low, high = change_.net, change_.low, change_.high
        return ChangeRow(
            area=place.code,
            name=place.name,
            class_name=name,
            from_day=self._sides[0].day,
            to_day=self._sides[1].day,
            count_from=flow.listed_from if static and (was or flow.listed_from) else None,
            count_to=flow.listed_to if static and (now or flow.listed_to) else None,
            flow=flow if static else None,
            net=net,
            low=low,
            high=high,
            reason=reason,
            note=self._note(place, flow) if static else None,
        )

    def _reason(self, place: _Place, name: str, was: Covered | None, now: Covered | None) -> str | None:
        if name not in self._static:
            return _NO_IDENTITY
        if place.covered_from is None or place.covered_to is None:
            side = self._sides[0 if place.covered_from is None else 1]
            return f"there was no such area on {side.day.isoformat()}"
        return why_not_comparable(self._looked_at(was, name), self._looked_at(now, name))

    def _note(self, place: _Place, flow: Flow) -> str | None:
        both = place.covered_from is not None and place.covered_to is not None
        if not both or place.covered_from == place.covered_to:
            return None
        return (
            f"its border was drawn anew between the dates: {flow.entered:,} came in, {flow.left:,} fell out"
        )

    def _looked_at(self, covered: Covered | None, name: str) -> LookedAt | None:
        if covered is None:
            return None
        cards = {sha256: self._cards[sha256, name] for sha256 in covered.models}
        return LookedAt(
            share=covered.share,
            models={sha256: f"{card.name}@{card.version} ({sha256[:8]})" for sha256, card in cards.items()},
        )


def _share(covered: Mapping[tuple[int | None, str], Covered]) -> float:
    return sum(one.share for one in covered.values())


def _listing(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:20]) + (" …" if len(shown) > 20 else "") or "none"
