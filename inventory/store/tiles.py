"""Vector tiles (Mapbox Vector Tile 2), made where the assets are: points, or clusters where there are too many.

How many a tile holds comes from the packed leaves (``leaf_rows.py``) and their deltas, in one snapshot, so that the
counts of all tiles of a zoom add up to what is listed. A tile of few is read from the states, with what is known of
each. PostGIS encodes both. The caller's transactions must see one snapshot, here and in all functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from inventory.domain.boxes import GroundOfLeaves, UnitBox, ground_of, unit_box
from inventory.domain.evidence import Floats, Integers, to_micros
from inventory.domain.quadtree import SOUTH, UNITS_PER_DEGREE, WEST
from inventory.domain.tiles import CLUSTERS_A_SIDE, EXTENT, Tile, cells_of, clustered
from inventory.store.boxes import listed_in_leaves
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CityLeaves:
    """What a city's tiles are counted from, as long as it has the same version.

    Attributes:
        packed: its packed classes, by name.
        waiting: where deltas lie that are not packed yet; None: there are none.
    """

    packed: Mapping[str, PackedClass]
    waiting: UnitBox | None


_BOX_OF_DELTAS = text(
    """
    SELECT min(lon) AS west, min(lat) AS south, max(lon) AS east, max(lat) AS north
    FROM urban_inventory.leaf_delta WHERE city_id = :city
    """
)


def city_leaves(connection: Connection, city_id: int) -> CityLeaves:
    """What a city's tiles are counted from, in the version that the transaction sees."""
    row = connection.execute(_BOX_OF_DELTAS, {"city": city_id}).one()
    waiting = (
        None if row.west is None else UnitBox(west=row.west, south=row.south, east=row.east, north=row.north)
    )
    return CityLeaves(packed=packed_classes(connection, city_id), waiting=waiting)


def assets_tile(connection: Connection, leaves: CityLeaves, tile: Tile, wanted: TileWanted) -> MadeTile:
    """The layer ``assets`` of a tile: points, or clusters with ``count`` and a count of each class."""
    total = assets_in(connection, leaves, tile, wanted)
    if total <= 0:
        return MadeTile(content=b"", assets=0)
    if total <= POINTS_MOST:
        return MadeTile(content=_points(connection, tile, wanted), assets=total)
    return MadeTile(content=_clusters(connection, leaves, tile, wanted), assets=total)


def assets_in(connection: Connection, leaves: CityLeaves, tile: Tile, wanted: TileWanted) -> int:
    """How many assets a tile has."""
    packed, until = leaves.packed, to_micros(wanted.as_of)
    known = [packed[name] for name in wanted.classes if name in packed]
    count = sum(listed_in_leaves(connection, one, tile.units, until) for one in known)
    return count + sum(listed for _, _, _, listed in _deltas(connection, leaves, tile, wanted))


def classes_held(connection: Connection, city_id: int) -> list[str]:
    """Classes of which anything is listed, or was."""
    waiting = text("SELECT DISTINCT class FROM urban_inventory.leaf_delta WHERE city_id = :city")
    names = connection.execute(waiting, {"city": city_id}).scalars()
    return sorted({*packed_classes(connection, city_id), *names})


def box_with_assets(
    connection: Connection, leaves: CityLeaves, box: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """A box (west, south, east, north; EPSG:4326), grown where something listed, now or ever, lies beyond it."""
    known = unit_box(*box)
    boxes = [known] if leaves.waiting is None else [known, leaves.waiting]
    for packed in leaves.packed.values():
        ground = _ground(packed)
        within = (ground.west >= known.west) & (ground.east <= known.east)
        within &= (ground.south >= known.south) & (ground.north <= known.north)
        # A leaf may be far larger than what lies in it.
        x, y = packed.places(connection, np.flatnonzero(~within))
        if len(x):
            lon, lat = x.astype(np.int64) - WEST, y.astype(np.int64) - SOUTH
            boxes.append(
                UnitBox(west=int(lon.min()), south=int(lat.min()), east=int(lon.max()), north=int(lat.max()))
            )
    return (
        min(box[0], min(one.west for one in boxes) / UNITS_PER_DEGREE),
        min(box[1], min(one.south for one in boxes) / UNITS_PER_DEGREE),
        max(box[2], max(one.east for one in boxes) / UNITS_PER_DEGREE),
        max(box[3], max(one.north for one in boxes) / UNITS_PER_DEGREE),
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


def _ground(packed: PackedClass) -> GroundOfLeaves:
    return packed.part("ground", lambda: ground_of(packed.leaves))


def _deltas(
    connection: Connection, leaves: CityLeaves, tile: Tile, wanted: TileWanted
) -> list[tuple[str, int, int, int]]:
    """Class, units and number of what is listed, or no longer, in a tile and not packed yet."""
    box, near = tile.units, leaves.waiting
    if near is None or near.west > box.east or near.east < box.west:
        return []
    if near.south > box.north or near.north < box.south:
        return []
    asked = {
        "city": wanted.city_id, "classes": list(wanted.classes), "as_of": wanted.as_of,
        "west": box.west, "east": box.east, "south": box.south, "north": box.north,
    }  # fmt: skip
    return [(name, lon, lat, int(listed)) for name, lon, lat, listed in fetched(connection, _DELTAS, asked)]


def _in_leaves(connection: Connection, packed: PackedClass, tile: Tile, until: int) -> list[_Held]:
    leaves, ground, box = packed.leaves, _ground(packed), tile.units
    inside, crossed = (rows[leaves.oldest[rows] <= until] for rows in ground.lying(box))
    # What lies in one cell of a tile need not be known by place, nor what is smaller than half a one.
    west, east, south, north = (
        part[inside] / UNITS_PER_DEGREE for part in (ground.west, ground.east, ground.south, ground.north)
    )
    in_one = cells_of(tile, west, north) == cells_of(tile, east, south)
    in_one |= (east - west) * UNITS_PER_DEGREE < (box.east - box.west) / (2 * CLUSTERS_A_SIDE)
    whole, split = inside[in_one], np.union1d(inside[~in_one], crossed)
    middle = ((west + east)[in_one] / 2, (south + north)[in_one] / 2)
    parts: list[_Held] = [(*middle, _listed_then(connection, packed, whole, until))]
    if len(split):
        x, y = packed.places(connection, split)
        lon, lat = x.astype(np.int64) - WEST, y.astype(np.int64) - SOUTH
        held = box.holds(lon, lat)
        if ((leaves.plain[split] > 0) & (leaves.newest[split] <= until)).all():
            counts = np.ones(int(held.sum()), np.int64)
        else:
            changes = packed.changes(connection, split)[held]
            counts = np.where(changes["at"] <= until, changes["listed"], 0).astype(np.int64)
        parts.append((lon[held] / UNITS_PER_DEGREE, lat[held] / UNITS_PER_DEGREE, counts))
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
            to_char(
                s.last_seen AT TIME ZONE (SELECT time_zone FROM urban_inventory.city WHERE id = :city), 'YYYY-MM-DD'
            ) AS last_seen
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


def _clusters(connection: Connection, leaves: CityLeaves, tile: Tile, wanted: TileWanted) -> bytes:
    until = to_micros(wanted.as_of)
    parts = [
        (number, part)
        for number, name in enumerate(wanted.classes)
        if name in leaves.packed
        for part in _in_leaves(connection, leaves.packed[name], tile, until)
    ]
    for name, east, north, listed in _deltas(connection, leaves, tile, wanted):
        place = np.array([[east], [north]]) / UNITS_PER_DEGREE
        parts.append((wanted.classes.index(name), (place[0], place[1], np.array([listed]))))
    lon, lat = (np.concatenate([part[column] for _, part in parts]) for column in (0, 1))
    counts = np.zeros((len(lon), len(wanted.classes)), np.int64)
    begin = 0
    for number, (_, _, mine) in parts:
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
