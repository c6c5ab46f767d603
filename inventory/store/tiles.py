"""Vector tiles (Mapbox Vector Tile 2), made where the assets are: points, or clusters where there are too many.

How many a tile holds comes from the packed leaves (``leaf_rows.py``) and their deltas, in one snapshot, so that the
counts of all tiles of a zoom add up to what is listed. A tile of few is read from the states, with what is known of
each. PostGIS encodes both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from inventory.domain.boxes import ground_of
from inventory.domain.evidence import Floats, Integers, to_micros
from inventory.domain.quadtree import SOUTH, UNITS_PER_DEGREE, WEST
from inventory.domain.tiles import EXTENT, Tile, clustered
from inventory.store.leaf_rows import PackedClass, fetched, packed_classes

POINTS_MOST = 2_000
"""A tile of more is served as clusters: some 150 bytes a point make it 300 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileWanted:
    """Of which city, of which classes, as of when; ``now``: the states that are valid still."""

    city_id: int
    classes: tuple[str, ...]
    as_of: datetime
    now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeTile:
    """A tile: encoded, and how many assets are in it; empty where there are none."""

    content: bytes
    assets: int


def assets_tile(connection: Connection, tile: Tile, wanted: TileWanted) -> MadeTile:
    """The layer ``assets`` of a tile: points, or clusters with ``count`` and a count of each class.

    The transaction must see one snapshot.
    """
    held = [_held(connection, tile, name, wanted) for name in wanted.classes]
    total = sum(int(counts.sum()) for _, _, counts in held)
    if total <= 0:
        return MadeTile(content=b"", assets=0)
    if total <= POINTS_MOST:
        return MadeTile(content=_points(connection, tile, wanted), assets=total)
    return MadeTile(content=_clusters(connection, tile, wanted, held), assets=total)


# --- how many, where ------------------------------------------------------------------------------------------

_DELTAS = """
    SELECT lon, lat, sum(listed)::bigint FROM urban_inventory.leaf_delta
    WHERE city_id = %(city)s AND class = %(class)s AND at <= %(as_of)s
        AND lon BETWEEN %(west)s AND %(east)s AND lat BETWEEN %(south)s AND %(north)s
    GROUP BY lon, lat
"""


def _held(
    connection: Connection, tile: Tile, name: str, wanted: TileWanted
) -> tuple[Floats, Floats, Integers]:
    """Places in degrees and how many of a class are listed there: points, and whole leaves as one."""
    parts = []
    packed = packed_classes(connection, wanted.city_id).get(name)
    if packed is not None:
        parts += _in_leaves(connection, packed, tile, to_micros(wanted.as_of))
    box = tile.units
    rows = fetched(
        connection,
        _DELTAS,
        {
            "city": wanted.city_id, "class": name, "as_of": wanted.as_of,
            "west": box.west, "east": box.east, "south": box.south, "north": box.north,
        },
    )  # fmt: skip
    if rows:
        lon, lat, counts = (np.array(column, np.float64) for column in zip(*rows, strict=True))
        parts.append((lon / UNITS_PER_DEGREE, lat / UNITS_PER_DEGREE, counts.astype(np.int64)))
    nothing = np.empty(0, np.float64)
    lon, lat, counts = (np.concatenate([nothing, *(part[column] for part in parts)]) for column in range(3))
    return lon, lat, counts.astype(np.int64)


def _in_leaves(
    connection: Connection, packed: PackedClass, tile: Tile, until: int
) -> list[tuple[Floats, Floats, Integers]]:
    leaves, box = packed.leaves, tile.units
    ground = packed.part("ground", lambda: ground_of(leaves))
    inside, crossed = (rows[leaves.oldest[rows] <= until] for rows in ground.lying(box))
    # A leaf as large as a cluster's cell would be put where few of its points are.
    narrow = (ground.east - ground.west)[inside] < (box.east - box.west) / 64
    whole, split = inside[narrow], np.union1d(inside[~narrow], crossed)
    middle_lon = (ground.west[whole] + ground.east[whole]) / 2 / UNITS_PER_DEGREE
    middle_lat = (ground.south[whole] + ground.north[whole]) / 2 / UNITS_PER_DEGREE
    parts = [(middle_lon, middle_lat, _listed_then(connection, packed, whole, until))]
    if len(split):
        x, y = packed.places(connection, split)
        lon, lat = x.astype(np.int64) - WEST, y.astype(np.int64) - SOUTH
        changes = packed.changes(connection, split)
        counts = np.where(changes["at"] <= until, changes["listed"], 0).astype(np.int64)
        held = box.holds(lon, lat) & (counts != 0)
        parts.append((lon[held] / UNITS_PER_DEGREE, lat[held] / UNITS_PER_DEGREE, counts[held]))
    return parts


def _listed_then(connection: Connection, packed: PackedClass, rows: Integers, until: int) -> Integers:
    """(n,) how many each leaf had listed at an instant."""
    listed = packed.leaves.listed[rows].copy()
    changing = np.flatnonzero(packed.leaves.newest[rows] > until)
    if len(changing):
        kinds = packed.kinds(connection, rows[changing])
        said = np.where(kinds["at"] <= until, kinds["listed"].astype(np.int64) * kinds["events"], 0)
        each = packed.leaves.kinds[rows[changing]]
        listed[changing] = np.add.reduceat(said, np.cumsum(each) - each)
    return listed


# --- encoding ---------------------------------------------------------------------------------------------------

_POINTS = f"""
    SELECT ST_AsMVT(t, 'assets', {EXTENT}, 'geom') FROM (
        SELECT ST_AsMVTGeom(ST_Transform(s.geom, 3857), ST_TileEnvelope(:zoom, :column, :row), {EXTENT}, 64, false)
                AS geom,
            a.public_id AS id, s.class, s.status, s.verified, s.review, s.probability, s.width_m, s.height_m,
            to_char(s.last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS last_seen
        FROM urban_inventory.asset_state s
        CROSS JOIN LATERAL (
            SELECT public_id FROM urban_inventory.asset WHERE city_id = :city AND id = s.asset_id OFFSET 0
        ) a
        WHERE s.city_id = :city AND s.listed AND s.asset_id IS NOT NULL
            AND s.geom && ST_MakeEnvelope(:west, :south, :east, :north, 4326)
            AND ST_X(s.geom) BETWEEN :west AND :east AND ST_Y(s.geom) BETWEEN :south AND :north
            AND s.class = ANY(CAST(:classes AS text[])) AND (VALID)
    ) t
"""
_POINTS_OF = {
    True: text(_POINTS.replace("VALID", "s.valid_to IS NULL")),
    False: text(
        _POINTS.replace("VALID", "s.valid_from <= :as_of AND (s.valid_to IS NULL OR s.valid_to > :as_of)")
    ),
}


def _points(connection: Connection, tile: Tile, wanted: TileWanted) -> bytes:
    box = tile.units
    parameters: dict[str, Any] = {
        "city": wanted.city_id, "zoom": tile.zoom, "column": tile.column, "row": tile.row,
        "west": box.west / UNITS_PER_DEGREE, "south": box.south / UNITS_PER_DEGREE,
        "east": box.east / UNITS_PER_DEGREE, "north": box.north / UNITS_PER_DEGREE,
        "classes": list(wanted.classes),
    }  # fmt: skip
    if not wanted.now:
        parameters["as_of"] = wanted.as_of
    return bytes(connection.execute(_POINTS_OF[wanted.now], parameters).scalar_one() or b"")


def _clusters(
    connection: Connection,
    tile: Tile,
    wanted: TileWanted,
    held: Sequence[tuple[Floats, Floats, Integers]],
) -> bytes:
    lon, lat = (np.concatenate([part[column] for part in held]) for column in (0, 1))
    counts = np.zeros((len(lon), len(held)), np.int64)
    begin = 0
    for number, (_, _, mine) in enumerate(held):
        counts[begin : begin + len(mine), number] = mine
        begin += len(mine)
    made = clustered(tile, lon, lat, counts)
    # A class that is the only one needs no count of its own.
    named = list(enumerate(wanted.classes)) if len(wanted.classes) > 1 else []
    arrays = ", ".join(["CAST(:x AS int[])", "CAST(:y AS int[])", "CAST(:count AS bigint[])",
                        *(f"CAST(:c{number} AS bigint[])" for number, _ in named)])  # fmt: skip
    columns = ", ".join(["x", "y", "count", *(f"c{number}" for number, _ in named)])
    shown = ", ".join(["count", *(f"nullif(c{number}, 0) AS n{number}" for number, _ in named)])
    # Names of classes are the caller's: they go in as text, by jsonb, which ST_AsMVT turns into tags.
    tags = "".join(f", CAST(:name{number} AS text), n{number}" for number, _ in named)
    statement = text(
        f"""
        SELECT ST_AsMVT(t, 'assets', {EXTENT}, 'geom') FROM (
            SELECT ST_MakePoint(x, y) AS geom, jsonb_strip_nulls(jsonb_build_object('count', count{tags})) AS tags
            FROM (SELECT x, y, {shown} FROM unnest({arrays}) AS u ({columns})) s
        ) t
        """
    )
    parameters: dict[str, Any] = {
        "x": _array(np.rint(made.x).astype(int)),
        "y": _array(np.rint(made.y).astype(int)),
        "count": _array(made.counts.sum(axis=1)),
    }
    for number, name in named:
        parameters |= {f"c{number}": _array(made.counts[:, number]), f"name{number}": f"{name}_count"}
    return bytes(connection.execute(statement, parameters).scalar_one())


def _array(values: Integers) -> str:
    """An array as PostgreSQL writes it: the driver takes five times as long for a list."""
    return f"{{{','.join(map(str, values.tolist()))}}}"


# --- areas ------------------------------------------------------------------------------------------------------

_AREAS = text(
    f"""
    SELECT ST_AsMVT(t, 'areas', {EXTENT}, 'geom') FROM (
        SELECT ST_AsMVTGeom(ST_Transform(ST_Intersection(v.geom, e.around), 3857),
                ST_TileEnvelope(:zoom, :column, :row), {EXTENT}, 64, true) AS geom,
            v.code, v.name, v.level, c.counts
        FROM urban_inventory.area_version v
        CROSS JOIN (
            SELECT ST_Expand(ST_MakeEnvelope(:west, :south, :east, :north, 4326), (:east - :west) / 16) AS around
        ) e
        LEFT JOIN unnest(CAST(:codes AS text[]), CAST(:counts AS text[])) AS said (code, counts) ON said.code = v.code
        CROSS JOIN LATERAL (SELECT CAST(said.counts AS jsonb) AS counts) c
        WHERE v.city_id = :city AND v.level = :level AND v.valid @> CAST(:on AS date)
            AND ST_Intersects(v.geom, e.around)
    ) t WHERE geom IS NOT NULL
    """
)


def areas_tile(
    connection: Connection, tile: Tile, city_id: int, level: str, on: date, counts: dict[str, str]
) -> bytes:
    """The layer ``areas`` of a tile: polygons of a level with their counts.

    Args:
        counts: by code, a JSON object of what is told of the area's counts.
    """
    west, south, east, north = tile.box
    parameters = {
        "city": city_id, "level": level, "on": on, "zoom": tile.zoom, "column": tile.column, "row": tile.row,
        "west": west, "south": south, "east": east, "north": north,
        "codes": list(counts), "counts": list(counts.values()),
    }  # fmt: skip
    return bytes(connection.execute(_AREAS, parameters).scalar_one() or b"")
