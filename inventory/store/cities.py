"""Cities, their areas, classes and departments: every SQL statement about them.

Functions take the caller's connection and never commit. Rows leave as values of ``domain/places.py``.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, cast

import shapely
from geoalchemy2 import WKBElement
from geoalchemy2.shape import from_shape
from psycopg.types.range import Range
from shapely import MultiPolygon
from sqlalchemy import Connection, Row, Select, bindparam, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from detection.errors import Conflict, UnknownName
from detection.taxonomy import AssetClass
from inventory.domain.places import AreaName, AreaVersion, City
from inventory.domain.revision import Revision
from inventory.store.schema import area_version, asset_class, city, city_class, department, scene

# First key of the advisory locks that serialise the writers of a city; the second is the city's id.
_WRITERS = 7109


def lock_city(connection: Connection, city_id: int) -> None:
    """Waits until no other transaction writes this city, then keeps others out until this one ends.

    Take it in a statement of its own, before reading what is to be changed: a statement sees what was
    committed before it began, not before it got the lock. The city gets another version, by which what was read
    of it before is known to be out of date.
    """
    connection.execute(select(func.pg_advisory_xact_lock(_WRITERS, city_id)))
    _give_new_version(connection, city_id)


def try_lock_city(connection: Connection, city_id: int) -> bool:
    """``lock_city`` where nobody writes the city; False, and nothing is locked, where somebody does."""
    got = bool(connection.execute(select(func.pg_try_advisory_xact_lock(_WRITERS, city_id))).scalar_one())
    if got:
        _give_new_version(connection, city_id)
    return got


def _give_new_version(connection: Connection, city_id: int) -> None:
    connection.execute(update(city).where(city.c.id == city_id).values(version=city.c.version + 1))


def find_city(connection: Connection, code: str) -> City | None:
    """The city with this code, or None."""
    row = connection.execute(_cities().where(city.c.code == code)).one_or_none()
    return None if row is None else _city(row)


def get_city(connection: Connection, code: str) -> City:
    """The city with this code.

    Raises:
        UnknownName: there is none; the message lists those that exist.
    """
    found = find_city(connection, code)
    if found is not None:
        return found
    codes = connection.execute(select(city.c.code).order_by(city.c.code).limit(20)).scalars().all()
    known = f"Known cities: {', '.join(codes)}." if codes else "Add one with “urban-inventory city add”."
    raise UnknownName(f"no city “{code}”", do=known)


def version_of(connection: Connection, code: str) -> tuple[int, int] | None:
    """Number and version of the city with this code, or None.

    The version is another one after every change that any answer about the city depends on, decisions and areas
    among them: what was read in a transaction that saw one version holds in every transaction that sees it again.
    """
    row = connection.execute(_VERSION, {"code": code}).one_or_none()
    return None if row is None else (row.id, row.version)


# Asked before nearly every answer: composed anew each time it takes as long as the database does.
_VERSION = select(city.c.id, city.c.version).where(city.c.code == bindparam("code"))


def list_cities(connection: Connection) -> list[City]:
    """All cities, by code."""
    return [_city(row) for row in connection.execute(_cities().order_by(city.c.code))]


def insert_city(connection: Connection, new: City) -> City:
    """Stores a city and makes its partitions; returns it with its id (``new.id`` is not looked at).

    Raises:
        Conflict: another program has added a city of this code meanwhile.
    """
    values = {
        "code": new.code,
        "name": new.name,
        "time_zone": new.time_zone,
        "metric_crs": new.metric_crs,
        "boundary": _geometry(new.boundary),
        "boundary_given": new.boundary_given,
    }
    city_id = connection.execute(
        upsert(city).values(values).on_conflict_do_nothing(index_elements=["code"]).returning(city.c.id)
    ).scalar_one_or_none()
    if city_id is None:
        raise Conflict(f"the city “{new.code}” has just been added by another program", do="Try again.")
    connection.execute(select(func.urban_inventory.city_create(city_id)))
    return get_city(connection, new.code)


def update_city(connection: Connection, changed: City) -> None:
    """Stores what may change of a city; its metric CRS stays, because stored positions are in it."""
    connection.execute(
        update(city)
        .where(city.c.id == changed.id)
        .values(
            name=changed.name,
            time_zone=changed.time_zone,
            boundary=_geometry(changed.boundary),
            boundary_given=changed.boundary_given,
        )
    )


def drop_city(connection: Connection, city_id: int) -> None:
    """Removes a city with all its rows and partitions."""
    connection.execute(select(func.urban_inventory.city_drop(city_id)))


def has_scenes(connection: Connection, city_id: int) -> bool:
    """Whether any imagery was ever stored for the city."""
    return bool(
        connection.execute(select(select(scene.c.id).where(scene.c.city_id == city_id).exists())).scalar()
    )


def sync_asset_classes(connection: Connection, classes: Iterable[AssetClass]) -> None:
    """Makes the table of classes say what the taxonomy says; classes no longer in it stay for old rows."""
    rows = [{"name": one.name, "kind": one.kind.value, "label": one.label} for one in classes]
    statement = upsert(asset_class).values(rows)
    changed = asset_class.c.kind.is_distinct_from(statement.excluded.kind) | (
        asset_class.c.label.is_distinct_from(statement.excluded.label)
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"kind": statement.excluded.kind, "label": statement.excluded.label},
            where=changed,
        )
    )


def classes_of(connection: Connection, city_id: int) -> list[str]:
    """The classes that a city counts, by name."""
    statement = select(city_class.c["class"]).where(city_class.c.city_id == city_id)
    return sorted(connection.execute(statement).scalars())


def set_classes(connection: Connection, city_id: int, classes: Sequence[str]) -> bool:
    """Makes these the classes that a city counts; says whether they were others before."""
    before = set(classes_of(connection, city_id))
    connection.execute(
        delete(city_class).where(city_class.c.city_id == city_id, city_class.c["class"].not_in(list(classes)))
    )
    rows = [{"city_id": city_id, "class": name} for name in classes]
    connection.execute(upsert(city_class).values(rows).on_conflict_do_nothing())
    return before != set(classes)


def areas_as_of(connection: Connection, place: City, on: date) -> list[AreaVersion]:
    """The versions in force on a local day of the city: top level first, codes in code-point order."""
    statement = _versions(place.id).where(area_version.c.valid.op("@>")(literal(on)))
    return _ordered(_version(row) for row in connection.execute(statement))


def area_names(connection: Connection, city_id: int) -> list[AreaName]:
    """Every version of every area without its ground, which is most of what a version is: in the same order."""
    columns = area_version.c
    statement = select(
        columns.id,
        columns.level,
        columns.level_rank,
        columns.code,
        columns.name,
        func.lower(columns.valid).label("valid_from"),
        func.upper(columns.valid).label("valid_to"),
    ).where(columns.city_id == city_id)
    found = [AreaName(**row._mapping) for row in connection.execute(statement)]
    return sorted(found, key=lambda one: (one.level_rank, one.level, one.code, one.valid_from or date.min))


def all_area_versions(connection: Connection, city_id: int) -> list[AreaVersion]:
    """Every version of every area: top level first, codes in code-point order, oldest version first."""
    return _ordered(_version(row) for row in connection.execute(_versions(city_id)))


def apply_revisions(connection: Connection, city_id: int, revisions: Iterable[Revision]) -> None:
    """Writes what levels change; versions end before their successors begin, or the days would overlap."""
    for revision in revisions:
        gone = [version.id for version in revision.deleted]
        if gone:
            connection.execute(delete(area_version).where(area_version.c.id.in_(gone)))
        for version in revision.replaced:
            statement = update(area_version).where(area_version.c.id == version.id)
            connection.execute(statement.values(_version_values(version)))
        rows = [{"city_id": city_id, **_version_values(version)} for version in revision.inserted]
        if rows:
            connection.execute(insert(area_version), rows)


def set_level_ranks(connection: Connection, city_id: int, ranks: Mapping[str, int]) -> None:
    """Gives every version of a level the level's place in the hierarchy."""
    for level, rank in ranks.items():
        connection.execute(
            update(area_version)
            .where(area_version.c.city_id == city_id, area_version.c.level == level)
            .where(area_version.c.level_rank != rank)
            .values(level_rank=rank)
        )


def departments_of(connection: Connection, city_id: int) -> list[tuple[str, str]]:
    """Code and name of each department of a city, by code."""
    statement = select(department.c.code, department.c.name).where(department.c.city_id == city_id)
    return sorted((row.code, row.name) for row in connection.execute(statement))


def _cities() -> Select[Any]:
    return select(
        city.c.id,
        city.c.code,
        city.c.name,
        city.c.time_zone,
        city.c.metric_crs,
        func.ST_AsBinary(city.c.boundary).label("boundary"),
        city.c.boundary_given,
    )


def _city(row: Row[Any]) -> City:
    return City(
        id=row.id,
        code=row.code,
        name=row.name,
        time_zone=row.time_zone,
        metric_crs=row.metric_crs,
        boundary=_polygons(row.boundary),
        boundary_given=row.boundary_given,
    )


def _versions(city_id: int) -> Select[Any]:
    columns = area_version.c
    return select(
        columns.id,
        columns.level,
        columns.level_rank,
        columns.code,
        columns.name,
        columns.parent_level,
        columns.parent_code,
        func.lower(columns.valid).label("valid_from"),
        func.upper(columns.valid).label("valid_to"),
        func.ST_AsBinary(columns.geom).label("geometry"),
        columns.area_m2,
    ).where(columns.city_id == city_id)


def _version(row: Row[Any]) -> AreaVersion:
    return AreaVersion(
        id=row.id,
        level=row.level,
        level_rank=row.level_rank,
        code=row.code,
        name=row.name,
        parent_level=row.parent_level,
        parent_code=row.parent_code,
        valid_from=row.valid_from,
        valid_to=row.valid_to,
        geometry=_polygons(row.geometry),
        area_m2=row.area_m2,
    )


def _version_values(version: AreaVersion) -> dict[str, Any]:
    return {
        "level": version.level,
        "level_rank": version.level_rank,
        "code": version.code,
        "name": version.name,
        "parent_level": version.parent_level,
        "parent_code": version.parent_code,
        "valid": Range(version.valid_from, version.valid_to),
        "geom": _geometry(version.geometry),
        "area_m2": version.area_m2,
    }


def _polygons(wkb: bytes) -> MultiPolygon:
    return cast("MultiPolygon", shapely.from_wkb(bytes(wkb)))


def _geometry(polygons: MultiPolygon) -> WKBElement:
    # Binary: every bit of a coordinate comes back, so that an unchanged area is seen to be unchanged.
    return from_shape(polygons, srid=4326)


def _ordered(versions: Iterable[AreaVersion]) -> list[AreaVersion]:
    # Sorted here: the database's collation need not be that of code points, which R12 goes by.
    def key(version: AreaVersion) -> tuple[int, str, str, date]:
        return version.level_rank, version.level, version.code, version.valid_from or date.min

    return sorted(versions, key=key)
