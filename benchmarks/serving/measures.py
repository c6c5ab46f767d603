"""What is measured, part by part; each on a running service and beside its rivals, in one run."""

import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import geopandas
import morecantile
import numpy as np
import shapely
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine, event

from benchmarks.serving.city import CODE
from benchmarks.serving.polygons import Asked, polygons
from benchmarks.serving.rival import SCHEMA, TABLE, Rival
from benchmarks.serving.servers import Served, Server, load, pygeoapi, tipg
from inventory.counting import count
from inventory.store.database import Database

CONNECTIONS = 16
_ITEMS = f"/cities/{CODE}/collections/assets/items"
BOX_SHARES = (1 / 1000, 1)
"""Of all assets in a box, from and to; each scale alike, as a map asks while it is zoomed out."""
TILES = 200
ZOOMS = range(8, 19)
STREAMED = 1_000_000
TO_POSTGIS_ROWS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All that the parts measure with."""

    database: Database
    rival: Rival
    service: Server
    url: str
    rounds: int
    seconds: float
    """How long each load lasts."""
    peers: tuple[str, ...]
    seed: int
    recorded_per_s: int | None


# --- counts -------------------------------------------------------------------------------------------------


def polygon_counts(bench: Bench) -> dict[str, Any]:
    """Every kind of polygon, ours over HTTP, the rival's query alone."""
    _, lon_lat = bench.rival.sample(200_000, bench.seed)
    asked = polygons(lon_lat, bench.rival.size(), np.random.default_rng(bench.seed))
    outcome: dict[str, Any] = {}
    for name, one in asked.items():
        outcome |= _polygon(bench, f"polygon_{name}_count" if name else "polygon_count", one)
    return outcome


def _polygon(bench: Bench, told: str, asked: Asked) -> dict[str, Any]:
    body = shapely.to_geojson(asked.polygon).encode()
    path = f"/cities/{CODE}/counts?class=tree&as_of={asked.as_of}"
    address = urlsplit(bench.service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    times = []
    # One more: the first reads what the others find in memory, as the rival's does.
    for _ in range(bench.rounds + 1):
        begun = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/geo+json"})
        answer = json.loads(connection.getresponse().read())
        times.append(time.perf_counter() - begun)
    (row,) = answer["counts"]
    mine = statistics.median(times[1:])
    print(f"{told}: {row['count']} of coverage {row['coverage']}, {mine * 1e3:.1f} ms", file=sys.stderr)
    outcome = {f"{told}_ms": round(mine * 1e3, 2)}
    # Without pieces, a hundred thousand vertices take minutes.
    ways = {"subdivide": True} if "vertices" in told else {"postgis": False, "subdivide": True}
    for way, divided in ways.items():
        taken = []
        for _ in range(min(bench.rounds, 3)):
            seconds, found = bench.rival.count(asked.polygon, asked.as_of, divided=divided)
            taken.append(seconds)
            if not (found == row["count"] or (divided and 0 < found - row["count"] < 100)):
                raise SystemExit(f"{told}: {row['count']} here, {found} there")
        outcome[f"{told}_vs_{way}"] = round(statistics.median(taken) / mine, 2)
    return outcome


def area_counts(bench: Bench) -> dict[str, Any]:
    """Database time of the counts of every area, as the driver sees it."""
    taken: list[float] = []
    with _statements_timed(taken):
        for _ in range(bench.rounds):
            taken.append(-1.0)
            rows = count(bench.database, CODE, level="district")
    rounds = [list(part) for part in _split(taken)]
    return {
        "areas": len(rows) - 1,
        "areas_count_ms": round(1e3 * statistics.median(sum(part) for part in rounds), 2),
    }


def _split(taken: Sequence[float]) -> list[list[float]]:
    rounds: list[list[float]] = []
    for one in taken:
        if one < 0:
            rounds.append([])
        else:
            rounds[-1].append(one)
    return rounds


class _statements_timed(AbstractContextManager[None]):
    """Within it, the seconds of each statement, until its rows are at hand, are appended."""

    def __init__(self, taken: list[float]) -> None:
        self._taken = taken

    def __enter__(self) -> None:
        event.listen(Engine, "before_cursor_execute", self._begin)
        event.listen(Engine, "after_cursor_execute", self._end)

    def __exit__(self, *_: object) -> None:
        event.remove(Engine, "before_cursor_execute", self._begin)
        event.remove(Engine, "after_cursor_execute", self._end)

    def _begin(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self._taken.append(time.perf_counter() - self._begun)


# --- items --------------------------------------------------------------------------------------------------


def items(bench: Bench) -> dict[str, Any]:
    """Pages of 1,000 in boxes of every size that maps ask for."""
    _, lon_lat = bench.rival.sample(2_000, bench.seed)
    shares = np.exp(np.random.default_rng(bench.seed).uniform(*np.log(BOX_SHARES), 200))
    boxes = [_box(lon_lat, centre, share) for centre, share in zip(lon_lat, shares, strict=False)]
    return _pages(bench, "items", boxes)


def features(bench: Bench) -> dict[str, Any]:
    """Pages of 1,000 in small boxes alone, and single features."""
    ids, lon_lat = bench.rival.sample(2_000, bench.seed)
    small = [_box(lon_lat, centre, BOX_SHARES[0]) for centre in lon_lat[:200]]
    single = _both(bench, [f"{_ITEMS}/{one}" for one in ids], "items/{}", ids)
    return {
        **_pages(bench, "items_small", small),
        **{name.format("feature"): value for name, value in single.items()},
    }


def _pages(bench: Bench, told: str, boxes: Sequence[str]) -> dict[str, Any]:
    ours = [f"{_ITEMS}?limit=1000&bbox={box}" for box in boxes]
    found = _both(bench, ours, "items?limit=1000&bbox={}", boxes)
    return {name.format(told): value for name, value in found.items()}


def _box(lon_lat: NDArray[np.float64], centre: NDArray[np.float64], share: float) -> str:
    """The square of degrees around a place that holds this share of the sample."""
    reach = np.quantile(np.abs(lon_lat - centre).max(axis=1), share)
    return ",".join(f"{edge:.5f}" for edge in (*(centre - reach), *(centre + reach)))


def _both(bench: Bench, ours: Sequence[str], rivals: str, values: Sequence[str]) -> dict[str, Any]:
    load(bench.service.url, ours[:16], connections=4)
    mine = load(bench.service.url, ours, connections=CONNECTIONS, seconds=bench.seconds)
    outcome: dict[str, Any] = {"{}_per_s": round(mine.per_s, 1), "{}_p99_ms": round(mine.p99_ms, 1)}
    peers: dict[str, tuple[str, list[Callable[[], AbstractContextManager[Server]]]]] = {
        "tipg": (
            f"/collections/{SCHEMA}.{TABLE}/",
            [lambda: tipg(bench.url, 1), lambda: tipg(bench.url, 2)],
        ),
        "pygeoapi": (
            "/collections/trees/",
            # Without totals, which it can leave out: the faster of its settings.
            [lambda: pygeoapi(bench.url, 2)],
        ),
    }
    for name in bench.peers:
        root, settings = peers[name]
        paths = [
            f"{root}{rivals.format(value)}" + ("" if "?" in rivals else "?f=geojson") for value in values
        ]
        if name == "pygeoapi":
            paths = [f"{path}&f=json".replace("?f=geojson&", "?") for path in paths]
        found = [_loaded(start, paths, bench.seconds) for start in settings]
        best = max(found, key=lambda one: one.per_s)
        outcome[f"{{}}_vs_{name}"] = round(mine.per_s / best.per_s, 2)
        outcome[f"{{}}_p99_ms_{name}"] = round(best.p99_ms, 1)
    return outcome


def _loaded(
    start: Callable[[], AbstractContextManager[Server]], paths: Sequence[str], seconds: float
) -> Served:
    with start() as server:
        load(server.url, paths[:4], connections=1)
        return load(server.url, paths, connections=CONNECTIONS, seconds=seconds)


# --- tiles --------------------------------------------------------------------------------------------------


def tiles(bench: Bench) -> dict[str, Any]:
    """A fixed set of tiles of all zooms, each asked for once; both services have just started."""
    _, lon_lat = bench.rival.sample(2_000, bench.seed + 1)
    grid = morecantile.tms.get("WebMercatorQuad")
    chosen: list[tuple[int, int, int]] = []
    for number in range(50 * TILES):
        zoom = ZOOMS[number % len(ZOOMS)]
        tile = grid.tile(*lon_lat[number % len(lon_lat)].tolist(), zoom)
        if (zoom, tile.x, tile.y) not in chosen:
            chosen.append((zoom, tile.x, tile.y))
        if len(chosen) == TILES:
            break
    root = f"/cities/{CODE}/collections/assets/tiles/WebMercatorQuad"
    mine = load(bench.service.url, [f"{root}/{z}/{y}/{x}" for z, x, y in chosen], connections=4)
    found = []
    for workers in (1, 2):
        with tipg(bench.url, workers) as server:
            root = f"/collections/{SCHEMA}.{TABLE}/tiles/WebMercatorQuad"
            found.append(load(server.url, [f"{root}/{z}/{x}/{y}" for z, x, y in chosen], connections=4))
    best = max(found, key=lambda one: one.per_s)
    return {
        "tiles": len(chosen),
        "tiles_per_s": round(mine.per_s, 1),
        "tiles_vs_tipg": round(mine.per_s / best.per_s, 2),
        "tile_bytes_most": mine.bytes_most,
        "tile_bytes_most_tipg": best.bytes_most,
    }


# --- writing and streaming ----------------------------------------------------------------------------------


def stream(bench: Bench) -> dict[str, Any]:
    """Reads up to a million features as one GeoJSON and watches the service's memory."""
    address = urlsplit(bench.service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=600)
    ends, most = threading.Event(), [0]
    before = bench.service.resident_bytes()
    watching = threading.Thread(target=_watch, args=(bench.service, ends, most))
    watching.start()
    begun, features = time.perf_counter(), 0
    connection.request("GET", f"/cities/{CODE}/collections/assets/download?f=geojson")
    answer = connection.getresponse()
    while features < STREAMED and (part := answer.read(1 << 20)):
        features += part.count(b'"type":"Feature"') + part.count(b'"type": "Feature"')
    seconds = time.perf_counter() - begun
    ends.set()
    watching.join()
    connection.close()
    return {
        "streamed": features,
        "streamed_per_s": round(features / seconds),
        "stream_rss_growth_mib": round((most[0] - before) / 2**20, 1),
    }


def _watch(service: Server, ends: threading.Event, most: list[int]) -> None:
    while not ends.wait(0.05):
        most[0] = max(most[0], service.resident_bytes())


def to_postgis(bench: Bench) -> dict[str, Any]:
    """Rows a second of ``GeoDataFrame.to_postgis`` with its spatial index; two runs, the faster counts."""
    engine = create_engine(bench.url.replace("postgresql://", "postgresql+psycopg://"))
    frame = geopandas.read_postgis(
        f"SELECT * FROM {SCHEMA}.{TABLE} LIMIT {TO_POSTGIS_ROWS}", engine, geom_col="geom", crs=4326
    )
    taken = []
    for _ in range(2):
        begun = time.perf_counter()
        frame.to_postgis("written", engine, schema=SCHEMA, if_exists="replace", chunksize=None)
        taken.append(time.perf_counter() - begun)
    engine.dispose()
    theirs = len(frame) / min(taken)
    outcome: dict[str, Any] = {"to_postgis_per_s": round(theirs)}
    if bench.recorded_per_s is not None:
        outcome["bulk_write_vs_to_postgis"] = round(bench.recorded_per_s / theirs, 2)
    return outcome
