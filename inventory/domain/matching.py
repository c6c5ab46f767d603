"""Observations ↔ assets: who is whom, one-to-one and optimal (R7), and the shift between two looks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from inventory.domain.evidence import Floats, Hashes, Integers, Shift

GATE_MAXIMUM_M = 6.0
_LEAST_RATIO = 1e-3
"""Log-likelihood ratio of the worst pair inside the gate: above 0, so that a match beats new + missed."""
_RATIO_MAXIMUM = 60
"""More than any pair has: a spread of 0.3 m among one new thing in ten square kilometres gives 17."""
_STEPS_PER_UNIT = 1_000_000
_TIES = 4_096
COMPONENT_MAXIMUM = 5_000
_BATCH_PAIRS = 1_000

_SHIFT_RADIUS_M = 6.0
_SHIFT_KERNEL_M = 0.75
_SHIFT_LEAST_PAIRS = 10
_SHIFT_LEAST_SHARE = 0.15
_SHIFT_LEAST_SIGMAS = 5.0
_SHIFT_LEAST_M = 0.25
# Half a kernel's support this far off is another answer.
_SHIFT_APART_M = 2.5
_SHIFT_RIVAL_SHARE = 0.5
_SHIFT_BANDWIDTH_M = 1.0
# Of two axes together, 90 % of errors are below 2.15 of it: 0.3 m.
_SHIFT_GREATEST_ERROR_M = 0.14
_SHIFT_STEP_M = 0.05


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
    # No gate is wider than the largest error and crown at hand make it.
    variance = np.array([float(first.error_m.max()) ** 2 + float(second.error_m.max()) ** 2])
    widest = float(gate_m(variance, np.array([min(first.crown_m.max(), second.crown_m.max())]))[0])
    near = cKDTree(first.xy).sparse_distance_matrix(cKDTree(second.xy), widest, output_type="coo_matrix")
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


def log_likelihood_ratio(pairs: Pairs, *, recall: float, present: Floats, new_per_m2: Floats) -> Floats:
    """Log-likelihood of each pair as one thing, against “one new and one missed”.

    Args:
        recall: of the look.
        present: (pairs,) probability that the asset of the pair is there.
        new_per_m2: (pairs,) density of hits there that belong to no known asset: r·u + λ.
    """
    spread = np.exp(-(pairs.distance_m**2) / (2 * pairs.variance_m2)) / (2 * np.pi * pairs.variance_m2)
    seen = np.clip(recall * present, 1e-6, 1 - 1e-6)
    ratio = (
        np.log(np.maximum(seen * spread, 1e-300)) - np.log(np.maximum(new_per_m2, 1e-12)) - np.log1p(-seen)
    )
    floored: Floats = np.maximum(ratio, _LEAST_RATIO)
    return floored


def exact_weights(ratio: Floats, tie: Hashes) -> Integers:
    """Weights as whole numbers, so that sums are exact and the best assignment does not depend on company.

    A millionth of a unit of log-likelihood is kept; below it a hash of the pair's content breaks ties.
    5,000 pairs of the largest weight stay below 2⁵³, where float64 stops being exact.

    Args:
        ratio: (pairs,) log-likelihood ratios, above 0.
        tie: (pairs,) a hash of the two contents.
    """
    steps = np.round(np.minimum(ratio, _RATIO_MAXIMUM) * _STEPS_PER_UNIT).astype(np.int64)
    return np.maximum(steps, 1) * _TIES + (tie % np.uint64(_TIES)).astype(np.int64)


def assign(pairs: Pairs, weight: Integers, n_first: int, n_second: int) -> Integers:
    """The one-to-one assignment of greatest total weight, solved component by component.

    Pairs that nobody competes for are taken at once; the rest is solved as sparse assignments (Jonker and
    Volgenant, Computing 38, 1987) with a dummy partner for every row of the first set.

    Args:
        weight: (pairs,) from ``exact_weights``.

    Returns:
        (n_first,) row of the second set, −1 for none.
    """
    partner = np.full(n_first, -1, np.int64)
    alone = (np.bincount(pairs.first, minlength=n_first)[pairs.first] == 1) & (
        np.bincount(pairs.second, minlength=n_second)[pairs.second] == 1
    )
    partner[pairs.first[alone]] = pairs.second[alone]
    contested = np.flatnonzero(~alone)
    first, second, weight = pairs.first[contested], pairs.second[contested], weight[contested]
    component, kept = components_of_pairs(first, second, weight)
    for batch in _batches(component[kept]):
        rows = kept[batch]
        chosen = _solve(first[rows], second[rows], weight[rows])
        partner[first[rows[chosen]]] = second[rows[chosen]]
    return partner


def components_of_pairs(first: Integers, second: Integers, weight: Integers) -> tuple[Integers, Integers]:
    """Connected components of the graph of pairs, those above 5,000 members cut at their weakest pairs.

    Returns:
        (pairs,) number of the component of each pair, and the rows of the pairs that are kept.
    """
    kept = np.arange(len(first))
    component = np.full(len(first), -1, np.int64)
    settled = 0
    while len(kept):
        rows, row_of = np.unique(first[kept], return_inverse=True)
        columns, column_of = np.unique(second[kept], return_inverse=True)
        n = len(rows) + len(columns)
        edges = coo_array((np.ones(len(kept), bool), (row_of, len(rows) + column_of)), shape=(n, n))
        count, label = connected_components(edges, directed=False)
        of_pair = label[row_of].astype(np.int64)
        large = np.bincount(label, minlength=count) > COMPONENT_MAXIMUM
        fits = ~large[of_pair]
        component[kept[fits]] = of_pair[fits] + settled
        settled += count
        kept = _without_weakest(kept[~fits], of_pair[~fits], weight)
    return component, np.flatnonzero(component >= 0)


def _without_weakest(pairs: Integers, component: Integers, weight: Integers) -> Integers:
    """Of each component too large to solve, the pairs but for the weakest twentieth."""
    if not len(pairs):
        return pairs
    order = np.lexsort((weight[pairs], component))
    _, begin, size = np.unique(component[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(begin, size)
    return np.sort(pairs[order[rank >= np.repeat(np.maximum(size // 20, 1), size)]])


def _batches(component: Integers) -> Iterator[Integers]:
    """Rows of whole components, some thousand pairs at a time: one call for all would grow quadratically."""
    order = np.argsort(component, kind="stable")
    bounds = np.flatnonzero(np.diff(component[order], prepend=-1))
    begin = 0
    for end in [*bounds[1:].tolist(), len(order)]:
        if end - begin >= _BATCH_PAIRS or end == len(order):
            yield order[begin:end]
            begin = end


def _solve(first: Integers, second: Integers, weight: Integers) -> Integers:
    """Numbers of the pairs chosen among those given."""
    rows, row_of = np.unique(first, return_inverse=True)
    columns, column_of = np.unique(second, return_inverse=True)
    own = np.arange(len(rows))
    ceiling = (_RATIO_MAXIMUM * _STEPS_PER_UNIT + 2) * _TIES
    costs = coo_array(
        (
            # A stored 0 counts as "no edge": all costs stay at 1 or above.
            np.concatenate([ceiling - weight, np.full(len(rows), ceiling)]).astype(np.float64),
            (np.concatenate([row_of, own]), np.concatenate([column_of, len(columns) + own])),
        ),
        shape=(len(rows), len(columns) + len(rows)),
    )
    found_rows, found_columns = min_weight_full_bipartite_matching(csr_array(costs))
    chosen = np.full(len(rows), -1, np.int64)
    chosen[found_rows] = found_columns
    return np.flatnonzero(chosen[row_of] == column_of)


def estimate_shift(looked: Positions, known: Positions) -> Shift | None:
    """The displacement that most pairs share, or None when the pairs cannot tell.

    The mode of all displacements within 6 m, found by counting neighbours in displacement space and
    refined by mean shift. It must stand out of the even background of chance pairs by five sigmas and
    be shown by three in twenty of what was seen; no other may have half its support (trees in rows fit
    themselves one tree further on just as well); and its own error, 90 % of the time, must be below 0.3 m.
    Less than 0.25 m is none; above, it is given to 0.05 m, far below any position's error, so that a few
    pairs more or less do not move a whole scene.
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
    sample = np.lexsort((moved[:, 1], moved[:, 0]))[:: max(1, len(moved) // 20_000)]
    moved, seen = moved[sample], np.asarray(near.row, np.int64)[sample]
    counts = np.asarray(cKDTree(moved).query_ball_point(moved, _SHIFT_KERNEL_M, return_length=True))
    support = int(counts.max())
    best = np.flatnonzero(counts == support)
    mode = moved[best[np.argmin((moved[best] ** 2).sum(axis=1))]]
    background = len(moved) * (_SHIFT_KERNEL_M / _SHIFT_RADIUS_M) ** 2
    apart = np.hypot(*(moved - mode).T) > _SHIFT_APART_M
    rival = counts[apart].max(initial=0)
    share = support / len(moved) * near.nnz / len(looked)
    if (
        support - background <= _SHIFT_LEAST_SIGMAS * np.sqrt(background + 1)
        or share < _SHIFT_LEAST_SHARE
        or rival - background > _SHIFT_RIVAL_SHARE * (support - background)
    ):
        return None
    mode, error_m = _refined(mode, moved, seen)
    if error_m > _SHIFT_GREATEST_ERROR_M:
        return None
    x_m, y_m = np.round(mode / _SHIFT_STEP_M) * _SHIFT_STEP_M if np.hypot(*mode) >= _SHIFT_LEAST_M else (0, 0)
    return Shift(x_m=round(float(x_m), 2), y_m=round(float(y_m), 2), pairs=support)


def _refined(mode: Floats, moved: Floats, seen: Integers) -> tuple[Floats, float]:
    """The centre of the displacements round a mode, by mean shift, and its standard error on one axis.

    The error is the sandwich of an M-estimator (Huber 1967) with one cluster for each thing seen, since
    its pairs with several earlier looks share its own error.

    Args:
        moved: (pairs, 2) displacements.
        seen: (pairs,) the observation of each pair.
    """
    for _ in range(20):
        weight = np.exp(-((moved - mode) ** 2).sum(axis=1) / (2 * _SHIFT_BANDWIDTH_M**2))
        mode = (weight[:, None] * moved).sum(axis=0) / weight.sum()
    off = moved - mode
    weight = np.exp(-(off**2).sum(axis=1) / (2 * _SHIFT_BANDWIDTH_M**2))
    slope = (weight[:, None] * (1 - (off / _SHIFT_BANDWIDTH_M) ** 2)).sum(axis=0)
    pull = np.stack([np.bincount(seen, weights=weight * off[:, axis]) for axis in (0, 1)], axis=1)
    with np.errstate(divide="ignore"):
        error = np.sqrt((pull**2).sum(axis=0)) / np.maximum(slope, 0)
    return mode, float(error.max())
