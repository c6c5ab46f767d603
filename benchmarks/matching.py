"""How long does a city of a million trees take to learn what a new survey saw, or what a person decided?

    python -m benchmarks.matching [--assets 1000000] --json

A city of ``assets`` trees at least 6 m apart is made by a first survey in an embedded cluster with production
settings (durable, on disk). A second survey sees 73 % of them, 1 m shifted and 0.5 m off at random, and as
many other things as it misses. Then a person rejects a tree and takes that back, five times. Prints:

- ``assets``, ``observations``: sizes;
- ``seconds``: from the second survey's stored observations to the commit of what they mean; of that
  ``load_s`` reading evidence and states, ``match_s`` shift and assignment, ``fold_s`` the whole fold with
  matching, ``store_s`` writing ids, states, memberships, counts and coverage;
- ``observations_s``: storing the second survey's observations themselves; ``first_s``: the whole first survey;
- ``growth_10x``: ``seconds`` ÷ that of a tenth of the assets;
- ``decision_ms``: median of the decisions, ``decision_ms_worst`` the slowest;
- ``peak_rss_mib``: most memory that this process ever held, its data included, PostgreSQL's not.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import shapely
from numpy.typing import NDArray
from sqlalchemy import text

from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import DecisionKind
from inventory.memory import keep_freed_memory
from inventory.store.database import Database, Patience, open_database
from tests.support.surveys import (
    FakeSurvey,
    add_plain_city,
    make_seen,
    make_survey,
    make_taxonomy,
    store_surveys,
)

METRIC = "EPSG:32612"
CORNER = (400_000.0, 4_900_000.0)
SPACING_M = 20.0
"""One tree a square of this side: 2,500 a km², as in a green city."""
JITTER_M = 7.0
AREAS = 50
SEEN = 0.73
SIGMA_M = 0.5
SHIFT_M = (0.8, -0.6)
DECISIONS = 5
ZONE = "America/Denver"

_PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "load_s": (
        ("inventory.store.evidence", "load_looks"),
        ("inventory.store.evidence", "load_observations"),
        ("inventory.store.states", "load_states"),
    ),
    "match_s": (
        ("inventory.refolding", "register"),
        ("inventory.domain.fold", "pairs_within_gate"),
        ("inventory.domain.fold", "assign"),
    ),
    "fold_s": (("inventory.refolding", "fold_on"),),
    "store_s": (
        ("inventory.store.identities", "save_ids"),
        ("inventory.store.states", "replace_states"),
        ("inventory.store.coverage", "replace_coverage"),
    ),
}
"""Functions as their callers find them."""


def main() -> None:
    """Runs from the command line."""
    # As the program does.
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcome = measure(given.assets, given.seed)
    if given.json:
        print(json.dumps(outcome))
    else:
        for name, value in outcome.items():
            print(f"{name:>18} {value}")


def measure(assets: int, seed: int) -> dict[str, Any]:
    """All figures; a tenth of the city first, for the growth."""
    with tempfile.TemporaryDirectory(prefix="ui-matching-") as folder:
        # As root the server runs as another user, who has to pass.
        Path(folder).chmod(0o711)
        with open_database(Path(folder) / "home") as database:
            smaller = _measured_city(database, "tenth", assets // 10, seed)
            whole = _measured_city(database, "whole", assets, seed)
    return {
        "assets": whole.assets,
        "observations": whole.observations,
        "seconds": round(whole.seconds, 2),
        **{name: round(value, 2) for name, value in whole.parts.items()},
        "observations_s": round(whole.observations_s, 2),
        "first_s": round(whole.first_s, 2),
        "growth_10x": round(whole.seconds / smaller.seconds, 2),
        "decision_ms": round(statistics.median(whole.decisions_ms), 1),
        "decision_ms_worst": round(max(whole.decisions_ms), 1),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One city's figures."""

    assets: int
    observations: int
    seconds: float
    parts: dict[str, float]
    observations_s: float
    first_s: float
    decisions_ms: Sequence[float]


def _measured_city(database: Database, code: str, assets: int, seed: int) -> Measured:
    random = np.random.default_rng(seed)
    trees, side_m = jittered_grid(assets, random)
    _add_city(database, code, side_m)
    begun = time.perf_counter()
    _ingest(database, code, _survey(trees, side_m, 2023, random), {})
    first_s = time.perf_counter() - begun
    parts: dict[str, float] = defaultdict(float)
    second = _survey(_seen_again(trees, random), side_m, 2024, random)
    observations_s, seconds = _ingest(database, code, second, parts)
    _say(f"{code}: {assets} assets, {seconds:.1f} s")
    return Measured(
        assets=_number_of_assets(database, code),
        observations=len(second.seen),
        seconds=seconds,
        parts=dict(parts),
        observations_s=observations_s,
        first_s=first_s,
        decisions_ms=_decisions_ms(database, code),
    )


# --- the city ----------------------------------------------------------------------------------------


def jittered_grid(count: int, random: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """(count, 2) metric positions at least 6 m apart, and the side of the square that holds them."""
    columns = int(np.ceil(np.sqrt(count)))
    cell = np.arange(count)
    centres = (np.column_stack([cell % columns, cell // columns]) + 0.5) * SPACING_M
    places = centres + random.uniform(-JITTER_M, JITTER_M, (count, 2)) + CORNER
    return places, columns * SPACING_M


def _seen_again(trees: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """The second survey's positions: trees, off and shifted, and false alarms in place of the missed.

    False alarms stand at the grid's corners: 4 m and more from any tree.
    """
    missed = random.random(len(trees)) > SEEN
    corners = np.round((trees - CORNER) / SPACING_M - 0.5) * SPACING_M + CORNER
    places = np.where(missed[:, None], corners, trees) + random.normal(0, SIGMA_M, trees.shape)
    return np.asarray(places + SHIFT_M, np.float64)


def _survey(places: NDArray[np.float64], side_m: float, year: int, random: np.random.Generator) -> FakeSurvey:
    # A margin around the grid: what jitter and shift move beyond its edge was looked at, too.
    ground = shapely.box(*(np.subtract(CORNER, 30)), *(np.add(CORNER, side_m + 30)))
    seen = make_seen(
        places,
        size_m=random.uniform(3, 9, len(places)),
        score=random.uniform(0.3, 0.99, len(places)),
        error_m=SIGMA_M,
        origin=CORNER,
    )
    return make_survey(ground, datetime(year, 6, 1, 12, tzinfo=ZoneInfo(ZONE)), seen)


def _add_city(database: Database, code: str, side_m: float) -> None:
    columns, rows = 10, AREAS // 10
    wide, high = side_m / columns, side_m / rows

    def box(x_min: float, y_min: float, x_max: float, y_max: float) -> shapely.Geometry:
        return shapely.box(*np.add(CORNER, (x_min, y_min)), *np.add(CORNER, (x_max, y_max)))

    add_plain_city(
        database,
        code,
        metric_crs=METRIC,
        ground=box(-50, -50, side_m + 50, side_m + 50),
        areas={
            f"d{row}{column}": box(column * wide, row * high, (column + 1) * wide, (row + 1) * high)
            for row in range(rows)
            for column in range(columns)
        },
        time_zone=ZONE,
    )


# --- what is timed -----------------------------------------------------------------------------------


def _ingest(
    database: Database, code: str, survey: FakeSurvey, parts: dict[str, float]
) -> tuple[float, float]:
    """Stores and folds one survey as ``ingest`` does; seconds for its rows, and for all the rest."""
    begun = folding = time.perf_counter()

    def rows_are_stored() -> None:
        nonlocal folding
        folding = time.perf_counter()

    with _timed(parts):
        store_surveys(database, code, [survey], taxonomy=make_taxonomy(), before_folding=rows_are_stored)
    return folding - begun, time.perf_counter() - folding


@contextmanager
def _timed(parts: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds spent in the functions of each part."""
    originals: list[tuple[Any, str, Any]] = []
    for part, functions in _PARTS.items():
        for module_name, name in functions:
            module = importlib.import_module(module_name)
            original = getattr(module, name)
            originals.append((module, name, original))
            setattr(module, name, _stopwatch(original, part, parts))
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def _stopwatch(function: Callable[..., Any], part: str, parts: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            parts[part] = parts.get(part, 0.0) + time.perf_counter() - begun

    return timed


def _decisions_ms(database: Database, code: str) -> list[float]:
    """Rejects a tree in the middle of the city and takes it back, alternately."""
    taxonomy, times, rejected = make_taxonomy(), [], None
    asset = _some_asset(database, code)
    for _ in range(DECISIONS):
        if rejected is None:
            new = NewDecision(kind=DecisionKind.REJECT, asset=asset)
        else:
            new = NewDecision(kind=DecisionKind.RETRACT, retracts=rejected)
        begun = time.perf_counter()
        made = decide(database, code, new, taxonomy=taxonomy)
        times.append((time.perf_counter() - begun) * 1000)
        rejected = made if rejected is None else None
    return times


def _some_asset(database: Database, code: str) -> str:
    query = text(
        """
        SELECT a.public_id FROM urban_inventory.asset a JOIN urban_inventory.city c ON c.id = a.city_id
        WHERE c.code = :code ORDER BY a.id
        OFFSET (SELECT count(*) / 2 FROM urban_inventory.asset b WHERE b.city_id = (
            SELECT id FROM urban_inventory.city WHERE code = :code)) LIMIT 1
        """
    )
    with database.transaction(Patience.JOB, read_only=True) as connection:
        return str(connection.execute(query, {"code": code}).scalar_one())


def _number_of_assets(database: Database, code: str) -> int:
    query = text(
        "SELECT count(*) FROM urban_inventory.asset a JOIN urban_inventory.city c ON c.id = a.city_id"
        " JOIN urban_inventory.observation o ON o.city_id = a.city_id AND o.id = a.root_observation"
        " JOIN urban_inventory.survey v ON v.id = o.survey_id JOIN urban_inventory.scene s ON s.id = v.scene_id"
        " WHERE c.code = :code AND s.taken_at < '2024-01-01'"
    )
    with database.transaction(Patience.JOB, read_only=True) as connection:
        return int(connection.execute(query, {"code": code}).scalar_one())


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
