"""Memberships: which version of an area of each level holds a state's place, and when (R12).

They speak of the places alone: whether a state is valid is its own matter, so that its end may move without
touching them.
"""

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from inventory.domain.evidence import NEVER, Integers, to_micros
from inventory.domain.places import AreaVersion, City, area_of_points, versions_by_level
from inventory.store import cities
from inventory.store.copy import copy_rows, instants
from inventory.store.deltas import Members
from inventory.store.schema import membership


def add_members(connection: Connection, city: City, ids: Integers, lon_lat: NDArray[np.float64]) -> Members:
    """Stores which areas ever hold each place, and when.

    Args:
        ids: (n,) numbers of states.
        lon_lat: (n, 2) their places, EPSG:4326.
    """
    parts = [
        part
        for versions in versions_by_level(cities.all_area_versions(connection, city.id)).values()
        for part in _of_level(versions, ZoneInfo(city.time_zone), ids, lon_lat)
    ]
    state_id, version, begin, end = (
        np.concatenate([np.empty(0, np.int64), *(part[column] for part in parts)]) for column in range(4)
    )
    members = Members(state_id=state_id, area_version_id=version, valid_from=begin, valid_to=end)
    copy_rows(
        connection,
        membership,
        {
            "city_id": city.id,
            "state_id": state_id,
            "area_version_id": version,
            "valid_from": _since(begin),
            "valid_to": instants(end),
        },
    )
    return members


def _since(begin: Integers) -> pa.Array:
    """Instants as text, since COPY alone takes the beginning of time."""
    days, of_row = np.unique(begin, return_inverse=True)
    said = ["-infinity" if day == -NEVER else str(instants(np.array([day]))[0]) for day in days.tolist()]
    return pa.array(np.array(said, object)[of_row.ravel()], pa.string())


def forget_all(connection: Connection, city: City) -> None:
    """Takes every membership of a city away, to be said anew in the same transaction."""
    connection.execute(
        text("DELETE FROM urban_inventory.membership WHERE city_id = :city"), {"city": city.id}
    )


_Part = tuple[Integers, Integers, Integers, Integers]


def _of_level(
    versions: list[AreaVersion], zone: ZoneInfo, ids: Integers, lon_lat: NDArray[np.float64]
) -> list[_Part]:
    """States, versions, begins and ends of one level; a version that holds a place on and on makes one row."""
    parts: list[_Part] = []
    held = np.full(len(ids), -1, np.int64)
    since = np.full(len(ids), -NEVER, np.int64)
    for begin, in_force in _spans(versions, zone):
        owner = area_of_points(lon_lat, in_force)
        number = np.array([version.id for version in in_force] or [-1], np.int64)
        now = np.where(owner >= 0, number[owner], -1)
        ended = (held != now) & (held >= 0)
        parts.append((ids[ended], held[ended], since[ended], np.full(int(ended.sum()), begin)))
        since = np.where(held != now, begin, since)
        held = now
    last = held >= 0
    parts.append((ids[last], held[last], since[last], np.full(int(last.sum()), NEVER)))
    return parts


def _spans(versions: list[AreaVersion], zone: ZoneInfo) -> list[tuple[int, list[AreaVersion]]]:
    """The instants at which a level's areas change, the beginning of time first, and the versions from then on."""
    days = sorted({day for version in versions for day in (version.valid_from, version.valid_to) if day})
    return [
        (
            -NEVER if day is None else to_micros(datetime.combine(day, time.min, zone)),
            [version for version in versions if version.in_force(day or date.min)],
        )
        for day in [None, *days]
    ]
