"""GeoJSON of the inventory, made in the database: the items behind the counts.

Which rows match is composed here, and features are read by row, many at a time, as text that nobody parses again.
How many there are and which of them make a page is in ``feature_pages.py``.

Every statement is bound to one city, and to parameters; nothing of a request becomes SQL.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import distinct_on

from detection.errors import CallerError, UnknownName
from inventory.store import queryables, schema
from inventory.store.filters import Filter, Queryable, condition


class Collection(StrEnum):
    """What a city offers as features."""

    ASSETS = "assets"
    AREAS = "areas"
    SURVEYS = "surveys"
    OBSERVATIONS = "observations"
    DECISIONS = "decisions"
    COUNTS = "counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class CityOnPage:
    """A city as its pages need it; the box is (west, south, east, north) in degrees, EPSG:4326."""

    id: int
    version: int
    code: str
    name: str
    time_zone: str
    metric_crs: str
    classes: tuple[str, ...]
    box: tuple[float, float, float, float]
    oldest_look: datetime | None
    newest_look: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """West ≤ east, south ≤ north, degrees EPSG:4326; borders belong to it."""

    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """The time a request speaks of: an instant, or a closed interval whose open ends are None.

    ``now`` says that the instant is the end of today, whose states are those still valid: they have an index.
    """

    as_of: datetime | None = None
    now: bool = False
    interval: tuple[datetime | None, datetime | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which features of a collection; all conditions hold together.

    Attributes:
        boxes: any of them; empty is everywhere (two where a box crosses the antimeridian).
        when, local_dates: the time, and its ends as dates in the city's time zone.
        classes, statuses: any of the names; empty is no condition.
        area: the version that must hold the position.
        current: of observations, only the stock of mobile classes (R10).
        filters: each must hold.
    """

    boxes: tuple[Box, ...] = ()
    when: When = field(default_factory=When)
    local_dates: tuple[date | None, date | None] = (None, None)
    classes: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    area: int | None = None
    current: bool = False
    filters: tuple[Filter, ...] = ()


def city_names(connection: Connection) -> list[tuple[str, str]]:
    """Code and name of every city, by code."""
    city = schema.city
    rows = connection.execute(select(city.c.code, city.c.name).order_by(city.c.code))
    return [(row.code, row.name) for row in rows]


def city_on_page(connection: Connection, code: str, *, alone: bool = False) -> CityOnPage:
    """A city by its code; its box holds the boundary and all ground ever surveyed for it.

    Args:
        alone: for answers that show neither looks nor classes: without them, and its box is its boundary's.

    Raises:
        UnknownName: no city has the code; the message names those there are.
    """
    row = connection.execute(_CITY_ALONE, {"code": code}).one_or_none()
    if row is None:
        known = ", ".join(found for found, _ in city_names(connection)) or "none yet"
        raise UnknownName(f"no city is called “{code[:64]}”", do=f"Cities here: {known}.")
    kept = _KEPT.setdefault(connection.engine, {})
    found = kept.get(code)
    if found is not None and (found.id, found.version) == (row.id, row.version):
        return found
    if alone:
        return _on_page(row)
    found = _on_page(connection.execute(_CITY, {"code": code}).one())
    if found.version == row.version:
        if len(kept) >= _CITIES_KEPT:
            kept.clear()
        kept[code] = found
    return found


_CITIES_KEPT = 256
_KEPT: WeakKeyDictionary[Engine, dict[str, CityOnPage]] = WeakKeyDictionary()
"""Cities as they were read in their last version (``cities.version_of``)."""


def _on_page(row: Row[Any]) -> CityOnPage:
    return CityOnPage(
        id=row.id,
        version=row.version,
        code=row.code,
        name=row.name,
        time_zone=row.time_zone,
        metric_crs=row.metric_crs,
        classes=tuple(row.classes),
        box=(row.west, row.south, row.east, row.north),
        oldest_look=row.oldest_look,
        newest_look=row.newest_look,
    )


_CITY = text("""
    SELECT c.id, c.version, c.code, c.name, c.time_zone, c.metric_crs,
           coalesce((SELECT array_agg(k.class ORDER BY k.class) FROM urban_inventory.city_class k
                     WHERE k.city_id = c.id), '{}') AS classes,
           least(ST_XMin(c.boundary), ST_XMin(s.ground)) AS west,
           least(ST_YMin(c.boundary), ST_YMin(s.ground)) AS south,
           greatest(ST_XMax(c.boundary), ST_XMax(s.ground)) AS east,
           greatest(ST_YMax(c.boundary), ST_YMax(s.ground)) AS north,
           s.oldest_look, s.newest_look
    FROM urban_inventory.city c
    CROSS JOIN LATERAL (
        SELECT ST_Extent(u.surveyed) AS ground, min(i.taken_at) AS oldest_look, max(i.taken_at) AS newest_look
        FROM urban_inventory.survey u JOIN urban_inventory.scene i ON i.id = u.scene_id
        WHERE u.city_id = c.id AND u.withdrawn_at IS NULL
    ) s
    WHERE c.code = :code
""")


_CITY_ALONE = text("""
    SELECT c.id, c.version, c.code, c.name, c.time_zone, c.metric_crs, CAST('{}' AS text[]) AS classes,
           ST_XMin(e) AS west, ST_YMin(e) AS south, ST_XMax(e) AS east, ST_YMax(e) AS north,
           CAST(NULL AS timestamptz) AS oldest_look, CAST(NULL AS timestamptz) AS newest_look
    FROM urban_inventory.city c CROSS JOIN LATERAL (SELECT Box2D(c.boundary) AS e OFFSET 0) b
    WHERE c.code = :code
""")


def levels_of(connection: Connection, city_id: int) -> list[str]:
    """The levels of the city's areas, the top one first."""
    area = schema.area_version
    query = select(area.c.level).where(area.c.city_id == city_id).group_by(area.c.level)
    return list(connection.execute(query.order_by(func.min(area.c.level_rank))).scalars())


def area_version(connection: Connection, city_id: int, code: str, *, level: str | None, on: date) -> int:
    """The version of an area that is in force on a city-local date (R12).

    Raises:
        UnknownName: no area has the code on that date.
        CallerError: areas of several levels have it, and ``level`` is None.
    """
    area = schema.area_version
    query = select(area.c.id, area.c.level).where(
        area.c.city_id == city_id, area.c.code == code, area.c.valid.contains(on)
    )
    rows = connection.execute(query if level is None else query.where(area.c.level == level)).all()
    if not rows:
        raise UnknownName(f"no area has the code “{code[:64]}” on {on}", do="See the collection “areas”.")
    if len(rows) > 1:
        levels = ", ".join(sorted(row.level for row in rows))
        raise CallerError(
            f"areas of several levels have the code “{code[:64]}”", do=f"Add the level: one of {levels}."
        )
    return int(rows[0].id)


def texts(
    connection: Connection,
    city: CityOnPage,
    collection: Collection,
    rows: Sequence[int],
    *,
    separator: str = ",\n",
) -> Iterator[bytes]:
    """GeoJSON Features in the order of their rows, as texts of many each, with the separator between; read as
    they are asked for."""
    many = _ROWS_A_TEXT[collection]
    for first in range(0, len(rows), many):
        found = connection.execute(
            _TEXTS[collection],
            {"city": city.id, "rows": _array(rows[first : first + many]), "separator": separator},
        ).scalar()
        if found:
            yield found.encode()


def _array(rows: Sequence[int]) -> str:
    """An array as PostgreSQL writes it: the driver takes five times as long for a list."""
    return f"{{{','.join(map(str, rows))}}}"


def text_of(connection: Connection, code: str, collection: Collection, public_id: str) -> bytes:
    """One GeoJSON Feature by its public id: an asset as it is known now, an area as of today in its city.

    An asset's id that became an alias of an older one finds that one (R7). One statement, for a city that was asked
    for before.

    Raises:
        UnknownName: no city has the code, or nothing in it has the id.
    """
    guessed = _NAMED.setdefault(connection.engine, {})
    city = guessed.get(code)
    found = None if city is None else _text_in(connection, city, collection, public_id)
    if found is None:
        city = city_on_page(connection, code, alone=True)
        if len(guessed) >= _CITIES_KEPT:
            guessed.clear()
        guessed[code] = city
        found = _text_in(connection, city, collection, public_id)
    if found is None:
        raise UnknownName(
            f"the collection “{collection}” has no feature “{public_id[:64]}”", do="See its items."
        )
    return found


def _text_in(
    connection: Connection, city: CityOnPage, collection: Collection, public_id: str
) -> bytes | None:
    """None also where the city is another one by now, or has another time zone."""
    asked = {
        "city": city.id, "code": city.code, "zone": city.time_zone, "id": public_id,
        "on": datetime.now(ZoneInfo(city.time_zone)).date(),
    }  # fmt: skip
    found = connection.execute(_TEXT_OF[collection], asked).scalar()
    return None if found is None else bytes(found.encode())


_NAMED: WeakKeyDictionary[Engine, dict[str, CityOnPage]] = WeakKeyDictionary()
"""Cities as they were called when they were read last: guesses, which ``_TEXT_OF`` checks."""


def attributions(connection: Connection, code: str) -> list[tuple[str, str | None, str | None, int]]:
    """Source, attribution, licence and number of scenes whose pixels or counts are shown (R15)."""
    rows = connection.execute(_ATTRIBUTIONS, {"code": code})
    return [(row.name, row.attribution, row.licence, row.scenes) for row in rows]


_ATTRIBUTIONS = text("""
    SELECT o.name, coalesce(i.attribution, o.attribution) AS attribution,
           coalesce(i.licence, o.licence) AS licence, count(*) AS scenes
    FROM urban_inventory.scene i
    JOIN urban_inventory.city c ON c.id = i.city_id
    JOIN urban_inventory.source o ON o.id = i.source_id
    WHERE c.code = :code AND i.superseded_by IS NULL
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")


# Which rows: composed, since every condition is optional.


def keys_of(city: CityOnPage, collection: Collection, wanted: Wanted) -> Select[tuple[int, int]]:
    """Which rows match, by ``key``, which orders them, and ``row_id``, by which ``texts`` reads them."""
    keys = _KEYS[collection, wanted.current](city, wanted)
    if not wanted.filters:
        return keys
    named = queryables_of(collection, current=wanted.current)
    keys = keys.where(*(condition(one, named, time_zone=city.time_zone) for one in wanted.filters))
    return queryables.of_city(keys, city.id)


def queryables_of(collection: Collection, *, current: bool = False) -> Mapping[str, Queryable]:
    """What filters on a collection may name.

    Args:
        current: of observations, the stock of mobile classes alone.
    """
    return _QUERYABLES[collection, current]


def _inside(geometry: ColumnElement[object], boxes: Sequence[Box]) -> list[ColumnElement[bool]]:
    if not boxes:
        return []
    envelopes = [func.ST_MakeEnvelope(box.west, box.south, box.east, box.north, 4326) for box in boxes]
    return [or_(*(func.ST_Intersects(geometry, envelope) for envelope in envelopes))]


def _holds_point(point: ColumnElement[object], boxes: Sequence[Box]) -> list[ColumnElement[bool]]:
    """The same as ``_inside`` for points, in two thirds of the time."""
    if not boxes:
        return []
    exactly = _exactly(point, boxes)
    near = [
        point.op("&&", is_comparison=True)(
            func.ST_MakeEnvelope(box.west, box.south, box.east, box.north, 4326)
        )
        for box in boxes
    ]
    return [or_(*(and_(*pair) for pair in zip(near, exactly, strict=True)))]


def _exactly(point: ColumnElement[object], boxes: Sequence[Box]) -> list[ColumnElement[bool]]:
    # A case, since the planner takes two ranges for far rarer than they are.
    return [
        case(
            (
                and_(
                    func.ST_X(point).between(box.west, box.east),
                    func.ST_Y(point).between(box.south, box.north),
                ),
                true(),
            ),
            else_=false(),
        )
        for box in boxes
    ]


def assets_by_square(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    """As ``keys_of`` of assets, for who finds them square by square: boxes are no way to them, and tested alone."""
    exactly = _exactly(schema.asset_state.c.geom, wanted.boxes)
    return keys_of(city, Collection.ASSETS, replace(wanted, boxes=())).where(or_(*exactly))


def _asset_keys(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    state = schema.asset_state
    conditions = [state.c.city_id == city.id, state.c.asset_id.is_not(None)]
    conditions += _of_states(city, wanted)
    conditions.append(state.c.status.in_(wanted.statuses) if wanted.statuses else state.c.listed)
    keys = select(state.c.asset_id.label("key"), state.c.id.label("row_id")).where(*conditions)
    if wanted.when.interval is None:
        return keys
    # Several states of one asset may touch an interval: the latest speaks for it.
    return keys.ext(distinct_on(state.c.asset_id)).order_by(state.c.asset_id, state.c.valid_from.desc())


def _stock_keys(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    state = schema.asset_state
    keys = select(state.c.observation_id.label("key"), state.c.observation_id.label("row_id"))
    keys = keys.where(
        state.c.city_id == city.id, state.c.asset_id.is_(None), state.c.listed, *_of_states(city, wanted)
    )
    return keys if wanted.when.interval is None else keys.distinct()


def _of_states(city: CityOnPage, wanted: Wanted) -> list[ColumnElement[bool]]:
    state, member = schema.asset_state, schema.membership
    when = state.c.valid_to.is_(None) if wanted.when.now else _valid(state, wanted.when)
    conditions = [when, *_holds_point(state.c.geom, wanted.boxes)]
    if wanted.classes:
        conditions.append(state.c["class"].in_(wanted.classes))
    if wanted.area is not None:
        members = select(member.c.state_id).where(
            # The number, not the state's column: compared with that, it would be looked up for each state.
            member.c.city_id == city.id,
            member.c.area_version_id == wanted.area,
            _valid(member, wanted.when),
        )
        conditions.append(state.c.id.in_(members))
    return conditions


def _valid(table: Table, when: When) -> ColumnElement[bool]:
    start, end = (when.as_of, when.as_of) if when.interval is None else when.interval
    return and_(
        true() if end is None else table.c.valid_from <= end,
        true() if start is None else or_(table.c.valid_to.is_(None), table.c.valid_to > start),
    )


def _observation_keys(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    observation = schema.observation
    conditions = [observation.c.city_id == city.id, *_holds_point(observation.c.geom, wanted.boxes)]
    if wanted.classes:
        conditions.append(observation.c["class"].in_(wanted.classes))
    if wanted.area is not None:
        conditions.append(_inside_area(observation.c.geom, wanted.area))
    surveys = select(schema.survey.c.id).join(schema.scene, schema.scene.c.id == schema.survey.c.scene_id)
    taken = _taken(wanted.when)
    if taken:
        conditions.append(
            observation.c.survey_id.in_(surveys.where(schema.survey.c.city_id == city.id, *taken))
        )
    return select(observation.c.id.label("key"), observation.c.id.label("row_id")).where(*conditions)


def _survey_keys(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    survey = schema.survey
    conditions = [
        survey.c.city_id == city.id,
        *_inside(survey.c.surveyed, wanted.boxes),
        *_taken(wanted.when),
    ]
    if wanted.classes:
        conditions.append(survey.c.classes.op("&&")(cast(list(wanted.classes), ARRAY(Text))))
    if wanted.area is not None:
        conditions.append(_inside_area(survey.c.surveyed, wanted.area))
    return (
        select(survey.c.id.label("key"), survey.c.id.label("row_id"))
        .join(schema.scene, schema.scene.c.id == survey.c.scene_id)
        .where(*conditions)
    )


def _taken(when: When) -> list[ColumnElement[bool]]:
    start, end = when.interval if when.interval is not None else (None, None)
    taken_at = schema.scene.c.taken_at
    return [
        *([] if start is None else [taken_at >= start]),
        *([] if end is None else [taken_at <= end]),
    ]


def _inside_area(geometry: ColumnElement[object], version: int) -> ColumnElement[bool]:
    area = schema.area_version
    return exists(select(1).where(area.c.id == version, func.ST_Intersects(area.c.geom, geometry)))


def _decision_keys(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    said = schema.decision
    conditions = [said.c.city_id == city.id, *_holds_point(said.c.geom, wanted.boxes)]
    start, end = wanted.when.interval if wanted.when.interval is not None else (None, None)
    conditions += [] if start is None else [said.c.at >= start]
    conditions += [] if end is None else [said.c.at <= end]
    if wanted.classes:
        conditions.append(said.c["class"].in_(wanted.classes))
    if wanted.area is not None:
        conditions.append(_inside_area(said.c.geom, wanted.area))
    return select(said.c.id.label("key"), said.c.id.label("row_id")).where(*conditions)


def _area_keys(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    area = schema.area_version
    conditions = [area.c.city_id == city.id, *_inside(area.c.geom, wanted.boxes)]
    start, end = wanted.local_dates
    conditions.append(area.c.valid.op("&&")(func.daterange(start, end, "[]")))
    if wanted.levels:
        conditions.append(area.c.level.in_(wanted.levels))
    if wanted.area is not None:
        conditions.append(area.c.id == wanted.area)
    if wanted.classes:
        conditions.append(false())
    keys = select(area.c.id.label("key"), area.c.id.label("row_id")).where(*conditions)
    if start is not None and start == end:
        return keys
    newest = (
        select(area.c.id)
        .where(*conditions)
        .ext(distinct_on(area.c.level, area.c.code))
        .order_by(area.c.level, area.c.code, func.lower(area.c.valid).desc().nulls_last())
    )
    return select(area.c.id.label("key"), area.c.id.label("row_id")).where(area.c.id.in_(newest))


def _count_keys(city: CityOnPage, wanted: Wanted) -> Select[tuple[int, int]]:
    # A class is a column of counts, and no condition on areas. Of an interval, its end: a count is as of a date.
    end = wanted.local_dates[1] or wanted.local_dates[0]
    return _area_keys(city, replace(wanted, classes=(), local_dates=(end, end)))


_KEYS = {
    (Collection.ASSETS, False): _asset_keys,
    (Collection.AREAS, False): _area_keys,
    (Collection.SURVEYS, False): _survey_keys,
    (Collection.OBSERVATIONS, False): _observation_keys,
    (Collection.OBSERVATIONS, True): _stock_keys,
    (Collection.DECISIONS, False): _decision_keys,
    (Collection.COUNTS, False): _count_keys,
}
_KEYS |= {(one, True): _KEYS[one, False] for one in Collection if (one, True) not in _KEYS}
_QUERYABLES = {
    (Collection.ASSETS, False): queryables.of_assets(),
    (Collection.AREAS, False): queryables.of_areas(),
    (Collection.SURVEYS, False): queryables.of_surveys(),
    (Collection.OBSERVATIONS, False): queryables.of_observations(),
    (Collection.OBSERVATIONS, True): queryables.of_stock(),
    (Collection.DECISIONS, False): queryables.of_decisions(),
    (Collection.COUNTS, False): queryables.of_areas(),
}
_QUERYABLES |= {(one, True): _QUERYABLES[one, False] for one in Collection if (one, True) not in _QUERYABLES}


# The row of a feature by its public id.

_ROW_OF = {
    Collection.ASSETS: """
        SELECT s.id FROM urban_inventory.asset_state s
        WHERE s.city_id = :city AND s.valid_to IS NULL
          AND s.asset_id = (SELECT coalesce(a.alias_of, a.id) FROM urban_inventory.asset a
                            WHERE a.city_id = :city AND a.public_id = :id)
    """,
    Collection.AREAS: """
        SELECT v.id FROM urban_inventory.area_version v
        WHERE v.city_id = :city AND v.level || ':' || v.code = :id AND v.valid @> CAST(:on AS date)
    """,
    Collection.SURVEYS: """
        SELECT u.id FROM urban_inventory.survey u
        WHERE u.city_id = :city AND u.public_id = :id
    """,
    Collection.DECISIONS: """
        SELECT d.id FROM urban_inventory.decision d
        WHERE d.city_id = :city AND d.public_id = :id
    """,
    # The number is compared as text: an id that is no number is unknown, not an error.
    Collection.OBSERVATIONS: """
        SELECT o.id FROM urban_inventory.observation o
        WHERE o.city_id = :city
          AND o.id = CASE WHEN :id ~ '^[1-9][0-9]{0,17}$' THEN CAST(:id AS bigint) END
    """,
}


# The features themselves. Members of a Feature are put together by format(), which is the fastest way
# measured (2.3 ms per 1,000 against 4.7 ms in Python); 7 decimals of a degree are a centimetre. The rows wanted
# are a table to join with: compared with an array, each row of the city was tested against all of it. OFFSET 0 keeps
# each look-up a look-up: of joins with a city's partition the planner knows nothing, since statistics are those of
# the partitions, and took whole tables together for one feature (90 ms instead of 12 for 1,000; 20 instead of 0.1).

_FEATURES = {
    Collection.ASSETS: text("""
        SELECT format('{"type":"Feature","id":%s,"geometry":%s,"properties":%s}',
                      to_json(a.public_id), ST_AsGeoJSON(s.geom, 7), row_to_json(p))
        FROM unnest(CAST(:rows AS bigint[])) WITH ORDINALITY AS w (id, place)
        CROSS JOIN LATERAL (
            SELECT * FROM urban_inventory.asset_state WHERE city_id = :city AND id = w.id OFFSET 0
        ) s
        CROSS JOIN LATERAL (
            SELECT public_id FROM urban_inventory.asset WHERE city_id = :city AND id = s.asset_id OFFSET 0
        ) a
        LEFT JOIN LATERAL (
            SELECT x.public_id, i.public_id AS scene, i.taken_at FROM urban_inventory.survey x
            JOIN urban_inventory.scene i ON i.id = x.scene_id WHERE x.id = s.survey_id OFFSET 0
        ) u ON true
        LEFT JOIN LATERAL (
            SELECT id, public_id, at FROM urban_inventory.decision
            WHERE city_id = :city AND id = s.decision_id OFFSET 0
        ) d ON true
        CROSS JOIN LATERAL (
            SELECT s.class, s.status, s.listed, s.verified, s.review, s.probability, s.score,
                   s.width_m, s.height_m, s.error_m AS position_error_m, s.hits,
                   s.first_seen, s.last_seen, s.first_missed,
                   u.public_id AS survey, u.scene,
                   CASE WHEN d.id IS NULL THEN 'survey' ELSE 'decision' END AS evidence_kind,
                   coalesce(d.public_id, u.public_id) AS evidence,
                   coalesce(d.at, u.taken_at) AS evidence_at
        ) p
        ORDER BY w.place
    """),
    Collection.AREAS: text("""
        SELECT format('{"type":"Feature","id":%s,"geometry":%s,"properties":%s}',
                      to_json(v.level || ':' || v.code), ST_AsGeoJSON(v.geom, 7), row_to_json(p))
        FROM unnest(CAST(:rows AS bigint[])) WITH ORDINALITY AS w (id, place)
        JOIN urban_inventory.area_version v ON v.city_id = :city AND v.id = w.id
        CROSS JOIN LATERAL (
            SELECT v.code, v.name, v.level, v.level_rank, v.parent_level, v.parent_code,
                   lower(v.valid) AS valid_from, upper(v.valid) - 1 AS valid_to, round(v.area_m2) AS area_m2
        ) p
        ORDER BY w.place
    """),
    Collection.SURVEYS: text("""
        SELECT format('{"type":"Feature","id":%s,"geometry":%s,"properties":%s}',
                      to_json(u.public_id),
                      CASE WHEN ST_IsEmpty(u.surveyed) THEN 'null' ELSE ST_AsGeoJSON(u.surveyed, 7) END,
                      row_to_json(p))
        FROM unnest(CAST(:rows AS bigint[])) WITH ORDINALITY AS w (id, place)
        JOIN urban_inventory.survey u ON u.city_id = :city AND u.id = w.id
        JOIN urban_inventory.scene i ON i.id = u.scene_id
        JOIN urban_inventory.campaign g ON g.id = i.campaign_id
        JOIN urban_inventory.source o ON o.id = i.source_id
        CROSS JOIN LATERAL (
            SELECT i.public_id AS scene, i.taken_at, o.name AS source, g.name AS campaign, i.kind,
                   i.ground_resolution_m, u.model, u.model_version,
                   array_to_string(u.classes, ',') AS classes,
                   (SELECT string_agg(f.class, ',' ORDER BY f.class) FROM urban_inventory.survey_class f
                    WHERE f.survey_id = u.id AND f.in_force) AS in_force,
                   u.withdrawn_at, u.windows, u.recorded_at,
                   coalesce(i.licence, o.licence) AS licence,
                   coalesce(i.attribution, o.attribution) AS attribution
        ) p
        ORDER BY w.place
    """),
    Collection.OBSERVATIONS: text("""
        SELECT format('{"type":"Feature","id":"%s","geometry":%s,"properties":%s}',
                      o.id, ST_AsGeoJSON(o.geom, 7), row_to_json(p))
        FROM unnest(CAST(:rows AS bigint[])) WITH ORDINALITY AS w (id, place)
        CROSS JOIN LATERAL (
            SELECT * FROM urban_inventory.observation WHERE city_id = :city AND id = w.id OFFSET 0
        ) o
        CROSS JOIN LATERAL (
            SELECT x.public_id, i.public_id AS scene, i.taken_at FROM urban_inventory.survey x
            JOIN urban_inventory.scene i ON i.id = x.scene_id WHERE x.id = o.survey_id OFFSET 0
        ) u
        LEFT JOIN LATERAL (
            SELECT asset_id FROM urban_inventory.asset_hit
            WHERE city_id = :city AND observation_id = o.id OFFSET 0
        ) h ON true
        LEFT JOIN LATERAL (
            SELECT public_id FROM urban_inventory.asset WHERE city_id = :city AND id = h.asset_id OFFSET 0
        ) a ON true
        CROSS JOIN LATERAL (
            SELECT o.class, o.score, o.width_m, o.height_m, o.error_m AS position_error_m, o.plausible,
                   u.taken_at, u.public_id AS survey, u.scene, a.public_id AS asset
        ) p
        ORDER BY w.place
    """),
    Collection.DECISIONS: text("""
        SELECT format('{"type":"Feature","id":%s,"geometry":%s,"properties":%s}',
                      to_json(d.public_id), ST_AsGeoJSON(d.geom, 7), row_to_json(p))
        FROM unnest(CAST(:rows AS bigint[])) WITH ORDINALITY AS w (id, place)
        CROSS JOIN LATERAL (
            SELECT * FROM urban_inventory.decision WHERE city_id = :city AND id = w.id OFFSET 0
        ) d
        LEFT JOIN LATERAL (
            SELECT public_id FROM urban_inventory.decision WHERE city_id = :city AND id = d.retracts OFFSET 0
        ) r ON true
        CROSS JOIN LATERAL (
            SELECT d.kind, d.class, coalesce(d.asset, (
                       SELECT a.public_id FROM urban_inventory.asset a
                       WHERE a.city_id = :city AND a.root_decision = d.id)) AS asset,
                   d.at, d.author, d.reason, d.details ->> 'text' AS text, r.public_id AS retracts,
                   EXISTS (SELECT FROM urban_inventory.decision t
                           WHERE t.city_id = :city AND t.retracts = d.id) AS retracted,
                   d.recorded_at
        ) p
        ORDER BY w.place
    """),
}

_ROW_OF[Collection.COUNTS] = _ROW_OF[Collection.AREAS]
_FEATURES[Collection.COUNTS] = _FEATURES[Collection.AREAS]

# A text of so many rows is a few hundred kilobytes; outlines of areas may be long.
_ROWS_A_TEXT = {
    Collection.ASSETS: 1_000,
    Collection.AREAS: 20,
    Collection.SURVEYS: 100,
    Collection.OBSERVATIONS: 1_000,
    Collection.DECISIONS: 1_000,
    Collection.COUNTS: 20,
}
# One text for many rows: a row each costs the driver more than the database.
_TEXTS = {
    collection: text(f"SELECT string_agg(f.feature, :separator) FROM ({statement.text}) AS f (feature)")
    for collection, statement in _FEATURES.items()
}
_IS_CITY = """EXISTS (
    SELECT FROM urban_inventory.city c
    WHERE c.id = :city AND c.code = :code AND c.time_zone = :zone AND CAST(:on AS date) IS NOT NULL
)"""
# In one statement with the search for its row: each way to the server and back counts where many ask at once.
_TEXT_OF = {
    collection: text(
        statement.text.replace("CAST(:rows AS bigint[])", f"ARRAY({_ROW_OF[collection]} AND {_IS_CITY})")
    )
    for collection, statement in _FEATURES.items()
}
