"""Series of things done to a grove: random walks, and one body of evidence in any order of ingest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from inventory.domain.evidence import DecisionKind
from inventory.store import cities
from inventory.store.database import Database
from tests.support.database import DatabaseServer, cloned_database
from tests.support.grove import (
    ALL_CARDS,
    BASE,
    CARDS_OF_TREES,
    CODE,
    DAYS,
    GROUNDS,
    SOURCES,
    Grove,
    Planted,
    State,
    counts_of,
    days_of,
    look_at,
    make_grove,
    plant,
    stored_states,
)
from tests.support.surveys import WHEELS, FakeDecision, FakeSurvey, store_decision

KINDS = tuple(kind for kind in DecisionKind if kind is not DecisionKind.RETRACT)
INSTANTS = tuple(
    at
    for day in DAYS
    for at in (day, day + timedelta(days=90), day - timedelta(hours=1), day + timedelta(hours=1))
)
"""Instants of decisions: those of looks, just beside them on the same day, and between."""
AREA_DAYS = tuple(date(year, month, 1) for year in (2020, 2021, 2022, 2023, 2024, 2025) for month in (5, 9))

# --- random walks ------------------------------------------------------------------------------------

_WEIGHTS = {
    "look": 6, "mosaic": 1, "rerun": 2, "correct": 1, "withdraw": 3, "restore": 3, "choose": 1, "decide": 6,
    "retract": 3, "redate": 1, "purge": 1, "areas": 1,
}  # fmt: skip
_MOST_SCENES = 14
"""Above it a walk purges instead of looking again, so that a step costs the same after a thousand."""


def random_step(grove: Grove, random: np.random.Generator) -> str:
    """Does one thing of those that users do, and says what it was."""
    names = list(_WEIGHTS)
    weights = np.array(list(_WEIGHTS.values()), float)
    name = str(random.choice(names, p=weights / weights.sum()))
    if name in ("look", "mosaic") and len(grove.scenes) >= _MOST_SCENES:
        name = "purge"
    which, seed, day = (int(random.integers(0, 1 << 16)) for _ in range(3))
    day %= len(DAYS)
    step: dict[str, Any] = {
        "look": lambda: _random_look(grove, random, day, seed),
        "mosaic": lambda: grove.mosaic(day, seed, finer=bool(seed % 2)),
        "rerun": lambda: grove.rerun(which, CARDS_OF_TREES[seed % 2], seed),
        "correct": lambda: grove.correct(which, *random.uniform(-6, 6, 2).tolist()),
        "withdraw": lambda: grove.withdraw(which),
        "restore": lambda: grove.restore(which),
        "choose": lambda: grove.choose(ALL_CARDS[seed % 3]),
        "decide": lambda: _random_decision(grove, random, which),
        "retract": lambda: grove.retract(which, INSTANTS[seed % len(INSTANTS)]),
        "redate": lambda: grove.redate(which, day),
        "purge": lambda: grove.purge(which),
        "areas": lambda: grove.areas(seed % 3, AREA_DAYS[which % len(AREA_DAYS)]),
    }
    done = step[name]()
    return name if done else f"{name} refused"


def _random_look(grove: Grove, random: np.random.Generator, day: int, seed: int) -> bool:
    return grove.look(
        day,
        int(random.integers(len(GROUNDS))),
        seed,
        card=WHEELS if random.random() < 0.15 else CARDS_OF_TREES[int(random.random() < 0.25)],
        joined=bool(random.random() < 0.15),
        source=SOURCES[int(random.integers(2))],
        shift_m=(1.0, -0.5) if random.random() < 0.3 else (0.0, 0.0),
        crown_scale=0.4 if random.random() < 0.15 else 1.0,
    )


def _random_decision(grove: Grove, random: np.random.Generator, which: int) -> bool:
    return grove.decide(
        KINDS[int(random.integers(len(KINDS)))],
        which,
        INSTANTS[int(random.integers(len(INSTANTS)))],
        offset_m=(float(random.uniform(-4, 4)), float(random.uniform(-4, 4))),
        other=int(random.integers(3)),
        note=int(random.integers(5)),
    )


# --- one body of evidence, any order -----------------------------------------------------------------

_OVERLAPPING = (0, 1, 2, 3, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Surveys, and decisions in their recorded sequence; ``retracts`` gives positions of earlier ones."""

    planted: Planted
    surveys: tuple[FakeSurvey, ...]
    decisions: tuple[FakeDecision, ...]
    retracts: dict[int, int]


def make_body(seed: int, *, surveys: int, decisions: int) -> Body:
    """Surveys of overlapping ground on several dates, by several sources and models, and all decisions."""
    random = np.random.default_rng(seed)
    planted = plant(seed)
    looks = []
    for number in range(surveys - 2):
        card = WHEELS if number % 6 == 5 else CARDS_OF_TREES[int(number % 4 == 3)]
        looks.append(
            look_at(
                planted,
                GROUNDS[_OVERLAPPING[int(random.integers(len(_OVERLAPPING)))]],
                # From the fifth on the same instants, by another source: their order must be their content's.
                DAYS[number % 4],
                seed=seed + number,
                card=card,
                source=SOURCES[number // 4 % 2],
                campaign="spring" if number % 9 == 8 else None,
                crown_scale=0.4 if number % 7 == 6 else 1.0,
            )
        )
    # Another model on the first scene, and one more scene that is not adequate for trees.
    looks.append(looks[0].by(CARDS_OF_TREES[1], looks[1].seen))
    looks.append(replace(looks[2], ground_resolution_m=1.5, pixels=looks[2].pixels[::-1], source="far"))
    made = [_decision_about(planted, random, number) for number in range(decisions)]
    retracts = {number: number // 2 for number in range(9, decisions, 10)}
    for number in retracts:
        made[number] = replace(made[number], kind=DecisionKind.RETRACT, details={})
    return Body(planted=planted, surveys=tuple(looks), decisions=tuple(made), retracts=retracts)


def _decision_about(planted: Planted, random: np.random.Generator, number: int) -> FakeDecision:
    places = np.vstack([planted.trees, planted.bushes]) + BASE
    place = places[int(random.integers(len(places)))]
    others = np.argsort(np.hypot(*(places - place).T))
    other = (
        places[others[1]]
        if KINDS[number % len(KINDS)] is DecisionKind.MERGE
        else place + np.array([2.0, 1.5])
    )
    kind = KINDS[number % len(KINDS)]
    details: dict[str, Any] = {}
    if kind in (DecisionKind.MOVE, DecisionKind.SPLIT, DecisionKind.MERGE):
        details = {"x": float(other[0]), "y": float(other[1])}
    if kind is DecisionKind.RECLASSIFY:
        details = {"class": "truck"}
    if kind is DecisionKind.DESCRIBE:
        details = {"note": number}
    return FakeDecision(
        kind=kind,
        at=INSTANTS[int(random.integers(len(INSTANTS)))],
        xy=(float(place[0]), float(place[1])),
        gate_m=float(np.float32(random.uniform(2, 6))),
        details=details,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a city says in the end: counts of every date and level, and all states without ids."""

    counts: dict[Any, Any]
    states: list[State]


def ingest_in_order(
    server: DatabaseServer, folder: Path, body: Body, random: np.random.Generator | None
) -> Outcome:
    """The body in a fresh database, in a random order and random batches; None: as it stands, one by one."""
    with cloned_database(server) as clone:
        database = Database(clone.service_url)
        try:
            grove = make_grove(database, folder)
            grove.areas(1, date(2022, 1, 1))
            ingest_body(grove, body, random)
            return outcome_of(database)
        finally:
            database.close()


def ingest_body(grove: Grove, body: Body, random: np.random.Generator | None) -> None:
    """The body into a grove's city; None: surveys as they stand, one by one, then the decisions."""
    order: Sequence[int] = range(len(body.surveys))
    # A decision's place among the surveys; decisions keep their own sequence.
    waits = [len(body.surveys)] * len(body.decisions)
    if random is not None:
        order = random.permutation(len(body.surveys)).tolist()
        waits = sorted(random.integers(0, len(body.surveys) + 1, len(body.decisions)).tolist())
    recorded: list[str] = []
    stored = 0
    while stored < len(order):
        _decide_until(grove, body, waits, stored, recorded)
        batch = 1 if random is None else int(random.integers(1, 4))
        due = min((at for at in waits if at > stored), default=len(order))
        grove.store(*(body.surveys[number] for number in order[stored : min(stored + batch, due)]))
        stored = min(stored + batch, due, len(order))
    _decide_until(grove, body, waits, stored, recorded)


def _decide_until(grove: Grove, body: Body, waits: list[int], stored: int, recorded: list[str]) -> None:
    while len(recorded) < len(waits) and waits[len(recorded)] <= stored:
        number = len(recorded)
        decision = body.decisions[number]
        if number in body.retracts:
            decision = replace(decision, retracts=recorded[body.retracts[number]])
        recorded.append(store_decision(grove.database, CODE, decision, taxonomy=grove.taxonomy))


def outcome_of(database: Database) -> Outcome:
    """Everything that a grove's city says."""
    with database.transaction(read_only=True) as connection:
        city = cities.get_city(connection, CODE)
        days = days_of(connection, city)
        states = stored_states(connection, city)
    return Outcome(counts=counts_of(database, CODE, days), states=states)
