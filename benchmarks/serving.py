"""How fast is a city of millions of assets served, beside plain PostGIS on the same points?

    python -m benchmarks.serving [--assets 5000000] [--rounds 5] --json

One city of clustered trees in an embedded cluster with production settings, looked at whole. The rival has the same
points in a table of its own: one geometry column, GiST index, clustered by it, vacuumed, warm. Both count the same
polygons; answers are compared to the last asset. Ours is the whole answer from the body's bytes on: parsed,
checked, counted, with coverage, interval and dates. Times are medians of ``rounds``. Prints:

- ``assets``; ``pack_s``: packing all of them into leaves; ``insert_s``: writing their states;
- ``polygon_count_ms``, ``polygon_count_vs_postgis``, ``polygon_count_vs_subdivide``: 500 vertices, about a third
  inside; the rival by ``ST_Intersects``, and by ``ST_Subdivide`` first;
- the same of ``holes`` (3), ``parts`` (20), ``vertices`` (100,000), ``district`` (about 50,000 inside), ``block``
  (200), and ``past``: the first polygon as of a day before some assets came. A district is never more than half a city.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from sqlalchemy import text

from inventory.counting import count
from inventory.domain.evidence import to_micros
from inventory.polygons import read_polygon
from inventory.store import cities, leaves
from inventory.store.cluster import open_cluster
from inventory.store.copy import copy_rows, instants, points
from inventory.store.database import Connection, Database, Patience, open_database
from inventory.store.schema import asset_state
from tests.support.surveys import add_plain_city, make_seen, make_survey, make_taxonomy, store_surveys

CODE, METRIC = "serving", "EPSG:32647"
CENTRE = (600_000.0, 2_520_000.0)
REACH_M = 30_000.0
CLUSTERS = 2_000
FIRST, SECOND = datetime(2024, 6, 1, 4, tzinfo=UTC), datetime(2025, 6, 1, 4, tzinfo=UTC)
CHANGED = 0.1
"""Share of the assets that came with the second look."""


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcome = measure(given.assets, given.rounds, given.seed)
    if given.json:
        print(json.dumps(outcome))
    else:
        for name, value in outcome.items():
            print(f"{name:>32} {value}")


def measure(assets: int, rounds: int, seed: int) -> dict[str, Any]:
    """All figures."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="ui-serving-") as folder:
        # As root the server runs as another user, who has to pass.
        Path(folder).chmod(0o711)
        with open_database(Path(folder) / "home") as database:
            outcome: dict[str, Any] = {"assets": assets, **_make_city(database, assets, random)}
            with open_cluster(Path(folder) / "home" / "postgres") as cluster:
                rival = _Rival(cluster.owner_url.replace("+psycopg", ""))
            for name, asked in _polygons(rival.lon_lat(), random).items():
                outcome |= _measured(database, rival, name, asked, rounds)
    return outcome


# --- the city -----------------------------------------------------------------------------------------------


def _make_city(database: Database, assets: int, random: np.random.Generator) -> dict[str, Any]:
    ground = shapely.box(*np.subtract(CENTRE, REACH_M + 500), *np.add(CENTRE, REACH_M + 500))
    add_plain_city(database, CODE, metric_crs=METRIC, ground=ground, areas={}, time_zone="Asia/Shanghai")
    one = make_seen(
        np.array([np.add(CENTRE, REACH_M + 400)]),
        size_m=np.array([5.0]),
        score=np.array([0.9]),
        error_m=0.5,
        origin=CENTRE,
    )
    surveys = [make_survey(ground, at, one) for at in (FIRST, SECOND)]
    store_surveys(database, CODE, surveys, taxonomy=make_taxonomy())
    places = _clustered(assets, random)
    with database.transaction(Patience.JOB) as connection:
        city = cities.get_city(connection, CODE)
        begun = time.perf_counter()
        for start in range(0, assets, 500_000):
            _insert_states(connection, city.id, places[start : start + 500_000], start, random)
        inserted = time.perf_counter()
        leaves.pack(connection, city)
        packed = time.perf_counter()
    with database.transaction(Patience.JOB) as connection:
        connection.execute(text("SELECT urban_inventory.city_analyze(:city)"), {"city": city.id})
    return {"insert_s": round(inserted - begun, 1), "pack_s": round(packed - inserted, 1)}


def _clustered(assets: int, random: np.random.Generator) -> NDArray[np.float64]:
    centres = random.uniform(-REACH_M * 0.95, REACH_M * 0.95, (CLUSTERS, 2))
    wide = random.uniform(100, 1_500, CLUSTERS)
    of = random.integers(0, CLUSTERS, assets)
    places = centres[of] + random.normal(0, 1, (assets, 2)) * wide[of, None]
    return np.asarray(np.clip(places, -REACH_M, REACH_M) + CENTRE)


def _insert_states(
    connection: Connection, city_id: int, places: NDArray[np.float64], start: int, random: np.random.Generator
) -> None:
    n = len(places)
    lon_lat = np.round(
        np.column_stack(Transformer.from_crs(METRIC, 4326, always_xy=True).transform(*places.T)), 7
    )
    number = np.arange(start + 1, start + n + 1) + 10
    begin = np.where(random.random(n) < CHANGED, to_micros(SECOND), to_micros(FIRST))
    copy_rows(
        connection,
        asset_state,
        {
            "city_id": city_id, "asset_id": number, "observation_id": number, "class": np.full(n, "tree", object),
            "valid_from": instants(begin), "listed": True, "status": "present", "verified": False, "review": False,
            "probability": 0.9, "geom": points(lon_lat), "x": places[:, 0], "y": places[:, 1], "error_m": 0.5,
            "width_m": 5.0, "height_m": 5.0, "score": 0.8, "hits": 1, "first_seen": instants(begin),
            "last_seen": instants(begin), "digest": number, "track": number, "minted_as": "tree", "cell": 0,
            "hit": True, "placed": False, "felled": False, "misses": 0, "lasting": pa.repeat(pa.scalar(0.0), n),
            "content": number,
        },
    )  # fmt: skip


# --- the polygons --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    polygon: shapely.Geometry
    as_of: date


def _polygons(lon_lat: NDArray[np.float64], random: np.random.Generator) -> dict[str, _Asked]:
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
        "": _Asked(third, now),
        "past": _Asked(third, before),
        "holes": _Asked(
            shapely.difference(_star(centre, 0.2, 400, random_of(3), 0.4), shapely.union_all(holes)), now
        ),
        "parts": _Asked(shapely.union_all(parts), now),
        "vertices": _Asked(_sized(lambda reach: _coast(centre, reach, 99_999), lon_lat, 1 / 3), now),
        "district": _Asked(
            _sized(
                lambda reach: _star(centre, reach, 200, random_of(4), 0.3),
                lon_lat,
                min(50_000 / len(lon_lat), 0.5),
            ),
            now,
        ),
        "block": _Asked(
            _sized(lambda reach: shapely.box(*(spot - reach), *(spot + reach)), lon_lat, 200 / len(lon_lat)),
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


# --- both sides ----------------------------------------------------------------------------------------------


def _measured(database: Database, rival: "_Rival", name: str, asked: _Asked, rounds: int) -> dict[str, Any]:
    body = shapely.to_geojson(asked.polygon).encode()
    polygon = read_polygon(body)
    ours, theirs, divided = [], [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        (row,) = count(database, CODE, classes=["tree"], polygon=read_polygon(body), as_of=asked.as_of)
        ours.append(time.perf_counter() - begun)
    for _ in range(1 if name == "vertices" else min(rounds, 3)):
        if name != "vertices":
            seconds, plain = rival.count(polygon, asked.as_of)
            theirs.append(seconds)
            assert plain == row.count, (name, plain, row.count)
        seconds, subdivided = rival.count_divided(polygon, asked.as_of)
        divided.append(seconds)
        assert subdivided == row.count, (name, subdivided, row.count)
    told = f"polygon_{name}_count" if name else "polygon_count"
    mine = statistics.median(ours)
    print(f"{told}: {row.count} of coverage {row.coverage}, {mine * 1e3:.1f} ms", file=sys.stderr)
    outcome = {f"{told}_ms": round(mine * 1e3, 2)}
    if theirs:
        outcome[f"{told}_vs_postgis"] = round(statistics.median(theirs) / mine, 1)
    return {**outcome, f"{told}_vs_subdivide": round(statistics.median(divided) / mine, 1)}


class _Rival:
    """The same points in a plain table, as PostGIS's own manual would lay them out."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        for statement in (
            "CREATE SCHEMA rival",
            "CREATE TABLE rival.points AS SELECT geom, valid_from FROM urban_inventory.asset_state"
            " WHERE listed ORDER BY ST_GeoHash(geom)",
            "CREATE INDEX points_geom ON rival.points USING gist (geom)",
            "VACUUM ANALYZE rival.points",
        ):
            self._connection.execute(statement)

    def lon_lat(self) -> NDArray[np.float64]:
        """All points."""
        rows = self._connection.execute(
            "SELECT array_agg(ST_X(geom)), array_agg(ST_Y(geom)) FROM rival.points"
        ).fetchone()
        assert rows is not None
        return np.column_stack([np.array(column) for column in rows])

    def count(self, polygon: shapely.Geometry, as_of: date) -> tuple[float, int]:
        """Seconds and count of one plain query."""
        begun = time.perf_counter()
        found = self._connection.execute(
            "SELECT count(*) FROM rival.points p WHERE ST_Intersects(p.geom, %(polygon)s::geometry)"
            " AND p.valid_from < %(as_of)s::date + 1",
            {
                "polygon": shapely.to_wkb(shapely.set_srid(polygon, 4326), hex=True, include_srid=True),
                "as_of": as_of,
            },
        ).fetchone()
        assert found is not None
        return time.perf_counter() - begun, int(found[0])

    def count_divided(self, polygon: shapely.Geometry, as_of: date) -> tuple[float, int]:
        """The same, the polygon cut into small pieces first; a point on a cut counts once."""
        begun = time.perf_counter()
        found = self._connection.execute(
            """
            WITH pieces AS MATERIALIZED (SELECT ST_Subdivide(%(polygon)s::geometry, 128) AS piece)
            SELECT count(DISTINCT p.ctid) FROM pieces JOIN rival.points p ON ST_Intersects(p.geom, piece)
            WHERE p.valid_from < %(as_of)s::date + 1
            """,
            {
                "polygon": shapely.to_wkb(shapely.set_srid(polygon, 4326), hex=True, include_srid=True),
                "as_of": as_of,
            },
        ).fetchone()
        assert found is not None
        return time.perf_counter() - begun, int(found[0])


if __name__ == "__main__":
    main()
