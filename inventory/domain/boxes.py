"""Boxes over packed points: which leaves lie in one, in whole units, so that nothing is rounded.

A box holds a point when its degrees lie between the box's, borders included: as ``ST_Intersects`` has it. Points are
whole units of 1e-7 degree, so a box is as good as the units within it, and leaves and points are compared as integers.
"""

from dataclasses import dataclass

import numpy as np

from inventory.domain.evidence import Integers
from inventory.domain.leaves import Leaves, corners
from inventory.domain.quadtree import UNITS_PER_DEGREE, Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBox:
    """First and last unit of 1e-7 degree that lie in a box; first > last where none does."""

    west: int
    south: int
    east: int
    north: int

    def holds(self, lon: Integers, lat: Integers) -> Bools:
        """(n,) whether points lie in it."""
        held: Bools = (lon >= self.west) & (lon <= self.east) & (lat >= self.south) & (lat <= self.north)
        return held


def unit_box(west: float, south: float, east: float, north: float) -> UnitBox:
    """The units in a box of degrees, its border included."""
    return UnitBox(
        west=_first_from(west), south=_first_from(south), east=_last_to(east), north=_last_to(north)
    )


def _first_from(degrees: float) -> int:
    """The lowest unit whose degrees are not below."""
    near = round(degrees * UNITS_PER_DEGREE)
    # The product is rounded: the neighbours are compared as what points are, degrees.
    return next(unit for unit in range(near - 1, near + 3) if unit / UNITS_PER_DEGREE >= degrees)


def _last_to(degrees: float) -> int:
    return -_first_from(-degrees)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundOfLeaves:
    """Leaves with their ground: the first and last units of each, (n,)."""

    leaves: Leaves
    west: Integers
    south: Integers
    east: Integers
    north: Integers

    def lying(self, box: UnitBox) -> tuple[Integers, Integers]:
        """The leaves that lie wholly in a box, and those that its border crosses; rising."""
        meets = (self.west <= box.east) & (self.east >= box.west)
        meets &= (self.south <= box.north) & (self.north >= box.south)
        met = np.flatnonzero(meets)
        within = (self.west[met] >= box.west) & (self.east[met] <= box.east)
        within &= (self.south[met] >= box.south) & (self.north[met] <= box.north)
        return met[within], met[~within]


def ground_of(leaves: Leaves) -> GroundOfLeaves:
    """Where leaves lie; to be kept as long as they are."""
    west, south, side = corners(leaves)
    return GroundOfLeaves(leaves=leaves, west=west, south=south, east=west + side - 1, north=south + side - 1)
