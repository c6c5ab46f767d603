"""How probable it is that an asset is there, and which assets are listed (R8)."""

import numpy as np
from numpy.typing import NDArray

from inventory.domain.evidence import Floats, Hashes, Integers, Reliability

_PLANTED_SHARE = 0.01
"""Share of new things between two looks, so that a first hit late in a long series is not held impossible."""
PROBABILITY_RANGE = (0.001, 0.999)


def first_hit_probability(reliability: Reliability, *, hits_per_m2: float, looks_before: Integers) -> Floats:
    """Probability that a first hit is real: r·u / (r·u + λ), u the density of things not yet detected.

    Args:
        hits_per_m2: density of the look's hits, of which the card's precision is real.
        looks_before: (n,) adequate looks at that ground before this one.
    """
    r = reliability.recall
    real_per_m2 = hits_per_m2 * reliability.precision / r
    # What k looks with recall r have left undetected; errors that persist are missed every time.
    s = reliability.persistent_share
    left = s * (1 - r) + (1 - s) * (1 - r) ** np.maximum(looks_before, 1)
    undetected = real_per_m2 * np.where(looks_before == 0, 1.0, left + _PLANTED_SHARE)
    expected = r * undetected
    return np.clip(
        expected / np.maximum(expected + reliability.false_alarms_per_m2, 1e-15), *PROBABILITY_RANGE
    )


def updated_probability(
    probability: Floats,
    reliability: Reliability,
    *,
    hit: NDArray[np.bool_],
    same_model: NDArray[np.bool_],
    gate_area_m2: Floats,
) -> Floats:
    """Bayes' rule for assets already known, after a hit or an adequate miss.

    A real thing is hit again with probability s + (1 − s)·r, a false alarm with s + (1 − s)·λ·(area of the
    gate), s the persistent share: repeated looks by one model are not independent.
    """
    s = np.where(same_model, reliability.persistent_share, 0.0)
    real = s + (1 - s) * reliability.recall
    chance = np.clip(reliability.false_alarms_per_m2 * gate_area_m2, 1e-3, 0.5)
    false = np.minimum(s + (1 - s) * chance, 0.95 * real)
    likelihood_ratio = np.where(hit, real / false, (1 - real) / (1 - false))
    odds = probability / (1 - probability) * np.maximum(likelihood_ratio, 1e-6)
    return np.clip(odds / (1 + odds), *PROBABILITY_RANGE)


def listing_cells(x: Floats, y: Floats, hit: NDArray[np.bool_]) -> Integers:
    """Cell of each asset: squares of 1 km, doubled in side while they hold fewer than 100 hits.

    Returns:
        (n,) numbers, equal within a cell.
    """
    cell = np.full(len(x), -1, np.int64)
    column, row = np.floor(x / CELL_M).astype(np.int64), np.floor(y / CELL_M).astype(np.int64)
    open_rows = np.arange(len(x))
    next_number = 0
    for level in range(_CELL_LEVELS):
        if not len(open_rows):
            break
        keys = np.column_stack([column[open_rows] >> level, row[open_rows] >> level])
        _, group = np.unique(keys, axis=0, return_inverse=True)
        group = group.ravel()
        enough = np.bincount(group, weights=hit[open_rows]) >= CELL_LEAST_HITS
        settled = enough[group] | (level == _CELL_LEVELS - 1)
        cell[open_rows[settled]] = group[settled] + next_number
        next_number += len(enough)
        open_rows = open_rows[~settled]
    return cell


def choose_listed(
    cell: Integers,
    *,
    hit: NDArray[np.bool_],
    probability: Floats,
    gone: NDArray[np.bool_],
    score: Floats,
    content: Hashes,
) -> NDArray[np.bool_]:
    """Per cell, as many assets as its newest look has hits: those of highest probability, gone ones last.

    All arguments are (n,) over the undecided assets whose newest adequate look is one and the same.
    """
    order = np.lexsort((content, -score, ~hit, -probability, gone, cell))
    _, first, of_cell = np.unique(cell[order], return_index=True, return_inverse=True)
    rank = np.arange(len(order)) - first[of_cell]
    wanted = np.bincount(of_cell, weights=hit[order]).astype(np.int64)
    listed = np.zeros(len(cell), bool)
    listed[order] = rank < wanted[of_cell]
    return listed
