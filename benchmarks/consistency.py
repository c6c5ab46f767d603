"""Does the count depend on how imagery is cut? One ortho, whole, on shifted grids, and in 4 × 4 files.

    python -m benchmarks.consistency --image ORTHO.tif [--model NAME] --json

Prints one flat object: counts, and changes relative to the whole ortho's count:

- ``crop_worst``: the ortho cropped by four odd offsets, the largest change on the ground in common, from 10 m
  inside the crop's border on, where it shows what the whole shows;
- ``shift_worst``: the grid of windows forced off its place on the ground by eight offsets, the largest change;
- ``overlap_mosaic``, ``overlap_alone``: files that overlap by 20 m, in one ingest, and each by itself;
- ``cut_mosaic``, ``cut_alone``: files without overlap, likewise.

Files "alone" are swept one by one and meet only as one campaign (R4), as in separate ingests of one date.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
BORDER_M = 10.0
CROPS = ((37, 91), (111, 333), (250, 16), (401, 205))
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
        "shift_worst": max(abs(one / whole - 1) for one in shifted),
    }
    with tempfile.TemporaryDirectory() as folder:
        crops = [open_scene(crop(image, Path(folder), offset)) for offset in CROPS]
        outcome["crop_worst"] = max(crop_change(scene, one, model) for one in crops)
        overlap_px = round(OVERLAP_M / scene.ground_resolution_m)
        for name, overlap in (("overlap", overlap_px), ("cut", 0)):
            files = [open_scene(file) for file in cut(image, Path(folder) / name, overlap)]
            outcome[f"{name}_mosaic"] = count(files, model) / whole - 1
            outcome[f"{name}_alone"] = count(files, model, alone=True) / whole - 1
    return outcome


def count(
    scenes: Sequence[Scene], model: Model, options: SweepOptions | None = None, *, alone: bool = False
) -> int:
    """How many things one campaign of these scenes sees."""
    results = (
        [sweep([scene], model, options)[0] for scene in scenes] if alone else sweep(scenes, model, options)
    )
    return len(things(scenes, results, _metric(results[0])))


def crop_change(whole: Scene, part: Scene, model: Model) -> float:
    """Relative change of the count on ground that both scenes show."""
    (seen,), (seen_part,) = sweep([whole], model), sweep([part], model)
    to_metric = _metric(seen)
    common = _moved(seen_part.surveyed, to_metric).buffer(-BORDER_M)
    counts = []
    for scene, result in ((whole, seen), (part, seen_part)):
        found = things([scene], [result], to_metric)
        counts.append(int(shapely.contains_xy(common, found.x, found.y).sum()))
    return abs(counts[1] / counts[0] - 1)


def things(scenes: Sequence[Scene], results: Sequence[SweepResult], to_metric: Transformer) -> Observations:
    """What one campaign of these scenes sees, in metres."""
    looks = tuple(
        _look(number, scene, result, to_metric)
        for number, (scene, result) in enumerate(zip(scenes, results, strict=True))
    )
    return hits_of(Look(at=Micros(0), scenes=looks)).things


def _metric(result: SweepResult) -> Transformer:
    """From degrees to the UTM zone of the scene."""
    centre = shapely.centroid(result.surveyed)
    zone = 32600 + int((shapely.get_x(centre) + 180) // 6 + 1) + (100 if shapely.get_y(centre) < 0 else 0)
    return Transformer.from_crs(4326, zone, always_xy=True)


def _moved(ground: Any, transformer: Transformer) -> Any:
    return shapely.transform(
        ground, lambda lon_lat: np.column_stack(transformer.transform(lon_lat[:, 0], lon_lat[:, 1]))
    )


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
    return SceneLook(
        survey_id=number,
        model="",
        reliability=Reliability(precision=1, recall=1, false_alarms_per_m2=0, persistent_share=0),
        ground_resolution_m=scene.ground_resolution_m,
        surveyed=_moved(result.surveyed, to_metric),
        content=scene.content_hash,
        observations=observations.take(order),
    )


def crop(image: Path, folder: Path, offset_px: tuple[int, int]) -> Path:
    """The ortho without its first columns and rows, lossless."""
    left, top = offset_px
    with rasterio.open(image) as dataset:
        window = Window(left, top, dataset.width - left, dataset.height - top)
        return _write(dataset, window, folder / f"crop{left}-{top}.tif")


def _write(dataset: Any, window: Window, file: Path) -> Path:
    profile = {
        "driver": "GTiff",
        "width": int(window.width),
        "height": int(window.height),
        "count": dataset.count,
        "dtype": dataset.dtypes[0],
        "crs": dataset.crs,
        "transform": dataset.window_transform(window),
        "compress": "deflate",
    }
    with rasterio.open(file, "w", **profile) as part:
        part.write(dataset.read(window=window))
    return file


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
                files.append(_write(dataset, window, folder / f"{row}{column}.tif"))
    return files


if __name__ == "__main__":
    main()
