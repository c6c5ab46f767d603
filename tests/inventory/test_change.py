"""The net change of two looks by one model, and its interval (R13)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.domain.change import net_change
from inventory.domain.tally import CountError

EXACT = CountError(relative_error=0.0, dispersion=0.0)
numbers = st.integers(0, 5_000)
recalls = st.floats(0.3, 1.0)


def test_r13_of_what_went_the_model_sees_the_share_of_its_recall() -> None:
    assert net_change(only_before=73, only_after=0, recall=0.73, error=EXACT).net == pytest.approx(-100)


def test_r13_without_an_evaluated_card_a_change_has_no_interval() -> None:
    change = net_change(only_before=3, only_after=5, recall=0.5, error=None)
    assert (change.net, change.low, change.high) == (4.0, None, None)


def test_r13_nothing_seen_to_differ_is_not_nothing_for_sure() -> None:
    change = net_change(only_before=0, only_after=0, recall=0.7, error=EXACT)
    assert change.low is not None
    assert change.low < change.net == 0


@given(numbers, numbers, recalls)
def test_r13_a_change_backwards_is_the_change_turned_round(before: int, after: int, recall: float) -> None:
    there = net_change(only_before=before, only_after=after, recall=recall, error=EXACT)
    back = net_change(only_before=after, only_after=before, recall=recall, error=EXACT)
    assert there.net == -back.net
    assert there.low == pytest.approx(-(back.high or 0), abs=0.11)


@given(numbers, numbers, recalls, st.floats(0.01, 0.5))
def test_r13_the_interval_holds_the_change_and_is_wider_the_more_ground_differs(
    before: int, after: int, recall: float, relative_error: float
) -> None:
    changes = [
        net_change(
            only_before=before,
            only_after=after,
            recall=recall,
            error=CountError(relative_error=e, dispersion=0.0),
        )
        for e in (0.0, relative_error)
    ]
    sure, unsure = ((change.high or 0) - (change.low or 0) for change in changes)
    assert sure > 0
    assert unsure >= sure


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_r13_nine_intervals_of_ten_hold_the_truth(share: float) -> None:
    random = np.random.default_rng(7)
    trees, felled, recall, false_alarms = 1000, 100, 0.73, 270
    blind = random.random((400, trees)) < share * (1 - recall)
    seen = (random.random((2, 400, trees)) < recall / (1 - share * (1 - recall))) & ~blind
    seen[1, :, :felled] = False
    new = random.poisson((1 - share) * false_alarms, (2, 400))
    only_before = (seen[0] & ~seen[1]).sum(axis=1) + new[0]
    only_after = (seen[1] & ~seen[0]).sum(axis=1) + new[1]
    covered = []
    for before, after in zip(only_before.tolist(), only_after.tolist(), strict=True):
        change = net_change(only_before=before, only_after=after, recall=recall, error=EXACT)
        covered.append((change.low or 0) <= -felled <= (change.high or 0))
    assert 0.87 <= np.mean(covered) <= 0.95
