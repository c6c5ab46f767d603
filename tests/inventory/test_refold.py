"""Folding anew only what a change can bear on gives what a fold from nothing gives (R1)."""

from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory.domain.cells import cell_of, cells_touching
from inventory.domain.evidence import NEVER, Decision, DecisionKind, Evidence, Look, Micros
from inventory.domain.fold import Folded, fold, refold
from inventory.domain.ownership import look_cells
from inventory.domain.registration import registered
from inventory.domain.touching import GroundTooSmall, Touched
from inventory.domain.tracks import COLUMNS, StoredStates
from tests.support.evidence import YEAR, make_decision, make_evidence, make_scene_look

BOUNDS = ("track", "valid_from", "valid_to")


def stored(folded: Folded) -> dict[str, Any]:
    """What a fold said, as a store keeps it: by key, in order of track and time."""
    columns = {**folded.states, "track": folded.tracks["key"][folded.states["track"]]}
    columns["id"] = np.arange(len(columns["track"]))
    order = np.lexsort((columns["valid_from"], columns["track"]))
    return {name: column[order] for name, column in columns.items()}


def since(columns: dict[str, Any], instant: int, cells: Any) -> dict[str, Any]:
    """The rows in force from an instant on, of tracks that have a state in these cells."""
    later = columns["valid_to"] >= instant
    if cells is not None:
        inside = np.isin(cell_of(columns["x"], columns["y"]), cells) & later
        later &= np.isin(columns["track"], columns["track"][inside])
    return {name: column[later] for name, column in columns.items()}


def incremental(before: Evidence, after: Evidence, touched: Touched, *, regional: bool) -> dict[str, Any]:
    """States of ``before`` brought to those of ``after``, as a store would."""
    first = fold(before, static=True)
    known = stored(first)
    looks = registered(after.looks)
    cells = {look.number: look_cells(look) for look in looks}
    region = None
    if regional:
        spots = [(d.x, d.y) for d in after.decisions if d.sequence in touched.decisions]
        grounds = [ground for _, ground in touched.grounds] + [
            shapely.Point(*spot).buffer(1) for spot in spots
        ]
        region = np.unique(np.concatenate([cells_touching(ground) for ground in grounds]))
    while True:
        try:
            outcome = refold(
                replace(after, looks=tuple(_within(look, touched.since, region) for look in looks)),
                static=True,
                before=StoredStates(
                    columns=since(known, touched.since, region), classes=first.classes, texts=first.texts
                ),
                touched=touched,
                cells=cells,
                region=region,
            )
            break
        except GroundTooSmall as small:
            far = np.isin(known["track"], small.tracks)
            more = np.concatenate([small.cells, cell_of(known["x"][far], known["y"][far])])
            assert len(np.setdiff1d(more, region))
            region = np.union1d(region, more)
    told = outcome.tracks["key"][outcome.told]
    fresh = stored(outcome)
    # What was told keeps the states that ended before the change.
    kept = ~np.isin(known["track"], told) | (known["valid_to"] < touched.since)
    return {name: np.concatenate([known[name][kept], fresh[name]]) for name in fresh}


def _within(look: Look, instant: int, region: Any) -> Look:
    scenes = []
    for scene in look.scenes:
        seen = scene.observations
        inside = np.full(len(seen), look.at >= instant)
        if region is not None:
            inside &= np.isin(cell_of(seen.x, seen.y), region)
        scenes.append(replace(scene, observations=seen.take(np.flatnonzero(inside))))
    return replace(look, scenes=tuple(scenes))


def comparable(columns: dict[str, Any]) -> list[tuple[Any, ...]]:
    """States without row numbers."""
    names = [*BOUNDS, *(name for name in COLUMNS if name not in {"class_code", "details"})]
    rows = zip(
        *(np.nan_to_num(columns[name].astype(np.float64), nan=-1).tolist() for name in names), strict=True
    )
    return sorted(rows)


spots = st.tuples(st.integers(0, 11), st.integers(0, 3))


def place(spot: tuple[int, int], east: float = 940.0) -> tuple[float, float]:
    """Ten metres apart, across the border of two cells at x = 1000; every other pair competes for one another."""
    return east + 10.0 * spot[0] + (4.0 if spot[1] == 1 else 0.0), 30.0 + 5.0 * spot[1]


@st.composite
def cities(draw: st.DrawFn) -> tuple[list[Look], list[Decision]]:
    """Some yearly looks, whole or half, single scenes or mosaics, and decisions between them."""
    looks = []
    for year in range(1, draw(st.integers(1, 4)) + 1):
        seen = draw(st.lists(spots, max_size=14, unique=True))
        jitter = np.random.default_rng(draw(st.integers(0, 99))).normal(0, 0.6, (len(seen), 2))
        places = [
            (x + dx, y + dy) for (x, y), (dx, dy) in zip(map(place, seen), jitter.tolist(), strict=True)
        ]
        west, east = draw(st.sampled_from([(900.0, 1100.0), (900.0, 995.0), (985.0, 1100.0)]))
        places = [one for one in places if west < one[0] < east]
        scenes = [make_scene_look(places, name=f"y{year}", ground=(west, 0, east, 100), first_id=1000 * year)]
        if draw(st.booleans()):
            again = [(x + 0.7, y - 0.3) for x, y in places[::2]]
            scenes.append(
                make_scene_look(
                    again, name=f"z{year}", ground=(west + 40, 0, east + 40, 100), first_id=1000 * year + 500
                )
            )
        looks.append(Look(at=Micros(year * YEAR), scenes=tuple(scenes)))
    kinds = [kind for kind in DecisionKind if kind is not DecisionKind.RETRACT]
    decisions = []
    for sequence in range(1, draw(st.integers(0, 5)) + 1):
        kind = draw(st.sampled_from(kinds))
        x, y = place(draw(spots))
        u, v = place(draw(spots))
        details: dict[str, Any] = {"x": u, "y": v} if kind in {"move", "split", "merge"} else {}
        if kind is DecisionKind.RECLASSIFY:
            details = {"class": "palm"}
        decisions.append(
            make_decision(kind, (x, y), year=draw(st.sampled_from([1, 1.5, 2, 2.5, 3, 3.5, 5])),
                          sequence=sequence, details=details)
        )  # fmt: skip
    return looks, decisions


def ground_of(look: Look) -> shapely.Geometry:
    return shapely.union_all([scene.surveyed for scene in look.scenes])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cities(), st.data(), st.booleans())
def test_r1_a_look_taken_out_or_put_in_is_folded_on_its_own_ground(
    city: tuple[list[Look], list[Decision]], data: st.DataObject, regional: bool
) -> None:
    looks, decisions = city
    one = data.draw(st.sampled_from(looks))
    rest = make_evidence(*(look for look in looks if look is not one), *decisions)
    whole = make_evidence(*looks, *decisions)
    # The cells of a sparse look change company with it: its whole ground is touched.
    touched = Touched(since=one.at, grounds=((one.at, ground_of(one).buffer(12)),))
    for before, after in ((rest, whole), (whole, rest)):
        said = incremental(before, after, touched, regional=regional)
        assert comparable(said) == comparable(stored(fold(after, static=True)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cities(), st.data(), st.booleans())
def test_r1_a_decision_is_folded_where_it_binds(
    city: tuple[list[Look], list[Decision]], data: st.DataObject, regional: bool
) -> None:
    looks, decisions = city
    if not decisions:
        return
    one = data.draw(st.sampled_from(decisions))
    rest = make_evidence(*looks, *(decision for decision in decisions if decision is not one))
    whole = make_evidence(*looks, *decisions)
    touched = Touched(since=one.at, decisions=frozenset({one.sequence}))
    said = incremental(rest, whole, touched, regional=regional)
    assert comparable(said) == comparable(stored(fold(whole, static=True)))
    retract = make_decision(DecisionKind.RETRACT, (one.x, one.y), year=4, sequence=99, retracts=one.sequence)
    taken_back = replace(whole, decisions=(*whole.decisions, retract))
    said = incremental(whole, taken_back, touched, regional=regional)
    assert comparable(said) == comparable(stored(fold(rest, static=True)))


def test_states_end_where_the_next_begins_and_the_last_one_never() -> None:
    assert NEVER > 0
