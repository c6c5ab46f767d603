"""A town for whole-pipeline tests: drawn imagery, a network that counts it exactly, real use cases.

The town is 80 m × 80 m of UTM zone 12 with two districts side by side; its trees are squares of 1.6 m.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import geopandas
from shapely import box

from detection.models import ModelRegistry
from detection.taxonomy import Taxonomy, shipped_taxonomy
from inventory.boundaries import AreaFile
from inventory.counting import count
from inventory.domain.tally import CountRow
from inventory.ingest import Ingested, IngestOptions, ingest
from inventory.onboarding import CityRequest, add_city
from inventory.store.database import Database
from tests.support.networks import make_model, write_card
from tests.support.scenes import CAR, ORIGIN, UTM, draw_ground, draw_squares, write_scene

PIXEL_M = 0.2
SIDE_PX = 400
CODE = "town"
MODELS = ("squares", "cubes")
GRID = [(column, row) for row in range(36, 340, 48) for column in range(36, 340, 48)]
"""49 trees 9.6 m apart, so that none is taken for its neighbour, and far enough from the edge to be missed (R5)."""
Corners = Iterable[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """The town in a database, its models, and a folder for its imagery."""

    database: Database
    registry: ModelRegistry
    taxonomy: Taxonomy
    folder: Path

    def picture(
        self,
        name: str,
        trees: Corners,
        *,
        cars: Corners = (),
        size_px: tuple[int, int] = (SIDE_PX, SIDE_PX),
        seed: int | None = None,
        **options: Any,
    ) -> Path:
        """A scene of the town with trees at upper left corners (column, row), in pixels of 0.2 m.

        Pictures of different names have different ground, as two flights would; ``seed`` sets it.
        """
        ground = draw_ground(*size_px, seed=crc32(name.encode()) if seed is None else seed)
        pixels = draw_squares(draw_squares(ground, trees), cars, colour=CAR)
        return write_scene(self.folder / f"{name}.tif", pixels, **{"pixel_m": PIXEL_M, **options})

    def ingest(self, files: Path | Sequence[Path], day: str | None, **options: Any) -> list[Ingested]:
        """The main job on files of one date."""
        taken_at = datetime.fromisoformat(f"{day}T12:00") if day else None
        return ingest(
            self.database,
            CODE,
            [files] if isinstance(files, Path) else list(files),
            registry=self.registry,
            taxonomy=self.taxonomy,
            options=IngestOptions(taken_at=taken_at, **options),
        )

    def counts(self, **asked: Any) -> list[CountRow]:
        """``inventory.counting.count`` of the town."""
        return count(self.database, CODE, **asked)

    def total(self, class_name: str = "tree", as_of: str | None = None) -> int | None:
        """The town's count of a class."""
        on = date.fromisoformat(as_of) if as_of else None
        (row,) = self.counts(classes=[class_name], as_of=on)
        return row.count


def make_town(
    database: Database, folder: Path, *, classes: tuple[str, ...] = ("tree",), code: str = CODE
) -> Town:
    """Adds the town; both models see trees and cars, “squares” is the one in force."""
    models = folder / "models"
    for name in MODELS:
        model = make_model(
            models / name,
            name=name,
            ground_resolution_m=PIXEL_M,
            margin_px=16,
            threshold=0.9 if name == MODELS[0] else 0.8,
        )
        write_card(model)
    shipped = shipped_taxonomy().classes
    taxonomy = Taxonomy(
        classes={
            **shipped,
            "tree": shipped["tree"].model_copy(update={"models": (MODELS[0],)}),
            "car": shipped["car"].model_copy(update={"models": (MODELS[0],), "size_m": (1.0, 7.5)}),
        }
    )
    add_city(
        database,
        CityRequest(code=code, name="Town", areas=AreaFile(path=_areas(folder)), classes=classes),
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Town(database=database, registry=ModelRegistry([models]), taxonomy=taxonomy, folder=folder)


def _areas(folder: Path) -> Path:
    """West and east half of the town as districts."""
    west, north = ORIGIN
    side, half = SIDE_PX * PIXEL_M, SIDE_PX * PIXEL_M / 2
    halves = [box(west + shift, north - side, west + shift + half, north) for shift in (0.0, half)]
    frame = geopandas.GeoDataFrame(
        {"level": "district", "code": ["W", "E"], "name": ["West", "East"]}, geometry=halves, crs=UTM
    )
    file = folder / "areas.geojson"
    frame.to_crs(4326).to_file(file, driver="GeoJSON")
    return file
