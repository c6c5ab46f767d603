"""Points packed by place: leaves of the quadtree, and what happened to the count at the points of each.

A *leaf* is a cell of the quadtree that holds at most ``LEAF_POINTS`` events (or is as small as a cell can be); the
leaves of a class follow one another in Morton order. Those that no edge of a polygon crosses lie inside or outside of
it as a whole and are summed; only the points of the others are tested (``border.py``).
"""

from dataclasses import dataclass

import numpy as np

from inventory.domain.evidence import Integers
from inventory.domain.quadtree import (
    DEEPEST,
    NO_CELLS,
    SOUTH,
    WEST,
    Bools,
    Cells,
    Keys,
    column_row,
    morton,
    shared_halvings,
    span,
)
from inventory.domain.tally import Counted

LEAF_POINTS = 128
"""Most events of a leaf: fewer make the list of leaves long, more make the border thick."""


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
        events: how many it holds.
        kinds: of how many kinds these are (``kinds_of``).
        plain: 1 where each event adds one to the count, and none verified: then the points inside are the count.
        listed, verified: sums over all events.
        oldest, newest: instants of the first and the last event: before the one nothing counts, from the other on
            the sums do.
    """

    key: Keys
    depth: Integers
    events: Integers
    kinds: Integers
    plain: Integers
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
        depth = self._free_depth(keys)
        corners, first = np.unique(keys & ~span(depth), return_index=True)
        return corners, depth[first]

    def free_corner(self, keys: Keys) -> Keys:
        """(n,) corner of the largest empty cell that holds each of these places, which lie in no leaf."""
        return keys & ~span(self._free_depth(keys))

    def _free_depth(self, keys: Keys) -> Integers:
        """(n,) halvings of the largest cell that holds each place and no leaf; the places lie in none."""
        depth = np.zeros(len(keys), np.int64)
        if len(self):
            after = np.searchsorted(self.key, keys, side="right")
            for neighbour in (np.maximum(after - 1, 0), np.minimum(after, len(self) - 1)):
                # One halving more than the cell that holds both, as seen from the leaf's nearer end.
                nearest = np.where(
                    self.key[neighbour] > keys,
                    self.key[neighbour],
                    self.key[neighbour] + span(self.depth[neighbour]),
                )
                depth = np.maximum(depth, shared_halvings(keys, nearest) + 1)
        return depth

    def of(self, keys: Keys) -> Integers:
        """(n,) the leaf that holds each place; −1 for none."""
        if not len(self.key):
            return np.full(len(keys), -1, np.int64)
        at = np.searchsorted(self.key, keys, side="right") - 1
        return np.where(self.hold(at, keys), at, -1).astype(np.int64)

    def hold(self, leaves: Integers, keys: Keys) -> Bools:
        """(n,) whether each of the leaves given holds the place beside it; none for −1."""
        if not len(self.key):
            return np.zeros(len(keys), bool)
        known = np.maximum(leaves, 0)
        # Whole numbers without sign: a place before the leaf is very far after it.
        held: Bools = (leaves >= 0) & (keys - self.key[known] <= span(self.depth[known]))
        return held


NO_LEAVES = Leaves(
    key=np.empty(0, np.uint64), **{name: np.empty(0, np.int64) for name in Leaves.__slots__ if name != "key"}
)


def corners(leaves: Leaves) -> tuple[Integers, Integers, Integers]:
    """West and south of each leaf's cell, as points are given, and its side; in units."""
    west, south = column_row(leaves.key)
    return west - WEST, south - SOUTH, np.left_shift(1, DEEPEST - leaves.depth)


def by_latitude(events: Events, begin: Integers) -> Events:
    """The events of leaves, as ``divided`` gives them, in order of latitude within each: as they are stored."""
    leaf = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
    return events.take(np.lexsort((events.lat, leaf)))


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
    cells = Cells(
        corner=corner,
        depth=depth,
        begin=np.searchsorted(keys, corner),
        end=np.searchsorted(keys, corner + span(depth), side="right"),
    )
    cells = cells.take(cells.end > cells.begin)
    done = []
    while len(cells):
        small = (cells.end - cells.begin <= LEAF_POINTS) | (cells.depth >= DEEPEST)
        done.append(cells.take(small))
        cells, _ = cells.take(~small).quarters(keys)
    cells = NO_CELLS.joined(done)
    if not len(cells):
        return NO_LEAVES, np.zeros(1, np.int64)
    cells = cells.take(np.argsort(cells.begin, kind="stable"))
    begin = np.append(cells.begin, len(keys))
    leaves = Leaves(
        key=cells.corner,
        depth=cells.depth,
        events=cells.end - cells.begin,
        kinds=kinds_of(events, begin).each,
        plain=np.minimum.reduceat((events.listed == 1) & (events.verified == 0), cells.begin).astype(
            np.int64
        ),
        listed=np.add.reduceat(events.listed, cells.begin),
        verified=np.add.reduceat(events.verified, cells.begin),
        oldest=np.minimum.reduceat(events.at, cells.begin),
        newest=np.maximum.reduceat(events.at, cells.begin),
    )
    return leaves, begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """The events of leaves by what they do and when: most of a leaf's happened at the same few instants.

    Attributes:
        each: (leaves,) how many kinds each leaf has.
        at, listed, verified: (k,) what the events of a kind say, by leaf.
        events: (k,) how many of them there are.
        of: (n,) the kind of each event, numbered from 0 within its leaf.
    """

    each: Integers
    at: Integers
    listed: Integers
    verified: Integers
    events: Integers
    of: Integers


def kinds_of(events: Events, begin: Integers) -> Kinds:
    """The kinds of the events of leaves, as ``divided`` gives them."""
    each = np.diff(begin)
    leaf = np.repeat(np.arange(len(each)), each)
    # One number for each different event: sorting rows of four takes ten times as long.
    code = leaf
    for values in (events.at, events.listed, events.verified):
        different, number = np.unique(values, return_inverse=True)
        code = code * max(len(different), 1) + number
    _, one, of, count = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
    kinds = np.bincount(leaf[one], minlength=len(each))
    first = np.cumsum(kinds) - kinds
    return Kinds(
        each=kinds,
        at=events.at[one],
        listed=events.listed[one],
        verified=events.verified[one],
        events=count,
        of=of - first[leaf],
    )
