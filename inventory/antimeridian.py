"""Polygons over the 180th meridian, cut there as GeoJSON wants them (RFC 7946, section 3.1.9).

Three ways of drawing one are read alike: cut already; with rings that jump, as from 179 to −179; with longitudes
that go on, as from 179 to 181, which web maps give that repeat the world. A jump means the short way, never the
complement: it is one only where the short way is less than a quarter of the world; what lies between is refused.
"""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from inventory.errors import CrossesAntimeridian

FURTHEST_DEG = 540.0
"""Longitudes that a map gives which shows the world once more on either side."""
_TURN = 360.0
_HALF = 180.0
_LONGEST_JUMP_DEG = 90.0

Ring = NDArray[np.float64]
"""(n, 2) longitude, latitude."""


def is_plain(ring: Ring) -> bool:
    """Whether a ring stays within ±180 and takes no step of more than half the world, but for its whole width."""
    lon = ring[:, 0]
    steps = np.abs(np.diff(lon))
    return bool(np.abs(lon).max() <= _HALF and (steps <= _HALF).all())


def unrolled(rings: Sequence[Ring], where: str) -> list[Ring]:
    """A polygon's rings in longitudes without a jump: the shell begins within ±180, the holes lie beside it.

    Raises:
        CrossesAntimeridian: a ring goes round a pole, is wider than the world, or its steps may mean either way.
    """
    shell, *holes = (_without_jump(ring, f"{where}, ring {number}") for number, ring in enumerate(rings))
    shell = _turned(shell, -np.floor((shell[:, 0].min() + _HALF) / _TURN))
    middle = _middle(shell)
    return [shell, *(_turned(hole, np.rint((middle - _middle(hole)) / _TURN)) for hole in holes)]


def cut(polygon: Polygon) -> list[Polygon]:
    """The pieces within ±180 of a valid polygon whose longitudes begin there and may go on beyond 180."""
    if polygon.bounds[2] <= _HALF:
        return [polygon]
    here = shapely.intersection(polygon, shapely.box(-_HALF, -90, _HALF, 90))
    beyond = shapely.intersection(polygon, shapely.box(_HALF, -90, _HALF + _TURN, 90))
    beyond = shapely.transform(
        beyond, lambda lon_lat: np.column_stack([lon_lat[:, 0] - _TURN, lon_lat[:, 1]])
    )
    # Where it only touches the meridian a line or a point is left: no ground.
    return [part for side in (here, beyond) for part in shapely.get_parts(side) if isinstance(part, Polygon)]


def _without_jump(ring: Ring, where: str) -> Ring:
    lon = ring[:, 0]
    steps = np.diff(lon)
    if np.abs(lon).max() > _HALF:
        _require_short(lon, np.abs(steps) > _HALF, where)
        if np.ptp(lon) > _TURN:
            raise CrossesAntimeridian(
                "a ring is wider than the world", where=where, do="Draw it once round at most."
            )
        return ring
    jumps = np.abs(steps) > _HALF
    _require_short(lon, jumps & (_TURN - np.abs(steps) > _LONGEST_JUMP_DEG), where)
    turns = np.where(jumps, -np.sign(steps), 0.0)
    going_on = lon + _TURN * np.concatenate([[0.0], np.cumsum(turns)])
    closes, is_wide = going_on[-1] == going_on[0], np.ptp(going_on) > 0
    if closes and is_wide:
        return np.column_stack([going_on, ring[:, 1]])
    if (np.abs(steps[jumps]) == _TURN).all():
        # From −180 to 180 in one step: a band round the world, or the world itself.
        return ring
    raise CrossesAntimeridian(
        "a ring goes round a pole", where=where, do="Cut it at 180 and send a MultiPolygon (RFC 7946)."
    )


def _require_short(lon: NDArray[np.float64], long: NDArray[np.bool_], where: str) -> None:
    if long.any():
        first = int(np.argmax(long))
        raise CrossesAntimeridian(
            f"a ring runs from longitude {lon[first]:g} to {lon[first + 1]:g}, which may mean either way round",
            where=where,
            do="Cut it at 180 and send a MultiPolygon of both sides (RFC 7946).",
        )


def _middle(ring: Ring) -> float:
    return float(ring[:, 0].min() + ring[:, 0].max()) / 2


def _turned(ring: Ring, turns: float) -> Ring:
    return np.column_stack([ring[:, 0] + _TURN * turns, ring[:, 1]]) if turns else ring
