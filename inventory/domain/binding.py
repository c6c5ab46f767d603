"""Which asset a person means who gives a place: the one that stands clearly nearest (R11)."""

from collections.abc import Sequence
from dataclasses import dataclass

REACH_M = 6.0
"""A place further from every asset means none of them: the widest gate there is (R7)."""
_CLEARLY_FURTHER = 2.0
_CLEARLY_FURTHER_M = 1.0
"""The next one is another tree when it is twice as far, and a metre further: a place given by hand is no better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An asset near the place, as of the instant that the person speaks of."""

    public_id: str
    class_name: str
    status: str
    listed: bool
    distance_m: float

    @property
    def _standing(self) -> int:
        """What a person in the street can mean: the counted before the doubted, the gone, and the rejected."""
        if self.listed:
            return 0
        return {"gone": 2, "rejected": 3}.get(self.status, 1)


def meant(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates that a place within reach may mean: one where it is clear, several where it is not, or none.

    Of several that are about as near, one that stands best means itself: where a gone tree was replaced, the living.
    """
    near = sorted(
        (one for one in candidates if one.distance_m <= REACH_M),
        key=lambda one: (one.distance_m, one.public_id),
    )
    if not near:
        return ()
    first = near[0].distance_m
    limit = max(_CLEARLY_FURTHER * first, first + _CLEARLY_FURTHER_M)
    about = [one for one in near if one.distance_m < limit]
    best = min(one._standing for one in about)
    return tuple(one for one in about if one._standing == best)
