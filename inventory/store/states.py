"""What the fold says, kept current: states, and history of what is no longer said.

Nothing here decides: ``replace_states`` compares what was stored with what was folded and changes only the
difference, all of it by one change with its cause (R14). Everything happens in the caller's transaction,
under the city's writer lock.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from pyproj import Transformer
from sqlalchemy import Connection, func, insert, select, text

from inventory.domain.evidence import NEVER, Integers, mix, to_micros
from inventory.domain.fold import Folded
from inventory.domain.places import City
from inventory.domain.tracks import COLUMNS, NO_TRACK, STATUSES, StoredStates
from inventory.store import cities, deltas, leaves, memberships
from inventory.store.copy import copy_rows, draw_numbers, instants, next_job, numbers, points, read_rows
from inventory.store.deltas import Counting
from inventory.store.memberships import add_members
from inventory.store.schema import (
    asset_state,
    change,
    staging_end,
)

_DEGREE_DIGITS = 7
"""A centimetre: the digits of our GeoJSON."""
_PACK_FROM_STATES = 2_000
"""Changes of as many states are packed at once, from memory; of fewer the triggers tell."""
_ANALYZE_FROM_STATES = 500
_ANALYZE_FROM_SHARE = 0.3
"""Changes of fewer states, or of less of all, leave statistics good enough; autovacuum sees to the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why states change: what was done, to what, by whom."""

    what: str
    subject: str | None
    author: str = "local"


# --- reading what was stored -----------------------------------------------------------------------------

_TIMES = ("valid_from", "valid_to", "first_seen", "last_seen", "first_missed")
_READ = f"""
    SELECT s.id, coalesce(s.asset_id, -1), s.digest, s.track, {", ".join(f"s.{name}" for name in _TIMES)},
        s.x, s.y, s.cell, s.error_m, s.width_m, s.height_m, s.score, s.content, s.probability, s.lasting,
        s.hits, s.misses,
        coalesce(s.look, -1), s.hit,
        array_position(ARRAY['{"', '".join(STATUSES)}'], s.status) - 1, s.verified, s.review, s.placed, s.felled,
        coalesce(s.merged_into, {NO_TRACK}), coalesce(s.replaces, {NO_TRACK}), coalesce(s.observation_id, -1),
        coalesce(s.survey_id, -1), coalesce(s.decision_id, -1), coalesce(s.model, -1), s.listed,
        s.class = s.minted_as AND s.details IS NULL
    FROM urban_inventory.asset_state s
    WHERE s.city_id = %(city)s AND s.minted_as = %(class)s
        AND (s.valid_to IS NULL OR s.valid_to >= %(since)s)
"""
_KINDS: dict[str, pa.DataType] = {
    "id": pa.int64(),
    "asset_id": pa.int64(),
    "digest": pa.int64(),
    "track": pa.int64(),
    **dict.fromkeys(_TIMES, pa.timestamp("us", tz="UTC")),
    **dict.fromkeys(("x", "y"), pa.float64()),
    "cell": pa.int64(),
    **dict.fromkeys(("error_m", "width_m", "height_m", "score"), pa.float32()),
    "content": pa.int64(),
    **dict.fromkeys(("probability", "lasting"), pa.float32()),
    **dict.fromkeys(("hits", "misses", "look"), pa.int64()),
    "hit": pa.bool_(),
    "status": pa.int64(),
    **dict.fromkeys(("verified", "review", "placed", "felled"), pa.bool_()),
    **dict.fromkeys(
        ("merged_into", "replaces", "observation_id", "survey_id", "decision", "model"), pa.int64()
    ),
    "listed": pa.bool_(),
    "plain": pa.bool_(),
}


def load_states(
    connection: Connection, city: City, class_name: str, *, since: int, cells: Integers | None
) -> StoredStates:
    """The states in force at or after an instant of all tracks with such a state in the cells; None: all.

    Beside the domain's columns they have ``asset_id`` (−1: none) and ``digest``.
    """
    parameters: dict[str, Any] = {"city": city.id, "class": class_name, "since": _instant(since)}
    query = _READ
    if cells is not None:
        query += " AND s.cell = ANY(%(cells)s)"
        parameters["cells"] = cells.tolist()
    columns = read_rows(connection, query, parameters, _KINDS)
    strays = np.empty(0, np.int64) if cells is None else _strays(columns, since)
    if len(strays):
        # Tracks that moved from one cell to another: their states elsewhere belong to them, too.
        elsewhere = _READ + " AND s.track = ANY(%(tracks)s) AND NOT s.cell = ANY(%(cells)s)"
        elsewhere += " AND s.asset_id = ANY(%(assets)s)"
        mine = np.isin(columns["track"], strays)
        more = read_rows(
            connection,
            elsewhere,
            {
                **parameters,
                "tracks": strays.tolist(),
                "assets": np.unique(columns["asset_id"][mine]).tolist(),
            },
            _KINDS,
        )
        columns = {name: np.concatenate([column, more[name]]) for name, column in columns.items()}
    order = np.lexsort((columns["valid_from"], columns["track"]))
    return _as_stored(connection, city, class_name, {name: column[order] for name, column in columns.items()})


def cells_of_tracks(connection: Connection, city: City, class_name: str, tracks: Integers) -> Integers:
    """The cells in which these tracks ever stood."""
    query = select(asset_state.c.cell).where(
        asset_state.c.city_id == city.id,
        asset_state.c.minted_as == class_name,
        asset_state.c.track.in_(tracks.tolist()),
    )
    return np.array(sorted(set(connection.execute(query).scalars())), np.int64)


def all_cells(connection: Connection, city: City, class_name: str) -> Integers:
    """Every cell that holds a state of the class."""
    query = select(asset_state.c.cell).where(
        asset_state.c.city_id == city.id, asset_state.c.minted_as == class_name
    )
    return np.array(sorted(connection.execute(query.distinct()).scalars()), np.int64)


def _strays(columns: dict[str, NDArray[Any]], since: int) -> Integers:
    """Tracks whose states at hand do not follow one another from ``since``, or their beginning, until now."""
    order = np.lexsort((columns["valid_from"], columns["track"]))
    track, begin, end = (columns[name][order] for name in ("track", "valid_from", "valid_to"))
    first = np.ones(len(track), bool)
    first[1:] = track[1:] != track[:-1]
    last = np.roll(first, -1)
    # Also one that begins at ``since``: what it was until then, in another cell perhaps, bears on it (R8).
    cut_before = first & (begin >= since) & (begin != columns["first_seen"][order])
    cut_between = ~first & (begin != np.roll(end, 1))
    cut_after = last & (end != NEVER)
    return np.unique(track[cut_before | cut_between | cut_after])


def _as_stored(
    connection: Connection, city: City, class_name: str, columns: dict[str, NDArray[Any]]
) -> StoredStates:
    """Columns as the domain wants them; classes and details by number."""
    n = len(columns["id"])
    classes, texts = [class_name], list[dict[str, Any]]()
    codes, details = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    rows = np.flatnonzero(~columns.pop("plain"))
    if len(rows):
        query = select(asset_state.c.id, asset_state.c["class"], asset_state.c.details).where(
            asset_state.c.city_id == city.id, asset_state.c.id.in_(columns["id"][rows].tolist())
        )
        said = {row.id: (row[1], row.details) for row in connection.execute(query)}
        for row in rows.tolist():
            name, told = said[int(columns["id"][row])]
            if name not in classes:
                classes.append(name)
            codes[row] = classes.index(name)
            if told is not None:
                told = orjson.loads(told) if isinstance(told, str) else told
                if told not in texts:
                    texts.append(told)
                details[row] = texts.index(told)
    columns["class_code"], columns["details"] = codes, details
    columns["content"] = columns["content"].view(np.uint64)
    return StoredStates(columns=columns, classes=tuple(classes), texts=tuple(texts))


# --- from folded columns to rows ---------------------------------------------------------------------


def _columns(folded: Folded, class_name: str, asset_of_track: Integers) -> dict[str, Any]:
    states = folded.states
    rows = states["track"].astype(np.int64)
    codes = np.array(folded.classes, object)
    texts = np.array(
        [orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode() for told in folded.texts] + [None], object
    )
    return {
        **{
            name: states[name]
            for name in COLUMNS
            if name not in {"class_code", "details", "decision", "status"}
        },
        "content": states["content"].view(np.int64),
        "asset_id": asset_of_track[rows] if folded.static else np.full(len(rows), -1, np.int64),
        "decision_id": states["decision"],
        "class": codes[states["class_code"]],
        "minted_as": np.full(len(rows), class_name, object),
        "status": np.array(STATUSES, object)[states["status"]],
        "details": texts[states["details"]],
        "hits": np.minimum(states["hits"], 32_767),
        "misses": np.minimum(states["misses"], 32_767),
        "track": folded.tracks["key"][rows],
        "valid_from": states["valid_from"],
        "valid_to": states["valid_to"],
    }


def _digests(columns: dict[str, Any]) -> Integers:
    """A hash of what each state says and since when, by which two folds are compared.

    Neither until when it holds, which follows from the next one, nor under which id.
    """
    mixed = np.zeros(len(columns["valid_from"]), np.uint64)
    for name in sorted(set(columns) - {"asset_id", "valid_to"}):
        column = columns[name]
        if column.dtype == object:
            values, inverse = _unique_texts(column)
            # The position of a text among those at hand would depend on the others: its own hash does not.
            bits = np.array([_text_hash(value) for value in values], np.uint64)[inverse]
        elif column.dtype.kind == "f":
            bits = column.astype(np.float64).view(np.uint64)
        else:
            bits = column.astype(np.int64).view(np.uint64)
        mixed = mix(mixed ^ bits)
    return mixed.view(np.int64)


def _unique_texts(column: NDArray[Any]) -> tuple[list[str], Integers]:
    encoded = pa.array(column, from_pandas=True).cast(pa.string()).dictionary_encode(null_encoding="encode")
    values = ["" if value is None else value for value in encoded.dictionary.to_pylist()]
    return values or [""], np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)


def _text_hash(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big")


# --- writing the difference ------------------------------------------------------------------------------


def replace_states(
    connection: Connection,
    city: City,
    class_name: str,
    *,
    before: StoredStates,
    folded: Folded,
    asset_of_track: Integers,
    cause: Cause,
) -> None:
    """Makes the stored states of the tracks that were folded those of the fold; unchanged ones keep their row.

    Args:
        before: from ``load_states``: what the fold went on from.
        asset_of_track: (tracks,) the asset of each.
    """
    columns = _columns(folded, class_name, asset_of_track)
    digest = _digests(columns)
    stored = before.columns
    told = np.isin(stored["track"], folded.tracks["key"][folded.told])
    rows = np.flatnonzero(told)
    # By digest; of the same in both, the row stays and only its end may move.
    place = _place(stored["digest"][rows], digest)
    kept = np.flatnonzero(place >= 0)
    moved = kept[stored["valid_to"][rows[kept]] != columns["valid_to"][place[kept]]]
    fresh = np.ones(len(digest), bool)
    fresh[place[kept]] = False
    removed = rows[place < 0]
    if not (len(removed) or len(moved) or fresh.any()):
        return
    said_by = _record_change(connection, city, cause)
    ended = np.concatenate([removed, rows[moved]])
    ending = _Ending(
        states=_counting(before, ended), removed=len(removed), valid_to=columns["valid_to"][place[moved]]
    )
    beginning = {name: column[fresh] for name, column in columns.items()}
    changed = len(ended) + int(fresh.sum())
    if changed < _PACK_FROM_STATES:
        _end(connection, city, said_by, ending)
        _add(connection, city, beginning, digest[fresh], said_by)
        leaves.pack(connection, city)
    else:
        with leaves.held_triggers(connection):
            _end(connection, city, said_by, ending)
            begun, lon_lat = _add(connection, city, beginning, digest[fresh], said_by, held=True)
        ended_at = _lon_lat(city, stored["x"][ended], stored["y"][ended])
        leaves.pack(
            connection,
            city,
            [
                leaves.changes_of(ending.states, ended_at, sign=-1),
                leaves.changes_of(ending.staying, ended_at[ending.removed :], sign=1),
                leaves.changes_of(begun, lon_lat, sign=1),
            ],
        )
    deltas.compact(connection, city)
    if changed >= max(_ANALYZE_FROM_STATES, _ANALYZE_FROM_SHARE * _states_when_analyzed(connection, city)):
        connection.execute(select(func.urban_inventory.city_analyze(city.id)))


def _states_when_analyzed(connection: Connection, city: City) -> float:
    """How many states the planner thinks there are; −1: it was never told."""
    query = text("SELECT reltuples FROM pg_class WHERE oid = to_regclass(:partition)")
    partition = f"{asset_state.schema}.{asset_state.name}_{city.id}"
    return float(connection.execute(query, {"partition": partition}).scalar_one())


def _place(wanted: Integers, among: Integers) -> Integers:
    """(wanted,) where each stands among the others, −1 for nowhere."""
    if not len(among):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(among, kind="stable")
    at = np.minimum(np.searchsorted(among[order], wanted), len(among) - 1)
    return np.where(among[order][at] == wanted, order[at], -1)


def _record_change(connection: Connection, city: City, cause: Cause) -> int:
    statement = insert(change).values(
        city_id=city.id, cause=cause.what, subject=cause.subject, author=cause.author
    )
    return int(connection.execute(statement.returning(change.c.id)).scalar_one())


_ENDED = "SELECT state_id FROM urban_inventory.staging_end WHERE job = :job"
_REMOVED = f"{_ENDED} AND removed"
_KEEP_IN_HISTORY = text(
    f"""
    INSERT INTO urban_inventory.history ({", ".join(column.name for column in asset_state.c)}, ended_by)
    SELECT {", ".join(f"s.{column.name}" for column in asset_state.c)}, :change
    FROM urban_inventory.asset_state s WHERE s.city_id = :city AND s.id IN ({_REMOVED})
    """
)
_DELETE_MEMBERSHIPS = text(
    f"DELETE FROM urban_inventory.membership WHERE city_id = :city AND state_id IN ({_REMOVED})"
)
_DELETE_STATES = text(f"DELETE FROM urban_inventory.asset_state WHERE city_id = :city AND id IN ({_REMOVED})")
_MOVE_ENDS = text(
    """
    UPDATE urban_inventory.asset_state s SET valid_to = n.valid_to FROM urban_inventory.staging_end n
    WHERE n.job = :job AND NOT n.removed AND s.city_id = :city AND s.id = n.state_id
    """
)
_CLEAR_ENDS = text("DELETE FROM urban_inventory.staging_end WHERE job = :job")


def _counting(before: StoredStates, rows: Integers) -> Counting:
    columns = before.columns
    return Counting(
        state_id=columns["id"][rows],
        class_name=np.array(before.classes, object)[columns["class_code"][rows]],
        valid_from=columns["valid_from"][rows],
        valid_to=columns["valid_to"][rows],
        listed=columns["listed"][rows],
        verified=columns["verified"][rows] & ~columns["review"][rows],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """States as they are stored: the first ``removed`` go, of the others the end moves to ``valid_to``."""

    states: Counting
    removed: int
    valid_to: Integers

    @property
    def staying(self) -> Counting:
        """The others, as they will be."""
        return replace(
            self.states.take(np.arange(self.removed, len(self.states.state_id))), valid_to=self.valid_to
        )


def _end(connection: Connection, city: City, said_by: int, ending: _Ending) -> None:
    """Takes states away, into history, and moves the end of others."""
    ended = ending.states
    if not len(ended.state_id):
        return
    goes = np.arange(len(ended.state_id)) < ending.removed
    members = deltas.load_members(connection, city, ended.state_id)
    deltas.append(connection, city, ended.take(goes), members, sign=-1)
    deltas.append(connection, city, ended.take(~goes), members, sign=-1, ends_alone=True)
    deltas.append(connection, city, ending.staying, members, sign=1, ends_alone=True)
    job = next_job(connection)
    until = np.concatenate([np.full(ending.removed, NEVER), ending.valid_to])
    order = np.argsort(ended.state_id)
    copy_rows(
        connection,
        staging_end,
        {
            "job": job,
            "state_id": ended.state_id[order],
            "removed": goes[order],
            "valid_to": instants(until[order]),
        },
    )
    parameters = {"city": city.id, "job": job, "change": said_by}
    if goes.any():
        for statement in (_KEEP_IN_HISTORY, _DELETE_MEMBERSHIPS, _DELETE_STATES):
            connection.execute(statement, parameters)
    if not goes.all():
        connection.execute(_MOVE_ENDS, parameters)
    connection.execute(_CLEAR_ENDS, parameters)


_NUMBERS = {
    "asset_id", "observation_id", "decision_id", "survey_id", "look", "model",
}  # fmt: skip


def _lon_lat(city: City, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) degrees, to the digits that are given out: who counts exported points gets our counts, on borders too."""
    to_lon_lat = Transformer.from_crs(city.metric_crs, 4326, always_xy=True)
    return np.round(np.column_stack(to_lon_lat.transform(x, y)), _DEGREE_DIGITS)


def _add(
    connection: Connection,
    city: City,
    columns: dict[str, Any],
    digest: Integers,
    said_by: int,
    *,
    held: bool = False,
) -> tuple[Counting, NDArray[np.float64]]:
    """Stores states; returns what counts of them, and (n, 2) where they stand in degrees.

    Args:
        held: the triggers are: rows go past them, which even then would keep each of them for a while.
    """
    # Neighbours lie together on disk: then what is asked for together is read together.
    order = np.lexsort((columns["valid_from"], columns["track"], columns["cell"]))
    columns, digest = {name: column[order] for name, column in columns.items()}, digest[order]
    ids = draw_numbers(connection, "asset_state_id_seq", len(digest))
    lon_lat = _lon_lat(city, columns["x"], columns["y"])
    rows: dict[str, Any] = {
        "city_id": city.id,
        "id": ids,
        "change_id": said_by,
        "digest": digest,
        "geom": points(lon_lat),
    }
    for name, column in columns.items():
        if name in _TIMES:
            rows[name] = instants(column)
        elif name in _NUMBERS:
            rows[name] = numbers(column)
        elif name in {"merged_into", "replaces"}:
            rows[name] = pa.array(column, mask=column == NO_TRACK)
        else:
            rows[name] = column
    added = Counting(
        state_id=ids,
        class_name=columns["class"],
        valid_from=columns["valid_from"],
        valid_to=columns["valid_to"],
        listed=columns["listed"],
        verified=columns["verified"] & ~columns["review"],
    )
    if len(ids):
        copy_rows(connection, asset_state, rows, partition=city.id if held else None)
        members = add_members(connection, city, ids, lon_lat)
        deltas.append(connection, city, added, members, sign=1)
    return added, lon_lat


# --- areas -----------------------------------------------------------------------------------------------

_COUNTED = """
    SELECT s.id, s.class, s.valid_from, s.valid_to, s.listed, s.verified AND NOT s.review, ST_X(s.geom), ST_Y(s.geom)
    FROM urban_inventory.asset_state s WHERE s.city_id = %(city)s
"""


def refresh_areas(connection: Connection, city_id: int) -> None:
    """Computes memberships and counts anew after areas changed; states stay as they are."""
    city = next(one for one in cities.list_cities(connection) if one.id == city_id)
    memberships.forget_all(connection, city)
    deltas.forget_all(connection, city)
    moment = pa.timestamp("us", tz="UTC")
    rows = read_rows(
        connection,
        _COUNTED,
        {"city": city_id},
        {
            "state_id": pa.int64(),
            "class_name": pa.string(),
            "valid_from": moment,
            "valid_to": moment,
            "listed": pa.bool_(),
            "verified": pa.bool_(),
            "lon": pa.float64(),
            "lat": pa.float64(),
        },
    )
    lon_lat = np.column_stack([rows.pop("lon"), rows.pop("lat")])
    members = add_members(connection, city, rows["state_id"], lon_lat)
    deltas.append(connection, city, Counting(**rows), members, sign=1)


def _instant(micros: int) -> datetime:
    """The instant, or the earliest that a database takes."""
    earliest = to_micros(datetime(1, 1, 1, tzinfo=UTC))
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=max(micros, earliest))


def end_of_day(day: date, time_zone: str) -> datetime:
    """The last microsecond of a local day, in UTC: what “as of” a date means."""
    if day == date.max:
        # The calendar's last day has no midnight after it.
        return datetime.max.replace(tzinfo=UTC)
    midnight = datetime.combine(day + timedelta(days=1), time.min, ZoneInfo(time_zone))
    return midnight.astimezone(UTC) - timedelta(microseconds=1)
