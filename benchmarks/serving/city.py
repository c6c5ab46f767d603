"""The benchmark's city: clustered trees, surveyed strip by strip through the program's own write path."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import shapely
from numpy.typing import NDArray

from inventory.store import identities, states
from inventory.store.database import Database
from tests.support.surveys import add_plain_city, make_seen, make_survey, make_taxonomy, store_surveys

CODE, METRIC, ZONE = "serving", "EPSG:32647", "Asia/Shanghai"
CENTRE = (600_000.0, 2_520_000.0)
REACH_M = 30_000.0
CLUSTERS = 2_000
STRIP = 500_000
"""Assets of one survey."""
FIRST, SECOND = (datetime(year, 6, 1, 12, tzinfo=ZoneInfo(ZONE)) for year in (2024, 2025))
COLUMNS, ROWS = 40, 25


def make_city(database: Database, assets: int, seed: int) -> float:
    """The city, its 1,000 areas and so many assets; the last tenth of the ground was first seen a year later.

    Returns:
        Seconds spent in recording assets: ids, states with history, memberships and sums; not in storing and
        reading observations, nor in matching.
    """
    random = np.random.default_rng(seed)
    add_plain_city(
        database,
        CODE,
        metric_crs=METRIC,
        ground=_box(-REACH_M - 500, REACH_M + 500),
        areas=_areas(),
        time_zone=ZONE,
    )
    places = _clustered(assets, random)
    strips = max(10, -(-assets // STRIP))
    edges = np.quantile(places[:, 0], np.linspace(0, 1, strips + 1))
    edges[0], edges[-1] = CENTRE[0] - REACH_M - 400, CENTRE[0] + REACH_M + 400
    later = strips - strips // 10
    spent: list[float] = []
    with _timed_recording(spent):
        for number, (west, east) in enumerate(pairwise(edges)):
            mine = places[(places[:, 0] >= west) & (places[:, 0] < east)]
            ground = shapely.box(west, CENTRE[1] - REACH_M - 400, east, CENTRE[1] + REACH_M + 400)
            seen = make_seen(
                mine,
                size_m=random.uniform(3, 9, len(mine)),
                score=random.uniform(0.3, 0.99, len(mine)),
                error_m=0.5,
                origin=CENTRE,
            )
            survey = make_survey(ground, FIRST if number < later else SECOND, seen)
            store_surveys(database, CODE, [survey], taxonomy=make_taxonomy())
    return sum(spent)


def _box(low: float, high: float) -> shapely.Geometry:
    return shapely.box(*np.add(CENTRE, low), *np.add(CENTRE, high))


def _areas() -> dict[str, shapely.Geometry]:
    wide, high = 2 * REACH_M / COLUMNS, 2 * REACH_M / ROWS
    west, south = np.subtract(CENTRE, REACH_M)
    return {
        f"{row:02d}{column:02d}": shapely.box(
            west + column * wide, south + row * high, west + (column + 1) * wide, south + (row + 1) * high
        )
        for row in range(ROWS)
        for column in range(COLUMNS)
    }


def _clustered(assets: int, random: np.random.Generator) -> NDArray[np.float64]:
    centres = random.uniform(-REACH_M * 0.95, REACH_M * 0.95, (CLUSTERS, 2))
    wide = random.uniform(100, 1_500, CLUSTERS)
    of = random.integers(0, CLUSTERS, assets)
    places = centres[of] + random.normal(0, 1, (assets, 2)) * wide[of, None]
    return np.asarray(np.clip(places, -REACH_M, REACH_M) + CENTRE)


@contextmanager
def _timed_recording(spent: list[float]) -> Iterator[None]:
    originals = [(states, "replace_states"), (identities, "save_ids")]
    kept = [(module, name, getattr(module, name)) for module, name in originals]
    for module, name, original in kept:
        setattr(module, name, _stopwatch(original, spent))
    try:
        yield
    finally:
        for module, name, original in kept:
            setattr(module, name, original)


def _stopwatch(function: Any, spent: list[float]) -> Any:
    def timed(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent.append(time.perf_counter() - begun)

    return timed
