"""Does it matter in which order evidence comes in? One body of evidence, many orders.

    python -m benchmarks.orders [--orders 200] [--surveys 12] [--decisions 20] --json

Each order is a fresh database: surveys in random order and random batches, decisions in between at random
and in their own recorded sequence. Prints how many orders gave the counts of every date, level and class
(``orders_identical``) and the states of every asset (``states_identical``) that the first one gave, and
whether withdrawing and restoring each survey gave the ids of before (``ids_identical``).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from inventory.store import cities
from inventory.store.database import Database
from tests.support.database import DatabaseServer, cloned_database, running_server
from tests.support.grove import CODE, State, make_grove, stored_states
from tests.support.walks import Body, ingest_body, ingest_in_order, make_body


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--surveys", type=int, default=12)
    parser.add_argument("--decisions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    body = make_body(given.seed, surveys=given.surveys, decisions=given.decisions)
    outcome = measure(body, given.orders, given.seed)
    if given.json:
        print(json.dumps(outcome))
    else:
        for name, value in outcome.items():
            print(f"{name:>18} {value}")


def measure(body: Body, orders: int, seed: int) -> dict[str, Any]:
    """All figures."""
    begun = time.perf_counter()
    counts = states = 0
    with running_server() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = ingest_in_order(server, folder, body, None)
        for order in range(orders):
            other = ingest_in_order(server, folder, body, np.random.default_rng([seed, order]))
            counts += other.counts == first.counts
            states += other.states == first.states
        ids_identical = _ids_identical(server, folder, body)
    return {
        "orders": orders,
        "surveys": len(body.surveys),
        "decisions": len(body.decisions),
        "states": len(first.states),
        "orders_identical": counts,
        "states_identical": states,
        "ids_identical": ids_identical,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def _ids_identical(server: DatabaseServer, folder: Path, body: Body) -> bool:
    """Whether ids are those of before after each survey was withdrawn and restored."""
    with cloned_database(server) as clone:
        database = Database(clone.service_url)
        try:
            grove = make_grove(database, folder)
            ingest_body(grove, body, None)
            before = _states(database)
            for survey in grove.surveys():
                grove.take_out_and_back(survey)
            return _states(database) == before
        finally:
            database.close()


def _states(database: Database) -> list[State]:
    with database.transaction(read_only=True) as connection:
        return stored_states(connection, cities.get_city(connection, CODE), ids=True)


if __name__ == "__main__":
    main()
