"""Which looks saw a polygon, and how much of it: coverage of ground that no area has kept beforehand (R5, R13)."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray

_GROUNDS_KEPT = 4
"""Unions of looks kept at once: of now, and of a few dates of the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Share of a polygon that was looked at, instants of the first and the last look at it, their models."""

    share: float
    oldest_look: datetime
    newest_look: datetime
    models: tuple[str, ...]


class SeenGround:
    """The looks at a city for one class, as polygons are asked against them.

    Args:
        at: (n,) their instants, rising.
        models: (n,) SHA-256 of each one's model.
        surveyed: (n,) ground that each saw, EPSG:4326.
    """

    def __init__(self, at: Sequence[datetime], models: Sequence[str], surveyed: NDArray[np.object_]) -> None:
        self._at, self._models, self._surveyed = list(at), list(models), surveyed
        self._tree = shapely.STRtree(surveyed)
        self._ground = lru_cache(_GROUNDS_KEPT)(self._union)

    def _union(self, first: int) -> shapely.Geometry:
        ground = shapely.union_all(self._surveyed[:first])
        shapely.prepare(ground)
        return ground

    def of(self, polygon: shapely.Geometry, until: datetime) -> Seen | None:
        """What looks up to an instant saw of a valid polygon, EPSG:4326; None: nothing."""
        before = bisect.bisect_right(self._at, until)
        touching = np.sort(self._tree.query(polygon, predicate="intersects"))
        touching = touching[touching < before]
        if not len(touching):
            return None
        return Seen(
            share=_share(polygon, self._ground(before)),
            oldest_look=self._at[touching[0]],
            newest_look=self._at[touching[-1]],
            models=tuple(sorted({self._models[look] for look in touching.tolist()})),
        )


def _share(polygon: shapely.Geometry, ground: shapely.Geometry) -> float:
    # Most questions are about ground that was seen whole, which is soon known.
    if shapely.covers(ground, polygon):
        return 1.0
    seen = shapely.intersection(polygon, ground)
    return min(float(shapely.area(_equal_area(seen)) / shapely.area(_equal_area(polygon))), 1.0)


def _equal_area(geometry: shapely.Geometry) -> shapely.Geometry:
    """Degrees by Lambert's cylindrical equal-area projection of the sphere.

    The shares of ground in one city are those on the ellipsoid to 2e-4: what differs is how the two change with
    latitude, over a degree at most. Source: Snyder, Map Projections (USGS Professional Paper 1395, 1987), § 10.
    """

    def projected(lon_lat: NDArray[np.float64]) -> NDArray[np.float64]:
        lon, lat = np.radians(lon_lat).T
        return np.column_stack([lon, np.sin(lat)])

    return shapely.transform(geometry, projected)
