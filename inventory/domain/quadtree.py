"""The quadtree of the globe: cells, and their places on the Morton curve.

The globe in units of 1e-7 degree is one square of 2**32 units a side; halving it again and again makes a quadtree. A
cell is the prefix of a place on the Morton curve: all places in it follow one another there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inventory.domain.evidence import Floats, Integers

UNITS_PER_DEGREE = 10_000_000
DEEPEST = 32
"""Halvings until a cell is one unit."""
WEST, SOUTH = 180 * UNITS_PER_DEGREE, 90 * UNITS_PER_DEGREE
"""Units from the globe's south-west corner to longitude and latitude 0."""

Bools = NDArray[np.bool_]
Keys = NDArray[np.uint64]


def units(lon_lat: NDArray[np.float64]) -> Integers:
    """(n, 2) longitude and latitude in whole units of 1e-7 degree, as stored positions are rounded to."""
    return np.rint(lon_lat * UNITS_PER_DEGREE).astype(np.int64)


def morton(lon: Integers, lat: Integers) -> Keys:
    """(n,) place on the Morton curve of points in units of 1e-7 degree: bits of longitude and latitude in turn.

    Below 2**63, since latitudes span half of longitudes: a database's signed numbers keep the order.
    """
    return spread(lon + WEST) | (spread(lat + SOUTH) << np.uint64(1))


def spread(values: Integers) -> Keys:
    """Each of 32 bits moved to twice its place."""
    wide = values.astype(np.uint64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        wide = (wide | (wide << np.uint64(shift))) & np.uint64(mask)
    return wide


def gathered(keys: Keys) -> Integers:
    """The opposite of ``spread``."""
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


def column_row(keys: Keys) -> tuple[Integers, Integers]:
    """(n,) units from the globe's west, and from its south, of places on the Morton curve."""
    return gathered(keys), gathered(keys >> np.uint64(1))


def key_of(place: Floats) -> Keys:
    """(n,) place on the Morton curve of (n, 2) units from the globe's south-west corner."""
    whole = np.clip(place, 0, 2**32 - 1).astype(np.int64)
    return spread(whole[:, 0]) | (spread(whole[:, 1]) << np.uint64(1))


def span(depth: Integers) -> Keys:
    """Greatest difference of keys in a cell of this depth; that of the whole globe does not fit one more bit."""
    bits = (2 * (DEEPEST - depth)).astype(np.uint64)
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    return np.where(bits >= 64, full, (np.uint64(1) << np.minimum(bits, np.uint64(63))) - np.uint64(1))


def shared_halvings(one: Keys, other: Keys) -> Integers:
    """Depth of the smallest cell that holds both places."""
    differing = one ^ other
    # By halves: a float of 64 bits would round the lower ones up.
    high, low = (
        (differing >> np.uint64(32)).astype(np.float64),
        differing.astype(np.uint32).astype(np.float64),
    )
    bits = np.where(high > 0, 32 + np.frexp(high)[1], np.frexp(low)[1])
    return np.asarray((64 - bits) // 2, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Cells and which rows of an ordered list of keys lie in them, (n,) each: rows ``begin`` to before ``end``."""

    corner: Keys
    depth: Integers
    begin: Integers
    end: Integers

    def __len__(self) -> int:
        return len(self.corner)

    def take(self, rows: Integers | Bools) -> "Cells":
        return Cells(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def joined(self, others: "list[Cells]") -> "Cells":
        return Cells(
            **{
                name: np.concatenate([getattr(self, name), *(getattr(one, name) for one in others)])
                for name in self.__slots__
            }
        )

    def quarters(self, keys: Keys) -> tuple["Cells", Integers]:
        """The quarters that hold rows; and 4 × the row of the cell that each is of + which of its four it is."""
        step = np.uint64(1) << (2 * (DEEPEST - 1 - self.depth)).astype(np.uint64)
        corners = np.asarray(self.corner[:, None] + step[:, None] * np.arange(4, dtype=np.uint64), np.uint64)
        inner = np.searchsorted(keys, corners[:, 1:].ravel()).reshape(-1, 3)
        four = Cells(
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
        west, south = column_row(self.corner)
        return west.astype(np.float64), south.astype(np.float64), side


NO_ROWS = np.empty(0, np.int64)
NO_CELLS = Cells(corner=np.empty(0, np.uint64), depth=NO_ROWS, begin=NO_ROWS, end=NO_ROWS)


def ranges(begin: Integers, end: Integers) -> Integers:
    """All numbers of half-open ranges."""
    length = end - begin
    total = int(length.sum())
    start = np.repeat(begin - (np.cumsum(length) - length), length)
    return start + np.arange(total)
