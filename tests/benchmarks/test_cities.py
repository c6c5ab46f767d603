"""The generator of cities does what it says: distances, shares, shifts, and the same again from the same seed."""

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from benchmarks.cities import (
    FALSE_ALARM_APART_M,
    FALSE_ALARM_FROM_TREES_M,
    KINDS,
    City,
    Detector,
    Flight,
    Flown,
    fly,
    grow_city,
)
from benchmarks.judging import judge
from inventory.domain.fold import fold
from inventory.domain.ownership import hits_of

seeds = st.integers(0, 10_000)
few = settings(max_examples=15, deadline=None)


def years(city: City, count: int, **detector: Any) -> Flown:
    """A flight a year by one exact detector: no error of position, no shift."""
    exact = Detector(**{"position_sigma_m": 0.0, **detector})
    return fly(city, [Flight(year=year, detector=exact, shift_m=0.0) for year in range(1, count + 1)])


def of_look(flown: Flown, number: int) -> tuple[Any, Any]:
    """Places (n, 2) and trees (n,) of a look's observations."""
    seen = flown.looks[number].scenes[0].observations
    return np.column_stack([seen.x, seen.y]), flown.tree_of[seen.id]


def nearly(count: int, expected: float, deviation: float) -> bool:
    """Within four and a half standard deviations: 1 in 100,000."""
    return abs(count - expected) <= 4.5 * deviation + 1


@few
@given(seeds, st.integers(20, 600), st.sampled_from([4.0, 6.0, 9.0]))
def test_trees_keep_their_distance_whenever_they_stand(seed: int, trees: int, least_m: float) -> None:
    city = grow_city(seed=seed, trees=trees, least_distance_m=least_m, felled={3: 0.2}, planted={4: 0.3})
    places = np.column_stack([city.x, city.y])
    assert not cKDTree(places).query_pairs(least_m - 1e-6)
    assert shapely.contains_xy(city.ground, city.x, city.y).all()


def test_as_many_trees_stand_as_were_asked_for() -> None:
    city = grow_city(seed=1, trees=1000, felled={3: 0.1, 5: 0.2}, planted={4: 0.05})
    assert [int(city.standing(year).sum()) for year in range(1, 6)] == [1000, 1000, 900, 950, 750]


def test_a_city_has_streets_forests_parks_and_gardens() -> None:
    city = grow_city(seed=1, trees=5000)
    shares = np.bincount(city.kind, minlength=len(KINDS)) / len(city.x)
    assert shares.min() > 0.05
    assert 0.4 < shares[KINDS.index("street")] < 0.7


def test_a_ground_without_room_for_so_many_trees_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        grow_city(seed=1, trees=5000, side_m=200.0)


@few
@given(seeds, st.sampled_from([0.0, 0.5, 1.0]))
def test_the_same_seed_gives_the_same_surveys_and_another_seed_others(seed: int, share: float) -> None:
    def contents(seed: int) -> list[bytes]:
        city = grow_city(seed=seed, trees=100)
        flown = fly(city, [Flight(year=y, detector=Detector(persistent_share=share)) for y in (1, 2)])
        return [look.scenes[0].observations.content.tobytes() for look in flown.looks]

    assert contents(seed) == contents(seed)
    assert contents(seed) != contents(seed + 1)


@few
@given(seeds, st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.5, 0.95), st.floats(0.5, 0.95))
def test_recall_and_precision_are_met_within_chance(
    seed: int, share: float, recall: float, precision: float
) -> None:
    city = grow_city(seed=seed, trees=400)
    _, trees = of_look(years(city, 1, recall=recall, precision=precision, persistent_share=share), 0)
    assert nearly((trees >= 0).sum(), 400 * recall, np.sqrt(400 * recall * (1 - recall)))
    false_alarms = 400 * recall * (1 / precision - 1)
    assert nearly((trees < 0).sum(), false_alarms, np.sqrt(false_alarms))


@few
@given(seeds, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_persistent_share_of_misses_and_of_false_alarms_comes_again(seed: int, share: float) -> None:
    looks = 8  # by chance alone a tree is missed in all of them 3 times in 100,000
    city = grow_city(seed=seed, trees=400)
    flown = years(city, looks, persistent_share=share)
    seen = np.zeros(400, bool)
    for number in range(looks):
        seen[of_look(flown, number)[1]] = True  # −1 is overwritten below
    seen[-1] |= any(399 in of_look(flown, number)[1] for number in range(looks))
    blind = share * 0.27
    assert nearly((~seen).sum(), 400 * blind, np.sqrt(400 * blind * (1 - blind)))
    places = [of_look(flown, number) for number in range(looks)]
    false = [{tuple(xy) for xy in where[trees < 0].tolist()} for where, trees in places]
    expected = share * 400 * 0.27
    assert nearly(len(set.intersection(*false)), expected, np.sqrt(expected))


@few
@given(seeds, st.sampled_from([0.0, 0.5, 1.0]))
def test_false_alarms_keep_away_from_trees_and_from_one_another(seed: int, share: float) -> None:
    city = grow_city(seed=seed, trees=400, felled={2: 0.2}, planted={2: 0.2})
    flown = years(city, 2, persistent_share=share)
    for number, year in enumerate((1, 2)):
        places, trees = of_look(flown, number)
        false = places[trees < 0]
        standing = np.column_stack([city.x, city.y])[city.standing(year)]
        near = cKDTree(standing).query_ball_point(false, FALSE_ALARM_FROM_TREES_M - 1e-6, return_length=True)
        assert not near.any()
        assert not cKDTree(false).query_pairs(FALSE_ALARM_APART_M - 1e-6)


def test_a_felled_tree_is_seen_no_more_and_a_planted_one_not_before() -> None:
    city = grow_city(seed=3, trees=500, felled={3: 0.3}, planted={2: 0.3})
    flown = years(city, 4)
    for number in range(4):
        trees = of_look(flown, number)[1]
        assert city.standing(number + 1)[trees[trees >= 0]].all()


def test_positions_are_the_truth_and_one_shift_and_a_normal_error() -> None:
    city = grow_city(seed=4, trees=3000)
    flown = fly(city, [Flight(year=1, shift_m=1.0)])
    places, trees = of_look(flown, 0)
    off = (places - np.column_stack([city.x, city.y])[trees])[trees >= 0]
    assert np.hypot(*flown.shifts_m[0]) == pytest.approx(1.0)
    assert off.mean(axis=0) == pytest.approx(flown.shifts_m[0], abs=0.05)
    assert off.std(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)


def test_scenes_of_a_mosaic_overlap_and_cover_the_ground_and_share_what_lasts() -> None:
    city = grow_city(seed=5, trees=1000)
    all_lasts = Detector(persistent_share=1.0)
    whole, mosaic = (
        fly(city, [Flight(year=1, detector=all_lasts, scenes=scenes)]) for scenes in ((1, 1), (3, 2))
    )
    grounds = [scene.surveyed for scene in mosaic.looks[0].scenes]
    assert len(grounds) == 6
    assert shapely.union_all(grounds).area == pytest.approx(city.ground.area)
    assert sum(ground.area for ground in grounds) > 1.05 * city.ground.area
    assert len(mosaic.tree_of) > len(whole.tree_of)
    assert len(hits_of(mosaic.looks[0]).things) == pytest.approx(len(whole.tree_of), rel=0.02)


def test_two_models_err_at_different_places() -> None:
    city = grow_city(seed=6, trees=2000)
    detectors = [Detector(model=name, persistent_share=1.0) for name in ("one", "other")]
    flown = fly(city, [Flight(year=1, detector=detector) for detector in detectors])
    first, second = (set(of_look(flown, number)[1].tolist()) for number in (0, 1))
    assert nearly(len(first & second) - 1, 2000 * 0.73**2, np.sqrt(2000 * 0.53 * 0.47))


def test_the_judge_finds_a_faultless_fold_faultless() -> None:
    city = grow_city(seed=7, trees=300, felled={2: 0.1})
    flown = years(city, 2, recall=1.0, precision=1.0, position_sigma_m=0.1)
    first, second = judge(flown, fold(flown.evidence, static=True))
    assert (first.listed, first.precision, second.listed, second.precision) == (300, 1.0, 270, 1.0)
    assert (second.kept, second.dropped, second.duplicates) == (1.0, 0.0, 0)
    assert (second.felled_gone, second.felled_listed, second.standing_listed) == (0.0, 0.0, 1.0)
