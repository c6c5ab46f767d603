"""Cities and their areas: values, and the rules of who holds which ground (R12).

Nothing here reads files or the database: geometry comes in as shapely values in EPSG:4326, longitude first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon

OUTSIDE = -1
"""Index of no area: the point lies outside all areas of the level."""


class Area(NamedTuple):
    """The name of an area: its code is unique within its level, and stays through all versions."""

    level: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class City:
    """A tenant: where it lies, in which CRS it measures, and by which clock its days begin."""

    id: int
    code: str
    name: str
    time_zone: str
    metric_crs: str
    boundary: MultiPolygon
    boundary_given: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaVersion:
    """One version of an area; ``valid_from`` is its first day, ``valid_to`` the first day after it.

    None is unbounded. ``level_rank`` 0 is the top level. ``geometry`` is EPSG:4326; ``area_m2`` is measured
    on the ellipsoid.
    """

    id: int
    level: str
    level_rank: int
    code: str
    name: str
    parent_level: str | None
    parent_code: str | None
    valid_from: date | None
    valid_to: date | None
    geometry: MultiPolygon
    area_m2: float

    @property
    def area(self) -> Area:
        """Which area this is a version of."""
        return Area(self.level, self.code)

    def in_force(self, on: date) -> bool:
        """Whether this version holds on a local day of the city."""
        begun = self.valid_from is None or self.valid_from <= on
        return begun and (self.valid_to is None or on < self.valid_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaName:
    """A version of an area without its ground: what counts need of it."""

    id: int
    level: str
    level_rank: int
    code: str
    name: str
    valid_from: date | None
    valid_to: date | None

    def in_force(self, on: date) -> bool:
        """Whether this version holds on a local day of the city."""
        return (self.valid_from is None or self.valid_from <= on) and (
            self.valid_to is None or on < self.valid_to
        )


def versions_by_level(versions: Iterable[AreaVersion]) -> dict[str, list[AreaVersion]]:
    """The versions of each level, top level first, codes ascending in code-point order."""
    ordered = sorted(versions, key=lambda version: (version.level_rank, version.level, version.code))
    levels: dict[str, list[AreaVersion]] = {}
    for version in ordered:
        levels.setdefault(version.level, []).append(version)
    return levels


def area_of_points(lon_lat: NDArray[np.float64], versions: Sequence[AreaVersion]) -> NDArray[np.int64]:
    """Which area of one level has each point (R12).

    Borders belong to an area, as ST_Intersects has it; where several areas intersect a point, the one with
    the lowest code (in code-point order) has it. So every point has exactly one area or is outside, and the
    areas of a level add up to its total.

    Args:
        lon_lat: (n, 2) longitude, latitude in EPSG:4326.
        versions: of one level, all in force on one date.

    Returns:
        (n,) indices into ``versions``; ``OUTSIDE`` where no area has the point.
    """
    owner = np.full(len(lon_lat), OUTSIDE, dtype=np.int64)
    if not len(lon_lat) or not versions:
        return owner
    # Highest code first, so that the lowest is written last and stays.
    order = sorted(range(len(versions)), key=lambda index: versions[index].code, reverse=True)
    # The tree finds the areas whose box holds a point; then each area, prepared once, is asked about all of
    # its points together: half the time of a tree of points that is asked for what each area intersects.
    tree = shapely.STRtree([versions[index].geometry for index in order])
    of_point, of_area = tree.query(np.asarray(shapely.points(lon_lat), dtype=object))
    by_area = np.argsort(of_area, kind="stable")
    of_point = of_point[by_area]
    starts = np.searchsorted(of_area[by_area], np.arange(len(order) + 1))
    for place, index in enumerate(order):
        candidates = of_point[starts[place] : starts[place + 1]]
        geometry = versions[index].geometry
        shapely.prepare(geometry)
        inside = shapely.intersects_xy(geometry, lon_lat[candidates, 0], lon_lat[candidates, 1])
        owner[candidates[inside]] = index
    return owner


def areas_of_points(
    lon_lat: NDArray[np.float64], versions: Sequence[AreaVersion]
) -> dict[str, NDArray[np.int64]]:
    """``area_of_points`` for each level; indices into ``versions`` as given.

    Args:
        lon_lat: (n, 2) longitude, latitude in EPSG:4326.
        versions: of any levels, all in force on one date.

    Returns:
        level → (n,) indices into ``versions``, ``OUTSIDE`` where no area of the level has the point.
    """
    places: dict[str, list[int]] = {}
    for index, version in enumerate(versions):
        places.setdefault(version.level, []).append(index)
    found: dict[str, NDArray[np.int64]] = {}
    for level, indices in places.items():
        of_level = area_of_points(lon_lat, [versions[index] for index in indices])
        into_all = np.array([*indices, OUTSIDE], dtype=np.int64)
        found[level] = into_all[of_level]  # OUTSIDE is −1: the last entry
    return found
