"""Does the count depend on how imagery is cut? One ortho, whole, on shifted grids, and in 4 × 4 files.

    python -m benchmarks.consistency --image ORTHO.tif [--model NAME] --json

Prints one flat object: counts, and changes relative to the whole ortho's count:

- ``shift_worst``: the grid of windows shifted by eight offsets, the largest change;
- ``overlap_mosaic``, ``overlap_alone``: files that overlap by 20 m, in one ingest, and each by itself;
- ``cut_mosaic``, ``cut_alone``: files without overlap, likewise.

Files "alone" are swept one by one and meet only as one campaign (R4), as in separate ingests of one date.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from rasterio.windows import Window

from detection.imagery.scene import Scene, open_scene
from detection.models import Model, ModelRegistry
from detection.sweep import SweepOptions, SweepResult, sweep
from inventory.domain.evidence import Look, Micros, Observations, Reliability, SceneLook, content_hashes
from inventory.domain.ownership import hits_of

FILES = 4
OVERLAP_M = 20.0
SHIFTS = ((64, 0), (0, 64), (128, 128), (37, 91), (200, 16), (16, 200), (250, 250), (111, 333))


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--model", default="trees-aerial")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcome = measure(given.image, ModelRegistry([]).find(given.model))
    if given.json:
        print(json.dumps(outcome))
    else:
        for name, value in outcome.items():
            print(f"{name:>18} {value}")


def measure(image: Path, model: Model) -> dict[str, float]:
    """All counts and changes for one ortho."""
    scene = open_scene(image)
    whole = count([scene], model)
    shifted = [count([scene], model, SweepOptions(grid_offset_px=shift)) for shift in SHIFTS]
    outcome: dict[str, float] = {
        "count": whole,
        "shift_worst": max((abs(one / whole - 1) for one in shifted), default=0.0),
    }
    with tempfile.TemporaryDirectory() as folder:
        overlap_px = round(OVERLAP_M / scene.ground_resolution_m)
        for name, overlap in (("overlap", overlap_px), ("cut", 0)):
            files = [open_scene(file) for file in cut(image, Path(folder) / name, overlap)]
            outcome[f"{name}_mosaic"] = count(files, model) / whole - 1
            outcome[f"{name}_alone"] = count(files, model, alone=True) / whole - 1
    return outcome


def count(
    scenes: Sequence[Scene], model: Model, options: SweepOptions | None = None, *, alone: bool = False
) -> int:
    """Things that one campaign of these scenes sees."""
    results = (
        [sweep([scene], model, options)[0] for scene in scenes] if alone else sweep(scenes, model, options)
    )
    centre = shapely.centroid(results[0].surveyed)
    metric = 32600 + int((shapely.get_x(centre) + 180) // 6 + 1) + (100 if shapely.get_y(centre) < 0 else 0)
    to_metric = Transformer.from_crs(4326, metric, always_xy=True)
    looks = tuple(
        _look(number, scene, result, to_metric)
        for number, (scene, result) in enumerate(zip(scenes, results, strict=True))
    )
    return len(hits_of(Look(at=Micros(0), scenes=looks)).things)


def _look(number: int, scene: Scene, result: SweepResult, to_metric: Transformer) -> SceneLook:
    seen = result.observations
    x, y = to_metric.transform(seen.lon_lat[:, 0], seen.lon_lat[:, 1])
    content = content_hashes(scene.pixel_hash, seen.box_px)
    order = np.argsort(content, kind="stable")
    observations = Observations(
        id=np.arange(len(seen)),
        x=np.asarray(x),
        y=np.asarray(y),
        error_m=seen.error_m.astype(float),
        width_m=seen.size_m[:, 0].astype(float),
        height_m=seen.size_m[:, 1].astype(float),
        score=seen.score.astype(float),
        content=content,
    )
    surveyed = shapely.transform(
        result.surveyed, lambda lon_lat: np.column_stack(to_metric.transform(lon_lat[:, 0], lon_lat[:, 1]))
    )
    return SceneLook(
        survey_id=number,
        model="",
        reliability=Reliability(precision=1, recall=1, false_alarms_per_m2=0, persistent_share=0),
        ground_resolution_m=scene.ground_resolution_m,
        surveyed=surveyed,
        content=scene.content_hash,
        observations=observations.take(order),
    )


def cut(image: Path, folder: Path, overlap_px: int) -> list[Path]:
    """The ortho in 4 × 4 lossless files; neighbours share ``overlap_px`` columns or rows."""
    folder.mkdir()
    files = []
    with rasterio.open(image) as dataset:
        edges_x = np.linspace(0, dataset.width, FILES + 1).astype(int)
        edges_y = np.linspace(0, dataset.height, FILES + 1).astype(int)
        half = overlap_px // 2
        for row in range(FILES):
            for column in range(FILES):
                left, right = max(edges_x[column] - half, 0), min(edges_x[column + 1] + half, dataset.width)
                top, bottom = max(edges_y[row] - half, 0), min(edges_y[row + 1] + half, dataset.height)
                window = Window(left, top, right - left, bottom - top)
                file = folder / f"{row}{column}.tif"
                profile = {
                    "driver": "GTiff",
                    "width": int(right - left),
                    "height": int(bottom - top),
                    "count": dataset.count,
                    "dtype": dataset.dtypes[0],
                    "crs": dataset.crs,
                    "transform": dataset.window_transform(window),
                    "compress": "deflate",
                }
                with rasterio.open(file, "w", **profile) as part:
                    part.write(dataset.read(window=window))
                files.append(file)
    return files


if __name__ == "__main__":
    main()
