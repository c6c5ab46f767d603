"""Is a city after a thousand random operations what a rebuild from nothing makes of it?

    python -m benchmarks.operations [--operations 1000] [--seed 1] --json

One grove, everything that users do in random order (``tests/support/walks.py``). Every ``--check`` steps,
and in the end: ``identical`` says whether counts of all dates and areas, states, ids, aliases and history are
those of a rebuild and of a fold from nothing; with False ``difference`` says what differs, and after which
operation. ``operation_ms`` is the median, checks left out.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from inventory.store import cities
from inventory.store.database import Database
from tests.support.database import cloned_database, running_server
from tests.support.grove import (
    CODE,
    Grove,
    check_fresh,
    check_ids,
    check_rebuild,
    check_sums,
    make_grove,
    stored_states,
)
from tests.support.walks import random_step


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", type=int, default=1_000)
    parser.add_argument("--check", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcome = measure(given.operations, given.check, given.seed)
    if given.json:
        print(json.dumps(outcome))
    else:
        for name, value in outcome.items():
            print(f"{name:>18} {value}")


def measure(operations: int, check_every: int, seed: int) -> dict[str, Any]:
    """All figures."""
    random, done, times = np.random.default_rng(seed), Counter[str](), []
    difference = None
    with (
        running_server() as server,
        tempfile.TemporaryDirectory() as folder,
        cloned_database(server) as clone,
    ):
        database = Database(clone.service_url)
        grove = make_grove(database, Path(folder), seed=seed)
        for number in range(1, operations + 1):
            begun = time.perf_counter()
            done[random_step(grove, random)] += 1
            times.append((time.perf_counter() - begun) * 1000)
            if number % check_every == 0 or number == operations:
                difference = _difference(grove, number)
            if difference is not None:
                break
        with database.transaction(read_only=True) as connection:
            states = len(stored_states(connection, cities.get_city(connection, CODE)))
        database.close()
    return {
        "operations": len(times),
        "identical": difference is None,
        "difference": difference,
        "states": states,
        "operation_ms": round(statistics.median(times), 1),
        "seconds": round(sum(times) / 1000, 1),
        "done": dict(sorted(done.items())),
    }


def _difference(grove: Grove, number: int) -> str | None:
    try:
        check_fresh(grove)
        check_sums(grove)
        check_ids(grove)
        check_rebuild(grove)
    except AssertionError as error:
        return f"after operation {number}: {error}"
    return None


if __name__ == "__main__":
    main()
