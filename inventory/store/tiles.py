"""Vector tiles (Mapbox Vector Tile 2), made where the assets are: points, or clusters where there are too many.

How many a tile holds comes from the packed leaves (``leaf_rows.py``) and their deltas, in one snapshot, so that the
counts of all tiles of a zoom add up to what is listed. A tile of few is read from the states, with what is known of
each. PostGIS encodes both. The caller's transactions must see one snapshot, here and in all functions.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from inventory.domain.boxes import ground_of, unit_box
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
    """The layer ``assets`` of a tile: points, or clusters with ``count`` and a count of each class."""
    held = _held(connection, tile, wanted)
    total = _sum(held)
    if total <= 0:
        return MadeTile(content=b"", assets=0)
    if total <= POINTS_MOST:
        return MadeTile(content=_points(connection, tile, wanted), assets=total)
    return MadeTile(content=_clusters(connection, tile, wanted, held), assets=total)


def assets_in(connection: Connection, tile: Tile, wanted: TileWanted) -> int:
    """How many assets a tile has."""
    return _sum(_held(connection, tile, wanted))


def classes_held(connection: Connection, city_id: int) -> list[str]:
    """Classes of which anything is listed, or was."""
    waiting = text("SELECT DISTINCT class FROM urban_inventory.leaf_delta WHERE city_id = :city")
    names = connection.execute(waiting, {"city": city_id}).scalars()
    return sorted({*packed_classes(connection, city_id), *names})


_BOX_OF_DELTAS = text(
    """
    SELECT min(lon) AS west, min(lat) AS south, max(lon) AS east, max(lat) AS north
    FROM urban_inventory.leaf_delta WHERE city_id = :city
    """
)


def box_with_assets(
    connection: Connection, city_id: int, box: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """A box (west, south, east, north; EPSG:4326), grown where something listed, now or ever, lies beyond it."""
    known = unit_box(*box)
    boxes = [(known.west, known.south, known.east, known.north)]
    row = connection.execute(_BOX_OF_DELTAS, {"city": city_id}).one()
    if row.west is not None:
        boxes.append(tuple(row))
    for packed in packed_classes(connection, city_id).values():
        leaves = packed.leaves
        ground = packed.part("ground", functools.partial(ground_of, leaves))
        within = (ground.west >= known.west) & (ground.east <= known.east)
        within &= (ground.south >= known.south) & (ground.north <= known.north)
        # A leaf may be far larger than what lies in it.
        x, y = packed.places(connection, np.flatnonzero(~within))
        if len(x):
            boxes.append(
                (int(x.min()) - WEST, int(y.min()) - SOUTH, int(x.max()) - WEST, int(y.max()) - SOUTH)
            )
    west, south, east, north = zip(*boxes, strict=True)
    lowest, highest = (min(west), min(south)), (max(east), max(north))
    grown = (part / UNITS_PER_DEGREE for part in (*lowest, *highest))
    return (
        min(box[0], next(grown)),
        min(box[1], next(grown)),
        max(box[2], next(grown)),
        max(box[3], next(grown)),
    )


# --- how many, where ------------------------------------------------------------------------------------------

_Held = tuple[Floats, Floats, Integers]
"""Places in degrees, and how many are listed there: points, and whole leaves as one."""
_DELTAS = """
    SELECT class, lon, lat, sum(listed)::bigint FROM urban_inventory.leaf_delta
    WHERE city_id = %(city)s AND class = ANY(%(classes)s) AND at <= %(as_of)s
        AND lon BETWEEN %(west)s AND %(east)s AND lat BETWEEN %(south)s AND %(north)s
    GROUP BY class, lon, lat HAVING sum(listed) <> 0
"""


def _sum(held: Sequence[_Held]) -> int:
    return sum(int(counts.sum()) for _, _, counts in held)


def _held(connection: Connection, tile: Tile, wanted: TileWanted) -> list[_Held]:
    """What a tile holds of each class wanted."""
    box = tile.units
    asked = {
        "city": wanted.city_id, "classes": list(wanted.classes), "as_of": wanted.as_of,
        "west": box.west, "east": box.east, "south": box.south, "north": box.north,
    }  # fmt: skip
    waiting: dict[str, list[tuple[Any, ...]]] = {}
    for name, *row in fetched(connection, _DELTAS, asked):
        waiting.setdefault(name, []).append(tuple(row))
    known = packed_classes(connection, wanted.city_id)
    until = to_micros(wanted.as_of)
    return [_held_of(connection, tile, known.get(name), waiting.get(name), until) for name in wanted.classes]


def _held_of(
    connection: Connection,
    tile: Tile,
    packed: PackedClass | None,
    waiting: list[tuple[Any, ...]] | None,
    until: int,
) -> _Held:
    parts = [] if packed is None else _in_leaves(connection, packed, tile, until)
    if waiting:
        lon, lat, counts = (np.array(column, np.float64) for column in zip(*waiting, strict=True))
        parts.append((lon / UNITS_PER_DEGREE, lat / UNITS_PER_DEGREE, counts.astype(np.int64)))
    nothing = np.empty(0, np.float64)
    lon, lat, counts = (np.concatenate([nothing, *(part[column] for part in parts)]) for column in range(3))
    return lon, lat, counts.astype(np.int64)


def _in_leaves(connection: Connection, packed: PackedClass, tile: Tile, until: int) -> list[_Held]:
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
            AND s.geom && ST_Expand(ST_MakeEnvelope(:west, :south, :east, :north, 4326), 1e-7)
            -- Rounded as leaves and deltas have it: so a point is where it was counted, whoever stored it.
            AND round(ST_X(s.geom) * 1e7) BETWEEN :first_lon AND :last_lon
            AND round(ST_Y(s.geom) * 1e7) BETWEEN :first_lat AND :last_lat
            AND s.class = ANY(CAST(:classes AS text[])) AND (VALID)
        ORDER BY s.asset_id
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
        "first_lon": box.west, "last_lon": box.east, "first_lat": box.south, "last_lat": box.north,
        "classes": list(wanted.classes),
    }  # fmt: skip
    if not wanted.now:
        parameters["as_of"] = wanted.as_of
    return bytes(connection.execute(_POINTS_OF[wanted.now], parameters).scalar_one() or b"")


def _clusters(
    connection: Connection,
    tile: Tile,
    wanted: TileWanted,
    held: Sequence[_Held],
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

_AREAS_IN = text(
    """
    SELECT v.id, v.code FROM urban_inventory.area_version v
    WHERE v.city_id = :city AND v.level = coalesce(:level, v.level) AND v.valid @> CAST(:on AS date)
        AND ST_Intersects(v.geom, ST_Expand(ST_MakeEnvelope(:west, :south, :east, :north, 4326), 1e-6))
    ORDER BY v.code, v.id
    """
)
# Clipped before they are projected, with room around: a border along the edge of a tile is nobody's border.
_AREAS = text(
    """
    WITH named AS (
        SELECT v.geom, v.code, v.name, v.level, CAST(said.counts AS jsonb) AS counts
        FROM unnest(CAST(:ids AS bigint[]), CAST(:counts AS text[])) WITH ORDINALITY AS said (id, counts, number)
        JOIN urban_inventory.area_version v ON v.id = said.id
        ORDER BY said.number
    ), around AS (
        SELECT Box2D(ST_Expand(ST_MakeEnvelope(:west, :south, :east, :north, 4326), :margin)) AS box
    ), tile AS (
        SELECT ST_TileEnvelope(:zoom, :column, :row) AS box
    ), outlines AS (
        SELECT ST_AsMVT(t, 'areas', :extent, 'geom') AS made FROM (
            SELECT ST_AsMVTGeom(ST_Transform(ST_ClipByBox2D(n.geom, around.box), 3857), tile.box, :extent,
                    :extent / 64, true) AS geom, n.code, n.name, n.level, n.counts
            FROM named n, around, tile
        ) t WHERE t.geom IS NOT NULL
    ), labels AS (
        SELECT ST_AsMVT(t, 'area_labels', :extent, 'geom') AS made FROM (
            SELECT ST_AsMVTGeom(ST_Transform(p.geom, 3857), tile.box, :extent, 64, false) AS geom,
                n.code, n.name, n.level, n.counts
            FROM named n CROSS JOIN tile
            CROSS JOIN LATERAL (SELECT ST_PointOnSurface(n.geom) AS geom OFFSET 0) p
            WHERE round(ST_X(p.geom) * 1e7) BETWEEN :first_lon AND :last_lon
                AND round(ST_Y(p.geom) * 1e7) BETWEEN :first_lat AND :last_lat
        ) t
    )
    SELECT coalesce(outlines.made, '') || coalesce(labels.made, '') FROM outlines, labels
    """
)
_EXTENTS = (EXTENT, EXTENT // 4, EXTENT // 8)
"""Steps of a tile of areas; fewer, up to one a pixel, where it would be too large."""
AREA_BYTES_MOST = 400_000


def areas_in(
    connection: Connection, tile: Tile, city_id: int, level: str | None, on: date
) -> list[tuple[int, str]]:
    """Number and code of each area of a level (None: of any) that touches a tile on a city-local date."""
    asked = {"city": city_id, "level": level, "on": on, **_edges(tile)}
    return [(row.id, row.code) for row in connection.execute(_AREAS_IN, asked)]


def areas_tile(
    connection: Connection, tile: Tile, areas: Sequence[int], counts: Sequence[str | None]
) -> bytes:
    """The layers ``areas`` and ``area_labels`` of a tile: outlines, and one point of each area, with their counts.

    Args:
        areas: their numbers, as ``areas_in`` gives them.
        counts: of each, a JSON object of what is told of its counts.
    """
    box, edges = tile.units, _edges(tile)
    made = b""
    for extent in _EXTENTS:
        asked = {
            "ids": list(areas), "counts": list(counts), "extent": extent,
            "zoom": tile.zoom, "column": tile.column, "row": tile.row,
            "margin": (edges["east"] - edges["west"]) / 16,
            "first_lon": box.west, "last_lon": box.east, "first_lat": box.south, "last_lat": box.north,
            **edges,
        }  # fmt: skip
        made = bytes(connection.execute(_AREAS, asked).scalar_one())
        if len(made) <= AREA_BYTES_MOST:
            break
    return made


def _edges(tile: Tile) -> dict[str, float]:
    return dict(zip(("west", "south", "east", "north"), tile.box, strict=True))
