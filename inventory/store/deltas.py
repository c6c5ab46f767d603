"""Count deltas: what each change of the states adds to the count of an area, from an instant on (R8, R12).

A listed state counts in an area from when both it and the area's hold on its place begin until the first of
the two ends. Where it begins does not depend on where it ends, so that moving an end moves one event; a state
that ends before the area's hold begins ends where it begins. Deltas are appended, and summed up once many.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from inventory.domain.evidence import NEVER, Integers
from inventory.domain.places import City
from inventory.store.copy import copy_rows, instants, read_rows
from inventory.store.schema import area_count_delta

_COMPACT_ABOVE = 5_000
CITY = 0
"""In place of an area version: the whole city, for all of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """States as far as counts care, (n,) each: number, class, time, and whether listed and verified."""

    state_id: Integers
    class_name: NDArray[np.object_]
    valid_from: Integers
    valid_to: Integers
    listed: NDArray[np.bool_]
    verified: NDArray[np.bool_]
    """Verified without an open review."""

    def take(self, rows: NDArray[np.bool_] | Integers) -> "Counting":
        """The states chosen."""
        return Counting(**{name: getattr(self, name)[rows] for name in self.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Which area version holds a state's place and when, (m,) each; −``NEVER``, ``NEVER``: no bound."""

    state_id: Integers
    area_version_id: Integers
    valid_from: Integers
    valid_to: Integers


def load_members(connection: Connection, city: City, states: Integers | None) -> Members:
    """The memberships of these states; None: of all."""
    query = """
        SELECT m.state_id, m.area_version_id, nullif(m.valid_from, '-infinity'), m.valid_to
        FROM urban_inventory.membership m WHERE m.city_id = %(city)s
    """
    if states is not None:
        query += " AND m.state_id IN (SELECT unnest(%(states)s::bigint[]))"
    columns = read_rows(
        connection,
        query,
        {"city": city.id, "states": [] if states is None else states.tolist()},
        {
            "state_id": pa.int64(),
            "area_version_id": pa.int64(),
            "valid_from": pa.timestamp("us", tz="UTC"),
            "valid_to": pa.timestamp("us", tz="UTC"),
        },
    )
    since = columns["valid_from"]
    return Members(**{**columns, "valid_from": np.where(since == NEVER, -NEVER, since)})


def append(
    connection: Connection,
    city: City,
    states: Counting,
    members: Members,
    *,
    sign: int,
    ends_alone: bool = False,
) -> None:
    """Adds what states bring to every count (``sign`` 1), or takes it away (−1).

    Args:
        members: of these states and perhaps of others.
        ends_alone: the states stay, only their end is said or unsaid.
    """
    states = states.take(states.listed)
    order = np.argsort(states.state_id, kind="stable")
    states = states.take(order)
    if not len(states.state_id):
        return
    at = np.minimum(np.searchsorted(states.state_id, members.state_id), len(states.state_id) - 1)
    mine = np.flatnonzero(states.state_id[at] == members.state_id)
    n = len(states.state_id)
    # The city holds every state always; areas hold those that lie in them.
    row = np.concatenate([np.arange(n), at[mine]])
    version = np.concatenate([np.full(n, CITY), members.area_version_id[mine]])
    held_from = np.concatenate([np.full(n, -NEVER), members.valid_from[mine]])
    held_to = np.concatenate([np.full(n, NEVER), members.valid_to[mine]])
    counts = held_to > states.valid_from[row]
    row, version, held_from, held_to = (part[counts] for part in (row, version, held_from, held_to))
    begin = np.maximum(states.valid_from[row], held_from)
    end = np.maximum(np.minimum(states.valid_to[row], held_to), begin)
    ending = np.flatnonzero(end != NEVER)
    begins = row[:0] if ends_alone else np.arange(len(row))
    _insert(
        connection,
        city,
        states,
        row=np.concatenate([row[begins], row[ending]]),
        version=np.concatenate([version[begins], version[ending]]),
        at=np.concatenate([begin[begins], end[ending]]),
        sign=sign * np.repeat([1, -1], [len(begins), len(ending)]),
    )


def _insert(
    connection: Connection,
    city: City,
    states: Counting,
    *,
    row: Integers,
    version: Integers,
    at: Integers,
    sign: Integers,
) -> None:
    names, class_code = np.unique(states.class_name.astype(str), return_inverse=True)
    versions, version_code = np.unique(version, return_inverse=True)
    instants_, instant_code = np.unique(at, return_inverse=True)
    # One number an event: sorting rows of three takes ten times as long.
    code = (version_code * len(names) + class_code[row]) * len(instants_) + instant_code
    events, of_event = np.unique(code, return_inverse=True)
    listed = np.bincount(of_event, weights=sign, minlength=len(events)).astype(np.int64)
    verified = np.bincount(of_event, weights=sign * states.verified[row], minlength=len(events)).astype(
        np.int64
    )
    kept = (listed != 0) | (verified != 0)
    rest, instant = np.divmod(events[kept], max(len(instants_), 1))
    place, class_ = np.divmod(rest, max(len(names), 1))
    copy_rows(
        connection,
        area_count_delta,
        {
            "city_id": city.id,
            "area_version_id": versions[place],
            "class": names[class_].astype(object),
            "at": instants(instants_[instant]),
            "listed": listed[kept],
            "verified": verified[kept],
        },
    )


def forget_all(connection: Connection, city: City) -> None:
    """Takes every delta of a city away, to be said anew in the same transaction."""
    connection.execute(
        text("DELETE FROM urban_inventory.area_count_delta WHERE city_id = :city"), {"city": city.id}
    )


def compact(connection: Connection, city: City) -> None:
    """Sums up the deltas once they are many, in the same transaction: readers see either form whole."""
    parameters = {"city": city.id}
    deltas = connection.execute(
        text("SELECT count(*) FROM urban_inventory.area_count_delta WHERE city_id = :city"), parameters
    ).scalar_one()
    if deltas > _COMPACT_ABOVE:
        connection.execute(_COMPACT, parameters)


_COMPACT = text(
    """
    WITH taken AS (
        DELETE FROM urban_inventory.area_count_delta WHERE city_id = :city RETURNING *
    )
    INSERT INTO urban_inventory.area_count_delta (city_id, area_version_id, class, at, listed, verified)
    SELECT :city, area_version_id, class, at, sum(listed), sum(verified) FROM taken
    GROUP BY area_version_id, class, at HAVING sum(listed) <> 0 OR sum(verified) <> 0
    """
)
