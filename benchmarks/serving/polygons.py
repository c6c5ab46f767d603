"""Polygons of every kind over the benchmark's city: each of a stated shape and share of its points."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import shapely
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Asked:
    """A polygon (EPSG:4326) and the date for which it is counted."""

    polygon: shapely.Geometry
    as_of: date


def polygons(lon_lat: NDArray[np.float64], assets: int, random: np.random.Generator) -> dict[str, Asked]:
    """By name: 500 vertices with a third of the points, the same in the past, holes, parts, 100,000 vertices, a
    district of 50,000 (never more than half of the points), a block of 200.

    Args:
        lon_lat: (n, 2) some of the points, fairly drawn.
        assets: how many there are in all.
    """
    centre = np.median(lon_lat, axis=0)
    now, before = date(2026, 1, 1), date(2025, 1, 1)
    third = _sized(lambda reach: _star(centre, reach, 500, random_of(1), 0.5), lon_lat, 1 / 3)
    holes = [
        _star(centre + offset, 0.03, 50, random_of(2), 0.4) for offset in ((-0.08, 0), (0.08, 0), (0, 0.08))
    ]
    parts = [
        _star(centre + 0.09 * np.array([column - 2, row - 1.5]), 0.03, 40, random_of(row * 5 + column), 0.4)
        for row in range(4)
        for column in range(5)
    ]
    spot = lon_lat[random.integers(0, len(lon_lat))]
    return {
        "": Asked(third, now),
        "past": Asked(third, before),
        "holes": Asked(
            shapely.difference(_star(centre, 0.2, 400, random_of(3), 0.4), shapely.union_all(holes)), now
        ),
        "parts": Asked(shapely.union_all(parts), now),
        "vertices": Asked(_sized(lambda reach: _coast(centre, reach, 99_999), lon_lat, 1 / 3), now),
        "district": Asked(
            _sized(
                lambda reach: _star(centre, reach, 200, random_of(4), 0.3),
                lon_lat,
                min(50_000 / assets, 0.5),
            ),
            now,
        ),
        "block": Asked(
            _sized(lambda reach: shapely.box(*(spot - reach), *(spot + reach)), lon_lat, 200 / assets),
            now,
        ),
    }


def random_of(seed: int) -> np.random.Generator:
    """A polygon's own randomness, so that it is the same at every size."""
    return np.random.default_rng(seed)


def _star(
    centre: NDArray[np.float64], reach: float, corners: int, random: np.random.Generator, spikes: float
) -> shapely.Geometry:
    """Corners around a centre at random distances: between 1 − ``spikes`` and 1 of the reach."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = reach * (1 - spikes * random.random(corners))
    return shapely.Polygon(
        np.column_stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)])
    )


def _coast(centre: NDArray[np.float64], reach: float, corners: int) -> shapely.Geometry:
    """A coast: detail at every scale, the finer the smaller."""
    random = random_of(5)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    waves = np.unique(np.round(np.geomspace(2, 20_000, 60)))
    radius = 1 + sum(0.3 / wave**0.9 * np.cos(wave * angle + random.uniform(0, 2 * np.pi)) for wave in waves)
    return shapely.Polygon(
        np.column_stack(
            [centre[0] + reach * radius * np.cos(angle), centre[1] + reach * radius * np.sin(angle)]
        )
    )


def _sized(
    make: Callable[[float], shapely.Geometry], lon_lat: NDArray[np.float64], share: float
) -> shapely.Geometry:
    """The polygon whose size holds about this share of the points."""
    sample = lon_lat[:: max(len(lon_lat) // 200_000, 1)]
    low, high = 1e-5, 1.0
    for _ in range(24):
        middle = (low * high) ** 0.5
        polygon = make(middle)
        shapely.prepare(polygon)
        if shapely.intersects_xy(polygon, *sample.T).mean() > share:
            high = middle
        else:
            low = middle
    return make(low)
