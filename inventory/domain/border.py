"""A polygon's border over leaves: which of them it crosses, and which of their points lie inside.

Points are tested against the edges of their own leaf, vectorised. Those nearer to an edge than rounding can tell apart
go to GEOS, so that the answer is that of ``ST_Intersects``, to the last point.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from inventory.domain.evidence import Floats, Integers
from inventory.domain.leaves import Leaves
from inventory.domain.quadtree import (
    DEEPEST,
    NO_CELLS,
    NO_ROWS,
    SOUTH,
    UNITS_PER_DEGREE,
    WEST,
    Bools,
    Cells,
    column_row,
    key_of,
    ranges,
    shared_halvings,
    span,
)

_NEAR = 1e-3
"""Units (a hundredth of a millimetre) within which GEOS decides; rounding errors here are below 1e-5."""
_MARGIN = 2.0
"""Units by which the box of an edge is widened before it is said to lie in one cell alone."""
_LEVEL = 1_000.0
"""Reach along a parallel from which on an edge counts as level: its points are GEOS's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """How leaves lie to a polygon.

    Attributes:
        inside: (n,) the leaves that lie wholly inside.
        crossed: (m,) the leaves that an edge may cross, rising.
        edge, leaf: (p,) each edge beside the place in ``crossed`` of each leaf that it may cross, by leaf.
    """

    inside: Integers
    crossed: Integers
    edge: Integers
    leaf: Integers

    def parts(self, events: Integers, most: int) -> Iterator["Border"]:
        """Its crossed leaves some at a time, in order; no leaf inside.

        Args:
            events: (m,) of each crossed leaf.
            most: events of a part; a leaf with more is one by itself.
        """
        end, pairs = np.cumsum(events), np.searchsorted(self.leaf, np.arange(len(events) + 1))
        first = 0
        while first < len(end):
            until = int(np.searchsorted(end, end[first] - events[first] + most, side="right"))
            until = max(until, first + 1)
            these = slice(pairs[first], pairs[until])
            yield Border(
                inside=self.inside[:0],
                crossed=self.crossed[first:until],
                edge=self.edge[these],
                leaf=self.leaf[these] - first,
            )
            first = until

    def of(self, chosen: Bools) -> "Border":
        """That of some of the crossed leaves alone, (m,); no leaf inside."""
        pairs = chosen[self.leaf]
        place = np.cumsum(chosen) - 1
        return Border(
            inside=self.inside[:0],
            crossed=self.crossed[chosen],
            edge=self.edge[pairs],
            leaf=place[self.leaf[pairs]],
        )


class PolygonOverLeaves:
    """A polygon as the leaves need it: its edges in units, and GEOS's own test for what lies near them.

    Args:
        polygon: valid; degrees, EPSG:4326.
    """

    def __init__(self, polygon: shapely.Geometry) -> None:
        self._polygon = polygon
        shapely.prepare(polygon)
        rings = shapely.get_rings(shapely.get_parts(polygon))
        corners, ring = shapely.get_coordinates(rings, return_index=True)
        in_units = corners * UNITS_PER_DEGREE + (WEST, SOUTH)
        same = ring[1:] == ring[:-1]
        self._from, self._to = in_units[:-1][same], in_units[1:][same]

    def over(self, leaves: Leaves) -> Border:
        """Which leaves lie inside, and which the border crosses."""
        free, leaf, edge = self._crossed(leaves)
        west, south, side = free.west_south_side()
        within = self.contains(west + side / 2, south + side / 2)
        crossed, at = np.unique(leaf, return_inverse=True)
        order = np.argsort(at, kind="stable")
        return Border(
            inside=ranges(free.begin[within], free.end[within]),
            crossed=crossed,
            edge=edge[order],
            leaf=at[order],
        )

    def _crossed(self, leaves: Leaves) -> tuple[Cells, Integers, Integers]:
        """The largest cells that no edge crosses; and of each leaf that one may cross its number, beside the edge."""
        if not len(leaves):
            return NO_CELLS, NO_ROWS, NO_ROWS
        low, high = np.minimum(self._from, self._to), np.maximum(self._from, self._to)
        # Wider than any rounding: an edge that comes so near to a cell is one that may cross it.
        first, last = key_of(low - _MARGIN), key_of(high + _MARGIN)
        # Most edges of a fine border lie in one leaf, or in one cell without any, and need not go down to it. One
        # of each such cell goes: the cells around it are crossed, too.
        leaf = leaves.of(first)
        within = leaves.hold(leaf, last)
        empty = np.flatnonzero(leaf < 0)
        empty = empty[leaves.of(last[empty]) < 0]
        corner = leaves.free_corner(first[empty])
        within[empty] = corner == leaves.free_corner(last[empty])
        goes = ~within
        filled = np.flatnonzero(within & (leaf >= 0))
        for rows, cell in ((filled, leaf[filled]), (empty, corner)):
            _, one = np.unique(cell, return_index=True)
            goes[rows[one]] = True
        stays = ~goes & (leaf >= 0)
        # Column by column: along the other axis it takes fifty times as long.
        corner_low, corner_high = np.array([*map(np.min, low.T)]), np.array([*map(np.max, high.T)])
        start = _smallest_cell(corner_low, corner_high, leaves)
        free, leaf_of, edge_of = _descend(self._from, self._to, np.flatnonzero(goes), leaves, start)
        return (
            free,
            np.concatenate([leaf_of, leaf[stays]]),
            np.concatenate([edge_of, np.flatnonzero(stays)]),
        )

    def contains(self, x: Floats, y: Floats) -> Bools:
        """(n,) whether points lie in it or on its border, by GEOS; units from the globe's south-west corner."""
        lon, lat = (x - WEST) / UNITS_PER_DEGREE, (y - SOUTH) / UNITS_PER_DEGREE
        return np.asarray(shapely.intersects_xy(self._polygon, lon, lat), bool)

    def contains_points(self, border: Border, leaves: Leaves, x: Floats, y: Floats) -> Bools:
        """(n,) whether points of the crossed leaves lie in it or on its border.

        Args:
            x, y: units from the globe's south-west corner, by leaf, and within a leaf by latitude
                (``by_latitude``).
        """
        each = leaves.events[border.crossed]
        corner = leaves.key[border.crossed]
        # Half a unit outside of the cell, where no point can be.
        west, south = (part.astype(np.float64) - 0.5 for part in column_row(corner))
        with_corner = self.contains(west, south)
        # A corner on an edge says nothing of its leaf's points.
        near_corner = self._near_corner(border, west, south)
        edges = np.bincount(border.leaf, minlength=len(each))
        inside, near = np.repeat(with_corner, each), np.repeat(near_corner, each)
        for leaves_of_kind, crossings in (
            (edges == 1, self._sides_of_one),
            (edges > 1, self._crossings),
        ):
            points = np.flatnonzero(np.repeat(leaves_of_kind, each))
            odd, too_near = crossings(
                border.of(leaves_of_kind), west[leaves_of_kind], south[leaves_of_kind],
                x[points], y[points], each[leaves_of_kind],
            )  # fmt: skip
            inside[points] ^= odd
            near[points] |= too_near
        rows = np.flatnonzero(near)
        inside[rows] = self.contains(x[rows], y[rows])
        return inside

    def _sides_of_one(
        self, border: Border, west: Floats, south: Floats, x: Floats, y: Floats, each: Integers
    ) -> tuple[Bools, Bools]:
        """``_crossings`` for leaves that one edge alone may cross: which side of it points and corner are on.

        Such an edge passes through its leaf: where it ended within, another would begin.
        """
        begin, end = self._from[border.edge], self._to[border.edge]
        along = end - begin
        along /= np.hypot(along[:, 0], along[:, 1])[:, None]
        # Distances from the edge's line: a, b and c of a·x + b·y + c, the corner's positive.
        a, b = -along[:, 1], along[:, 0]
        c = -(a * begin[:, 0] + b * begin[:, 1])
        sign = np.where(a * west + b * south + c < 0, -1.0, 1.0)
        a, b, c = sign * a, sign * b, sign * (a * west + b * south + c)
        # From the corner on: the smaller the numbers, the smaller the rounding.
        distance = np.repeat(a, each) * (x - np.repeat(west, each))
        distance += np.repeat(b, each) * (y - np.repeat(south, each))
        distance += np.repeat(c, each)
        return distance < 0, np.abs(distance) < _NEAR

    def _crossings(
        self, border: Border, west: Floats, south: Floats, x: Floats, y: Floats, each: Integers
    ) -> tuple[Bools, Bools]:
        """Whether the way from a leaf's corner, north and then east, to a point crosses the border oddly often.

        Only edges that may cross the leaf can be met on it. The second answer: too near to tell.
        """
        last = np.cumsum(each)[border.leaf]
        begin, end = self._from[border.edge], self._to[border.edge]
        side = west[border.leaf]
        rows_from = _RowsFrom(y, each, border.leaf)
        near = np.zeros(len(x), bool)

        # North along the leaf's west side: an edge that meets it there is crossed on the way to all points above.
        rise, run = end[:, 1] - begin[:, 1], end[:, 0] - begin[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope, grade = run / rise, rise / run
            height = begin[:, 1] + (side - begin[:, 0]) * grade
        met = np.flatnonzero(((begin[:, 0] > side) != (end[:, 0] > side)) & (height >= south[border.leaf]))
        steps = np.zeros(len(x) + 1, np.int64)
        np.add.at(steps, rows_from.height(height[met], met), 1)
        np.add.at(steps, last[met], -1)
        # An error in one direction is one along the edge: the steeper, the farther in the other.
        reach = _NEAR * (1 + np.abs(grade[met]))
        near[
            ranges(rows_from.height(height[met] - reach, met), rows_from.height(height[met] + reach, met))
        ] = True
        crossed = np.cumsum(steps[:-1])

        # East at the point's own latitude: edges that span it, and begin or end near it.
        low, high = np.minimum(begin[:, 1], end[:, 1]) - _NEAR, np.maximum(begin[:, 1], end[:, 1]) + _NEAR
        every = np.arange(len(begin))
        from_row, to_row = rows_from.height(low, every), rows_from.height(high, every)
        edge, point = np.repeat(every, to_row - from_row), ranges(from_row, to_row)
        px, py, edge_x, edge_y = x[point], y[point], begin[edge, 0], begin[edge, 1]
        spans = (edge_y > py) != (end[edge, 1] > py)
        with np.errstate(invalid="ignore"):
            at = np.where(spans, edge_x + (py - edge_y) * slope[edge], np.inf)
        reach = _NEAR * (1 + np.abs(slope))[edge]
        crossed += np.bincount(point[(at > side[edge]) & (at < px)], minlength=len(x))
        with np.errstate(invalid="ignore"):
            close = (np.abs(at - px) < reach) | (np.abs(at - side[edge]) < reach)
        # On a corner of the polygon, or at the height of an edge that is all but level.
        close |= (np.abs(edge_y - py) < _NEAR) & ((np.abs(edge_x - px) < _NEAR) | (reach > _LEVEL))
        near[point[close]] = True
        odd: Bools = (crossed & 1).astype(bool)
        return odd, near

    def _near_corner(self, border: Border, west: Floats, south: Floats) -> Bools:
        """(m,) whether an edge passes so near the corner of a leaf that which side it is on cannot be told."""
        begin, end = self._from[border.edge], self._to[border.edge]
        corner = np.column_stack([west, south])[border.leaf]
        about = (np.minimum(begin, end) <= corner + _NEAR) & (np.maximum(begin, end) >= corner - _NEAR)
        rows = np.flatnonzero(about[:, 0] & about[:, 1])
        begin, end, corner = begin[rows], end[rows], corner[rows]
        along = end - begin
        length = np.maximum(np.einsum("ij,ij->i", along, along), 1e-300)
        share = np.clip(np.einsum("ij,ij->i", corner - begin, along) / length, 0, 1)
        gap = begin + share[:, None] * along - corner
        near = rows[np.einsum("ij,ij->i", gap, gap) < _NEAR**2]
        found = np.zeros(len(border.crossed), bool)
        found[border.leaf[near]] = True
        return found


class _RowsFrom:
    """Where in points that lie by leaf, and then by latitude, those of a leaf from a height on begin."""

    def __init__(self, y: Floats, each: Integers, leaf_of_edge: Integers) -> None:
        # Whole units, one leaf after the other: heights are below 2**31.
        leaf = np.repeat(np.arange(len(each)), each)
        self._rows = (leaf << 32) + y.astype(np.int64)
        self._leaf_of_edge = leaf_of_edge

    def height(self, height: Floats, edges: Integers) -> Integers:
        """(e,) the first row of each edge's leaf that is not below a height."""
        whole = np.clip(np.ceil(height), 0, 2**32 - 1).astype(np.int64)
        return np.searchsorted(self._rows, (self._leaf_of_edge[edges] << 32) + whole)


def _smallest_cell(low: Floats, high: Floats, leaves: Leaves) -> Cells:
    """The smallest cell that holds a box, with the leaves in it; a leaf's own where the box lies in one."""
    first, last = key_of(np.array([low - _MARGIN])), key_of(np.array([high + _MARGIN]))
    depth = np.minimum(shared_halvings(first, last), DEEPEST)
    holding = int(leaves.of(first)[0])
    if holding >= 0 and leaves.depth[holding] <= depth[0]:
        depth = leaves.depth[[holding]]
    corner = first & ~span(depth)
    return Cells(
        corner=corner,
        depth=depth,
        begin=np.searchsorted(leaves.key, corner),
        end=np.searchsorted(leaves.key, corner + span(depth), side="right"),
    )


def _descend(
    begin: Floats, end: Floats, edges: Integers, leaves: Leaves, cells: Cells
) -> tuple[Cells, Integers, Integers]:
    """From a cell that holds all edges down to the leaves that some of them may cross.

    Args:
        begin, end: of all edges.
        edges: those that go down.

    Returns:
        The largest cells that none of these crosses; and of each leaf that one may cross its number, beside the edge.
    """
    cell, edge = np.zeros(len(edges), np.int64), edges
    if cells.begin[0] == cells.end[0]:
        return NO_CELLS, NO_ROWS, NO_ROWS
    free: list[Cells] = []
    leaf_of, edge_of = [], []
    while len(cells):
        is_leaf = (cells.end - cells.begin == 1) & (leaves.depth[cells.begin] == cells.depth)
        arrived = is_leaf[cell]
        leaf_of.append(cells.begin[cell[arrived]])
        edge_of.append(edge[arrived])
        renumbered = np.cumsum(~is_leaf) - 1
        cell, edge = renumbered[cell[~arrived]], edge[~arrived]
        cells, quarter = cells.take(~is_leaf).quarters(leaves.key)
        cell, edge = _handed_down(begin, end, cells, quarter, cell, edge)
        crossed = np.zeros(len(cells), bool)
        crossed[cell] = True
        free.append(cells.take(~crossed))
        cells, cell = cells.take(crossed), (np.cumsum(crossed) - 1)[cell]
    return NO_CELLS.joined(free), np.concatenate([NO_ROWS, *leaf_of]), np.concatenate([NO_ROWS, *edge_of])


def _handed_down(
    begin: Floats, end: Floats, cells: Cells, quarter: Integers, cell: Integers, edge: Integers
) -> tuple[Integers, Integers]:
    """The edges of cells given to those of their quarters that they may cross.

    Args:
        cells, quarter: as ``Cells.quarters`` gives them.
        cell, edge: edges beside the cells that were quartered.
    """
    if not len(cells) or not len(cell):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Where each cell's quarters stand, −1 for one without leaves.
    place = np.full(4 * int(cell.max()) + 4, -1, np.int64)
    known = quarter < len(place)
    place[quarter[known]] = np.flatnonzero(known)
    to = place[(4 * cell[:, None] + np.arange(4)).ravel()]
    rows = np.flatnonzero(to >= 0)
    to, its = to[rows], edge[rows >> 2]
    west, south, side = cells.west_south_side()
    # One unit wider than the cell: rounding loses no edge.
    w, s, width = west[to] - 1, south[to] - 1, side[to] + 2
    from_x, from_y, to_x, to_y = begin[its, 0], begin[its, 1], end[its, 0], end[its, 1]
    near = (np.minimum(from_x, to_x) <= w + width) & (np.maximum(from_x, to_x) >= w)
    near &= (np.minimum(from_y, to_y) <= s + width) & (np.maximum(from_y, to_y) >= s)
    near &= _line_meets(from_x, from_y, to_x, to_y, w, s, width)
    return to[near], its[near]


def _line_meets(
    from_x: Floats, from_y: Floats, to_x: Floats, to_y: Floats, west: Floats, south: Floats, side: Floats
) -> Bools:
    """Whether the line through an edge has corners of the square on both sides, or nearly: the separating axis."""
    run, rise, half = to_x - from_x, to_y - from_y, side / 2
    across = run * (south + half - from_y) - rise * (west + half - from_x)
    meets: Bools = np.abs(across) <= (np.abs(run) + np.abs(rise)) * half
    return meets
