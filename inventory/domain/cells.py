"""The ground in squares of 1 km: what a look saw in each, and which of them are listed together (R8).

A look's squares are merged by its own hits, so that a square's company depends on that look alone: neither
later looks nor decisions change it, and a change of the look on one square changes few others.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from inventory.domain.evidence import Floats, Integers

CELL_M = 1_000.0
"""Side of a cell of listing; 250 m doubled the local error and the drop-outs in a trial."""
GROUP_LEAST_HITS = 100
_LEVELS = 16
_ROW = 1 << 32
_HALF = _ROW >> 1


def cell_of(x: Floats, y: Floats) -> Integers:
    """(n,) number of the cell that holds each point of the city's metric CRS; west and south borders belong to it."""
    column = np.floor(np.asarray(x) / CELL_M).astype(np.int64)
    row = np.floor(np.asarray(y) / CELL_M).astype(np.int64)
    return column * _ROW + row


def column_row(cell: Integers) -> tuple[Integers, Integers]:
    """Column and row of each cell, counted in kilometres from the origin of the CRS."""
    column = (np.asarray(cell, np.int64) + _HALF) >> 32
    return column, np.asarray(cell, np.int64) - column * _ROW


def squares(cell: Integers) -> NDArray[np.object_]:
    """(n,) polygons of the cells, metric CRS."""
    column, row = column_row(cell)
    west, south = column * CELL_M, row * CELL_M
    return np.asarray(shapely.box(west, south, west + CELL_M, south + CELL_M), dtype=object)


def cells_touching(ground: shapely.Geometry, reach_m: float = 0.0) -> Integers:
    """The cells within reach of a piece of ground, in order of number."""
    if shapely.is_empty(ground):
        return np.empty(0, np.int64)
    parts = shapely.get_parts(ground)
    found = [_within(part, reach_m) for part in parts]
    return np.unique(np.concatenate(found))


def _within(part: shapely.Geometry, reach_m: float) -> Integers:
    west, south, east, north = shapely.bounds(part).tolist()
    columns = np.arange(np.floor((west - reach_m) / CELL_M), np.floor((east + reach_m) / CELL_M) + 1)
    rows = np.arange(np.floor((south - reach_m) / CELL_M), np.floor((north + reach_m) / CELL_M) + 1)
    column, row = np.meshgrid(columns.astype(np.int64), rows.astype(np.int64))
    cell = (column * _ROW + row).ravel()
    if len(cell) == 1:
        return cell
    shapely.prepare(part)
    near = shapely.dwithin(squares(cell), part, reach_m)
    return cell[np.asarray(near)]


def cells_around(x: Floats, y: Floats, reach_m: float) -> Integers:
    """The cells within reach of any of the points, in order of number."""
    corners = [cell_of(x + east, y + north) for east in (-reach_m, reach_m) for north in (-reach_m, reach_m)]
    return np.unique(np.concatenate(corners))


@dataclass(frozen=True, slots=True, kw_only=True)
class LookCells:
    """What one look saw in each cell that it looked at: (n,) each, in order of cell.

    ``hits`` counts observations on ground that their own scene owns; ``area_m2`` is the surveyed part.
    """

    cell: Integers
    hits: Integers
    area_m2: Floats

    def __post_init__(self) -> None:
        if not len(self.cell) == len(self.hits) == len(self.area_m2):
            raise ValueError("columns of different length")

    def replaced(self, cells: Integers, by: "LookCells") -> "LookCells":
        """These cells with those in ``cells`` said anew; what ``by`` leaves out is no longer looked at."""
        kept = ~np.isin(self.cell, cells)
        cell = np.concatenate([self.cell[kept], by.cell])
        order = np.argsort(cell)
        return LookCells(
            cell=cell[order],
            hits=np.concatenate([self.hits[kept], by.hits])[order],
            area_m2=np.concatenate([self.area_m2[kept], by.area_m2])[order],
        )

    def groups(self) -> "Groups":
        """Cells listed together: single ones with at least 100 hits; else squares doubled in side until they do."""
        group = np.full(len(self.cell), -1, np.int64)
        density = np.zeros(len(self.cell))
        column, row = column_row(self.cell)
        open_ = np.arange(len(self.cell))
        for level in range(_LEVELS):
            if not len(open_):
                break
            # Numbered by level and place, so that the same group has the same number whatever else there is.
            key = ((column[open_] >> level) * _ROW + (row[open_] >> level)) * _LEVELS + level
            names, of_cell = np.unique(key, return_inverse=True)
            hits = np.bincount(of_cell, weights=self.hits[open_])
            area = np.bincount(of_cell, weights=self.area_m2[open_])
            settled = ((hits >= GROUP_LEAST_HITS) | (level == _LEVELS - 1))[of_cell]
            group[open_[settled]] = names[of_cell[settled]]
            density[open_[settled]] = (hits / np.maximum(area, 1.0))[of_cell[settled]]
            open_ = open_[~settled]
        return Groups(cell=self.cell, group=group, hits_per_m2=density)


NO_CELLS = LookCells(cell=np.empty(0, np.int64), hits=np.empty(0, np.int64), area_m2=np.empty(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The group of each cell of a look, and the density of hits in it; (n,) each, in order of cell."""

    cell: Integers
    group: Integers
    hits_per_m2: Floats

    def of(self, cell: Integers) -> tuple[Integers, Floats]:
        """Group and density of each cell; one that the look does not know stands alone, without hits."""
        if not len(self.cell):
            return -1 - np.asarray(cell), np.zeros(len(cell))
        at = np.minimum(np.searchsorted(self.cell, cell), len(self.cell) - 1)
        known = self.cell[at] == cell
        return np.where(known, self.group[at], -1 - np.asarray(cell)), np.where(
            known, self.hits_per_m2[at], 0.0
        )

    def mates(self, cells: Integers) -> Integers:
        """All cells of the groups that the given cells belong to."""
        inside = np.isin(self.cell, cells)
        return np.asarray(self.cell[np.isin(self.group, self.group[inside])])

    def changed_from(self, before: "Groups") -> Integers:
        """Cells whose group or density is another than before, or that one of the two does not know."""
        return np.union1d(_differing(self, before), _differing(before, self))


def _differing(one: Groups, other: Groups) -> Integers:
    group, density = other.of(one.cell)
    return np.asarray(one.cell[(group != one.group) | (density != one.hits_per_m2)])
