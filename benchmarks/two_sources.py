"""Does a tree keep its id when another aircraft flies it? One ortho, ingested as two sources.

    python -m benchmarks.two_sources --image ORTHO.tif [--scale 1.3] [--model NAME] --json

The second source is the first as another campaign might deliver it: shifted by 1 m, rescaled to ``scale`` times
as many pixels a side, compressed again as JPEG, a year later. Both are ingested into one city in an embedded
cluster. Below 1 the second sees less than the first, and the count follows what it sees (R8). Prints:

- ``kept``: of the trees that both sources list, the share that is one asset with one id; ``both`` is how many
  there are: observations of the two that are each other's nearest within 2 m, the true shift taken off, and
  listed in the inventory of their source alone;
- ``count_change``: the count after both, relative to the count of the first alone;
- ``shift_m``: the shift found, ``shift_true_m`` the one made; ``single``, ``second_seen``: what each look saw.
"""

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.warp import transform_bounds
from scipy.spatial import cKDTree
from sqlalchemy import text

from detection.models import ModelRegistry
from detection.taxonomy import shipped_taxonomy
from inventory.boundaries import AreaFile
from inventory.counting import count
from inventory.ingest import Ingested, IngestOptions, ingest
from inventory.onboarding import CityRequest, add_city
from inventory.store.database import Database, Patience, open_database

SHIFT_M = (0.8, -0.6)
QUALITY = 85
CITY = "flown-twice"
SAME_M = 2.0
DAYS = (datetime(2024, 6, 1, 12, tzinfo=UTC), datetime(2025, 6, 1, 12, tzinfo=UTC))


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.3)
    parser.add_argument("--model", default="trees-aerial")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    outcome = measure(given.image, given.model, given.scale)
    if given.json:
        print(json.dumps(outcome))
    else:
        for name, value in outcome.items():
            print(f"{name:>16} {value}")


def measure(image: Path, model: str, scale: float) -> dict[str, Any]:
    """Both ingests, and what became of the first year's ids."""
    with tempfile.TemporaryDirectory(prefix="ui-sources-") as folder:
        # As root the server runs as another user, who has to pass.
        Path(folder).chmod(0o711)
        second = flown_again(image, Path(folder) / "second.tif", scale)
        with open_database(Path(folder) / "home") as database:
            _add_city(database, CITY, image, Path(folder))
            first = _ingest(database, CITY, image, model, "first", DAYS[0])
            single = _count(database, CITY)
            again = _ingest(database, CITY, second, model, "second", DAYS[1])
            pairs = _pairs(_seen(database, CITY, "first"), _seen(database, CITY, "second"))
            both = _count(database, CITY)
    return {
        "kept": round(float(np.mean([one == other for one, other in pairs])), 4),
        "both": len(pairs),
        "count_change": round(both / single - 1, 4),
        "single": single,
        "after_both": both,
        "first_seen": first.observations,
        "second_seen": again.observations,
        "matched": again.matched,
        "shift_m": again.shift_m,
        "shift_true_m": SHIFT_M,
    }


Seen = tuple[NDArray[np.float64], list[str]]


def _seen(database: Database, code: str, source: str) -> Seen:
    """What a source saw, plausible and so listed by it alone: (n, 2) metric positions, and its assets' ids."""
    with database.transaction(Patience.JOB, read_only=True) as connection:
        rows = connection.execute(_SEEN, {"city": code, "source": source}).all()
    return np.array([(row.x, row.y) for row in rows]), [row.public_id for row in rows]


_SEEN = text(
    """
    SELECT o.x, o.y, a.public_id FROM urban_inventory.observation o
    JOIN urban_inventory.city c ON c.id = o.city_id
    JOIN urban_inventory.survey v ON v.id = o.survey_id
    JOIN urban_inventory.scene s ON s.id = v.scene_id
    JOIN urban_inventory.source f ON f.id = s.source_id
    JOIN urban_inventory.asset_hit h ON h.city_id = o.city_id AND h.observation_id = o.id
    JOIN urban_inventory.asset a ON a.city_id = h.city_id AND a.id = h.asset_id
    WHERE c.code = :city AND f.name = :source AND o.plausible
    """
)


def _pairs(first: Seen, second: Seen) -> list[tuple[str, str]]:
    """The ids that the two sources' observations of one tree went to."""
    xy, moved = first[0], second[0] - SHIFT_M
    distance, nearest = cKDTree(moved).query(xy)
    _, back = cKDTree(xy).query(moved)
    mutual = (distance <= SAME_M) & (back[nearest] == np.arange(len(xy)))
    return [(first[1][row], second[1][nearest[row]]) for row in np.flatnonzero(mutual)]


def flown_again(image: Path, file: Path, scale: float) -> Path:
    """The ortho as another source delivers it: elsewhere, rescaled, and compressed with loss."""
    with rasterio.open(image) as dataset:
        width, height = round(dataset.width * scale), round(dataset.height * scale)
        bands = dataset.read((1, 2, 3), out_shape=(3, height, width), resampling=Resampling.bilinear)
        coarser = Affine.scale(dataset.width / width, dataset.height / height)
        profile = {
            "driver": "GTiff",
            "width": width,
            "height": height,
            "count": 3,
            "dtype": "uint8",
            "crs": dataset.crs,
            "transform": Affine.translation(*SHIFT_M) @ dataset.transform @ coarser,
            "compress": "jpeg",
            "jpeg_quality": QUALITY,
            "photometric": "ycbcr",
            "tiled": True,
        }
        if dataset.nodata is not None:
            profile["nodata"] = dataset.nodata
    with rasterio.open(file, "w", **profile) as made:
        made.write(bands)
    return file


def _add_city(database: Database, code: str, image: Path, folder: Path) -> None:
    with rasterio.open(image) as dataset:
        ground = shapely.box(*transform_bounds(dataset.crs, 4326, *dataset.bounds)).buffer(1e-4)
    file = folder / f"{code}.geojson"
    feature = {
        "type": "Feature",
        "properties": {"code": "all", "name": "All", "level": "district"},
        "geometry": ground.__geo_interface__,
    }
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), encoding="utf-8")
    add_city(database, CityRequest(code=code, areas=AreaFile(path=file), classes=("tree",)), now=DAYS[0])


def _ingest(database: Database, code: str, file: Path, model: str, source: str, day: datetime) -> Ingested:
    (outcome,) = ingest(
        database,
        code,
        [file],
        registry=ModelRegistry([]),
        taxonomy=shipped_taxonomy(),
        options=IngestOptions(taken_at=day, source=source, model=model),
    )
    if outcome.error is not None:
        raise outcome.error
    return outcome


def _count(database: Database, code: str) -> int:
    (row,) = count(database, code, classes=["tree"])
    return row.count or 0


if __name__ == "__main__":
    main()
