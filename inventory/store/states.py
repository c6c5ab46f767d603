"""What the fold says, kept current: states, memberships, count deltas, coverage and history.

Nothing here decides: ``replace_states`` compares what is stored with what was folded and changes only the
difference, each change with its cause in the history (R14). Everything happens in the caller's transaction,
under the city's writer lock.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
from numpy.typing import NDArray
from pyproj import Transformer
from sqlalchemy import Connection, func, select, text

from inventory.domain.evidence import NEVER, mix, to_micros
from inventory.domain.fold import STATUSES, Folded
from inventory.domain.places import AreaVersion, City, area_of_points, versions_by_level
from inventory.store import cities
from inventory.store.copy import copy_rows, instants, next_job, numbers
from inventory.store.schema import asset, asset_state, staging_membership, staging_state

_COMPACT_ABOVE_DELTAS = 5_000
_DEGREE_DIGITS = 7
"""A centimetre: the digits of our GeoJSON."""
_ANALYZE_FROM_STATES = 500
"""Changes of fewer states leave the planner's statistics good enough; autovacuum sees to the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why states change: what was done, to what, by whom."""

    what: str
    subject: str | None
    author: str = "local"


def replace_states(
    connection: Connection,
    city: City,
    class_name: str,
    folded: Folded,
    asset_of_track: NDArray[np.int64],
    cause: Cause,
) -> None:
    """Makes the stored states of a class those of the fold; unchanged ones keep their row."""
    columns = _columns(folded, asset_of_track)
    digest = _digests(folded, columns)
    stored = _stored(connection, city, class_name, static=folded.static)
    kept = np.isin(digest, stored["digest"])
    removed = stored["id"][~np.isin(stored["digest"], digest)]
    _remove(connection, city, removed, cause)
    _add(
        connection,
        city,
        {name: column[~kept] for name, column in columns.items()},
        digest[~kept],
        cause,
    )
    _compact_deltas(connection, city)
    if len(removed) + int((~kept).sum()) >= _ANALYZE_FROM_STATES:
        connection.execute(select(func.urban_inventory.city_analyze(city.id)))


def refresh_areas(connection: Connection, city_id: int) -> None:
    """Computes memberships and counts anew after areas changed; states stay as they are."""
    city = next(one for one in cities.list_cities(connection) if one.id == city_id)
    parameters = {"city": city_id}
    connection.execute(text("DELETE FROM urban_inventory.membership WHERE city_id = :city"), parameters)
    connection.execute(text("DELETE FROM urban_inventory.area_count_delta WHERE city_id = :city"), parameters)
    rows = connection.execute(
        select(
            asset_state.c.id,
            asset_state.c.valid_from,
            asset_state.c.valid_to,
            func.ST_X(asset_state.c.geom).label("lon"),
            func.ST_Y(asset_state.c.geom).label("lat"),
        ).where(asset_state.c.city_id == city_id)
    ).all()
    job = next_job(connection)
    _stage_memberships(
        connection,
        city,
        job,
        ids=np.array([row.id for row in rows], np.int64),
        lon_lat=np.array([(row.lon, row.lat) for row in rows], np.float64).reshape(-1, 2),
        valid_from=np.array([to_micros(row.valid_from) for row in rows], np.int64),
        valid_to=np.array([to_micros(row.valid_to) if row.valid_to else NEVER for row in rows], np.int64),
    )
    connection.execute(_INSERT_MEMBERSHIPS, {"job": job, **parameters})
    connection.execute(_ALL_DELTAS, parameters)
    connection.execute(_CLEAR_MEMBERSHIPS, {"job": job})


# --- from folded columns to rows ---------------------------------------------------------------------


def _columns(folded: Folded, asset_of_track: NDArray[np.int64]) -> dict[str, Any]:
    states = folded.states
    tracks = states["track"].astype(np.int64)
    codes = np.array(folded.classes, object)
    texts = np.array([orjson.dumps(text_).decode() for text_ in folded.texts] + [None], object)
    # float32 at once: digests must not see more than the table keeps.
    reals = ("error_m", "width_m", "height_m", "score", "probability")
    return {
        "asset_id": asset_of_track[tracks] if folded.static else np.full(len(tracks), -1, np.int64),
        "observation_id": states["observation_id"].astype(np.int64),
        "decision_id": states["decision"].astype(np.int64),
        "survey_id": states["survey_id"].astype(np.int64),
        "class": codes[states["class_code"].astype(int)],
        "status": np.array(STATUSES, object)[states["status"].astype(int)],
        "details": texts[states["details"].astype(int)],
        **{name: states[name].astype(np.float32) for name in reals},
        **{name: states[name].astype(np.float64) for name in ("x", "y")},
        **{name: states[name].astype(bool) for name in ("listed", "verified", "review")},
        "hits": np.minimum(states["hits"].astype(np.int64), 32_767),
        **{
            name: states[name].astype(np.int64)
            for name in ("valid_from", "valid_to", "first_seen", "last_seen", "first_missed")
        },
    }


def _digests(folded: Folded, columns: dict[str, Any]) -> NDArray[np.int64]:
    """A hash of each state's whole content, by which two folds are compared."""
    mixed = np.zeros(len(columns["valid_from"]), np.uint64)
    for name in sorted(columns):
        column = columns[name]
        if column.dtype == object:
            values, inverse = np.unique(column.astype(str), return_inverse=True)
            # The position of a text among those at hand would depend on the others: its own hash does not.
            own = np.array([_text_hash(value) for value in values], np.uint64)
            bits = own[inverse.ravel()] if len(values) else np.empty(0, np.uint64)
        elif column.dtype.kind == "f":
            bits = column.astype(np.float64).view(np.uint64)
        else:
            bits = column.astype(np.int64).view(np.uint64)
        mixed = mix(mixed ^ bits)
    return mixed.view(np.int64)


def _text_hash(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big")


def _stored(
    connection: Connection, city: City, class_name: str, *, static: bool
) -> dict[str, NDArray[np.int64]]:
    query = select(asset_state.c.id, asset_state.c.digest).where(asset_state.c.city_id == city.id)
    if static:
        # By the class an asset was minted as: a person may have reclassified it since.
        query = query.join(
            asset, (asset.c.city_id == asset_state.c.city_id) & (asset.c.id == asset_state.c.asset_id)
        ).where(asset.c["class"] == class_name)
    else:
        query = query.where(asset_state.c["class"] == class_name, asset_state.c.asset_id.is_(None))
    rows = connection.execute(query).all()
    return {
        "id": np.array([row.id for row in rows], np.int64),
        "digest": np.array([row.digest for row in rows], np.int64),
    }


# --- removing and adding -------------------------------------------------------------------------------

_NOTE = """
    INSERT INTO urban_inventory.history (city_id, asset_id, state_id, change, state, cause, cause_id, author)
    SELECT s.city_id, s.asset_id, s.id, {change}, to_jsonb(s) - 'geom' - 'digest' - 'city_id', :what, :subject, :author
    FROM urban_inventory.asset_state s WHERE s.city_id = :city AND s.id {which}
"""

_DELTAS = """
    INSERT INTO urban_inventory.area_count_delta (city_id, area_version_id, class, at, listed, verified)
    SELECT :city, area_version_id, class, at, {sign} sum(listed), {sign} sum(verified) FROM (
        SELECT e.area_version_id, s.class, e.valid_from AS at, 1 AS listed,
               (s.verified AND NOT s.review)::int AS verified
        FROM (
            SELECT m.area_version_id, m.state_id, m.valid_from, m.valid_to
            FROM urban_inventory.membership m WHERE m.city_id = :city
            UNION ALL
            SELECT 0, w.id, w.valid_from, w.valid_to FROM urban_inventory.asset_state w WHERE w.city_id = :city
        ) e
        JOIN urban_inventory.asset_state s ON s.city_id = :city AND s.id = e.state_id
        WHERE s.listed AND s.id {which}
        UNION ALL
        SELECT e.area_version_id, s.class, e.valid_to, -1, -(s.verified AND NOT s.review)::int
        FROM (
            SELECT m.area_version_id, m.state_id, m.valid_to
            FROM urban_inventory.membership m WHERE m.city_id = :city AND m.valid_to IS NOT NULL
            UNION ALL
            SELECT 0, w.id, w.valid_to FROM urban_inventory.asset_state w
            WHERE w.city_id = :city AND w.valid_to IS NOT NULL
        ) e
        JOIN urban_inventory.asset_state s ON s.city_id = :city AND s.id = e.state_id
        WHERE s.listed AND s.id {which}
    ) events GROUP BY area_version_id, class, at HAVING sum(listed) <> 0 OR sum(verified) <> 0
"""

_GIVEN = "= ANY(CAST(:ids AS bigint[]))"
_STAGED = "IN (SELECT id FROM urban_inventory.staging_state WHERE job = :job)"
_EVERY = "IS NOT NULL"

_FORGET = text(_NOTE.format(change="-1", which=_GIVEN))
_SUBTRACT = text(_DELTAS.format(sign="-", which=_GIVEN))
_DELETE_MEMBERSHIPS = text(
    f"DELETE FROM urban_inventory.membership WHERE city_id = :city AND state_id {_GIVEN}"
)
_DELETE_STATES = text(f"DELETE FROM urban_inventory.asset_state WHERE city_id = :city AND id {_GIVEN}")

_INSERT_STATES = text(
    """
    INSERT INTO urban_inventory.asset_state (
        city_id, id, asset_id, observation_id, decision_id, survey_id, class, valid_from, valid_to, listed,
        status, verified, review, probability, geom, x, y, error_m, width_m, height_m, score, hits, first_seen,
        last_seen, first_missed, details, digest)
    SELECT :city, id, asset_id, observation_id, decision_id, survey_id, class, valid_from, valid_to, listed,
        status, verified, review, probability, ST_SetSRID(ST_MakePoint(lon, lat), 4326), x, y, error_m, width_m,
        height_m, score, hits, first_seen, last_seen, first_missed, details, digest
    FROM urban_inventory.staging_state WHERE job = :job
    """
)
_INSERT_MEMBERSHIPS = text(
    """
    INSERT INTO urban_inventory.membership (city_id, state_id, area_version_id, valid_from, valid_to)
    SELECT :city, state_id, area_version_id, valid_from, valid_to
    FROM urban_inventory.staging_membership WHERE job = :job
    """
)
_REMEMBER = text(_NOTE.format(change="1", which=_STAGED))
_ADD_DELTAS = text(_DELTAS.format(sign="", which=_STAGED))
_ALL_DELTAS = text(_DELTAS.format(sign="", which=_EVERY))
_CLEAR_STATES = text("DELETE FROM urban_inventory.staging_state WHERE job = :job")
_CLEAR_MEMBERSHIPS = text("DELETE FROM urban_inventory.staging_membership WHERE job = :job")


def _remove(connection: Connection, city: City, ids: NDArray[np.int64], cause: Cause) -> None:
    if not len(ids):
        return
    parameters = {"city": city.id, "ids": ids.tolist()}
    noted = {"what": cause.what, "subject": cause.subject, "author": cause.author}
    connection.execute(_FORGET, {**parameters, **noted})
    for statement in (_SUBTRACT, _DELETE_MEMBERSHIPS, _DELETE_STATES):
        connection.execute(statement, parameters)


def _add(
    connection: Connection, city: City, columns: dict[str, Any], digest: NDArray[np.int64], cause: Cause
) -> None:
    if not len(digest):
        return
    job = next_job(connection)
    ids = np.fromiter(
        connection.execute(
            select(func.nextval("urban_inventory.asset_state_id_seq")).select_from(
                func.generate_series(1, len(digest)).table_valued("n")
            )
        ).scalars(),
        np.int64,
        len(digest),
    )
    to_lon_lat = Transformer.from_crs(city.metric_crs, 4326, always_xy=True)
    # To the digits that are given out: who counts exported points gets our counts, on borders too.
    lon_lat = np.round(np.column_stack(to_lon_lat.transform(columns["x"], columns["y"])), _DEGREE_DIGITS)
    _stage_states(connection, job, ids, columns, lon_lat, digest)
    parameters = {"city": city.id, "job": job}
    connection.execute(_INSERT_STATES, parameters)
    _stage_memberships(
        connection,
        city,
        job,
        ids=ids,
        lon_lat=lon_lat,
        valid_from=columns["valid_from"],
        valid_to=columns["valid_to"],
    )
    connection.execute(_INSERT_MEMBERSHIPS, parameters)
    connection.execute(
        _REMEMBER, {**parameters, "what": cause.what, "subject": cause.subject, "author": cause.author}
    )
    connection.execute(_ADD_DELTAS, parameters)
    connection.execute(_CLEAR_STATES, {"job": job})
    connection.execute(_CLEAR_MEMBERSHIPS, {"job": job})


def _stage_states(
    connection: Connection,
    job: int,
    ids: NDArray[np.int64],
    columns: dict[str, Any],
    lon_lat: NDArray[np.float64],
    digest: NDArray[np.int64],
) -> None:
    row_numbers = ("asset_id", "observation_id", "decision_id", "survey_id")
    times = ("valid_from", "valid_to", "first_seen", "last_seen", "first_missed")
    rest = (
        "class", "listed", "status", "verified", "review", "probability", "x", "y", "error_m", "width_m",
        "height_m", "score", "hits", "details",
    )  # fmt: skip
    copy_rows(
        connection,
        staging_state,
        {
            "job": job,
            "id": ids,
            **{name: numbers(columns[name]) for name in row_numbers},
            **{name: instants(columns[name]) for name in times},
            **{name: columns[name] for name in rest},
            "lon": lon_lat[:, 0],
            "lat": lon_lat[:, 1],
            "digest": digest,
        },
    )


# --- memberships ---------------------------------------------------------------------------------------


def _stage_memberships(
    connection: Connection,
    city: City,
    job: int,
    *,
    ids: NDArray[np.int64],
    lon_lat: NDArray[np.float64],
    valid_from: NDArray[np.int64],
    valid_to: NDArray[np.int64],
) -> None:
    """For every level and every span of dates with the same areas: which area holds each state (R12)."""
    zone = ZoneInfo(city.time_zone)
    for versions in versions_by_level(cities.all_area_versions(connection, city.id)).values():
        for begin, end, in_force in _spans(versions, zone):
            rows = np.flatnonzero((valid_from < end) & (valid_to > begin))
            owner = area_of_points(lon_lat[rows], in_force)
            held = owner >= 0
            version_ids = np.array([version.id for version in in_force], np.int64)
            copy_rows(
                connection,
                staging_membership,
                {
                    "job": job,
                    "state_id": ids[rows[held]],
                    "area_version_id": version_ids[owner[held]],
                    "valid_from": instants(np.maximum(valid_from[rows[held]], begin)),
                    "valid_to": instants(np.minimum(valid_to[rows[held]], end)),
                },
            )


def _spans(versions: list[AreaVersion], zone: ZoneInfo) -> list[tuple[int, int, list[AreaVersion]]]:
    """The times between changes of a level's areas, as microseconds, with the versions in force."""
    days = sorted({day for version in versions for day in (version.valid_from, version.valid_to) if day})
    starts: list[date | None] = [None, *days]
    ends: list[date | None] = [*days, None]
    spans = []
    for begin, end in zip(starts, ends, strict=True):
        in_force = [version for version in versions if version.in_force(begin or date.min)]
        if in_force:
            spans.append((_midnight(begin, zone, -NEVER), _midnight(end, zone, NEVER), in_force))
    return spans


def _midnight(day: date | None, zone: ZoneInfo, unbounded: int) -> int:
    return unbounded if day is None else to_micros(datetime.combine(day, time.min, zone))


def _compact_deltas(connection: Connection, city: City) -> None:
    """Sums up the deltas once they are many, in the same transaction: readers see either form whole."""
    parameters = {"city": city.id}
    deltas = connection.execute(
        text("SELECT count(*) FROM urban_inventory.area_count_delta WHERE city_id = :city"), parameters
    ).scalar_one()
    if deltas <= _COMPACT_ABOVE_DELTAS:
        return
    connection.execute(
        text(
            """
            WITH taken AS (
                DELETE FROM urban_inventory.area_count_delta WHERE city_id = :city RETURNING *
            )
            INSERT INTO urban_inventory.area_count_delta (city_id, area_version_id, class, at, listed, verified)
            SELECT :city, area_version_id, class, at, sum(listed), sum(verified) FROM taken
            GROUP BY area_version_id, class, at HAVING sum(listed) <> 0 OR sum(verified) <> 0
            """
        ),
        parameters,
    )


def end_of_day(day: date, time_zone: str) -> datetime:
    """The last microsecond of a local day, in UTC: what “as of” a date means."""
    if day == date.max:
        # The calendar's last day has no midnight after it.
        return datetime.max.replace(tzinfo=UTC)
    midnight = datetime.combine(day + timedelta(days=1), time.min, ZoneInfo(time_zone))
    return midnight.astimezone(UTC) - timedelta(microseconds=1)
