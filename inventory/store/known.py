"""What is known of a city, kept in memory between questions as long as the city has the same version.

Every writer gives its city another version (``cities.lock_city``): what was read in one version is true in every
transaction that sees it. So the questions that come many times a second read again only what changed.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from sqlalchemy import Connection, Engine, text

from inventory.domain.places import City
from inventory.domain.seen import SeenGround
from inventory.store import cities

_CITIES_KEPT = 64
_T = TypeVar("_T")

UNKEPT = -1
"""In place of a version: the city as a transaction sees it that may write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCity:
    """A city in one of its versions, with what was asked of it in that version so far."""

    city: City
    version: int
    _parts: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether others may see the same: not what a transaction sees that writes (``UNKEPT``)."""
        return self.version != UNKEPT

    def part(self, name: Hashable, read: Callable[[], _T]) -> _T:
        """What ``read`` gives, read once; it must read in a transaction that sees this version."""
        # Two threads may both read: they get the same.
        if name not in self._parts:
            self._parts[name] = read()
        return cast("_T", self._parts[name])

    def known_part(self, name: Hashable) -> Any:
        """What ``part`` would give if it was read already, else None."""
        return self._parts.get(name)


class _Kept:
    """Cities of one database, the last asked for."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._cities: OrderedDict[str, KnownCity] = OrderedDict()

    def get(self, code: str) -> KnownCity | None:
        with self._turn:
            return self._cities.get(code)

    def put(self, known: KnownCity) -> None:
        with self._turn:
            self._cities[known.city.code] = known
            self._cities.move_to_end(known.city.code)
            while len(self._cities) > _CITIES_KEPT:
                self._cities.popitem(last=False)


_KEPT: WeakKeyDictionary[Engine, _Kept] = WeakKeyDictionary()


def known_city(connection: Connection, code: str, *, now: tuple[int, int] | None = None) -> KnownCity:
    """The city with this code as a transaction sees it that only reads, and sees one snapshot.

    Args:
        now: its number and version (``cities.version_of``), where the transaction has read them already.

    Raises:
        UnknownName: there is none; the message lists those that exist.
    """
    kept = _KEPT.setdefault(connection.engine, _Kept())
    found, now = kept.get(code), now or cities.version_of(connection, code)
    if found is not None and now == (found.city.id, found.version):
        return found
    city = cities.get_city(connection, code)
    assert now is not None
    known = KnownCity(city=city, version=now[1])
    if found is not None and found.city.id == city.id:
        _carry_looks(connection, found, known)
    kept.put(known)
    return known


# --- looks ---------------------------------------------------------------------------------------------------

_LOOKS = text(
    """
    SELECT k.folded_at AS at, v.model_sha256, ST_AsBinary(v.surveyed) AS surveyed
    FROM urban_inventory.survey v
    JOIN urban_inventory.survey_class k ON k.survey_id = v.id
    WHERE v.city_id = :city AND k.folded_at IS NOT NULL AND k.class = :class
    ORDER BY k.folded_at, v.id
    """
)
_DIGEST = text(
    """
    SELECT count(*), coalesce(sum(hashtextextended(concat_ws(' ', k.survey_id, k.class, k.folded_at), 0)), 0)
    FROM urban_inventory.survey v
    JOIN urban_inventory.survey_class k ON k.survey_id = v.id
    WHERE v.city_id = :city AND k.folded_at IS NOT NULL
    """
)
_LOOKS_PART = "looks"


def seen_ground(connection: Connection, known: KnownCity, class_name: str) -> SeenGround | None:
    """All looks at the city for a class that count; None: nobody looked."""
    return _looks(connection, known).part(class_name, lambda: _read_looks(connection, known.city, class_name))


@dataclass(frozen=True, slots=True)
class _LooksOfCity:
    """Looks by class, of one digest: they outlive versions that changed no look."""

    digest: tuple[int, int]
    _parts: dict[str, SeenGround | None] = field(default_factory=dict)

    def part(self, name: str, read: Callable[[], SeenGround | None]) -> SeenGround | None:
        if name not in self._parts:
            self._parts[name] = read()
        return self._parts[name]


def _looks(connection: Connection, known: KnownCity) -> _LooksOfCity:
    return known.part(_LOOKS_PART, lambda: _LooksOfCity(_digest(connection, known.city)))


def _carry_looks(connection: Connection, before: KnownCity, now: KnownCity) -> None:
    """Decisions come often and change no look: its union is kept then."""
    had: _LooksOfCity | None = before.known_part(_LOOKS_PART)
    if had is not None and had.digest == _digest(connection, now.city):
        now.part(_LOOKS_PART, lambda: had)


def _digest(connection: Connection, city: City) -> tuple[int, int]:
    row = connection.execute(_DIGEST, {"city": city.id}).one()
    return int(row[0]), int(row[1])


def _read_looks(connection: Connection, city: City, class_name: str) -> SeenGround | None:
    rows: Sequence[Any] = connection.execute(_LOOKS, {"city": city.id, "class": class_name}).all()
    if not rows:
        return None
    at: list[datetime] = [row.at for row in rows]
    surveyed = np.asarray(shapely.from_wkb([bytes(row.surveyed) for row in rows]), object)
    return SeenGround(at, [row.model_sha256 for row in rows], surveyed)
