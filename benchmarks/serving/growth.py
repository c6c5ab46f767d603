"""How do the figures of ``benchmarks.serving`` grow with the city?

    python -m benchmarks.serving.growth [--sizes 100000,1000000,10000000] >> found.jsonl
    python -m benchmarks.serving.growth --found found.jsonl --picture docs/pictures/serving-growth.svg

The first makes a city of each size, measures it beside tipg and PostGIS, and prints one object a size; the second draws
what was found, also what ``benchmarks.serving --json`` printed. The picture (with
matplotlib, which the train extra brings) has counts in polygons, pages and features, tiles, and writing; both axes are
logarithmic, so that a line is level where size does not matter.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.__main__ import measure, new_home

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
ONLY = ("polygons", "areas", "features", "tiles", "bulk")
ROUNDS, SECONDS, SEED = 1, 8.0, 1
# Panel: its unit, and its lines: (what it is called, the figure, divided or multiplied by a ratio to be the rival's).
_PANELS: dict[str, tuple[str, tuple[tuple[str, str, str | None], ...]]] = {
    "Counting in a polygon": (
        "milliseconds",
        (
            ("a third of the assets", "polygon_count_ms", None),
            ("… PostGIS", "polygon_count_ms", "×polygon_count_vs_postgis"),
            ("… PostGIS, subdivided", "polygon_count_ms", "×polygon_count_vs_subdivide"),
            ("50,000 assets", "polygon_district_count_ms", None),
            ("200 assets", "polygon_block_count_ms", None),
            ("1,000 areas, database time", "areas_count_ms", None),
        ),
    ),
    "Answers at 16 connections": (
        "a second",
        (
            ("single features", "feature_per_s", None),
            ("… tipg", "feature_per_s", "÷feature_vs_tipg"),
            ("pages of 1,000 in a small box", "items_small_per_s", None),
            ("… tipg", "items_small_per_s", "÷items_small_vs_tipg"),
        ),
    ),
    "Vector tiles, caches cold": (
        "a second",
        (("tiles", "tiles_per_s", None), ("… tipg", "tiles_per_s", "÷tiles_vs_tipg")),
    ),
    "Writing": (
        "assets a second",
        (
            ("recorded with history, areas, sums", "bulk_write_per_s", None),
            ("GeoDataFrame.to_postgis", "to_postgis_per_s", None),
        ),
    ),
}


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--found", type=Path, help="objects of this file instead of new ones")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    found = []
    if given.found is not None:
        found = [json.loads(line) for line in given.found.read_text(encoding="utf-8").splitlines()]
        given.sizes = ""
    for size in map(int, filter(None, given.sizes.split(","))):
        with new_home() as home:
            one = measure(home, size, rounds=ROUNDS, seconds=SECONDS, seed=SEED, only=ONLY, peers=("tipg",))
        print(json.dumps(one))
        sys.stdout.flush()
        found.append(one)
    if given.picture is not None:
        draw(sorted(found, key=lambda one: one["assets"]), given.picture)


def draw(found: Sequence[dict[str, Any]], path: Path) -> None:
    """The picture of what was measured at several sizes."""
    # Only here: nothing else of the project draws with it.
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "serving",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.grid": True,
        "grid.color": "#e3e8e5",
    }
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
    for panel, (title, (unit, lines)) in zip(panels.flat, _PANELS.items(), strict=True):
        for name, figure_name, ratio in lines:
            is_ours = ratio is None and "to_postgis" not in figure_name
            at = [(one["assets"], _value(one, figure_name, ratio)) for one in found if figure_name in one]
            panel.plot(*zip(*at, strict=True), "o-" if is_ours else "s--", markersize=4, label=name)
        panel.set(title=title, xlabel="assets of the city", ylabel=unit, xscale="log", yscale="log")
        panel.legend(fontsize=8, framealpha=0.75)
    figure.savefig(path, metadata={"Date": None})


def _value(one: dict[str, Any], name: str, ratio: str | None) -> float:
    value = float(one[name])
    if ratio is None:
        return value
    return value * one[ratio[1:]] if ratio[0] == "×" else value / one[ratio[1:]]


if __name__ == "__main__":
    main()
