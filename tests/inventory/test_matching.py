"""Who is whom (R7): the sparse assignment against every possible one."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory.domain.matching import (
    GATE_MAXIMUM_M,
    Positions,
    assign,
    estimate_shift,
    log_likelihood_ratio,
    pairs_within_gate,
)

points = st.lists(
    st.tuples(st.floats(0, 8, allow_nan=False), st.floats(0, 8, allow_nan=False)), min_size=1, max_size=5
)


def positions(places: list[tuple[float, float]]) -> Positions:
    xy = np.array(places, float)
    return Positions(x=xy[:, 0], y=xy[:, 1], error_m=np.full(len(xy), 1.0), crown_m=np.full(len(xy), 4.0))


@settings(max_examples=100, deadline=None)
@given(points, points)
def test_the_assignment_is_one_to_one_and_of_greatest_weight(
    first: list[tuple[float, float]], second: list[tuple[float, float]]
) -> None:
    one, other = positions(first), positions(second)
    pairs = pairs_within_gate(one, other)
    weight = log_likelihood_ratio(pairs, recall=0.8, present=np.full(len(pairs.first), 0.7), new_per_m2=0.01)
    partner = assign(pairs, weight, len(first), len(second))
    taken = partner[partner >= 0]
    assert len(set(taken.tolist())) == len(taken)
    table = np.full((len(first), len(second)), -np.inf)
    table[pairs.first, pairs.second] = weight
    got = sum(table[row, column] for row, column in enumerate(partner) if column >= 0)
    assert np.isfinite(got)
    assert got >= best_by_trying(table) - 1e-9


def best_by_trying(table: np.ndarray) -> float:
    rows, columns = table.shape
    padded = np.concatenate([np.where(np.isfinite(table), table, 0.0), np.zeros((rows, rows))], axis=1)
    return (
        max(
            sum(padded[row, column] for row, column in enumerate(choice))
            for choice in permutations(range(columns + rows), rows)
        )
        if columns + rows <= 7
        else 0.0
    )


def planted(
    places: np.ndarray, random: np.random.Generator, shift: tuple[float, float] = (0, 0)
) -> Positions:
    seen = places[random.random(len(places)) < 0.73]
    return positions(list(seen + random.normal(0, 0.5, seen.shape) + shift))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shift", [(4.0, 0.0), (-1.5, 2.0), (0.0, 0.0)])
def test_r7_a_shift_of_trees_at_random_is_found_to_0_3_m(seed: int, shift: tuple[float, float]) -> None:
    random = np.random.default_rng(seed)
    trees = random.uniform(0, 1_000, (1_000, 2))
    found = estimate_shift(planted(trees, random, shift), planted(trees, random))
    assert found is not None
    assert np.hypot(found.x_m - shift[0], found.y_m - shift[1]) < 0.3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("apart", "shift"), [((8.0, 60.0), (4.0, 0.0)), ((5.0, 5.0), (0.0, 0.0)), ((5.0, 5.0), (1.0, 0.0))]
)
def test_r7_rows_that_fit_one_tree_further_on_as_well_tell_no_shift(
    seed: int, apart: tuple[float, float], shift: tuple[float, float]
) -> None:
    random = np.random.default_rng(seed)
    rows = np.stack(np.meshgrid(np.arange(40) * apart[0], np.arange(20) * apart[1]), -1).reshape(-1, 2)
    assert estimate_shift(planted(rows, random, shift), planted(rows, random)) is None


@pytest.mark.parametrize("seed", range(5))
def test_r7_a_dozen_trees_tell_no_shift(seed: int) -> None:
    random = np.random.default_rng(seed)
    trees = random.uniform(0, 150, (14, 2))
    assert estimate_shift(planted(trees, random), planted(trees, random)) is None


def test_no_pair_is_further_apart_than_the_gate_allows() -> None:
    one = positions([(0, 0)])
    other = positions([(4.2, 0), (4.3, 0), (GATE_MAXIMUM_M, 0)])
    # σ² = 2: three σ are 4.24 m, more than half a crown of 4 m.
    assert pairs_within_gate(one, other).second.tolist() == [0]


def test_two_hits_near_one_asset_match_it_once() -> None:
    pairs = pairs_within_gate(positions([(0.5, 0), (1.0, 0)]), positions([(0, 0)]))
    weight = log_likelihood_ratio(pairs, recall=0.8, present=np.ones(2), new_per_m2=0.001)
    assert assign(pairs, weight, 2, 1).tolist() == [0, -1]
