"""R1 as a law: after any series of what users do, a city says what all of its evidence says.

Three drivers, one grove: hypothesis chooses the steps and shrinks what fails; a seeded walk goes deeper; and
one body of evidence comes in many orders. To hunt for longer: ``URBAN_INVENTORY_HUNT=200`` runs that many
random examples of 40 steps each, and as many seeds of the walk.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inventory.domain import cells as cells_of_ground
from inventory.domain import leaves as leaves_of_points
from inventory.domain.evidence import DecisionKind
from inventory.store import cities
from inventory.store import leaves as stored_leaves
from inventory.store import states as writing_states
from inventory.store.database import Database
from tests.support.database import DatabaseServer, cloned_database
from tests.support.grove import (
    ALL_CARDS,
    CARDS_OF_TREES,
    CODE,
    DAYS,
    GROUNDS,
    SOURCES,
    Grove,
    Memory,
    State,
    check_fresh,
    check_ids,
    check_rebuild,
    check_sums,
    make_grove,
    stored_states,
)
from tests.support.surveys import CANOPIES, CROWNS, WHEELS
from tests.support.walks import AREA_DAYS, INSTANTS, KINDS, ingest_in_order, make_body, random_step

HUNT = int(os.environ.get("URBAN_INVENTORY_HUNT", "0"))
PROFILE = settings(
    max_examples=HUNT or 8,
    stateful_step_count=40 if HUNT else 14,
    derandomize=not HUNT,
    deadline=None,
    database=None,
    # Shrinking costs a database an attempt: worth it for who hunts.
    phases=(Phase.generate, Phase.shrink) if HUNT else (Phase.generate,),
    suppress_health_check=list(HealthCheck),
)

which = st.integers(0, 12)
seeds = st.integers(0, 1_000)
days = st.integers(0, len(DAYS) - 1)
cards = st.sampled_from(CARDS_OF_TREES)
metres = st.integers(-40, 40).map(lambda decimetres: decimetres / 10)
instants = st.sampled_from(INSTANTS)


@pytest.fixture
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grove has too few trees for two cells of listing (R8), unless a cell needs fewer hits."""
    monkeypatch.setattr(cells_of_ground, "GROUP_LEAST_HITS", 6)
    # Nor enough to pack them, or for more than one leaf.
    monkeypatch.setattr(stored_leaves, "_PACK_ABOVE", 5)
    monkeypatch.setattr(writing_states, "_PACK_FROM_STATES", 8)
    monkeypatch.setattr(leaves_of_points, "LEAF_POINTS", 4)


@pytest.fixture(params=["small-cells", "cells-as-shipped"])
def cells(request: pytest.FixtureRequest) -> None:
    """Both small cells and those of the program."""
    if request.param == "small-cells":
        request.getfixturevalue("small_cells")


class City(RuleBasedStateMachine):
    """What users do to a city, in any order."""

    server: DatabaseServer

    def __init__(self) -> None:
        super().__init__()
        self._clone = cloned_database(self.server)
        self._folder = TemporaryDirectory()
        self.database = Database(self._clone.__enter__().service_url)
        self.memory = Memory()

    @initialize(seed=st.integers(1, 5), ground=st.integers(0, len(GROUNDS) - 1))
    def found(self, seed: int, ground: int) -> None:
        self.grove = make_grove(self.database, Path(self._folder.name), seed=seed)
        # Two looks to begin with: most rules need something to speak of.
        self.grove.look(1, 0, seed)
        self.grove.look(3, ground, seed + 1)

    # --- evidence ----------------------------------------------------------------------------------

    @rule(
        day=days,
        ground=st.integers(0, len(GROUNDS) - 1),
        seed=seeds,
        card=cards,
        source=st.sampled_from(SOURCES),
        joined=st.booleans(),
        shifted=st.booleans(),
        crown_scale=st.sampled_from([1.0, 1.0, 0.4]),
    )
    def look(self, day: int, ground: int, seed: int, *, shifted: bool, **more: Any) -> None:
        self.grove.look(day, ground, seed, shift_m=(1.2, -0.6) if shifted else (0.0, 0.0), **more)

    @rule(day=days, ground=st.integers(0, 2), seed=seeds)
    def look_at_cars(self, day: int, ground: int, seed: int) -> None:
        self.grove.look(day, ground, seed, card=WHEELS)

    @rule(day=days, seed=seeds, finer=st.booleans())
    def mosaic(self, day: int, seed: int, *, finer: bool) -> None:
        self.grove.mosaic(day, seed, finer=finer)

    @rule(which=which, card=cards, seed=seeds)
    def rerun(self, which: int, card: Any, seed: int) -> None:
        self.grove.rerun(which, card, seed)

    @rule(which=which, east=metres, north=metres)
    def correct(self, which: int, east: float, north: float) -> None:
        self.grove.correct(which, east, north)

    @rule(which=which, kind=st.sampled_from(KINDS), at=instants, east=metres, north=metres, other=which)
    def decide(self, which: int, kind: DecisionKind, at: Any, east: float, north: float, other: int) -> None:
        self.grove.decide(kind, which, at, offset_m=(east, north), other=other, note=other)

    @precondition(lambda self: self.grove.has_decisions())
    @rule(which=which, at=instants)
    def retract(self, which: int, at: Any) -> None:
        self.grove.retract(which, at)

    # --- about evidence ------------------------------------------------------------------------------

    @rule(which=which)
    def withdraw(self, which: int) -> None:
        self.grove.withdraw(which)

    @rule(which=which)
    def restore(self, which: int) -> None:
        self.grove.restore(which)

    @rule(card=st.sampled_from(ALL_CARDS))
    def choose(self, card: Any) -> None:
        self.grove.choose(card)

    @rule(which=which, day=days)
    def redate(self, which: int, day: int) -> None:
        self.grove.redate(which, day)

    @precondition(lambda self: len(self.grove.scenes) > 2)
    @rule(which=which)
    def purge(self, which: int) -> None:
        self.grove.purge(which)

    @rule(layout=st.integers(0, 2), valid_from=st.sampled_from(AREA_DAYS))
    def redraw_areas(self, layout: int, valid_from: Any) -> None:
        self.grove.areas(layout, valid_from)

    # --- laws ----------------------------------------------------------------------------------------

    @invariant()
    def stored_is_what_the_evidence_says(self) -> None:
        check_fresh(self.grove)
        check_ids(self.grove)
        self.memory.remember(self.grove)

    def teardown(self) -> None:
        try:
            if hasattr(self, "grove"):
                check_sums(self.grove)
                check_rebuild(self.grove)
                self.memory.check(self.grove)
        finally:
            self.database.close()
            self._clone.__exit__(None, None, None)
            self._folder.cleanup()


@pytest.mark.usefixtures("small_cells")
def test_r1_r14_any_series_of_steps_gives_what_a_rebuild_and_a_fold_from_nothing_give(
    database_server: DatabaseServer,
) -> None:
    machine = type("CityOfThisRun", (City,), {"server": database_server})
    run_state_machine_as_test(machine, settings=PROFILE)


@pytest.mark.usefixtures("cells")
@pytest.mark.parametrize("seed", range(HUNT or 1))
def test_r1_rebuild_is_incremental_to_the_last_asset_after_random_operations(
    grove: Callable[[int], Grove], seed: int
) -> None:
    city, random, memory = grove(seed + 1), np.random.default_rng(seed), Memory()
    for number in range(60 if HUNT else 30):
        random_step(city, random)
        if number % 5 == 0:
            memory.remember(city)
            check_fresh(city)
    check_sums(city)
    check_ids(city)
    check_rebuild(city)
    memory.check(city)


@pytest.mark.usefixtures("small_cells")
@pytest.mark.parametrize("seed", range(HUNT or 1))
def test_r1_any_order_of_ingest_gives_the_same_counts_and_states(
    database_server: DatabaseServer, tmp_path: Path, seed: int
) -> None:
    body = make_body(seed, surveys=8, decisions=10)
    first = ingest_in_order(database_server, tmp_path, body, None)
    for order in range(3):
        other = ingest_in_order(database_server, tmp_path, body, np.random.default_rng([seed, order]))
        assert other.counts == first.counts
        assert other.states == first.states


@pytest.mark.parametrize("seed", range(HUNT or 1))
def test_r7_r3_withdraw_and_restore_and_choosing_back_give_the_same_ids_and_states(
    grove: Callable[[int], Grove], seed: int
) -> None:
    city = grove(seed + 1)
    for number in range(4):
        city.look(number, number % 4, seed + number)
    city.rerun(0, CANOPIES, seed)
    for number, kind in enumerate(KINDS):
        city.decide(kind, number, DAYS[2] + timedelta(days=number))
    before = states_with_ids(city)
    for survey in range(5):
        assert city.withdraw(survey)
        assert city.restore(0)
        assert states_with_ids(city) == before
    for card in (CANOPIES, CROWNS):
        assert city.choose(card)
    assert states_with_ids(city) == before


@pytest.mark.parametrize("seed", range(HUNT or 1))
def test_r7_after_any_walk_withdraw_and_restore_give_the_same_ids(
    grove: Callable[[int], Grove], seed: int
) -> None:
    city, random = grove(seed + 1), np.random.default_rng(seed)
    for _ in range(50 if HUNT else 12):
        random_step(city, random)
    before = states_with_ids(city)
    for survey in city.surveys():
        city.take_out_and_back(survey)
        assert states_with_ids(city) == before


@pytest.mark.parametrize("seed", range(HUNT or 1))
def test_r11_taking_back_every_decision_gives_what_was_before_them(
    grove: Callable[[int], Grove], seed: int
) -> None:
    city = grove(seed + 1)
    for number in range(3):
        city.look(number, number, seed + number)
    before = states_with_ids(city)
    made = sum(city.decide(kind, 3 * number, INSTANTS[5 * number % 18]) for number, kind in enumerate(KINDS))
    assert made > 4
    assert states_with_ids(city) != before
    for number in range(made):
        assert city.retract(number, DAYS[5])
    assert [state[1:] for state in states_with_ids(city)] == [state[1:] for state in before]
    assert states_with_ids(city) == before


def states_with_ids(city: Grove) -> list[State]:
    """All states, each with its asset's public id."""
    with city.database.transaction(read_only=True) as connection:
        return stored_states(connection, cities.get_city(connection, CODE), ids=True)


@pytest.fixture
def grove(database: Database, tmp_path: Path) -> Callable[[int], Grove]:
    """Makes the grove of a seed in a fresh database."""
    return lambda seed: make_grove(database, tmp_path, seed=seed)
