"""How many, where, how sure, of how much ground: counts by area or for any polygon, as of a date (R13)."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from functools import cached_property
from zoneinfo import ZoneInfo

import shapely

from detection.errors import UnknownName
from inventory.domain.places import AreaName, City
from inventory.domain.tally import Counted, CountError, CountRow, interval
from inventory.store import cities, counts, coverage, leaves
from inventory.store.counts import CardOfClass, Covered
from inventory.store.database import Connection, Database, Patience
from inventory.store.known import UNKEPT, KnownCity, known_city, seen_ground
from inventory.store.states import end_of_day

OUTSIDE = "outside"
NOT_SURVEYED = "not surveyed"
_NOTHING = Counted(listed=0, verified=0)


def count(
    database: Database,
    city_code: str,
    *,
    classes: Sequence[str] | None = None,
    area: str | None = None,
    level: str | None = None,
    polygon: shapely.Geometry | None = None,
    as_of: date | None = None,
    patience: Patience = Patience.HTTP,
) -> list[CountRow]:
    """Counts with their coverage and interval; one row per place and class.

    Without ``area``, ``level`` or ``polygon`` the place is the city, ground outside its areas included;
    with ``level`` its areas and a row ``outside``, which add up to the city's.

    Args:
        classes: those counted; None: all that the city counts.
        area: a code; of several levels with this code, each gives a row.
        polygon: closed, EPSG:4326, checked already (``inventory/polygons.py``).
        as_of: a local date of the city, meaning its end; None: today there.

    Raises:
        UnknownName: no such city, class counted there, level or area.
    """
    with database.transaction(patience, read_only=True) as connection:
        known = known_city(connection, city_code)
        return _count(
            connection, known, classes=classes, area=area, level=level, polygon=polygon, as_of=as_of
        )


def count_many(
    database: Database,
    city_code: str,
    *,
    classes: Sequence[str] | None = None,
    levels: Sequence[str | None],
    days: Sequence[date | None],
    patience: Patience = Patience.HTTP,
) -> list[tuple[str | None, list[CountRow]]]:
    """``count`` of each level (None: the city) on each date, read in one snapshot; by date, then level."""
    with database.transaction(patience, read_only=True) as connection:
        known = known_city(connection, city_code)
        return [
            (
                level,
                _count(connection, known, classes=classes, area=None, level=level, polygon=None, as_of=day),
            )
            for day in days
            for level in levels
        ]


def unseen_because(
    database: Database, city_code: str, rows: Sequence[CountRow], polygon: shapely.Geometry
) -> str | None:
    """Why a polygon has no count at all, in words; None where it has one."""
    if any(row.count is not None for row in rows):
        return None
    with database.transaction(Patience.HTTP, read_only=True) as connection:
        city = known_city(connection, city_code).city
    if not shapely.intersects(city.boundary, polygon):
        return f"the polygon lies outside of {city.code}: check the city, and that longitude comes first"
    return "nobody has looked at this ground: that is not 0"


def count_within(
    connection: Connection,
    city: City,
    *,
    classes: Sequence[str] | None = None,
    area: str | None = None,
    level: str | None = None,
    polygon: shapely.Geometry | None = None,
    as_of: date | None = None,
) -> list[CountRow]:
    """``count`` inside the caller's transaction, which may have changed the city."""
    unkept = KnownCity(city=city, version=UNKEPT)
    return _count(connection, unkept, classes=classes, area=area, level=level, polygon=polygon, as_of=as_of)


def _count(
    connection: Connection,
    known: KnownCity,
    *,
    classes: Sequence[str] | None,
    area: str | None,
    level: str | None,
    polygon: shapely.Geometry | None,
    as_of: date | None,
) -> list[CountRow]:
    city = known.city
    day = as_of or datetime.now(ZoneInfo(city.time_zone)).date()
    names = known.part(
        ("asked", classes and tuple(classes)), lambda: classes_asked(connection, city, classes)
    )
    counting = _Counting(connection, known, names, day)
    if polygon is not None:
        return counting.polygon(polygon)
    if area is not None:
        return counting.areas(counting.of_code(area))
    if level is not None:
        return counting.level(level)
    return counting.city_rows()


def count_seen(
    connection: Connection,
    city_code: str,
    *,
    classes: Sequence[str] | None = None,
    level: str | None = None,
    as_of: date | None = None,
) -> list[CountRow]:
    """``count`` inside the caller's transaction, which only reads: who has a connection never waits for a second."""
    known = known_city(connection, city_code)
    return _count(connection, known, classes=classes, area=None, level=level, polygon=None, as_of=as_of)


def classes_asked(connection: Connection, city: City, asked: Sequence[str] | None) -> list[str]:
    """The classes asked for; None: all that the city counts.

    Raises:
        UnknownName: the city neither counts one of them nor knows anything of it.
    """
    counted = cities.classes_of(connection, city.id)
    if asked is None or set(asked) <= set(counted):
        return counted if asked is None else list(asked)
    known = {*counted, *counts.classes_with_assets(connection, city)}
    for name in asked:
        if name not in known:
            raise UnknownName(
                f"{city.code} does not count “{name}”",
                do=f"It counts: {', '.join(sorted(known)) or 'nothing'}.",
            )
    return list(asked)


class _Counting:
    """One question's city, date and classes, and what is known of the models."""

    def __init__(self, connection: Connection, known: KnownCity, classes: list[str], day: date) -> None:
        self._connection = connection
        self._known = known
        self._city = known.city
        self._classes = classes
        self._day = day
        self._as_of = end_of_day(day, known.city.time_zone)

    @cached_property
    def _versions(self) -> list[AreaName]:
        every = self._known.part("areas", lambda: cities.area_names(self._connection, self._city.id))
        return [version for version in every if version.in_force(self._day)]

    @property
    def _cards(self) -> dict[tuple[str, str], CardOfClass]:
        wanted = ("cards", tuple(self._classes))
        return self._known.part(wanted, lambda: counts.cards(self._connection, self._city, self._classes))

    def city_rows(self) -> list[CountRow]:
        """The city as a whole."""
        counted, covered = self._at([coverage.CITY])
        return [
            self._row(self._city.code, self._city.name, name, counted.get(key), covered.get(key))
            for name in self._classes
            for key in [(coverage.CITY, name)]
        ]

    def of_code(self, code: str) -> list[AreaName]:
        """The areas with this code.

        Raises:
            UnknownName: none on this date; names the nearest by spelling.
        """
        found = [version for version in self._versions if version.code == code]
        if not found:
            codes = [version.code for version in self._versions]
            raise UnknownName(
                f"no area “{code}” in {self._city.code} on {self._day.isoformat()}",
                do=f"Areas: {_listing(codes)}.",
            )
        return found

    def areas(self, versions: Sequence[AreaName]) -> list[CountRow]:
        """The areas given, in their order."""
        return self._areas(versions, *self._at([version.id for version in versions]))

    def _areas(
        self,
        versions: Sequence[AreaName],
        counted: dict[tuple[int, str], Counted],
        covered: dict[tuple[int, str], Covered],
    ) -> list[CountRow]:
        return [
            self._row(version.code, version.name, name, counted.get(key), covered.get(key))
            for version in versions
            for name in self._classes
            for key in [(version.id, name)]
        ]

    def level(self, level: str) -> list[CountRow]:
        """A level's areas and what is outside of them; together the city."""
        versions = [version for version in self._versions if version.level == level]
        if not versions:
            levels = dict.fromkeys(version.level for version in self._versions)
            raise UnknownName(
                f"no level “{level}” in {self._city.code} on {self._day.isoformat()}",
                do=f"Levels: {_listing(levels)}.",
            )
        outside = coverage.outside_of(versions[0].level_rank)
        counted, covered = self._at([coverage.CITY, outside, *(version.id for version in versions)])
        rows = self._areas(versions, counted, covered)
        for name in self._classes:
            total = counted.get((coverage.CITY, name), _NOTHING)
            held = [counted.get((version.id, name), _NOTHING) for version in versions]
            left = Counted(
                listed=total.listed - sum(one.listed for one in held),
                verified=total.verified - sum(one.verified for one in held),
            )
            rows.append(self._row(OUTSIDE, OUTSIDE, name, left, covered.get((outside, name))))
        return rows

    def polygon(self, polygon: shapely.Geometry) -> list[CountRow]:
        """A polygon of the caller's."""
        counted = leaves.count_in_polygon(self._connection, self._known, polygon, self._classes, self._as_of)
        rows = []
        for name in self._classes:
            ground = seen_ground(self._connection, self._known, name)
            seen = None if ground is None else ground.of(polygon, self._as_of)
            covered = None
            if seen is not None:
                covered = Covered(
                    share=seen.share,
                    oldest_look=seen.oldest_look,
                    newest_look=seen.newest_look,
                    models=seen.models,
                )
            rows.append(self._row(None, None, name, counted.get(name), covered))
        return rows

    def _local(self, instant: datetime) -> date:
        return instant.astimezone(ZoneInfo(self._city.time_zone)).date()

    def _at(self, areas: list[int]) -> tuple[dict[tuple[int, str], Counted], dict[tuple[int, str], Covered]]:
        asked = (self._connection, self._city, areas, self._classes, self._as_of)
        return counts.counts_as_of(*asked), counts.coverage_as_of(*asked)

    def _row(
        self,
        area: str | None,
        name: str | None,
        class_name: str,
        counted: Counted | None,
        covered: Covered | None,
    ) -> CountRow:
        """One count; without any look and without anything listed it is unknown, not 0 (R13)."""
        known = counted or _NOTHING
        if covered is None and known.listed == 0:
            return CountRow(
                area=area,
                name=name,
                class_name=class_name,
                count=None,
                low=None,
                high=None,
                basis=NOT_SURVEYED,
                coverage=None,
                as_of=self._day,
                oldest_look=None,
                newest_look=None,
            )
        cards = [self._cards[sha256, class_name] for sha256 in covered.models] if covered else []
        low, high = interval(known.listed, known.verified, _error(cards))
        return CountRow(
            area=area,
            name=name,
            class_name=class_name,
            count=known.listed,
            low=low,
            high=high,
            basis=_basis(cards),
            # Known by decisions alone: there are some, and none of the ground was surveyed.
            coverage=round(covered.share, 6) if covered else 0.0,
            as_of=self._day,
            oldest_look=self._local(covered.oldest_look) if covered else None,
            newest_look=self._local(covered.newest_look) if covered else None,
        )


def _error(cards: list[CardOfClass]) -> CountError | None:
    """The widest of the cards' errors; None when one of them was never evaluated, or there is none."""
    errors = [card.error for card in cards if card.error is not None]
    if not errors or len(errors) < len(cards):
        return None
    return CountError(
        relative_error=max(error.relative_error for error in errors),
        dispersion=max(error.dispersion for error in errors),
    )


def _basis(cards: list[CardOfClass]) -> str:
    if not cards:
        return "decisions"
    said = (f"{'card' if card.error else 'unvalidated'}:{card.name}@{card.version}" for card in cards)
    return ", ".join(dict.fromkeys(said))


def _listing(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:20]) + (" …" if len(shown) > 20 else "") or "none"
