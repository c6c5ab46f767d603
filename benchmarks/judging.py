"""What a fold made of a generated city, held against the truth, survey by survey.

A track shows the tree that most of its observations up to the date show (of equally many the newest one's);
false alarms count as one more tree that does not stand. "Newest" attribution, by the last observation alone,
is the stricter one for ids; both are given.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.cities import Flown
from inventory.domain.evidence import Integers
from inventory.domain.fold import Folded
from inventory.domain.tracks import GONE

_NOTHING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One survey's outcome. Shares are None where there is nothing to have a share of.

    ``kept`` speaks of trees listed and standing at the survey before and listed now, ``dropped`` of listed
    ones that still stand now and are no longer listed. ``felled_gone`` to ``standing_listed`` speak of trees
    listed at any earlier survey, by the state of the newest of their tracks.
    """

    year: int
    truth: int
    listed: int
    precision: float
    hit_precision: float
    duplicates: int
    kept: float | None
    kept_strictly: float | None
    dropped: float | None
    felled_gone: float | None
    felled_listed: float | None
    standing_gone: float | None
    standing_listed: float | None

    @property
    def count_error(self) -> float:
        """Relative error of the listed count."""
        return self.listed / self.truth - 1


def judge(flown: Flown, folded: Folded) -> list[Verdict]:
    """A verdict a flight, in order of date; flights are of different years."""
    history = _History(flown, folded)
    return [history.verdict(number) for number in range(len(flown.looks))]


def discordant(flown: Flown, folded: Folded, first: int, last: int) -> tuple[int, int]:
    """How many tracks were hit by one of two looks and not by the other: only before, only after."""
    look_of = look_of_observations(flown)[folded.hit_observation]
    before, after = (np.unique(folded.hit_track[look_of == number]) for number in (first, last))
    both = len(np.intersect1d(before, after))
    return len(before) - both, len(after) - both


def look_of_observations(flown: Flown) -> Integers:
    """(observations,) the number of the look of each, by id."""
    look_of = np.empty(len(flown.tree_of), np.int64)
    for number, look in enumerate(flown.looks):
        for scene in look.scenes:
            look_of[scene.observations.id] = number
    return look_of


class _History:
    """Tracks, observations and trees, brought together once."""

    def __init__(self, flown: Flown, folded: Folded) -> None:
        self.flown, self.folded = flown, folded
        self.tracks = len(folded.tracks["root_observation"])
        self.link_look = look_of_observations(flown)[folded.hit_observation]
        self.link_tree = flown.tree_of[folded.hit_observation]
        self.link_track = folded.hit_track
        self.ever_listed = np.zeros(len(flown.city.x), bool)
        self.before: tuple[Integers, Integers, NDArray[np.bool_]] | None = None

    def tree_of_tracks(self, number: int) -> tuple[Integers, Integers]:
        """(tracks,) the tree of each by most observations, and by the newest one, up to a look."""
        rows = np.flatnonzero(self.link_look <= number)
        track, tree, look = self.link_track[rows], self.link_tree[rows], self.link_look[rows]
        newest = np.full(self.tracks, _NOTHING)
        newest[track[np.argsort(look, kind="stable")]] = tree[np.argsort(look, kind="stable")]
        pairs, of_pair = np.unique(np.column_stack([track, tree]), axis=0, return_inverse=True)
        votes = np.bincount(of_pair.ravel(), minlength=len(pairs))
        last = np.zeros(len(pairs), np.int64)
        np.maximum.at(last, of_pair.ravel(), look)
        order = np.lexsort((last, votes))
        most = np.full(self.tracks, _NOTHING)
        most[pairs[order, 0]] = pairs[order, 1]
        return most, newest

    def verdict(self, number: int) -> Verdict:
        """Surveys have to be asked for in order."""
        states, look, city = self.folded.states, self.flown.looks[number], self.flown.city
        year = self.flown.flights[number].year
        now = (states["valid_from"] <= look.at) & (look.at < states["valid_to"])
        listed, gone = (np.zeros(self.tracks, bool) for _ in range(2))
        listed[states["track"][now]] = states["listed"][now]
        gone[states["track"][now]] = states["status"][now] == GONE
        standing = city.standing(year)
        most, newest = self.tree_of_tracks(number)
        trees = most[listed & (most != _NOTHING)]
        hits = self.link_tree[self.link_look == number]
        kept, kept_strictly, dropped = self._since_before(most, newest, listed, standing)
        ends = self._ends(most, listed, gone, standing)
        self.ever_listed[trees] = True
        self.before = (most, newest, listed)
        return Verdict(
            year=year,
            truth=int(standing.sum()),
            listed=int(listed.sum()),
            precision=float(standing[trees].sum() / max(listed.sum(), 1)),
            hit_precision=float((hits != _NOTHING).mean()),
            duplicates=len(trees) - len(np.unique(trees)),
            kept=kept,
            kept_strictly=kept_strictly,
            dropped=dropped,
            **ends,
        )

    def _since_before(
        self, most: Integers, newest: Integers, listed: NDArray[np.bool_], standing: NDArray[np.bool_]
    ) -> tuple[float | None, float | None, float | None]:
        if self.before is None:
            return None, None, None
        most_before, newest_before, listed_before = self.before
        kept, again = [], np.empty(0, np.int64)
        for trees_before, trees in ((most_before, most), (newest_before, newest)):
            was = np.unique(trees_before[listed_before & (trees_before != _NOTHING)])
            was = was[standing[was]]
            again = np.intersect1d(was, trees[listed])
            same = listed_before & listed & (trees == trees_before) & (trees != _NOTHING)
            kept.append(_share(np.isin(again, trees[same])))
            if trees is most:
                dropped = _share(~np.isin(was, again))
        return kept[0], kept[1], dropped

    def _ends(
        self,
        most: Integers,
        listed: NDArray[np.bool_],
        gone: NDArray[np.bool_],
        standing: NDArray[np.bool_],
    ) -> dict[str, float | None]:
        """What became of the trees that had been listed before."""
        had = np.flatnonzero(self.ever_listed)
        # A tree is gone when all its tracks are, listed when one of them is.
        there = most != _NOTHING
        not_gone = np.isin(had, most[there & ~gone])
        still_listed = np.isin(had, most[there & listed])
        of = standing[had]
        return {
            "felled_gone": _share(~not_gone[~of]),
            "felled_listed": _share(still_listed[~of]),
            "standing_gone": _share(~not_gone[of]),
            "standing_listed": _share(still_listed[of]),
        }


def _share(which: NDArray[np.bool_]) -> float | None:
    return float(which.mean()) if len(which) else None
