"""How probable an asset is, and which are listed (R8)."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.domain.evidence import Reliability
from inventory.domain.existence import (
    choose_listed,
    first_hit_probability,
    lasting_at_first,
    updated_lasting,
    updated_probability,
)

HITS_PER_M2 = 1e-3
shares = st.floats(0.0, 1.0)


def reliable(share: float) -> Reliability:
    """A look as good as the issue's: precision and recall 0.73."""
    return Reliability(
        precision=0.73, recall=0.73, false_alarms_per_m2=0.27 * HITS_PER_M2, persistent_share=share
    )


def first(share: float, looks_before: int, others_before: int = 0) -> float:
    """Probability of a first hit."""
    return float(
        first_hit_probability(
            reliable(share),
            hits_per_m2=HITS_PER_M2,
            looks_before=np.array([looks_before]),
            others_before=np.array([others_before]),
        )[0]
    )


def updated(
    probability: float, share: float, *, hit: bool, same_model: bool = True, lasting: float | None = None
) -> float:
    """Probability after one more look; unless told otherwise after a first hit where nobody looked before."""
    return float(
        updated_probability(
            np.array([probability]),
            reliable(share),
            hit=np.array([hit]),
            same_model=np.array([same_model]),
            lasting=np.array([share if lasting is None else lasting]),
            gate_area_m2=np.array([20.0]),
        )[0]
    )


@given(shares)
def test_r8_a_first_hit_where_nobody_looked_before_is_worth_the_cards_precision(share: float) -> None:
    assert first(share, 0) == pytest.approx(0.73)


@given(shares, st.integers(1, 8))
def test_r8_the_more_looks_saw_nothing_the_less_a_first_hit_is_worth(share: float, looks: int) -> None:
    assert first(share, looks) <= first(share, looks - 1) + 1e-12


@given(st.floats(0.0, 0.9))
def test_r8_seen_then_missed_is_worth_as_much_as_missed_then_seen(share: float) -> None:
    assert updated(first(share, 0), share, hit=False) == pytest.approx(first(share, 1), abs=0.03)


def test_r8_what_one_model_is_blind_to_another_may_be_first_to_see() -> None:
    assert first(0.8, 0, others_before=3) > 2 * first(0.8, 3)


@given(shares, st.floats(0.01, 0.99), st.booleans())
def test_r8_a_hit_never_lowers_and_a_miss_never_raises(share: float, before: float, same_model: bool) -> None:
    assert updated(before, share, hit=True, same_model=same_model) >= before
    assert updated(before, share, hit=False, same_model=same_model) <= before


@given(st.floats(0.3, 1.0))
def test_r8_what_is_seen_again_after_a_miss_is_no_false_alarm_that_persists(share: float) -> None:
    once = first(share, 0)
    again = updated(updated(once, share, hit=False), share, hit=True, lasting=0.0)
    assert again > updated(once, share, hit=True)


def lasting(share: float, *looks: bool, looks_before: int = 0) -> float:
    """How probably it repeats, if an error, after its first hit and some more looks."""
    value = lasting_at_first(reliable(share), looks_before=np.array([looks_before]))
    for hit in looks:
        value = updated_lasting(value, reliable(share), hit=np.array([hit]), gate_area_m2=np.array([20.0]))
    return float(value[0])


@given(st.floats(0.1, 0.95))
def test_r8_an_error_seen_again_is_likelier_one_that_repeats_and_one_missed_is_none(share: float) -> None:
    assert lasting(share) == share
    assert lasting(share, True) > share
    assert lasting(share, True, False) == lasting(share, False, True) == 0.0


@given(st.floats(0.5, 0.95), st.integers(1, 4))
def test_r8_what_is_planted_is_believed_when_it_is_seen_again(share: float, looks: int) -> None:
    late = lasting(share, looks_before=looks)
    assert late < share / 2
    once = first(share, looks)
    again = updated(once, share, hit=True, lasting=late)
    assert again / (1 - again) > 3 * once / (1 - once)


def listed(**columns: Any) -> list[bool]:
    """Who is listed of assets in one cell; three undecided ones unless told otherwise."""
    n = len(columns["probability"])
    given = {
        "hit": np.zeros(n, bool),
        "before": np.zeros(n, bool),
        "gone": np.zeros(n, bool),
        "score": np.zeros(n),
        "content": np.arange(n, dtype=np.uint64),
        **{name: np.array(column) for name, column in columns.items()},
    }
    return choose_listed(np.zeros(n, np.int64), **given).tolist()


def test_r8_as_many_are_listed_as_the_newest_look_hit_and_those_most_probable() -> None:
    assert listed(probability=[0.9, 0.5, 0.2], hit=[False, True, True]) == [True, True, False]


def test_r8_what_is_listed_makes_way_only_for_what_is_clearly_more_probable() -> None:
    assert listed(probability=[0.45, 0.47], before=[True, False], hit=[False, True]) == [True, False]
    assert listed(probability=[0.45, 0.70], before=[True, False], hit=[False, True]) == [False, True]


def test_r9_gone_ones_come_last_however_probable() -> None:
    assert listed(probability=[0.99, 0.1], gone=[True, False], hit=[False, True]) == [False, True]
