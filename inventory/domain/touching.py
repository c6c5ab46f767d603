"""What must be decided anew at an instant when some evidence has changed (R1), and how far that reaches.

Everything that happens at an instant is a graph: tracks, observations and decisions, joined where one can
bear on the other. What is connected to something changed is folded anew; the rest is as it was stored. A
track that comes out as it was is a change no longer, so changes die out by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from inventory.domain.cells import cells_around
from inventory.domain.evidence import Decision, Floats, Integers, Observations
from inventory.domain.matching import GATE_MAXIMUM_M, Positions, pairs_within_gate
from inventory.domain.ownership import seams_of
from inventory.domain.tracks import GONE, NO_TRACK, Keys, Tracks

REACH_M = 2 * GATE_MAXIMUM_M
"""Farther apart, nothing at one instant bears on anything else but through what lies between."""
_NEW_SPOT_M = 1.0
"""Standard error with which a new thing is compared with what stood there (R9); at least that of any sight."""

Mask = NDArray[np.bool_]
Edges = list[tuple[Integers, Integers]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """What has changed in the evidence since the stored states were folded.

    Attributes:
        since: microseconds; before it nothing changes.
        grounds: pieces of ground, metric CRS, each from an instant on.
        decisions: sequences of decisions that are new or newly taken back.
        everything: all ground from ``since`` on; then the rest is of no interest.
    """

    since: int
    grounds: tuple[tuple[int, shapely.Geometry], ...] = ()
    decisions: frozenset[int] = frozenset()
    everything: bool = False


class GroundTooSmall(Exception):
    """The ground at hand does not hold all that bears on the change; take these cells and tracks as well."""

    def __init__(self, *, cells: Integers | None = None, tracks: Integers | None = None) -> None:
        nothing = np.empty(0, np.int64)
        self.cells = nothing if cells is None else cells
        self.tracks = nothing if tracks is None else tracks
        super().__init__(f"{len(self.cells)} more cells and {len(self.tracks)} more tracks are needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sights:
    """The observations of one look at an instant, their scene's shift taken off."""

    seen: Observations
    scene_of: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """What is decided anew at an instant: rows of tracks, observations of each look, decisions by sequence."""

    tracks: Mask
    seen: tuple[Mask, ...]
    decisions: frozenset[int]


def active_at(
    touched: Touched,
    at: int,
    *,
    keys: Keys,
    now: Tracks,
    here: Mask,
    before: Tracks,
    was_here: Mask,
    after: Tracks,
    dirty: Mask,
    sights: Sequence[Sights],
    decisions: Sequence[Decision],
    region: Integers | None,
) -> Active:
    """The parts of an instant that something changed can bear on.

    Args:
        now, here: what this fold says of the tracks up to the instant, and which of them there are.
        before, was_here: what was stored for the same time.
        after: what was stored for the end of the instant; a track that began in it is there only.
        dirty: tracks of which the two say different things.
        decisions: all of this instant, those taken back among them.
        region: cells at hand; None: all there are.

    Raises:
        GroundTooSmall: something active lies so near the region's end that what lies beyond may bear on it.
    """
    if touched.everything:
        return Active(
            tracks=np.ones(len(here), bool),
            seen=tuple(np.ones(len(one.seen), bool) for one in sights),
            decisions=frozenset(decision.sequence for decision in decisions),
        )
    graph = _Graph(keys, now, here, before, was_here, after, dirty, sights, decisions)
    seeds = graph.seeds(touched, at)
    if not seeds.any():
        return graph.active(seeds)
    reached = graph.reached(seeds)
    if region is not None:
        x, y = graph.places(reached)
        beyond = np.setdiff1d(cells_around(x, y, REACH_M), region)
        if len(beyond):
            raise GroundTooSmall(cells=beyond)
    return graph.active(reached)


class _Graph:
    """Nodes: tracks, then the observations of each look, then decisions."""

    def __init__(
        self,
        keys: Keys,
        now: Tracks,
        here: Mask,
        before: Tracks,
        was_here: Mask,
        after: Tracks,
        dirty: Mask,
        sights: Sequence[Sights],
        decisions: Sequence[Decision],
    ) -> None:
        self._keys, self._now, self._here = keys, now, here
        self._before, self._was_here, self._dirty = before, was_here, dirty
        self._tables = ((now, here), (before, was_here), (after, after["first_seen"] != 0))
        self._sights, self._decisions = sights, decisions
        sizes = [len(here), *(len(one.seen) for one in sights), len(decisions)]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def seeds(self, touched: Touched, at: int) -> Mask:
        """(nodes,) what has changed itself."""
        seeds = np.zeros(self._first[-1], bool)
        tracks = seeds[: self._first[1]]
        tracks |= self._dirty
        for since, ground in touched.grounds:
            if since > at:
                continue
            shapely.prepare(ground)
            for table, there in self._tables:
                tracks |= there & shapely.contains_xy(ground, table["x"], table["y"])
            for number, one in enumerate(self._sights):
                inside = shapely.contains_xy(ground, one.seen.x, one.seen.y)
                seeds[self._first[number + 1] : self._first[number + 2]] |= inside
            for number, decision in enumerate(self._decisions):
                inside = np.asarray(shapely.contains_xy(ground, *_places(decision).T))
                seeds[self._first[-2] + number] |= inside.any()
        changed = [one.sequence in touched.decisions for one in self._decisions]
        seeds[self._first[-2] :] |= np.array(changed, bool)
        return seeds

    def reached(self, seeds: Mask) -> Mask:
        """(nodes,) what is connected to a seed."""
        edges = [*self._of_sights(), *self._between_looks(), *self._of_tracks(), *self._of_decisions()]
        first = np.concatenate([one for one, _ in edges])
        second = np.concatenate([other for _, other in edges])
        n = len(seeds)
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
        count, label = connected_components(graph, directed=False)
        hot = np.zeros(count, bool)
        hot[label[seeds]] = True
        return np.asarray(hot[label])

    def active(self, reached: Mask) -> Active:
        """The nodes by kind."""
        parts = np.split(reached, self._first[1:-1])
        return Active(
            tracks=parts[0],
            seen=tuple(parts[1:-1]),
            decisions=frozenset(
                decision.sequence for decision, hot in zip(self._decisions, parts[-1], strict=True) if hot
            ),
        )

    def places(self, reached: Mask) -> tuple[Floats, Floats]:
        """Where the nodes lie, tracks at their places of now and before."""
        parts = np.split(reached, self._first[1:-1])
        x = [table["x"][parts[0] & there] for table, there in self._tables]
        y = [table["y"][parts[0] & there] for table, there in self._tables]
        for one, hot in zip(self._sights, parts[1:-1], strict=True):
            x.append(one.seen.x[hot])
            y.append(one.seen.y[hot])
        for decision, hot in zip(self._decisions, parts[-1], strict=True):
            if hot:
                spots = _places(decision)
                x.append(spots[:, 0])
                y.append(spots[:, 1])
        return np.concatenate(x), np.concatenate(y)

    # --- edges ---------------------------------------------------------------------------------------

    def _of_sights(self) -> Edges:
        """Observations and tracks within a gate, observations across a seam, and what was minted by which."""
        edges: Edges = []
        for number, one in enumerate(self._sights):
            offset = self._first[number + 1]
            seams = seams_of(one.seen, one.scene_of)
            edges.append((seams[:, 0] + offset, seams[:, 1] + offset))
            minted = self._keys.rows(one.seen.id)
            known = np.flatnonzero(minted >= 0)
            edges.append((known + offset, minted[known]))
            spots = Positions(
                x=one.seen.x,
                y=one.seen.y,
                error_m=np.maximum(one.seen.error_m, _NEW_SPOT_M),
                crown_m=one.seen.crown_m,
            )
            edges += [self._near(spots, offset, self._now, self._here)]
            edges += [self._near(spots, offset, self._before, self._was_here & self._dirty)]
        return edges

    def _near(self, spots: Positions, offset: int, table: Tracks, there: Mask) -> tuple[Integers, Integers]:
        rows = np.flatnonzero(there)
        known = table.positions(rows)
        gone = (table["status"][rows] == GONE) | table["felled"][rows]
        known = Positions(
            x=known.x, y=known.y, error_m=np.where(gone, 2.0, known.error_m), crown_m=known.crown_m
        )
        pairs = pairs_within_gate(spots, known)
        return pairs.first + offset, rows[pairs.second]

    def _between_looks(self) -> Edges:
        """Two looks at one instant: what the first finds is there for the second."""
        edges: Edges = []
        for number in range(1, len(self._sights)):
            trees = [cKDTree(np.column_stack([one.seen.x, one.seen.y])) for one in self._sights[: number + 1]]
            for earlier, tree in enumerate(trees[:-1]):
                near = trees[-1].sparse_distance_matrix(tree, REACH_M, output_type="coo_matrix")
                edges.append(
                    (
                        near.row.astype(np.int64) + self._first[number + 1],
                        near.col.astype(np.int64) + self._first[earlier + 1],
                    )
                )
        return edges

    def _of_tracks(self) -> Edges:
        """A merged track and the one that it was merged into."""
        edges: Edges = []
        for table, there in ((self._now, self._here), (self._before, self._was_here)):
            rows = np.flatnonzero(there & (table["merged_into"] != NO_TRACK))
            heirs = self._keys.rows(table["merged_into"][rows])
            if (heirs < 0).any():
                raise GroundTooSmall(tracks=table["merged_into"][rows][heirs < 0])
            edges.append((rows, heirs))
        return edges

    def _of_decisions(self) -> Edges:
        """A decision, and all that lies where it could bind, or where it sends something."""
        if not self._decisions:
            return []
        first = self._first[-2]
        places = [_places(decision) for decision in self._decisions]
        of = np.repeat(np.arange(len(places)), [len(some) for some in places])
        spots = cKDTree(np.concatenate(places))
        gate = np.array([decision.gate_m for decision in self._decisions])
        sequence = np.array([decision.sequence for decision in self._decisions])
        added = self._keys.rows(-sequence)
        edges: Edges = [(np.flatnonzero(added >= 0) + first, added[added >= 0])]

        def near(x: Floats, y: Floats, nodes: Integers) -> None:
            if not len(nodes):
                return
            reach = float(gate.max()) + GATE_MAXIMUM_M
            pairs = spots.sparse_distance_matrix(
                cKDTree(np.column_stack([x, y])), reach, output_type="coo_matrix"
            )
            within = pairs.data <= gate[of[pairs.row]] + GATE_MAXIMUM_M
            edges.append((of[pairs.row[within]] + first, nodes[pairs.col[within]]))

        for table, there in self._tables:
            rows = np.flatnonzero(there)
            near(table["x"][rows], table["y"][rows], rows)
        for look, one in enumerate(self._sights):
            near(one.seen.x, one.seen.y, np.arange(len(one.seen)) + self._first[look + 1])
        among = spots.query_pairs(2 * float(gate.max()) + GATE_MAXIMUM_M, output_type="ndarray")
        edges.append((of[among[:, 0]] + first, of[among[:, 1]] + first))
        return edges


def _places(decision: Decision) -> Floats:
    """(1 or 2, 2): where a decision speaks of: its place, and the second one of move, merge and split."""
    places = [(decision.x, decision.y)]
    if "x" in decision.details:
        places.append((float(decision.details["x"]), float(decision.details["y"])))
    return np.array(places, np.float64)
