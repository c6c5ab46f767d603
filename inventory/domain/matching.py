"""Observations ↔ assets: who is whom, one-to-one and optimal (R7), and the shift between two looks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from inventory.domain.evidence import Floats, Integers

GATE_MAXIMUM_M = 6.0
_LEAST_RATIO = 1e-3
"""Log-likelihood ratio of the worst pair inside the gate: above 0, so that a match beats new + missed."""

_SHIFT_RADIUS_M = 6.0
_SHIFT_KERNEL_M = 0.75
_SHIFT_LEAST_PAIRS = 10
_SHIFT_LEAST_SHARE = 0.15
_SHIFT_LEAST_SIGMAS = 5.0
_SHIFT_LEAST_M = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Points with standard error and crown diameter, all in metres, (n,) each."""

    x: Floats
    y: Floats
    error_m: Floats
    crown_m: Floats

    def __len__(self) -> int:
        return len(self.x)

    @property
    def xy(self) -> Floats:
        """(n, 2) coordinates."""
        return np.column_stack([self.x, self.y])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Candidate pairs inside the gate: row in the first set, row in the second, distance, joint σ²."""

    first: Integers
    second: Integers
    distance_m: Floats
    variance_m2: Floats

    def take(self, rows: NDArray[np.bool_]) -> "Pairs":
        """The pairs chosen."""
        return Pairs(
            first=self.first[rows],
            second=self.second[rows],
            distance_m=self.distance_m[rows],
            variance_m2=self.variance_m2[rows],
        )


def gate_m(variance_m2: Floats, smaller_crown_m: Floats) -> Floats:
    """The gate of R7: max(3σ, half the smaller crown), at most 6 m."""
    gate: Floats = np.minimum(np.maximum(3 * np.sqrt(variance_m2), smaller_crown_m / 2), GATE_MAXIMUM_M)
    return gate


def pairs_within_gate(first: Positions, second: Positions) -> Pairs:
    """All pairs of the two sets that lie within their gate, ordered by (first, second)."""
    if len(first) == 0 or len(second) == 0:
        nothing = np.empty(0, np.int64)
        return Pairs(first=nothing, second=nothing, distance_m=np.empty(0), variance_m2=np.empty(0))
    near = cKDTree(first.xy).sparse_distance_matrix(
        cKDTree(second.xy), GATE_MAXIMUM_M, output_type="coo_matrix"
    )
    order = np.lexsort((near.col, near.row))
    rows, columns, distance = near.row[order], near.col[order], near.data[order]
    variance = first.error_m[rows] ** 2 + second.error_m[columns] ** 2
    inside = distance <= gate_m(variance, np.minimum(first.crown_m[rows], second.crown_m[columns]))
    return Pairs(
        first=rows[inside].astype(np.int64),
        second=columns[inside].astype(np.int64),
        distance_m=distance[inside],
        variance_m2=variance[inside],
    )


def log_likelihood_ratio(pairs: Pairs, *, recall: float, present: Floats, new_per_m2: float) -> Floats:
    """Log-likelihood of each pair as one thing, against “one new and one missed”.

    Args:
        recall: of the look.
        present: (pairs,) probability that the asset of the pair is there.
        new_per_m2: density of hits that belong to no known asset: r·u + λ.
    """
    spread = np.exp(-(pairs.distance_m**2) / (2 * pairs.variance_m2)) / (2 * np.pi * pairs.variance_m2)
    seen = np.clip(recall * present, 1e-6, 1 - 1e-6)
    ratio = np.log(np.maximum(seen * spread, 1e-300)) - np.log(max(new_per_m2, 1e-12)) - np.log1p(-seen)
    floored: Floats = np.maximum(ratio, _LEAST_RATIO)
    return floored


def assign(pairs: Pairs, weight: Floats, n_first: int, n_second: int) -> Integers:
    """The one-to-one assignment of greatest total weight.

    Pairs that nobody competes for are taken at once; the rest is solved as a sparse assignment
    (Jonker and Volgenant, Computing 38, 1987) with a dummy partner for every row of the first set.

    Returns:
        (n_first,) row of the second set, −1 for none.
    """
    partner = np.full(n_first, -1, np.int64)
    alone = (np.bincount(pairs.first, minlength=n_first)[pairs.first] == 1) & (
        np.bincount(pairs.second, minlength=n_second)[pairs.second] == 1
    )
    partner[pairs.first[alone]] = pairs.second[alone]
    contested = pairs.take(~alone)
    if len(contested.first):
        rows, row_of = np.unique(contested.first, return_inverse=True)
        columns, column_of = np.unique(contested.second, return_inverse=True)
        chosen = _solve(row_of, column_of, weight[~alone], len(rows), len(columns))
        matched = chosen >= 0
        partner[rows[matched]] = columns[chosen[matched]]
    return partner


def _solve(rows: Integers, columns: Integers, weight: Floats, n_rows: int, n_columns: int) -> Integers:
    ceiling = float(weight.max()) + 1.0
    own = np.arange(n_rows)
    costs = coo_array(
        (
            # A stored 0 counts as "no edge": all costs stay at 1 or above.
            np.concatenate([ceiling - weight + 1.0, np.full(n_rows, ceiling + 1.0)]),
            (np.concatenate([rows, own]), np.concatenate([columns, n_columns + own])),
        ),
        shape=(n_rows, n_columns + n_rows),
    )
    found_rows, found_columns = min_weight_full_bipartite_matching(csr_array(costs))
    chosen = np.full(n_rows, -1, np.int64)
    real = found_columns < n_columns
    chosen[found_rows[real]] = found_columns[real]
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A systematic displacement of a look against the inventory, in metres, and the pairs that show it."""

    x_m: float
    y_m: float
    pairs: int


def estimate_shift(looked: Positions, known: Positions) -> Shift | None:
    """The displacement that most pairs share, or None when the pairs cannot tell.

    The mode of all displacements within 6 m, found by counting neighbours in displacement space and
    refined by mean shift. It must stand out of the even background of chance pairs by five sigmas, and
    be shown by three in ten of what was seen.
    """
    if len(looked) < _SHIFT_LEAST_PAIRS or len(known) < _SHIFT_LEAST_PAIRS:
        return None
    near = cKDTree(looked.xy).sparse_distance_matrix(
        cKDTree(known.xy), _SHIFT_RADIUS_M, output_type="coo_matrix"
    )
    if near.nnz < _SHIFT_LEAST_PAIRS:
        return None
    moved = looked.xy[near.row] - known.xy[near.col]
    # Of very many pairs an even sample serves: the mode needs thousands, not millions.
    moved = moved[np.lexsort((moved[:, 1], moved[:, 0]))][:: max(1, len(moved) // 20_000)]
    tree = cKDTree(moved)
    counts = tree.query_ball_point(moved, _SHIFT_KERNEL_M, return_length=True)
    best = np.flatnonzero(counts == counts.max())
    mode = moved[best[np.argmin((moved[best] ** 2).sum(axis=1))]]
    for _ in range(10):
        mode = moved[tree.query_ball_point(mode, _SHIFT_KERNEL_M)].mean(axis=0)
    support = len(tree.query_ball_point(mode, _SHIFT_KERNEL_M))
    background = len(moved) * (_SHIFT_KERNEL_M / _SHIFT_RADIUS_M) ** 2
    share = support / len(moved) * near.nnz / len(looked)
    stands_out = support - background > _SHIFT_LEAST_SIGMAS * np.sqrt(background + 1)
    if not stands_out or share < _SHIFT_LEAST_SHARE or np.hypot(*mode) < _SHIFT_LEAST_M:
        return None
    return Shift(x_m=float(mode[0]), y_m=float(mode[1]), pairs=support)
