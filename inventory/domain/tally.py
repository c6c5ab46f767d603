"""What a count says (R13): how many, how sure, of how much ground, on whose word."""

from dataclasses import dataclass
from datetime import date
from math import sqrt
from typing import Any

Z90 = 1.645
"""Half-width of a central 90 % interval of a normal distribution, in standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How many are listed, and how many of them people verified without open review."""

    listed: int
    verified: int

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(listed=self.listed + other.listed, verified=self.verified + other.verified)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountError:
    """e and φ of R13, from a card's errors per block; None where a model behind it was never evaluated."""

    relative_error: float
    dispersion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRow:
    """One count. ``count`` and ``coverage`` are None where nothing was surveyed, never 0; looks are local dates."""

    area: str | None
    name: str | None
    class_name: str
    count: int | None
    low: float | None
    high: float | None
    basis: str
    coverage: float | None
    as_of: date
    oldest_look: date | None
    newest_look: date | None

    def as_json(self) -> dict[str, Any]:
        """The object of ``count --json`` and of the API."""
        return {
            "area": self.area,
            "name": self.name,
            "class": self.class_name,
            "count": self.count,
            "low": self.low,
            "high": self.high,
            "basis": self.basis,
            "coverage": self.coverage,
            "as_of": self.as_of.isoformat(),
            "oldest_look": self.oldest_look.isoformat() if self.oldest_look else None,
            "newest_look": self.newest_look.isoformat() if self.newest_look else None,
        }


def interval(count: int, verified: int, error: CountError | None) -> tuple[float | None, float | None]:
    """The 90 % interval count ± 1.645·√((e·count)² + φ·count), not below what people verified (R13).

    Args:
        verified: verified assets in the count without an open review.
        error: None for unvalidated models: then there is no interval.
    """
    if error is None:
        return None, None
    half = Z90 * sqrt((error.relative_error * count) ** 2 + error.dispersion * count)
    return round(max(count - half, float(verified), 0.0), 1), round(count + half, 1)
