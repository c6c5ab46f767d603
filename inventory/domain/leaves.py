"""Points packed by place, so that the exact count in any polygon reads only the ground that its border crosses.

The globe in units of 1e-7 degree is one square of 2**32 units a side; halving it again and again makes a quadtree. A
*leaf* is a cell of it that holds at most ``LEAF_POINTS`` events (or is as small as a cell can be); the leaves of a
class follow one another in Morton order. Leaves that no edge of a polygon crosses lie inside or outside as a whole and
are summed; of the others the points are tested against the edges of their own leaf, vectorised. Points nearer to an
edge than rounding can tell apart go to GEOS, so that the answer is that of ``ST_Intersects``, to the last point.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from inventory.domain.evidence import Floats, Integers
from inventory.domain.tally import Counted

UNITS_PER_DEGREE = 10_000_000
LEAF_POINTS = 256
"""Most events of a leaf: fewer make the list of leaves long, more make the border thick."""
DEEPEST = 32
"""Halvings until a cell is one unit."""
_WEST, _SOUTH = 180 * UNITS_PER_DEGREE, 90 * UNITS_PER_DEGREE
_NEAR = 1e-3
"""Units (a hundredth of a millimetre) within which GEOS decides; rounding errors here are below 1e-5."""
_LEVEL = 1_000.0
"""Reach along a parallel from which on an edge counts as level: its points are GEOS's."""

Bools = NDArray[np.bool_]
Keys = NDArray[np.uint64]


# --- where points lie ---------------------------------------------------------------------------------------


def units(lon_lat: NDArray[np.float64]) -> Integers:
    """(n, 2) longitude and latitude in whole units of 1e-7 degree, as stored positions are rounded to."""
    return np.rint(lon_lat * UNITS_PER_DEGREE).astype(np.int64)


def morton(lon: Integers, lat: Integers) -> Keys:
    """(n,) place on the Morton curve of points in units of 1e-7 degree: bits of longitude and latitude in turn.

    Below 2**63, since latitudes span half of longitudes: a database's signed numbers keep the order.
    """
    return _spread(lon + _WEST) | (_spread(lat + _SOUTH) << np.uint64(1))


def _spread(values: Integers) -> Keys:
    """Each of 32 bits moved to twice its place."""
    spread = values.astype(np.uint64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
    return spread


def _gathered(keys: Keys) -> Integers:
    """The opposite of ``_spread``."""
    values = keys & np.uint64(0x5555555555555555)
    for shift, mask in (
        (1, 0x3333333333333333),
        (2, 0x0F0F0F0F0F0F0F0F),
        (4, 0x00FF00FF00FF00FF),
        (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):
        values = (values | (values >> np.uint64(shift))) & np.uint64(mask)
    return values.astype(np.int64)


# --- events and leaves --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What happened to the count at points, (n,) each, in Morton order of place, then of time.

    ``lon``, ``lat`` in units; ``at`` in microseconds since 1970; ``listed`` and ``verified`` are added to the count
    of their point from then on.
    """

    lon: Integers
    lat: Integers
    at: Integers
    listed: Integers
    verified: Integers

    def __len__(self) -> int:
        return len(self.lon)

    def take(self, rows: Integers | Bools | slice) -> "Events":
        """Those chosen."""
        return Events(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def joined(self, *others: "Events") -> "Events":
        """All of them, in order, summed."""
        return summed(
            **{
                name: np.concatenate([getattr(one, name) for one in (self, *others)])
                for name in self.__slots__
            }
        )

    def sums(self, until: int) -> Counted:
        """What they add up to at an instant."""
        happened = self.at <= until
        return Counted(listed=int(self.listed[happened].sum()), verified=int(self.verified[happened].sum()))


def summed(*, lon: Integers, lat: Integers, at: Integers, listed: Integers, verified: Integers) -> Events:
    """Events in order, one a place and instant; what adds up to nothing is left out."""
    order = np.lexsort((at, morton(lon, lat)))
    lon, lat, at = lon[order], lat[order], at[order]
    first = np.ones(len(lon), bool)
    first[1:] = (lon[1:] != lon[:-1]) | (lat[1:] != lat[:-1]) | (at[1:] != at[:-1])
    begins = np.flatnonzero(first)
    if not len(begins):
        return NO_EVENTS
    listed, verified = (np.add.reduceat(values[order], begins) for values in (listed, verified))
    kept = (listed != 0) | (verified != 0)
    rows = begins[kept]
    return Events(lon=lon[rows], lat=lat[rows], at=at[rows], listed=listed[kept], verified=verified[kept])


NO_EVENTS = Events(**{name: np.empty(0, np.int64) for name in Events.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """The leaves of a class, (n,) each, in Morton order: all that is needed to tell which of them to read.

    Attributes:
        key: of the cell's south-west corner.
        depth: halvings that made the cell.
        listed, verified: sums over all events.
        oldest, newest: instants of the first and the last event: before the one nothing counts, from the other on
            the sums do.
    """

    key: Keys
    depth: Integers
    listed: Integers
    verified: Integers
    oldest: Integers
    newest: Integers

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: Integers | Bools) -> "Leaves":
        """Those chosen, in order."""
        return Leaves(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def replaced(self, rows: Integers, by: "Leaves") -> "Leaves":
        """Others in place of the leaves given."""
        stays = np.ones(len(self), bool)
        stays[rows] = False
        both = {
            name: np.concatenate([getattr(self, name)[stays], getattr(by, name)]) for name in self.__slots__
        }
        order = np.argsort(both["key"], kind="stable")
        return Leaves(**{name: column[order] for name, column in both.items()})

    def free_cells(self, keys: Keys) -> tuple[Keys, Integers]:
        """The largest cells that hold these places and no leaf: corners, rising, and depths."""
        depth = np.zeros(len(keys), np.int64)
        if len(self):
            after = np.searchsorted(self.key, keys, side="right")
            for neighbour in (np.maximum(after - 1, 0), np.minimum(after, len(self) - 1)):
                # One halving more than the cell that holds both, as seen from the leaf's nearer end.
                nearest = np.where(
                    self.key[neighbour] > keys,
                    self.key[neighbour],
                    self.key[neighbour] + _span(self.depth[neighbour]),
                )
                depth = np.maximum(depth, _shared_halvings(keys, nearest) + 1)
        corner = keys & ~_span(depth)
        corners, first = np.unique(corner, return_index=True)
        return corners, depth[first]

    def of(self, keys: Keys) -> Integers:
        """(n,) the leaf that holds each place; −1 for none."""
        if not len(self.key):
            return np.full(len(keys), -1, np.int64)
        at = np.searchsorted(self.key, keys, side="right") - 1
        known = np.maximum(at, 0)
        beyond = keys - self.key[known] > _span(self.depth[known])
        return np.where((at < 0) | beyond, -1, at).astype(np.int64)


NO_LEAVES = Leaves(
    key=np.empty(0, np.uint64), **{name: np.empty(0, np.int64) for name in Leaves.__slots__ if name != "key"}
)


def corners(leaves: Leaves) -> tuple[Integers, Integers, Integers]:
    """West and south of each leaf's cell, as points are given, and its side; in units."""
    side = np.left_shift(1, DEEPEST - leaves.depth)
    return _gathered(leaves.key) - _WEST, _gathered(leaves.key >> np.uint64(1)) - _SOUTH, side


def _span(depth: Integers) -> Keys:
    """Greatest difference of keys in a cell of this depth; that of the whole globe does not fit one more bit."""
    bits = (2 * (DEEPEST - depth)).astype(np.uint64)
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    return np.where(bits >= 64, full, (np.uint64(1) << np.minimum(bits, np.uint64(63))) - np.uint64(1))


def _shared_halvings(one: Keys, other: Keys) -> Integers:
    """Depth of the smallest cell that holds both places."""
    differing = one ^ other
    # By halves: a float of 64 bits would round the lower ones up.
    high, low = (
        (differing >> np.uint64(32)).astype(np.float64),
        differing.astype(np.uint32).astype(np.float64),
    )
    bits = np.where(high > 0, 32 + np.frexp(high)[1], np.frexp(low)[1])
    return np.asarray((64 - bits) // 2, np.int64)


def by_latitude(events: Events, begin: Integers) -> Events:
    """The events of leaves, as ``divided`` gives them, in order of latitude within each: as they are stored."""
    leaf = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
    return events.take(np.lexsort((events.lat, leaf)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """Cells and which rows of an ordered list of keys lie in them, (n,) each: rows ``begin`` to before ``end``."""

    corner: Keys
    depth: Integers
    begin: Integers
    end: Integers

    def __len__(self) -> int:
        return len(self.corner)

    def take(self, rows: Integers | Bools) -> "_Cells":
        return _Cells(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def joined(self, others: "list[_Cells]") -> "_Cells":
        return _Cells(
            **{
                name: np.concatenate([getattr(self, name), *(getattr(one, name) for one in others)])
                for name in self.__slots__
            }
        )

    def quarters(self, keys: Keys) -> tuple["_Cells", Integers]:
        """The quarters that hold rows; and 4 × the row of the cell that each is of + which of its four it is."""
        step = np.uint64(1) << (2 * (DEEPEST - 1 - self.depth)).astype(np.uint64)
        corners = np.asarray(self.corner[:, None] + step[:, None] * np.arange(4, dtype=np.uint64), np.uint64)
        inner = np.searchsorted(keys, corners[:, 1:].ravel()).reshape(-1, 3)
        four = _Cells(
            corner=corners.ravel(),
            depth=np.repeat(self.depth + 1, 4),
            begin=np.column_stack([self.begin, inner]).ravel(),
            end=np.column_stack([inner, self.end]).ravel(),
        )
        filled = np.flatnonzero(four.end > four.begin)
        return four.take(filled), filled

    def west_south_side(self) -> tuple[Floats, Floats, Floats]:
        """Each cell's west and south in units from the globe's south-west corner, and its side."""
        side = np.left_shift(1, DEEPEST - self.depth).astype(np.float64)
        west, south = _gathered(self.corner), _gathered(self.corner >> np.uint64(1))
        return west.astype(np.float64), south.astype(np.float64), side


_NONE = np.empty(0, np.int64)
_NO_CELLS = _Cells(corner=np.empty(0, np.uint64), depth=_NONE, begin=_NONE, end=_NONE)


def divided(
    events: Events, corner: Keys | None = None, depth: Integers | None = None
) -> tuple[Leaves, Integers]:
    """The leaves of events that lie in the cells given, by default the globe.

    Args:
        corner, depth: cells, rising, none in another.

    Returns:
        The leaves, and (leaves + 1,) where each one's events begin.
    """
    keys = morton(events.lon, events.lat)
    if corner is None or depth is None:
        corner, depth = np.zeros(1, np.uint64), np.zeros(1, np.int64)
    cells = _Cells(
        corner=corner,
        depth=depth,
        begin=np.searchsorted(keys, corner),
        end=np.searchsorted(keys, corner + _span(depth), side="right"),
    )
    cells = cells.take(cells.end > cells.begin)
    done = []
    while len(cells):
        small = (cells.end - cells.begin <= LEAF_POINTS) | (cells.depth >= DEEPEST)
        done.append(cells.take(small))
        cells, _ = cells.take(~small).quarters(keys)
    cells = _NO_CELLS.joined(done)
    if not len(cells):
        return NO_LEAVES, np.zeros(1, np.int64)
    cells = cells.take(np.argsort(cells.begin, kind="stable"))
    leaves = Leaves(
        key=cells.corner,
        depth=cells.depth,
        listed=np.add.reduceat(events.listed, cells.begin),
        verified=np.add.reduceat(events.verified, cells.begin),
        oldest=np.minimum.reduceat(events.at, cells.begin),
        newest=np.maximum.reduceat(events.at, cells.begin),
    )
    return leaves, np.append(cells.begin, len(keys))


# --- a polygon over them -------------------------------------------------------------------------------------


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
        in_units = corners * UNITS_PER_DEGREE + (_WEST, _SOUTH)
        same = ring[1:] == ring[:-1]
        self._from, self._to = in_units[:-1][same], in_units[1:][same]

    def over(self, leaves: Leaves) -> Border:
        """Which leaves lie inside, and which the border crosses."""
        free, leaf, edge = _descend(self._from, self._to, leaves)
        west, south, side = free.west_south_side()
        within = self.contains(west + side / 2, south + side / 2)
        crossed, at = np.unique(leaf, return_inverse=True)
        order = np.argsort(at, kind="stable")
        return Border(
            inside=_ranges(free.begin[within], free.end[within]),
            crossed=crossed,
            edge=edge[order],
            leaf=at[order],
        )

    def contains(self, x: Floats, y: Floats) -> Bools:
        """(n,) whether points lie in it or on its border, by GEOS; units from the globe's south-west corner."""
        lon, lat = (x - _WEST) / UNITS_PER_DEGREE, (y - _SOUTH) / UNITS_PER_DEGREE
        return np.asarray(shapely.intersects_xy(self._polygon, lon, lat), bool)

    def contains_points(self, border: Border, leaves: Leaves, events: Events, each: Integers) -> Bools:
        """(n,) whether points of the crossed leaves lie in it or on its border.

        Args:
            events: by leaf, and within a leaf by latitude (``by_latitude``).
            each: how many each of the crossed leaves has.
        """
        corner = leaves.key[border.crossed]
        # Half a unit outside of the cell, where no point can be.
        west = _gathered(corner).astype(np.float64) - 0.5
        south = _gathered(corner >> np.uint64(1)).astype(np.float64) - 0.5
        x, y = (events.lon + _WEST).astype(np.float64), (events.lat + _SOUTH).astype(np.float64)
        odd, near = self._crossings(border, west, south, x, y, each)
        leaf = np.repeat(np.arange(len(each)), each)
        inside = self.contains(west, south)[leaf] ^ odd
        # A corner on an edge says nothing of its leaf's points.
        near |= self._near_corner(border, west, south)[leaf]
        rows = np.flatnonzero(near)
        inside[rows] = self.contains(x[rows], y[rows])
        return inside

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
            _ranges(rows_from.height(height[met] - reach, met), rows_from.height(height[met] + reach, met))
        ] = True
        crossed = np.cumsum(steps[:-1])

        # East at the point's own latitude: edges that span it, and begin or end near it.
        low, high = np.minimum(begin[:, 1], end[:, 1]) - _NEAR, np.maximum(begin[:, 1], end[:, 1]) + _NEAR
        every = np.arange(len(begin))
        from_row, to_row = rows_from.height(low, every), rows_from.height(high, every)
        edge, point = np.repeat(every, to_row - from_row), _ranges(from_row, to_row)
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
        along = end - begin
        length = np.maximum(np.einsum("ij,ij->i", along, along), 1e-300)
        share = np.clip(np.einsum("ij,ij->i", corner - begin, along) / length, 0, 1)
        gap = begin + share[:, None] * along - corner
        near = np.einsum("ij,ij->i", gap, gap) < _NEAR**2
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


def _descend(begin: Floats, end: Floats, leaves: Leaves) -> tuple[_Cells, Integers, Integers]:
    """From the globe down to the leaves that edges may cross.

    Returns:
        The largest cells that no edge crosses; and of each leaf that one may cross its number, beside the edge.
    """
    if not len(leaves):
        return _NO_CELLS, _NONE, _NONE
    cells = _Cells(
        corner=np.zeros(1, np.uint64),
        depth=np.zeros(1, np.int64),
        begin=np.zeros(1, np.int64),
        end=np.array([len(leaves)]),
    )
    cell, edge = np.zeros(len(begin), np.int64), np.arange(len(begin))
    free: list[_Cells] = []
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
    return _NO_CELLS.joined(free), np.concatenate(leaf_of), np.concatenate(edge_of)


def _handed_down(
    begin: Floats, end: Floats, cells: _Cells, quarter: Integers, cell: Integers, edge: Integers
) -> tuple[Integers, Integers]:
    """The edges of cells given to those of their quarters that they may cross.

    Args:
        cells, quarter: as ``_Cells.quarters`` gives them.
        cell, edge: edges beside the cells that were quartered.
    """
    if not len(cells) or not len(cell):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Where each cell's quarters stand, −1 for one without leaves.
    place = np.full(4 * int(cell.max()) + 4, -1, np.int64)
    known = quarter < len(place)
    place[quarter[known]] = np.flatnonzero(known)
    west, south, side = cells.west_south_side()
    low, high = np.minimum(begin, end), np.maximum(begin, end)
    handed, edges = [], []
    for which in range(4):
        to = place[4 * cell + which]
        rows = np.flatnonzero(to >= 0)
        to, its = to[rows], edge[rows]
        # One unit wider than the cell: rounding loses no edge.
        w, s, width = west[to] - 1, south[to] - 1, side[to] + 2
        near = (low[its, 0] <= w + width) & (high[its, 0] >= w)
        near &= (low[its, 1] <= s + width) & (high[its, 1] >= s)
        to, its, w, s, width = (part[near] for part in (to, its, w, s, width))
        meets = _line_meets(begin[its], end[its], w, s, width)
        handed.append(to[meets])
        edges.append(its[meets])
    return np.concatenate(handed), np.concatenate(edges)


def _line_meets(begin: Floats, end: Floats, west: Floats, south: Floats, side: Floats) -> Bools:
    """Whether the line through an edge has corners of the square on both sides, or nearly: the separating axis."""
    along = end - begin
    half = side / 2
    across = along[:, 0] * (south + half - begin[:, 1]) - along[:, 1] * (west + half - begin[:, 0])
    meets: Bools = np.abs(across) <= (np.abs(along[:, 0]) + np.abs(along[:, 1])) * half
    return meets


def _ranges(begin: Integers, end: Integers) -> Integers:
    """All numbers of half-open ranges."""
    length = end - begin
    total = int(length.sum())
    start = np.repeat(begin - (np.cumsum(length) - length), length)
    return start + np.arange(total)
