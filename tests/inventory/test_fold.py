"""The rules of the fold (architecture R1, R4, R5, R7–R11), each on the smallest evidence that shows it."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory.domain.evidence import NEVER, DecisionKind, Look, Micros
from inventory.domain.fold import STATUSES, Folded, fold
from inventory.domain.identity import Anchored, name_tracks
from tests.support.evidence import (
    RELIABLE,
    YEAR,
    make_decision,
    make_evidence,
    make_look,
    make_scene_look,
)

# Far apart: no two within a gate of 6 m.
A, B, C, D = (50.0, 50.0), (100.0, 50.0), (150.0, 50.0), (200.0, 50.0)


def as_of(folded: Folded, year: float) -> list[dict[str, Any]]:
    """The states in force at the end of a year's look, by track."""
    at = year * YEAR + 1
    states = folded.states
    rows = np.flatnonzero((states["valid_from"] <= at) & (at < states["valid_to"]))
    return sorted(
        (
            {name: column[row] for name, column in states.items()}
            | {"status": STATUSES[states["status"][row]]}
            for row in rows
        ),
        key=lambda state: state["track"],
    )


def listed(folded: Folded, year: float) -> list[tuple[int, int]]:
    """Rounded places of what is counted."""
    return sorted((round(s["x"]), round(s["y"])) for s in as_of(folded, year) if s["listed"])


def at_place(folded: Folded, place: tuple[float, float], year: float) -> dict[str, Any]:
    """The one state near a place."""
    (state,) = [s for s in as_of(folded, year) if np.hypot(s["x"] - place[0], s["y"] - place[1]) < 3]
    return state


def said(folded: Folded) -> list[tuple[Any, ...]]:
    """All states as comparable values, without the numbers of observations and tracks."""
    names = ["valid_from", "valid_to", "listed", "status", "x", "y", "probability", "hits", "verified"]
    rows = zip(*(folded.states[name].tolist() for name in names), strict=True)
    return sorted(rows)


def test_r1_state_does_not_depend_on_the_order_in_which_evidence_is_given() -> None:
    facts = [
        make_look([A, B], year=1),
        make_look([A, C], year=2),
        make_look([B, C], year=3),
        make_decision(DecisionKind.VERIFY, A, year=2.5),
    ]
    outcomes = {tuple(said(fold(make_evidence(*order), static=True))) for order in permutations(facts)}
    assert len(outcomes) == 1


def test_r1_as_of_an_instant_later_evidence_is_not_known() -> None:
    early = make_look([A, B], year=1)
    folded = fold(make_evidence(early, make_look([A], year=2), make_look([A], year=3)), static=True)
    assert listed(folded, 1) == listed(fold(make_evidence(early), static=True), 1) == [(50, 50), (100, 50)]


def test_r4_ground_that_two_scenes_of_a_campaign_show_is_counted_once() -> None:
    left = make_scene_look([A, B, (149.0, 50.0)], name="left", ground=(0, 0, 160, 100), first_id=1)
    right = make_scene_look([(149.6, 50.3), D], name="right", ground=(140, 0, 300, 100), first_id=10)
    folded = fold(make_evidence(Look(at=Micros(YEAR), scenes=(left, right))), static=True)
    assert len(listed(folded, 1)) == 4


def test_r4_a_crown_cut_by_the_seam_of_two_files_is_one() -> None:
    left = make_scene_look([(148.8, 50.0)], name="left", ground=(0, 0, 150, 100), first_id=1)
    right = make_scene_look([(151.2, 50.0)], name="right", ground=(150, 0, 300, 100), first_id=10)
    folded = fold(make_evidence(Look(at=Micros(YEAR), scenes=(left, right))), static=True)
    assert len(listed(folded, 1)) == 1


def test_r4_neighbours_at_a_seam_that_both_scenes_see_stay_two() -> None:
    pair = [(148.0, 50.0), (151.5, 50.0)]
    left = make_scene_look(pair, name="left", ground=(0, 0, 160, 100), first_id=1)
    right = make_scene_look(pair, name="right", ground=(140, 0, 300, 100), first_id=10)
    folded = fold(make_evidence(Look(at=Micros(YEAR), scenes=(left, right))), static=True)
    assert len(listed(folded, 1)) == 2


def test_r4_a_hit_of_a_scene_that_does_not_own_the_ground_adds_nothing_but_cancels_a_miss() -> None:
    fine = make_scene_look([B], name="fine", first_id=10, resolution_m=0.05)
    coarse = make_scene_look([A, B, C], name="coarse", first_id=20, resolution_m=0.2)
    second = Look(at=Micros(2 * YEAR), scenes=(fine, coarse))
    folded = fold(make_evidence(make_look([A, B], year=1), second), static=True)
    assert at_place(folded, A, 2)["status"] == "present"
    assert all(np.hypot(s["x"] - C[0], s["y"] - C[1]) > 3 for s in as_of(folded, 2))


def test_r5_what_lies_at_the_edge_of_the_surveyed_ground_is_not_missed() -> None:
    second = make_look([B], year=2, ground=(49.0, 0.0, 300.0, 300.0))
    folded = fold(make_evidence(make_look([A, B], year=1), second), static=True)
    assert at_place(folded, A, 2)["status"] == "present"


def test_r5_a_look_elsewhere_says_nothing() -> None:
    elsewhere = make_look([], year=2, ground=(1000.0, 0.0, 1300.0, 300.0))
    folded = fold(make_evidence(make_look([A, B], year=1), elsewhere), static=True)
    assert listed(folded, 2) == [(50, 50), (100, 50)]


def test_r7_two_looks_at_one_tree_are_one_track() -> None:
    folded = fold(make_evidence(make_look([A, B], year=1), make_look([(50.8, 49.4), B], year=2)), static=True)
    assert len(folded.tracks["root_observation"]) == 2
    assert at_place(folded, A, 2)["hits"] == 2


def test_r7_a_shift_of_a_whole_look_is_found_and_removed() -> None:
    random = np.random.default_rng(5)
    places = [(float(x), float(y)) for x in range(10, 290, 25) for y in range(10, 290, 25)]
    moved = [(x + 3.0 + random.normal(0, 0.3), y - 2.0 + random.normal(0, 0.3)) for x, y in places]
    folded = fold(make_evidence(make_look(places, year=1), make_look(moved, year=2)), static=True)
    shift = folded.tallies[2000].shift
    assert shift is not None
    assert (shift.x_m, shift.y_m) == (pytest.approx(3.0, abs=0.3), pytest.approx(-2.0, abs=0.3))
    assert folded.tallies[2000].matched == len(places)


def test_r7_without_support_no_shift_is_claimed() -> None:
    folded = fold(make_evidence(make_look([A, B], year=1), make_look([A, B], year=2)), static=True)
    assert folded.tallies[2000].shift is None


def test_r8_the_count_is_the_number_of_hits_of_the_newest_look() -> None:
    folded = fold(make_evidence(make_look([A, B, C], year=1), make_look([A, D], year=2)), static=True)
    assert len(listed(folded, 2)) == 2
    assert (50, 50) in listed(folded, 2)


def test_r8_on_ground_that_a_newer_look_did_not_see_the_older_one_counts() -> None:
    half = make_look([A], year=2, ground=(0.0, 0.0, 120.0, 300.0))
    folded = fold(make_evidence(make_look([A, B, C, D], year=1), half), static=True)
    assert {(150, 50), (200, 50), (50, 50)} <= set(listed(folded, 2))
    assert len(listed(folded, 2)) == 3


def test_r9_missed_once_is_doubtful_twice_is_gone_and_the_interval_is_kept() -> None:
    folded = fold(
        make_evidence(make_look([A, B], year=1), make_look([B], year=2), make_look([B], year=3)), static=True
    )
    assert at_place(folded, A, 2)["status"] == "doubtful"
    gone = at_place(folded, A, 3)
    assert gone["status"] == "gone"
    assert not gone["listed"]
    assert (gone["last_seen"], gone["first_missed"]) == (YEAR, 2 * YEAR)


def test_r9_gone_and_seen_again_is_the_same() -> None:
    years = [make_look([A, B], year=1), make_look([B], year=2), make_look([B], year=3)]
    folded = fold(make_evidence(*years, make_look([A, B], year=4)), static=True)
    assert at_place(folded, A, 4)["status"] == "present"
    assert at_place(folded, A, 4)["track"] == at_place(folded, A, 1)["track"]


def test_r9_a_far_smaller_crown_where_one_is_gone_is_a_new_tree_that_replaces_it() -> None:
    years = [make_look([A, B], year=1, crown_m=8.0), make_look([B], year=2), make_look([B], year=3)]
    folded = fold(make_evidence(*years, make_look([A, B], year=4, crowns_m=[2.0, 8.0])), static=True)
    (young,) = [s for s in as_of(folded, 4) if s["width_m"] == 2.0]
    old = folded.tracks["replaces"][young["track"]]
    assert old == at_place(folded, A, 3)["track"]


def test_r10_the_stock_of_ground_is_that_of_its_newest_look_and_has_no_identity() -> None:
    half = make_look([(60.0, 60.0)], year=2, ground=(0.0, 0.0, 120.0, 300.0))
    folded = fold(make_evidence(make_look([A, B, C], year=1), half), static=False)
    assert listed(folded, 1) == [(50, 50), (100, 50), (150, 50)]
    assert listed(folded, 2) == [(60, 60), (150, 50)]


def test_r11_what_is_verified_stays_listed_when_missed_and_asks_for_a_review() -> None:
    verify = make_decision(DecisionKind.VERIFY, A, year=1.5)
    folded = fold(
        make_evidence(make_look([A, B], year=1), verify, make_look([B], year=2), make_look([B], year=3)),
        static=True,
    )
    state = at_place(folded, A, 3)
    assert (state["status"], bool(state["listed"]), bool(state["review"])) == ("doubtful", True, True)


def test_r11_what_is_rejected_is_never_listed_again_nor_minted_anew() -> None:
    reject = make_decision(DecisionKind.REJECT, A, year=1.5)
    folded = fold(make_evidence(make_look([A, B], year=1), reject, make_look([A, B], year=2)), static=True)
    assert listed(folded, 2) == [(100, 50)]
    assert len(folded.tracks["root_observation"]) == 2


def test_r11_a_retracted_decision_was_never_made() -> None:
    looks = [make_look([A, B], year=1), make_look([A, B], year=2)]
    reject = make_decision(DecisionKind.REJECT, A, year=1.5)
    retract = make_decision(DecisionKind.RETRACT, A, year=1.7, sequence=2, retracts=1)
    assert said(fold(make_evidence(*looks, reject, retract), static=True)) == said(
        fold(make_evidence(*looks), static=True)
    )


def test_r11_added_is_listed_and_a_later_hit_finds_it() -> None:
    add = make_decision(DecisionKind.ADD, C, year=1.5)
    folded = fold(make_evidence(make_look([A, B], year=1), add, make_look([A, B, C], year=2)), static=True)
    assert (150, 50) in listed(folded, 1.5)
    assert len(listed(folded, 2)) == 3
    assert at_place(folded, C, 2)["hits"] == 1


def test_r11_merged_assets_are_one_and_later_hits_on_either_go_to_it() -> None:
    near = (57.0, 50.0)
    merge = make_decision(DecisionKind.MERGE, A, year=1.5, details={"x": near[0], "y": near[1]})
    folded = fold(
        make_evidence(make_look([A, near, B], year=1), merge, make_look([near, B], year=2)), static=True
    )
    assert len(listed(folded, 2)) == 2
    assert len([s for s in as_of(folded, 2) if s["status"] == "present"]) == 2


def test_r11_moved_and_reclassified_as_told() -> None:
    move = make_decision(DecisionKind.MOVE, A, year=1.2, details={"x": 52.0, "y": 53.0})
    other = make_decision(DecisionKind.RECLASSIFY, B, year=1.4, sequence=2, details={"class": "palm"})
    folded = fold(make_evidence(make_look([A, B], year=1), move, other), static=True)
    assert (52, 53) in listed(folded, 1.5)
    assert folded.classes[at_place(folded, B, 1.5)["class_code"]] == "palm"


places = st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=0, max_size=12, unique=True
).map(lambda cells: [(20.0 + 10 * x, 20.0 + 10 * y) for x, y in cells])


@settings(max_examples=40, deadline=None)
@given(st.lists(places, min_size=1, max_size=4))
def test_r8_items_listed_and_hits_of_the_newest_look_agree_for_any_series(series: list[Any]) -> None:
    looks = [make_look(seen, year=year) for year, seen in enumerate(series, 1)]
    folded = fold(make_evidence(*looks), static=True)
    for year, seen in enumerate(series, 1):
        assert len(listed(folded, year)) == len(seen)


@settings(max_examples=40, deadline=None)
@given(st.lists(places, min_size=1, max_size=4))
def test_states_of_a_track_follow_one_another_without_gap_or_overlap(series: list[Any]) -> None:
    looks = [make_look(seen, year=year) for year, seen in enumerate(series, 1)]
    states = fold(make_evidence(*looks), static=True).states
    for track in np.unique(states["track"]):
        rows = np.flatnonzero(states["track"] == track)
        rows = rows[np.argsort(states["valid_from"][rows])]
        assert (states["valid_to"][rows][:-1] == states["valid_from"][rows][1:]).all()
        assert states["valid_to"][rows][-1] == NEVER


# --- ids (R7) ------------------------------------------------------------------------------------------


def test_r7_of_two_ids_in_one_track_the_oldest_names_it_and_the_other_is_its_alias() -> None:
    anchored = Anchored(asset_id=np.array([7, 3, 5]), track=np.array([0, 0, 1]))
    named = name_tracks(3, anchored)
    assert list(named.asset_of_track) == [3, 5, -1]
    assert named.aliases == {7: 3, 3: None, 5: None}


def test_r7_ids_that_part_are_their_own_again() -> None:
    apart = name_tracks(2, Anchored(asset_id=np.array([3, 7]), track=np.array([0, 1])))
    assert list(apart.asset_of_track) == [3, 7]
    assert apart.aliases == {3: None, 7: None}


def test_r8_repeated_looks_by_one_model_are_worth_less_where_its_errors_persist() -> None:
    def probability(share: float) -> float:
        reliability = replace(RELIABLE, persistent_share=share)
        looks = [make_look([A], year=year, reliability=reliability) for year in (1, 2, 3)]
        return float(at_place(fold(make_evidence(*looks), static=True), A, 3)["probability"])

    assert probability(0.0) > probability(0.5) > probability(0.9)
