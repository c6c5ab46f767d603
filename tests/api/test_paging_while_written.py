"""Pages read while surveys and decisions come in: what was listed throughout is seen once, on whatever page."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import shapely

from api.app import create_app
from api.settings import Settings
from inventory.decisions import NewDecision, decide
from inventory.domain.evidence import DecisionKind
from inventory.store.database import Database
from tests.support.server import served
from tests.support.surveys import add_plain_city, make_seen, make_survey, make_taxonomy, store_surveys

ORIGIN = (600_000.0, 2_520_000.0)
SIDE, PITCH_M = 20, 10.0
GROUND = shapely.box(ORIGIN[0], ORIGIN[1], ORIGIN[0] + SIDE * PITCH_M, ORIGIN[1] + SIDE * PITCH_M)
TAXONOMY = make_taxonomy()
LIMIT = 37


def trees(random: np.random.Generator, share: float) -> Any:
    """A part of the lattice of trees, drawn at random."""
    lattice = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    return lattice[random.random(len(lattice)) < share] * PITCH_M + PITCH_M / 2 + ORIGIN


def survey(random: np.random.Generator, year: int, share: float) -> Any:
    return make_survey(
        GROUND, datetime(year, 6, 1, 4, tzinfo=UTC), make_seen(trees(random, share), origin=ORIGIN)
    )


@pytest.fixture
def grove(database: Database) -> Database:
    add_plain_city(
        database, "grove", metric_crs="EPSG:32647", ground=GROUND, areas={}, time_zone="Asia/Shanghai"
    )
    store_surveys(database, "grove", [survey(np.random.default_rng(0), 2015, 0.9)], taxonomy=TAXONOMY)
    return database


@pytest.fixture
def client(grove: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        served(create_app(Settings(home=tmp_path), grove)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


class Writer(threading.Thread):
    """Brings in surveys and decisions, one at each ``step``; ``listed`` is what was listed after each."""

    def __init__(self, database: Database, client: httpx.Client, seed: int) -> None:
        super().__init__(daemon=True)
        self._database, self._client = database, client
        self._random = np.random.default_rng(seed)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._year = 2016
        self.listed = [listed(client)]
        self.failed: Exception | None = None
        self.ended = False
        self.start()

    def step(self) -> None:
        """One write, finished when this returns."""
        self._go.release()
        assert self._done.acquire(timeout=60)
        if self.failed is not None:
            raise self.failed

    def run(self) -> None:
        while self._go.acquire() and not self.ended:
            try:
                self._write()
                self.listed.append(listed(self._client))
            except Exception as error:
                self.failed = error
            self._done.release()

    def end(self) -> None:
        self.ended = True
        self._go.release()
        self.join(timeout=60)

    def _write(self) -> None:
        kind = self._random.integers(4)
        if kind == 0:
            new = survey(self._random, self._year, float(self._random.uniform(0.5, 1)))
            store_surveys(self._database, "grove", [new], taxonomy=TAXONOMY)
            self._year += 1
            return
        known = sorted(self.listed[-1])
        named = known[self._random.integers(len(known))]
        lon, lat = self.listed[-1][named]
        near = (lon + float(self._random.uniform(-5e-4, 5e-4)), lat)
        decision = {
            1: NewDecision(kind=DecisionKind.REJECT, asset=named),
            2: NewDecision(kind=DecisionKind.VERIFY, asset=named),
            3: NewDecision(kind=DecisionKind.ADD, class_name="tree", lon_lat=self._inside(near)),
        }[int(kind)]
        decide(self._database, "grove", decision, taxonomy=TAXONOMY)

    def _inside(self, lon_lat: tuple[float, float]) -> tuple[float, float]:
        places = np.array(list(self.listed[0].values()))
        (west, south), (east, north) = places.min(axis=0), places.max(axis=0)
        return (min(max(lon_lat[0], west), east), min(max(lon_lat[1], south), north))


def listed(client: httpx.Client) -> dict[str, tuple[float, float]]:
    """Everything listed now, in one page: id → place."""
    page = client.get("/cities/grove/collections/assets/items?limit=10000").json()
    assert page["numberMatched"] == page["numberReturned"]
    return {each["id"]: tuple(each["geometry"]["coordinates"]) for each in page["features"]}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("box", ["", "&bbox={0},{1},{2},{3}"])
def test_what_was_listed_throughout_is_seen_exactly_once(
    grove: Database, client: httpx.Client, seed: int, box: str
) -> None:
    writer = Writer(grove, client, seed)
    try:
        places = np.array(list(writer.listed[0].values()))
        bounds = (*(places.min(axis=0) - 1e-3), *(places.max(axis=0) + 1e-3))
        address: str | None = (
            f"/cities/grove/collections/assets/items?limit={LIMIT}{box.format(*bounds)}&f=geojson"
        )
        seen: list[str] = []
        while address is not None:
            page = client.get(address).json()
            # The total is that of the moment, to the last asset, whatever has just been written.
            assert page["numberMatched"] == len(writer.listed[-1])
            seen += [each["id"] for each in page["features"]]
            address = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
            writer.step()
    finally:
        writer.end()

    throughout = set.intersection(*(set(each) for each in writer.listed))
    assert len(seen) == len(set(seen))
    assert throughout <= set(seen)
    assert set(seen) <= set().union(*writer.listed)
    assert len({frozenset(each) for each in writer.listed}) > 2


def test_one_answer_sees_one_state_of_the_city_while_others_write(
    grove: Database, client: httpx.Client
) -> None:
    ended = threading.Event()

    def write() -> None:
        random = np.random.default_rng(7)
        for year in range(2016, 2022):
            store_surveys(grove, "grove", [survey(random, year, 0.7)], taxonomy=TAXONOMY)
        ended.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    counts = set()
    while not ended.is_set():
        page = client.get("/cities/grove/collections/assets/items?limit=10000&offset=1").json()
        assert page["numberMatched"] == page["numberReturned"] + 1
        counts.add(page["numberMatched"])
    thread.join(timeout=60)
    assert len(counts) > 1
