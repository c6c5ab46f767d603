"""Tracks as columns: what will be an asset, one row each, and what was stored of it before.

A track is called by its key: the observation that minted it, or minus the decision that did. Keys are the
same in every fold, row numbers are one fold's own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inventory.domain.evidence import NEVER, Floats, Integers
from inventory.domain.matching import Positions

PRESENT, DOUBTFUL, GONE, REJECTED = range(4)
STATUSES = ("present", "doubtful", "gone", "rejected")
NO_TRACK = 0
"""In place of a key."""

COLUMNS: dict[str, tuple[Any, Any]] = {
    # name: (dtype, value of a new track). Reals that the table keeps as float32 are float32 here as well, so
    # that a fold that goes on from stored states computes what one from nothing does.
    "x": (np.float64, 0.0),
    "y": (np.float64, 0.0),
    "cell": (np.int64, 0),
    "error_m": (np.float32, 1.0),
    "width_m": (np.float32, 0.0),
    "height_m": (np.float32, 0.0),
    "score": (np.float32, np.nan),
    "content": (np.uint64, 0),
    "probability": (np.float32, 0.5),
    "lasting": (np.float32, 0.0),  # how probably it is an error that every look repeats, if it is one at all
    "hits": (np.int64, 0),
    "misses": (np.int64, 0),
    "first_seen": (np.int64, 0),
    "last_seen": (np.int64, 0),
    "first_missed": (np.int64, NEVER),
    "look": (np.int64, -1),  # the newest adequate look at its ground
    "hit": (np.bool_, False),  # whether that look saw it
    "status": (np.int64, PRESENT),
    "verified": (np.bool_, False),
    "review": (np.bool_, False),
    "placed": (np.bool_, False),  # a person said where it is
    "felled": (np.bool_, False),  # a person said that it is gone
    "merged_into": (np.int64, NO_TRACK),
    "replaces": (np.int64, NO_TRACK),
    "observation_id": (np.int64, -1),
    "survey_id": (np.int64, -1),
    "decision": (np.int64, -1),
    "model": (np.int64, -1),
    "class_code": (np.int64, 0),
    "details": (np.int64, -1),
    "listed": (np.bool_, False),
}
"""All that is said of a track; a change of any of it makes a new state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStates:
    """States as an earlier fold said them: ``COLUMNS`` and ``track`` (key), ``valid_from``, ``valid_to``, ``id``.

    Rows are in order of track and time; ``class_code`` indexes ``classes``, ``details`` indexes ``texts``.
    """

    columns: dict[str, NDArray[Any]]
    classes: tuple[str, ...]
    texts: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.columns["track"])

    @staticmethod
    def none(class_name: str) -> "StoredStates":
        """Nothing was said before."""
        bounds = dict.fromkeys(("track", "valid_from", "valid_to", "id"), np.int64)
        dtypes = {name: dtype for name, (dtype, _) in COLUMNS.items()} | bounds
        columns: dict[str, NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in dtypes.items()}
        return StoredStates(columns=columns, classes=(class_name,), texts=())


class Tracks:
    """A table of tracks that can grow; columns by name."""

    def __init__(self) -> None:
        self.columns: dict[str, NDArray[Any]] = {
            name: np.empty(0, dtype) for name, (dtype, _) in COLUMNS.items()
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def grow(self, n: int) -> None:
        """Appends ``n`` tracks of which nothing is said yet."""
        for name, (dtype, initial) in COLUMNS.items():
            self.columns[name] = np.concatenate([self.columns[name], np.full(n, initial, dtype)])

    def clear(self, rows: Integers) -> None:
        """Says nothing of these tracks any more."""
        for name, (_, initial) in COLUMNS.items():
            self.columns[name][rows] = initial

    def set(self, rows: Integers, source: dict[str, NDArray[Any]], at: Integers) -> None:
        """Copies rows ``at`` of a table of states."""
        for name in COLUMNS:
            self.columns[name][rows] = source[name][at]

    def crown_m(self, rows: Integers) -> Floats:
        """Diameter: the mean of the sides."""
        return np.asarray(self["width_m"][rows].astype(np.float64) + self["height_m"][rows]) / 2

    def positions(self, rows: Integers) -> Positions:
        """Where tracks are, with error and crown."""
        return Positions(
            x=self["x"][rows],
            y=self["y"][rows],
            error_m=self["error_m"][rows].astype(np.float64),
            crown_m=self.crown_m(rows),
        )

    def differs(self, other: "Tracks") -> NDArray[np.bool_]:
        """Which tracks two tables say different things of."""
        changed = np.zeros(len(self["x"]), bool)
        for name in COLUMNS:
            one, two = self[name], other[name]
            same = one == two
            if one.dtype.kind == "f":
                same |= np.isnan(one) & np.isnan(two)
            changed |= ~same
        return changed


class Keys:
    """Keys → rows of this fold."""

    def __init__(self) -> None:
        self.key = np.empty(0, np.int64)
        self._sorted = self._order = self.key

    def add(self, keys: Integers) -> Integers:
        """Rows of keys, new ones appended in the order given."""
        rows = self.rows(keys)
        fresh = np.flatnonzero(rows < 0)
        rows[fresh] = np.arange(len(self.key), len(self.key) + len(fresh))
        if len(fresh):
            self.key = np.concatenate([self.key, keys[fresh]])
            self._order = np.argsort(self.key, kind="stable")
            self._sorted = self.key[self._order]
        return rows

    def rows(self, keys: Integers) -> Integers:
        """Rows of keys, −1 for those that are not there."""
        if not len(self.key):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self.key) - 1)
        return np.where(self._sorted[at] == keys, self._order[at], -1)
