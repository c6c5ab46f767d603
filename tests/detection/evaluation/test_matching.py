"""Matching: one-to-one, as many as possible, then as well as possible."""

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detection.evaluation.matching import (
    Pairs,
    match_by_score,
    match_one_to_one,
    overlapping,
    within_reach,
)


def _pairs(rows: list[tuple[int, int, float]]) -> Pairs:
    return Pairs(
        detection=np.array([row[0] for row in rows], dtype=np.int64),
        truth=np.array([row[1] for row in rows], dtype=np.int64),
        likeness=np.array([row[2] for row in rows], dtype=np.float64),
    )


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0.0, 0, 10, 10]])
    others = np.array([[5.0, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10], [50, 50, 60, 60]])
    pairs = overlapping(boxes, others)
    found = dict(zip(pairs.truth.tolist(), pairs.likeness.tolist(), strict=True))
    assert found == {0: 50 / 150, 1: 1.0}


def test_nothing_matches_nothing() -> None:
    none = np.empty((0, 4))
    assert len(overlapping(none, np.array([[0.0, 0, 1, 1]])).detection) == 0
    assert len(within_reach(np.array([[0.0, 0, 1, 1]]), none, 5.0).detection) == 0
    assert len(match_one_to_one(_pairs([]))[0]) == 0


def test_points_match_within_reach_of_the_centre() -> None:
    detected = np.array([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    points = np.array([[8.0, 5, 8, 5], [90, 90, 90, 90]])
    pairs = within_reach(detected, points, 6.0)
    assert pairs.detection.tolist() == [0]
    np.testing.assert_allclose(pairs.likeness, [0.5])


def test_more_pairs_outweigh_better_pairs() -> None:
    # Detection 0 fits object 0 best, but then detection 1 would be left alone.
    pairs = _pairs([(0, 0, 0.9), (0, 1, 0.41), (1, 0, 0.42)])
    detection, truth = match_one_to_one(pairs)
    assert dict(zip(detection.tolist(), truth.tolist(), strict=True)) == {0: 1, 1: 0}


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(40, 100)),
        max_size=10,
        unique_by=lambda row: (row[0], row[1]),
    )
)
def test_the_choice_is_the_best_of_all_choices(rows: list[tuple[int, int, int]]) -> None:
    table = {(a, b): worth for a, b, worth in rows}
    best = max(
        (
            (
                sum((a, b) in table for a, b in enumerate(order)),
                sum(table.get((a, b), 0) for a, b in enumerate(order)),
            )
            for order in permutations(range(4))
        ),
        default=(0, 0),
    )
    detection, truth = match_one_to_one(_pairs([(a, b, worth / 100) for a, b, worth in rows]))
    chosen = list(zip(detection.tolist(), truth.tolist(), strict=True))
    assert len({a for a, _ in chosen}) == len({b for _, b in chosen}) == len(chosen)
    assert (len(chosen), sum(table[pair] for pair in chosen)) == best


def test_by_score_the_stronger_takes_first_and_the_weaker_the_next_best() -> None:
    pairs = _pairs([(0, 0, 0.9), (1, 0, 0.95), (0, 1, 0.6), (2, 0, 0.8)])
    taken = match_by_score(pairs, np.array([0.5, 0.9, 0.1]))
    assert taken.tolist() == [1, 0, -1]
