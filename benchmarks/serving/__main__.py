"""How fast is a city of millions of assets served, beside the field's servers and plain PostGIS on the same points?

    python -m benchmarks.serving [--assets 5000000] [--rounds 5] [--only items,polygons] --json

One city of clustered trees with 1,000 areas, surveyed through the program's own write path into an embedded cluster
with production settings, and served by ``urban-inventory serve``. The rivals have the same assets and properties in a
plain table of the same database: primary key, GiST index, clustered by place, vacuumed, warm. tipg and pygeoapi run
with one and with two processes; the faster counts. Prints, ours ÷ theirs in throughput where a name says ``vs``:

- ``items_vs_tipg``, ``feature_vs_tipg`` (and ``_vs_pygeoapi``): pages of 1,000 in boxes that hold from a thousandth to
  all of the assets, each scale alike (``items_small``: in the smallest of these alone), and single features, at 16
  connections; ``…_p99_ms`` ours and the rival's;
- ``tiles_vs_tipg``: 200 tiles of zooms 8 to 18, each asked for once; ``tile_bytes_most``;
- ``polygon_count_ms``, ``polygon_count_vs_postgis``, ``polygon_count_vs_subdivide``: 500 vertices, about a third
  inside, by HTTP from the request to the answer with coverage and interval, beside the bare query; the rival by
  ``ST_Intersects``, and by ``ST_Subdivide`` first; equal to the last asset, or the run ends. The same of ``past``,
  ``holes``, ``parts``, ``vertices`` (100,000), ``district`` (50,000 inside) and ``block`` (200);
- ``areas_count_ms``: database time of the counts of 1,000 areas;
- ``bulk_write_per_s``: assets recorded a second with ids, memberships, sums and history;
  ``bulk_write_vs_to_postgis``: beside ``GeoDataFrame.to_postgis`` of the same rows;
- ``stream_rss_growth_mib``: growth of the service's memory while 1,000,000 features are read as GeoJSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.serving import measures
from benchmarks.serving.city import make_city
from benchmarks.serving.measures import Bench
from benchmarks.serving.rival import Rival
from benchmarks.serving.servers import ours
from inventory.memory import keep_freed_memory
from inventory.store.cluster import open_cluster
from inventory.store.database import open_database

_MEASURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "polygons": measures.polygon_counts,
    "areas": measures.area_counts,
    "items": measures.items,
    "features": measures.features,
    "tiles": measures.tiles,
    "stream": measures.stream,
    "bulk": measures.to_postgis,
}


def main() -> None:
    """Runs from the command line."""
    # As the program does.
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="how long each load lasts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(_MEASURES), help=f"of {', '.join(_MEASURES)}")
    parser.add_argument("--home", type=Path, help="keep the city here, or take the one that is here")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with new_home() if given.home is None else nullcontext(given.home) as home:
        outcome = measure(
            home, given.assets, rounds=given.rounds, seconds=given.seconds, seed=given.seed,
            only=given.only.split(","),
        )  # fmt: skip
    if given.json:
        print(json.dumps(outcome))
    else:
        for name, value in outcome.items():
            print(f"{name:>32} {value}")


@contextmanager
def new_home() -> Iterator[Path]:
    """A home that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ui-serving-") as folder:
        # As root the server runs as another user, who has to pass.
        Path(folder).chmod(0o711)
        yield Path(folder) / "home"


def measure(
    home: Path, assets: int, *, rounds: int, seconds: float, seed: int, only: Sequence[str],
    peers: tuple[str, ...] = ("tipg", "pygeoapi"),
) -> dict[str, Any]:  # fmt: skip
    """All figures asked for; the city is made where the home has none."""
    is_new = not home.exists()
    with open_database(home) as database:
        outcome: dict[str, Any] = {}
        if is_new:
            recording_s = make_city(database, assets, seed)
            outcome["bulk_write_per_s"] = round(assets / recording_s)
            print(f"recorded in {recording_s:.1f} s", file=sys.stderr)
        with open_cluster(home / "postgres") as cluster:
            url = cluster.owner_url.replace("+psycopg", "")
        rival = Rival(url, make=is_new)
        with ours(home) as service:
            bench = Bench(
                database=database, rival=rival, service=service, url=url, rounds=rounds, seconds=seconds, seed=seed,
                peers=peers, recorded_per_s=outcome.get("bulk_write_per_s"),
            )  # fmt: skip
            outcome = {"assets": rival.size(), **outcome}
            for name in only:
                found = _MEASURES[name](bench)
                print(found, file=sys.stderr)
                outcome |= found
    return outcome


if __name__ == "__main__":
    main()
