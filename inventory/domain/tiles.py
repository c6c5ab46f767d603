"""Web map tiles over packed points: which tile a point belongs to, and clusters that lose and double nothing.

A tile of the grid WebMercatorQuad is a half-open box of degrees: its west and north edges belong to it, its east and
south edges to its neighbours, so that every point is in exactly one tile of a zoom. Edges come from one function, so
that two tiles have the same number for the edge they share; points are compared with it as whole units of 1e-7 degree.
"""

from dataclasses import dataclass
from math import atan, degrees, pi, sinh

import numpy as np

from inventory.domain.boxes import UnitBox, unit_box
from inventory.domain.evidence import Floats, Integers

EXTENT = 4096
"""Steps of a tile's own coordinates, from west to east and from north to south."""
DEEPEST_ZOOM = 22
CLUSTERS_A_SIDE = 16
"""Maps draw a tile with 512 pixels a side: a cluster has 32 of them, room for its number."""
_LAST_LATITUDE = 85.0511287
"""Where the square ends; what lies beyond belongs to the outermost tiles."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A tile by zoom, column from the west, and row from the north."""

    zoom: int
    column: int
    row: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        return (
            _west(self.zoom, self.column),
            _north(self.zoom, self.row + 1),
            _west(self.zoom, self.column + 1),
            _north(self.zoom, self.row),
        )

    @property
    def units(self) -> UnitBox:
        """The units that belong to it, first and last; the grid's outermost tiles hold all that lies beyond."""
        west, south, east, north = self.box
        last = 2**self.zoom - 1
        held = unit_box(
            -180.0 if self.column == 0 else west,
            -90.0 if self.row == last else south,
            180.0 if self.column == last else east,
            90.0 if self.row == 0 else north,
        )
        return UnitBox(
            west=held.west,
            south=held.south if self.row == last else _above(held.south, south),
            east=held.east if self.column == last else _below(held.east, east),
            north=held.north,
        )

    def children(self) -> "list[Tile]":
        """The four tiles of the next zoom."""
        return [
            Tile(self.zoom + 1, 2 * self.column + right, 2 * self.row + down)
            for down in (0, 1)
            for right in (0, 1)
        ]

    def steps(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """(n,) steps from the tile's west and north of places in degrees (Snyder, 1987, § 7: Mercator, spherical)."""
        whole = 2.0**self.zoom * EXTENT
        x = (lon + 180) / 360 * whole - self.column * EXTENT
        sine = np.sin(np.radians(np.clip(lat, -85.06, 85.06)))
        y = (0.5 - np.log((1 + sine) / (1 - sine)) / (4 * pi)) * whole - self.row * EXTENT
        return x, y


def _west(zoom: int, column: int) -> float:
    return column / float(2**zoom) * 360 - 180


def _north(zoom: int, row: int) -> float:
    return degrees(atan(sinh(pi * (1 - 2 * row / float(2**zoom)))))


def _above(unit: int, edge: float) -> int:
    """The first unit above an edge, which itself belongs to the neighbour."""
    return unit + 1 if unit / 1e7 == edge else unit


def _below(unit: int, edge: float) -> int:
    return unit - 1 if unit / 1e7 == edge else unit


def tile_of(lon: float, lat: float, zoom: int) -> Tile:
    """The tile that a place belongs to; near an edge its neighbour, as ``units`` has it, may be the right one."""
    last = 2**zoom - 1
    column = int((lon + 180) / 360 * 2**zoom)
    if abs(lat) > _LAST_LATITUDE:
        row = 0 if lat > 0 else last
    else:
        sine = float(np.sin(np.radians(lat)))
        row = int((0.5 - np.log((1 + sine) / (1 - sine)) / (4 * pi)) * 2**zoom)
    return Tile(zoom, min(max(column, 0), last), min(max(row, 0), last))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Points of a tile put together by its square cells: (n,) steps from west and north, and (n, classes) counts."""

    x: Floats
    y: Floats
    counts: Integers


def cells_of(tile: Tile, lon: Floats, lat: Floats) -> Integers:
    """(n,) which of a tile's cells, row by row from its north-west, places in degrees lie in, or nearest to."""
    return _cells(*tile.steps(lon, lat))


def _cells(x: Floats, y: Floats) -> Integers:
    column, row = (
        np.clip(part * (CLUSTERS_A_SIDE / EXTENT), 0, CLUSTERS_A_SIDE - 1).astype(np.int64) for part in (x, y)
    )
    return np.asarray(row * CLUSTERS_A_SIDE + column, np.int64)


def clustered(tile: Tile, lon: Floats, lat: Floats, counts: Integers) -> Clusters:
    """The clusters of places in a tile, each at the mean of what it holds.

    Args:
        lon, lat: (n,) degrees.
        counts: (n, classes) how many stand at each.
    """
    x, y = tile.steps(lon, lat)
    at, all_cells = _cells(x, y), CLUSTERS_A_SIDE**2
    # Sums of whole numbers are exact as floats, up to 2**53.
    summed = np.column_stack([np.bincount(at, weights=each, minlength=all_cells) for each in counts.T])
    # What was counted away again weighs nothing.
    weight = np.maximum(counts.sum(axis=1), 0).astype(np.float64)
    whole = np.maximum(np.bincount(at, weights=weight, minlength=all_cells), 1e-9)
    mean_x, mean_y = (np.bincount(at, weights=part * weight, minlength=all_cells) / whole for part in (x, y))
    kept = (summed != 0).any(axis=1)
    return Clusters(x=mean_x[kept], y=mean_y[kept], counts=summed[kept].astype(np.int64))
