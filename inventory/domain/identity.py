"""Which id a track carries (R7): anchored in an observation or decision, kept through withdrawals, never used twice.

Fold tracks come and go with the evidence; ids stay. An id is anchored in the observation (or decision) that
minted it and, while that is withdrawn, in the next observation of its last track. The oldest id anchored in a
track names it; the others are its aliases until they part again.
"""

from dataclasses import dataclass

import numpy as np

from inventory.domain.evidence import Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """Ids and the rows of the tracks that they are anchored in: (n,) each; an older id has a smaller number."""

    asset_id: Integers
    track: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The outcome: ``asset_of_track`` with −1 where an id is to be minted, and who is whose alias."""

    asset_of_track: Integers
    aliases: dict[int, int | None]
    """Alias → the id that its track carries; None: an id of its own."""


def name_tracks(tracks: int, anchored: Anchored) -> Named:
    """Gives each of so many tracks its id. Ids without any anchor in the evidence rest, and come back with it."""
    order = np.argsort(anchored.asset_id, kind="stable")[::-1]
    name = np.full(tracks, -1, np.int64)
    # Written from the youngest to the oldest: what stands in the end is the oldest.
    name[anchored.track[order]] = anchored.asset_id[order]
    carried = name[anchored.track]
    return Named(
        asset_of_track=name,
        aliases={
            one: None if one == other else other
            for one, other in zip(anchored.asset_id.tolist(), carried.tolist(), strict=True)
        },
    )


class Lookup:
    """Numbers → values, −1 for a number that is not there."""

    def __init__(self, keys: Integers, values: Integers) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._values = keys[order], values[order]

    def __call__(self, wanted: Integers) -> Integers:
        if not len(self._keys):
            return np.full(len(wanted), -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._values[at], -1)
