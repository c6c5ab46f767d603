"""The same assets in a plain table, as PostGIS's own manual and its servers would have them."""

import time
from datetime import date

import numpy as np
import psycopg
import shapely
from numpy.typing import NDArray

SCHEMA, TABLE = "rival", "trees"
_MAKE = (
    f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE",
    f"CREATE SCHEMA {SCHEMA}",
    f"""
    CREATE TABLE {SCHEMA}.{TABLE} AS
    SELECT a.public_id AS id, s.class, s.status, s.verified, s.probability, s.width_m, s.height_m,
        s.error_m AS position_error_m, s.first_seen, s.last_seen, s.valid_from, s.geom
    FROM urban_inventory.asset_state s
    JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id
    WHERE s.listed AND s.valid_to IS NULL ORDER BY ST_GeoHash(s.geom)
    """,
    f"ALTER TABLE {SCHEMA}.{TABLE} ADD PRIMARY KEY (id)",
    f"CREATE INDEX trees_geom ON {SCHEMA}.{TABLE} USING gist (geom)",
    f"VACUUM ANALYZE {SCHEMA}.{TABLE}",
)
_PLAIN = f"""
    SELECT count(*) FROM {SCHEMA}.{TABLE} p
    WHERE ST_Intersects(p.geom, %(polygon)s::geometry) AND p.valid_from < %(as_of)s::date + 1
"""
# A point on a cut would count twice; the pieces of these polygons hold few such, or none.
_DIVIDED = f"""
    WITH pieces AS MATERIALIZED (SELECT ST_Subdivide(%(polygon)s::geometry, 128) AS piece)
    SELECT count(*) FROM pieces JOIN {SCHEMA}.{TABLE} p ON ST_Intersects(p.geom, piece)
    WHERE p.valid_from < %(as_of)s::date + 1
"""


class Rival:
    """One connection to that table, and what it answers."""

    def __init__(self, url: str, *, make: bool) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        for statement in _MAKE if make else ():
            self._connection.execute(statement)

    def vacuum(self, table: str) -> None:
        """Vacuums one of our tables, as its own is; autovacuum would, a while later."""
        self._connection.execute(f"VACUUM ANALYZE urban_inventory.{table}")

    def sample(self, rows: int, seed: int) -> tuple[list[str], NDArray[np.float64]]:
        """Ids and (n, 2) positions of some points, fairly drawn."""
        share = min(100.0, 120.0 * rows / max(self.size(), 1))
        found = self._connection.execute(
            f"SELECT id, ST_X(geom), ST_Y(geom) FROM {SCHEMA}.{TABLE} TABLESAMPLE bernoulli (%s) REPEATABLE (%s)",
            (share, seed),
        ).fetchall()
        order = np.random.default_rng(seed).permutation(len(found))[:rows]
        lon_lat = np.array([row[1:] for row in found])
        return [found[row][0] for row in order.tolist()], lon_lat[order]

    def size(self) -> int:
        """How many points there are."""
        (found,) = self._connection.execute(f"SELECT count(*) FROM {SCHEMA}.{TABLE}").fetchall()
        return int(found[0])

    def count(self, polygon: shapely.Geometry, as_of: date, *, divided: bool) -> tuple[float, int]:
        """Seconds and count of one query; ``divided``: the polygon is cut into small pieces first."""
        geometry = shapely.to_wkb(shapely.set_srid(polygon, 4326), hex=True, include_srid=True)
        begun = time.perf_counter()
        (found,) = self._connection.execute(
            _DIVIDED if divided else _PLAIN, {"polygon": geometry, "as_of": as_of}
        ).fetchall()
        return time.perf_counter() - begun, int(found[0])
