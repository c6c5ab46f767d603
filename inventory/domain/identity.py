"""Which id a track carries (R7): rooted in an observation, kept through withdrawals, never used twice.

Fold tracks come and go with the evidence; ids stay. An id is anchored in the observation (or decision) that
minted it and, should that be withdrawn, in the next observation of its last track. The oldest id anchored
in a track names it; the others are its aliases until they part again.
"""

from dataclasses import dataclass

import numpy as np

from inventory.domain.evidence import Integers
from inventory.domain.fold import Folded


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIds:
    """Ids recorded so far, oldest first: (n,) each, −1 where there is none."""

    asset_id: Integers
    root_observation: Integers
    root_decision: Integers
    hit_asset: Integers
    """The asset of each link below."""
    hit_observation: Integers
    """Observations that an asset's track was last made of, in order of date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The outcome: ``asset_of_track`` with −1 where an id is to be minted, and who is whose alias."""

    asset_of_track: Integers
    aliases: dict[int, int | None]
    """Alias → the id that its track carries; None: an id of its own."""


def name_tracks(folded: Folded, known: KnownIds) -> Named:
    """Gives every track its id.

    Raises nothing: ids without any anchor in the evidence rest, and come back with it.
    """
    track_of = _track_of_ids(folded, known)
    asset_of_track = np.full(len(folded.tracks["root_observation"]), -1, np.int64)
    aliases: dict[int, int | None] = {}
    for asset_id, track in zip(known.asset_id.tolist(), track_of.tolist(), strict=True):
        if track < 0:
            continue
        carried = asset_of_track[track]
        if carried < 0:
            asset_of_track[track] = asset_id
        aliases[asset_id] = None if carried < 0 else int(carried)
    return Named(asset_of_track=asset_of_track, aliases=aliases)


def _track_of_ids(folded: Folded, known: KnownIds) -> Integers:
    """(ids,) the track in which each id is anchored, −1 for none."""
    by_observation = _Lookup(
        np.concatenate([folded.hit_observation, folded.tracks["root_observation"]]),
        np.concatenate([folded.hit_track, np.arange(len(folded.tracks["root_observation"]))]),
    )
    decisions = folded.tracks["root_decision"]
    by_decision = _Lookup(decisions, np.arange(len(decisions)))
    track = np.maximum(by_observation(known.root_observation), by_decision(known.root_decision))
    # Roots that are no longer evidence: the first of the last track's other observations that still is.
    linked = by_observation(known.hit_observation)
    standing = np.flatnonzero(linked >= 0)[::-1]
    next_of = dict(zip(known.hit_asset[standing].tolist(), linked[standing].tolist(), strict=True))
    for row in np.flatnonzero(track < 0).tolist():
        track[row] = next_of.get(int(known.asset_id[row]), -1)
    return track


class _Lookup:
    """Numbers → tracks, −1 for a number that is not there."""

    def __init__(self, keys: Integers, values: Integers) -> None:
        valid = keys >= 0
        order = np.argsort(keys[valid], kind="stable")
        self._keys, self._values = keys[valid][order], values[valid][order]

    def __call__(self, wanted: Integers) -> Integers:
        if not len(self._keys):
            return np.full(len(wanted), -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._values[at], -1)
