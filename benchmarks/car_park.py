"""How many of the cars that two people counted in a full car park does the vehicle model count?

    python -m benchmarks.car_park --json [--image ortho.tif] [--model vehicles-aerial]

The picture is that of ``demo --city-scene``, the car park the area drawn there, the truth the two hand counts of
``truth/ortho-manila``, made before any vehicle model had looked. Prints ``counted``, ``hand_counts``, their ``mean``,
``count_error``, and, against the first count, ``found`` (a detection within 20 px, one-to-one) and ``false_alarms``.
"""

import argparse
import csv
import json
import os
from pathlib import Path

import numpy as np
import shapely

from detection.evaluation.matching import match_one_to_one, within_reach
from detection.models import ModelRegistry
from detection.sweep import sweep
from inventory.demo_scenes import read_demo

_REACH_PX = 20.0
_TRUTH = Path(__file__).parent / "truth" / "ortho-manila"


def main() -> None:
    """Runs from the command line."""
    shared = Path(os.environ.get("URBAN_INVENTORY_SHARED", Path(__file__).parents[2] / "shared"))
    scene = read_demo().city_scene
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--image", type=Path, default=shared / "datasets" / scene.mirror_path)
    parser.add_argument("--model", default="vehicles-aerial", help="name, card.toml or its folder")
    given = parser.parse_args()
    model = ModelRegistry([]).find(given.model)
    (result,) = sweep([given.image], model)
    boxes = result.observations.box_px.astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    (car_park,) = (area for area in scene.area if area.code == "car-park")
    inside = shapely.contains_xy(shapely.Polygon(car_park.outline_px), centres[:, 0], centres[:, 1])
    hand = [_points(_TRUTH / f"{name}.csv") for name in ("first", "second")]
    mean = float(np.mean([len(points) for points in hand]))
    truth = np.concatenate([hand[0], hand[0]], axis=1)
    found, _ = match_one_to_one(within_reach(boxes[inside], truth, _REACH_PX))
    counted = int(inside.sum())
    told = {
        "counted": counted,
        "hand_counts": [len(points) for points in hand],
        "mean": mean,
        "count_error": round((counted - mean) / mean, 4),
        "found": len(found),
        "false_alarms": counted - len(found),
        "model": f"{model.card.name} {model.card.version}",
    }
    print(json.dumps(told) if given.json else "\n".join(f"{key}: {value}" for key, value in told.items()))


def _points(file: Path) -> np.ndarray:
    with file.open(newline="", encoding="utf-8") as opened:
        return np.array([[float(row["x"]), float(row["y"])] for row in csv.DictReader(opened)])


if __name__ == "__main__":
    main()
