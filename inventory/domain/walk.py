"""A walk through the instants: the tracks so far, what was stored of them, and the states said of them.

It knows nothing of looks or decisions: ``fold.py`` and ``deciding.py`` change tracks, the walk keeps what is said when,
and, where stored states are gone on from, which tracks are open to change at an instant and which follow them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inventory.domain.evidence import NEVER, Integers
from inventory.domain.touching import Active, Touched
from inventory.domain.tracks import COLUMNS, NO_TRACK, Keys, StoredStates, Tracks


class Walk:
    """The state of a fold between and during instants.

    Attributes:
        t, here: what is said of the tracks now, and which of them there are.
        before, was_here: what was stored for just before the instant; ``after``: for its end.
        dirty: tracks of which the first two say different things.
        open: tracks that are decided anew at this instant.
        decided: those that were at any; ``told``: those, and what was only listed anew.
    """

    def __init__(self, stored: StoredStates, touched: Touched) -> None:
        self.classes, self.texts = list(stored.classes), list(stored.texts)
        self.keys = Keys()
        self.t, self.before, self.after, self._said = Tracks(), Tracks(), Tracks(), Tracks()
        nobody = np.empty(0, bool)
        self.here = self.was_here = self.dirty = self.open = self.told = self.decided = self._is_said = nobody
        self._said_from = np.empty(0, np.int64)
        self._written: list[dict[str, NDArray[Any]]] = []
        self._stored = stored.columns
        self._everything = touched.everything
        self.add_keys(np.unique(self._stored["track"]))
        self._start(touched.since)

    def _start(self, since: int) -> None:
        """The tracks as they stood just before the first instant that changes."""
        stored = self._stored
        standing = np.flatnonzero((stored["valid_from"] < since) & (stored["valid_to"] >= since))
        rows = self.keys.rows(stored["track"][standing])
        for table in (self.t, self.before, self.after, self._said):
            table.set(rows, stored, standing)
        self.here[rows] = self.was_here[rows] = self._is_said[rows] = True
        self._said_from[rows] = stored["valid_from"][standing]
        self.told[:] = self.decided[:] = self._everything
        later = np.flatnonzero(stored["valid_from"] >= since)
        self._later = later[np.argsort(stored["valid_from"][later], kind="stable")]

    def instants(self) -> set[int]:
        """When anything was said to happen, from the first change on."""
        return set() if self._everything else set(np.unique(self._stored["valid_from"][self._later]).tolist())

    def stored_at(self, at: int) -> Integers:
        """The stored states that begin at this instant."""
        stored = self._later[: np.searchsorted(self._stored["valid_from"][self._later], at, side="right")]
        self._later = self._later[len(stored) :]
        self.after.set(self.keys.rows(self._stored["track"][stored]), self._stored, stored)
        return stored

    def follow(self, stored: Integers, active: Active) -> None:
        """Tracks that nothing changed bears on become what was stored for this instant."""
        rows = self.keys.rows(self._stored["track"][stored])
        self.before.set(rows, self._stored, stored)
        self.was_here[rows] = True
        quiet = ~active.tracks[rows]
        self.t.set(rows[quiet], self._stored, stored[quiet])
        self.here[rows[quiet]] = True
        self.open = active.tracks.copy()

    def known(self) -> NDArray[np.bool_]:
        """Tracks that speak for themselves, among those decided anew."""
        return np.asarray(self.here & self.open & (self.t["merged_into"] == NO_TRACK))

    def append(self, keys: Integers, **columns: Any) -> Integers:
        """Tracks that begin now; one that began here in an earlier fold as well has its row already."""
        tracks = self.add_keys(keys)
        self.t.clear(tracks)
        for name, values in columns.items():
            self.t[name][tracks] = values
        self.here[tracks] = self.open[tracks] = True
        return tracks

    def add_keys(self, keys: Integers) -> Integers:
        """Rows of keys; a key that is new gets a row of which nothing is said."""
        known = len(self.keys.key)
        rows = self.keys.add(keys)
        if n := len(self.keys.key) - known:
            for table in (self.t, self.before, self.after, self._said):
                table.grow(n)
            for name in ("here", "was_here", "dirty", "open", "told", "decided", "_is_said"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(n, bool)]))
            self._said_from = np.concatenate([self._said_from, np.full(n, NEVER, np.int64)])
        return rows

    def say(self, at: int) -> None:
        """Writes what has changed since the last instant; what did not change goes on."""
        changed = self.here & ~self._is_said | (self._is_said & self.t.differs(self._said))
        rows = np.flatnonzero(changed)
        self._close(rows[self._is_said[rows]], at)
        self._said.set(rows, self.t.columns, rows)
        self._said_from[rows] = at
        self._is_said[rows] = True

    def _close(self, tracks: Integers, until: int) -> None:
        if not len(tracks):
            return
        state = {name: self._said[name][tracks] for name in COLUMNS}
        state["track"] = tracks
        state["valid_from"] = self._said_from[tracks]
        state["valid_to"] = np.full(len(tracks), until, np.int64)
        self._written.append(state)

    def compare(self) -> None:
        """Which tracks differ from what was stored, now that the instant is over."""
        if not self._everything:
            self.dirty = (self.here != self.was_here) | self.t.differs(self.before)

    def states(self) -> dict[str, NDArray[Any]]:
        """Everything said of the tracks that were told, open states included."""
        self._close(np.flatnonzero(self._is_said & self.told), NEVER)
        names = (*COLUMNS, "track", "valid_from", "valid_to")
        states = {
            name: np.concatenate([np.empty(0, _dtype(name)), *(part[name] for part in self._written)])
            for name in names
        }
        told = self.told[states["track"]]
        return {name: column[told] for name, column in states.items()}


def _dtype(name: str) -> Any:
    return COLUMNS[name][0] if name in COLUMNS else np.int64
