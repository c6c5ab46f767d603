"""A city is added, and its areas kept up to date: read boundaries → repair → hang together → compare → store.

Boundaries are read and repaired outside the database. A file is the whole of each level it holds, as of a
date: what it draws otherwise gets a new version, what it no longer holds ends; the same again is no change.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import shapely
from pyproj import Geod
from shapely import MultiPolygon

from detection.errors import CallerError, Conflict, UnknownName
from detection.taxonomy import Taxonomy, shipped_taxonomy
from inventory.boundaries import AreaFile, DrawnAreas, DrawnBoundary, Repair, read_areas, read_boundary
from inventory.domain.datum import Datum, ground_area_m2, metric_crs
from inventory.domain.levels import (
    DrawnArea,
    Gap,
    Overlap,
    find_parents,
    gaps,
    overlaps,
    rank_levels,
    union_of,
)
from inventory.domain.places import AreaVersion, City, versions_by_level
from inventory.domain.revision import Revision, revise, same_ground
from inventory.errors import BoundariesUnusable
from inventory.store import cities, coverage, evidence, states
from inventory.store.database import Connection, Database, Patience

if TYPE_CHECKING:
    from timezonefinder import TimezoneFinder

DEFAULT_CLASSES = ("tree",)

_CODE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

# Only in China do web maps shift what they publish.
_GCJ02_TIME_ZONES = ("Asia/Shanghai", "Asia/Urumqi")

# A level that covers less of the ground above it picks places (parks, projects) instead of dividing ground.
_DIVIDES = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class CityRequest:
    """What is asked of ``add_city``; None keeps what is stored, and for a new city takes the default."""

    code: str
    name: str | None = None
    areas: AreaFile | None = None
    boundary: Path | None = None
    datum: Datum | None = None
    time_zone: str | None = None
    valid_from: date | None = None
    correct: bool = False
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReport:
    """What happened to one level: codes of areas; ``areas`` and ``area_m2`` are of those now in force."""

    level: str
    rank: int
    areas: int
    area_m2: float
    added: tuple[str, ...]
    changed: tuple[str, ...]
    ended: tuple[str, ...]
    unchanged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CityReport:
    """What ``add_city`` did; ``changed`` is False where nothing had to be written."""

    city: City
    classes: tuple[str, ...]
    created: bool
    changed: bool
    valid_from: date
    levels: tuple[LevelReport, ...]
    repairs: tuple[Repair, ...]
    overlaps: tuple[Overlap, ...]
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CityOverview:
    """A city, and its areas in force on a date: by level, top level first."""

    city: City
    classes: tuple[str, ...]
    levels: dict[str, list[AreaVersion]]
    departments: tuple[tuple[str, str], ...]


def add_city(database: Database, request: CityRequest, *, now: datetime) -> CityReport:
    """Adds a city, or brings the city of that code up to what is asked.

    Args:
        database: where it is stored, in one transaction.
        request: code, files, and how to read them.
        now: aware; its date in the city is the first day of changes unless ``valid_from`` is given.

    Raises:
        BoundariesUnusable: a file cannot be read as areas, or does not fit the city.
        UnknownName: no such class or time zone.
        Conflict: what is asked contradicts what is stored.
        CallerError: the request lacks something.
    """
    taxonomy = shipped_taxonomy()
    _check(request, taxonomy)
    drawn = None if request.areas is None else read_areas(request.areas, request.datum)
    boundary = None if request.boundary is None else read_boundary(request.boundary, request.datum)
    with database.transaction(Patience.JOB) as connection:
        cities.sync_asset_classes(connection, taxonomy.classes.values())
        created = cities.find_city(connection, request.code) is None
        if created:
            cities.insert_city(connection, _new_city(request, drawn, boundary))
        city = cities.get_city(connection, request.code)
        cities.lock_city(connection, city.id)
        stored = cities.all_area_versions(connection, city.id)
        on = request.valid_from or now.astimezone(ZoneInfo(city.time_zone)).date()
        areas = () if drawn is None else drawn.areas
        if drawn is not None:
            _require_fit(request, drawn, stored, city)
        plan = _plan(areas, stored, on=on, correct=request.correct)
        wanted = city if created else _brought_up(city, request, boundary, plan)
        if wanted.time_zone != city.time_zone and cities.has_scenes(connection, city.id):
            raise Conflict(
                f"the days of “{city.code}” begin in {city.time_zone}, and imagery is dated by them",
                do="A city's time zone can be changed only before its first scene.",
            )
        changed = created or plan.changes_anything or wanted != city
        cities.apply_revisions(connection, city.id, plan.revisions.values())
        cities.set_level_ranks(connection, city.id, plan.ranks)
        cities.update_city(connection, wanted)
        if created or request.classes is not None:
            classes = request.classes or DEFAULT_CLASSES
            changed |= cities.set_classes(connection, city.id, classes)
        moved = plan.changes_anything or wanted.boundary != city.boundary
        if moved and cities.has_scenes(connection, city.id):
            _refresh(connection, wanted, taxonomy)
        counted = tuple(cities.classes_of(connection, city.id))
    levels = {area.level for area in areas}
    shared, left, check_notes = _looked_over(plan, levels, wanted)
    return CityReport(
        city=wanted,
        classes=counted,
        created=created,
        changed=changed,
        valid_from=on,
        levels=_level_reports(plan, levels),
        repairs=(*(drawn.repairs if drawn else ()), *(boundary.repairs if boundary else ())),
        overlaps=shared,
        gaps=left,
        notes=(*_notes(request, drawn, boundary, wanted, plan, created=created), *check_notes),
    )


def list_cities(database: Database, *, now: datetime) -> list[CityOverview]:
    """All cities with their areas of today, by code."""
    with database.transaction(read_only=True) as connection:
        return [_overview(connection, city, None, now) for city in cities.list_cities(connection)]


def show_city(database: Database, code: str, *, now: datetime, on: date | None = None) -> CityOverview:
    """One city with its areas on a local day, today by default.

    Raises:
        UnknownName: there is no such city.
    """
    with database.transaction(read_only=True) as connection:
        return _overview(connection, cities.get_city(connection, code), on, now)


def _overview(connection: Connection, city: City, on: date | None, now: datetime) -> CityOverview:
    day = on or now.astimezone(ZoneInfo(city.time_zone)).date()
    return CityOverview(
        city=city,
        classes=tuple(cities.classes_of(connection, city.id)),
        levels=versions_by_level(cities.areas_as_of(connection, city, day)),
        departments=tuple(cities.departments_of(connection, city.id)),
    )


# --- what is asked -----------------------------------------------------------------------------------------


def _check(request: CityRequest, taxonomy: Taxonomy) -> None:
    if not _CODE.fullmatch(request.code):
        raise CallerError(
            f"“{request.code}” cannot be the code of a city",
            do="Codes stand in addresses: lower-case letters, digits, - and _; put the name in --name.",
        )
    if request.classes is not None and not request.classes:
        raise CallerError("no class to count", do="Give --class, for example --class tree.")
    for name in request.classes or ():
        taxonomy.get(name)
    if request.time_zone is not None:
        _require_time_zone(request.time_zone)
    if request.correct and request.areas is None:
        raise CallerError("nothing to correct", do="Give the corrected areas with --areas.")


def _require_time_zone(name: str) -> None:
    known = available_timezones()
    if name in known:
        return
    near = get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "Give an IANA name, for example Asia/Shanghai."
    raise UnknownName(f"no time zone “{name}”", do=hint)


def _require_fit(request: CityRequest, drawn: DrawnAreas, stored: Sequence[AreaVersion], city: City) -> None:
    """Refuses areas whose level is a guess, whose codes are taken, or which lie elsewhere."""
    path = str(request.areas.path) if request.areas else None
    known = list(dict.fromkeys(version.level for version in stored))
    levels = {area.level for area in drawn.areas}
    if known and not drawn.level_named and not levels <= set(known):
        raise BoundariesUnusable(
            "nothing in the file says which level its areas are",
            where=path,
            do=f"Say --level: {', '.join(known)} to replace one, another name to add one.",
        )
    level_of = {version.code: version.level for version in stored}
    for area in drawn.areas:
        if level_of.get(area.code, area.level) != area.level and level_of[area.code] not in levels:
            raise Conflict(
                f"the code “{area.code}” of level “{area.level}” is one of level “{level_of[area.code]}”",
                where=path,
                do="Give every area of a city a code of its own.",
            )
    if not any(shapely.intersects(area.geometry, city.boundary) for area in drawn.areas):
        away_km = _distance_km(shapely.union_all([area.geometry for area in drawn.areas]), city.boundary)
        raise BoundariesUnusable(
            f"its areas lie {away_km:,.0f} km away from “{city.code}”",
            where=path,
            do="Is it the right file, with longitude before latitude?",
        )


def _distance_km(one: shapely.Geometry, other: shapely.Geometry) -> float:
    nearest = shapely.get_coordinates(shapely.shortest_line(one, other))
    return float(Geod(ellps="WGS84").inv(*nearest[0], *nearest[1])[2]) / 1000.0


# --- the city ----------------------------------------------------------------------------------------------


def _new_city(request: CityRequest, drawn: DrawnAreas | None, boundary: DrawnBoundary | None) -> City:
    if boundary is not None:
        ground = boundary.geometry
    elif drawn is not None:
        ground = _top_ground(drawn.areas, rank_levels(drawn.areas))
    else:
        raise CallerError(
            f"there is no city “{request.code}” yet, and nothing says where it is",
            do="Give its areas with --areas FILE, or its outline with --boundary FILE.",
        )
    return City(
        id=0,
        code=request.code,
        name=request.name or request.code,
        time_zone=request.time_zone or time_zone_of(ground),
        metric_crs=_metric_crs_of(ground),
        boundary=ground,
        boundary_given=boundary is not None,
    )


def time_zone_of(ground: MultiPolygon) -> str:
    """The IANA time zone at a place, from the boundaries that come with the program."""
    inside = shapely.point_on_surface(ground)
    return str(_time_zones().timezone_at(lng=inside.x, lat=inside.y))


@cache
def _time_zones() -> "TimezoneFinder":
    # Here, not above: it loads the boundaries of all time zones; in memory, for it leaves its files open.
    from timezonefinder import TimezoneFinder

    return TimezoneFinder(in_memory=True)


def _metric_crs_of(ground: MultiPolygon) -> str:
    lon_lat = shapely.get_coordinates(ground)
    if np.ptp(lon_lat[:, 0]) > 180.0:
        # On both sides of the antimeridian: there its middle is, not at Greenwich.
        lon_lat = np.where(lon_lat < np.array([0.0, -np.inf]), lon_lat + np.array([360.0, 0.0]), lon_lat)
        ground = MultiPolygon([shapely.box(*lon_lat.min(axis=0), *lon_lat.max(axis=0))])
    centre = shapely.centroid(ground)
    longitude = (centre.x + 180.0) % 360.0 - 180.0
    x_min, y_min = lon_lat.min(axis=0)
    x_max, y_max = lon_lat.max(axis=0)
    columns, rows = np.meshgrid(np.linspace(x_min, x_max, 9), np.linspace(y_min, y_max, 9))
    return metric_crs(np.stack([columns.ravel(), rows.ravel()], axis=1), (longitude, centre.y))


def _brought_up(city: City, request: CityRequest, boundary: DrawnBoundary | None, plan: "_Plan") -> City:
    """The city with what is asked; its boundary follows the top level unless it was given."""
    ground, given = city.boundary, city.boundary_given
    if boundary is not None:
        ground, given = boundary.geometry, True
    elif not given and plan.changes_anything and plan.areas:
        ground = _top_ground(plan.areas, plan.ranks)
    if same_ground(ground, city.boundary):
        ground = city.boundary
    return replace(
        city,
        name=request.name or city.name,
        time_zone=request.time_zone or city.time_zone,
        boundary=ground,
        boundary_given=given,
    )


def _top_ground(areas: Sequence[DrawnArea], ranks: Mapping[str, int]) -> MultiPolygon:
    return union_of(area.geometry for area in areas if ranks[area.level] == 0)


def _refresh(connection: Connection, city: City, taxonomy: Taxonomy) -> None:
    """Areas changed under assets: who belongs where, and how much of each area was looked at."""
    states.refresh_areas(connection, city.id)
    for asset_class in taxonomy.classes.values():
        on_file = evidence.load_looks(connection, city, asset_class)
        coverage.replace_coverage(connection, city, asset_class.name, on_file.looks)


# --- its areas ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """All levels as they will be, and what is to be written for it."""

    areas: tuple[DrawnArea, ...]
    ranks: dict[str, int]
    revisions: dict[str, Revision]
    stray_parents: dict[str, set[str]]

    @property
    def changes_anything(self) -> bool:
        return any(revision.changes_anything for revision in self.revisions.values())


def _plan(drawn: Sequence[DrawnArea], stored: Sequence[AreaVersion], *, on: date, correct: bool) -> _Plan:
    levels = {area.level for area in drawn}
    codes = {area.code for area in drawn}
    # Levels that are not drawn stay; while correcting, so do the areas that are not.
    kept = [
        _as_drawn(version)
        for version in stored
        if version.in_force(on) and (version.level not in levels or (correct and version.code not in codes))
    ]
    areas = (*drawn, *kept)
    ranks = rank_levels(areas)
    parents = find_parents([*drawn, *_without_distant_parents(kept, areas, ranks)], ranks)
    revisions = {
        level: revise(
            [area for area in areas if area.level == level],
            [version for version in stored if version.level == level],
            rank=rank,
            parents=parents,
            on=on,
            # A kept level can change only in whose child its areas are: no reason for new versions.
            correct=correct or level not in levels,
        )
        for level, rank in ranks.items()
    }
    known = {area.code for area in areas}
    stray: dict[str, set[str]] = {}
    for area in drawn:
        if area.parent_code is not None and area.parent_code not in known and ranks[area.level] > 0:
            stray.setdefault(area.level, set()).add(area.parent_code)
    return _Plan(areas=areas, ranks=ranks, revisions=revisions, stray_parents=stray)


def _as_drawn(version: AreaVersion) -> DrawnArea:
    return DrawnArea(
        level=version.level,
        code=version.code,
        name=version.name,
        parent_code=version.parent_code,
        geometry=version.geometry,
        area_m2=version.area_m2,
    )


def _without_distant_parents(
    kept: Iterable[DrawnArea], areas: Sequence[DrawnArea], ranks: Mapping[str, int]
) -> list[DrawnArea]:
    """Stored parents that are gone, or have a new level between them and the child, are looked for anew."""
    rank_of = {area.code: ranks[area.level] for area in areas}
    return [
        area
        if rank_of.get(area.parent_code or "") == ranks[area.level] - 1
        else replace(area, parent_code=None)
        for area in kept
    ]


# --- what is said about it ---------------------------------------------------------------------------------


def _level_reports(plan: _Plan, drawn_levels: set[str]) -> tuple[LevelReport, ...]:
    reports = []
    for level, rank in plan.ranks.items():
        revision = plan.revisions[level]
        if level not in drawn_levels and not revision.changes_anything:
            continue
        members = [area for area in plan.areas if area.level == level]
        reports.append(
            LevelReport(
                level=level,
                rank=rank,
                areas=len(members),
                area_m2=sum(area.area_m2 for area in members),
                added=revision.added,
                changed=revision.changed,
                ended=revision.ended,
                unchanged=revision.unchanged,
            )
        )
    return tuple(reports)


def _looked_over(
    plan: _Plan, drawn_levels: set[str], city: City
) -> tuple[tuple[Overlap, ...], tuple[Gap, ...], list[str]]:
    """Overlaps and gaps of the levels just drawn, and notes on levels that do not divide the ground."""
    of_level = {
        level: [area for area in plan.areas if area.level == level]
        for level in sorted(plan.ranks, key=plan.ranks.__getitem__)
    }
    shared: list[Overlap] = []
    left: list[Gap] = []
    notes: list[str] = []
    whole = city.boundary if city.boundary_given else None
    last = max((plan.ranks[level] for level in drawn_levels), default=-1)
    for level, members in of_level.items():
        if plan.ranks[level] > last:
            break
        ground = union_of(area.geometry for area in members)
        if level in drawn_levels:
            shared += overlaps(members)
            share = 1.0 if whole is None else _share_covered(ground, whole)
            if share >= _DIVIDES:
                left += gaps(members, ground, whole)
            else:
                notes.append(f"level “{level}” covers {share:.0%} of the ground above it")
        whole = ground
    return tuple(shared), tuple(left), notes


def _share_covered(ground: MultiPolygon, whole: MultiPolygon) -> float:
    common = union_of([ground.intersection(whole)])
    return ground_area_m2(common) / ground_area_m2(whole)


def _notes(
    request: CityRequest,
    drawn: DrawnAreas | None,
    boundary: DrawnBoundary | None,
    city: City,
    plan: _Plan,
    *,
    created: bool,
) -> list[str]:
    notes = [*(drawn.notes if drawn else ()), *(boundary.notes if boundary else ())]
    if created and request.time_zone is None:
        notes.append(f"time zone {city.time_zone}, from the position (--time-zone)")
        if city.time_zone.startswith("Etc/"):
            notes.append("the city's centre lies at sea: is longitude before latitude?")
    if drawn is not None and request.areas is not None:
        if created and not drawn.level_named:
            notes.append(f"the level is called “{request.areas.path.stem}”, after the file (--level)")
        if drawn.plain_degrees and city.time_zone in _GCJ02_TIME_ZONES:
            notes.append(
                "read as WGS 84; boundaries from Chinese web maps are GCJ-02, some 500 m off: "
                "say --datum gcj02 if these are, --datum wgs84 if not"
            )
    for level, codes in plan.stray_parents.items():
        named = ", ".join(sorted(codes)[:5])
        notes.append(f"level “{level}” names parents that are no areas ({named}): found by code or by ground")
    return notes
