"""The demo's dense city: one picture, cars and trees in it, by areas that are drawn on it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import shapely

from detection.imagery.georeference import to_ground
from detection.imagery.scene import Scene, open_scene, to_lon_lat
from detection.models import ModelRegistry
from detection.sweep import Progress, SweepOptions
from detection.taxonomy import Taxonomy
from inventory.boundaries import AreaFile
from inventory.counting import count
from inventory.dates import parse_instant
from inventory.demo_scenes import CityScene, Say, fetch_city_scene
from inventory.domain.tally import CountRow
from inventory.ingest import Ingested, IngestOptions, ingest
from inventory.onboarding import CityRequest, add_city
from inventory.store.database import Database, Patience

_LEVEL = "place"


@dataclass(frozen=True, slots=True, kw_only=True)
class CitySceneResult:
    """What was counted: the city first, then its places and what lies outside them; each class a row."""

    city: str
    rows: tuple[CountRow, ...]
    ingested: tuple[Ingested, ...]


def run_city_scene(
    database: Database,
    scene: CityScene,
    *,
    home: Path,
    mirror: str | None,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    now: datetime,
    say: Say,
    progress: Callable[[Progress], None] | None = None,
    options: SweepOptions | None = None,
) -> CitySceneResult | None:
    """Counts the dense city; None where its picture cannot be had. Again, it changes nothing and is quick.

    Args:
        home, mirror, now, say: as ``run_demo``.

    Raises:
        UrbanInventoryError: a step failed.
    """
    cache = home / "cache" / "demo"
    picture = fetch_city_scene(scene, cache, mirror=mirror, say=say)
    if picture is None:
        return None
    _onboard(database, scene, picture, cache, now)
    say(f"counting {scene.name}: 1 scene; nominal: {scene.nominal}")
    outcomes = ingest(
        database,
        scene.code,
        [picture],
        registry=registry,
        taxonomy=taxonomy,
        options=IngestOptions(
            taken_at=parse_instant(scene.taken_at),
            source=scene.source,
            licence=scene.licence,
            attribution=scene.attribution,
            sweep=options or SweepOptions(),
        ),
        checkpoints=home / "cache" / "blocks",
        progress=progress,
    )
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    classes = list(scene.classes)
    rows = [
        *count(database, scene.code, classes=classes, patience=Patience.EXPORT),
        *count(database, scene.code, classes=classes, level=_LEVEL, patience=Patience.EXPORT),
    ]
    return CitySceneResult(city=scene.code, rows=tuple(rows), ingested=tuple(outcomes))


def _onboard(database: Database, scene: CityScene, picture: Path, folder: Path, now: datetime) -> None:
    opened = open_scene(picture)
    features = [
        {
            "type": "Feature",
            "properties": {"level": _LEVEL, "code": area.code, "name": area.name, "parent": None},
            "geometry": _drawn(opened, area.outline_px),
        }
        for area in scene.area
    ]
    areas, boundary = (folder / f"{scene.code}-{name}.geojson" for name in ("areas", "boundary"))
    areas.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    width, height = opened.size_px
    whole = _drawn(opened, ((0, 0), (0, height), (width, height), (width, 0)))
    boundary.write_text(json.dumps(whole), encoding="utf-8")
    request = CityRequest(
        code=scene.code,
        name=scene.name,
        areas=AreaFile(path=areas),
        boundary=boundary,
        classes=scene.classes,
    )
    add_city(database, request, now=now)


def _drawn(scene: Scene, outline_px: tuple[tuple[float, float], ...]) -> dict[str, object]:
    """A polygon in pixels as GeoJSON, degrees to 1e-9."""
    column, row = np.array(outline_px, np.float64).T
    lon, lat = to_lon_lat(scene.located_crs, *to_ground(scene, column, row))
    polygon = shapely.Polygon(np.column_stack([lon, lat]).round(9))
    told: dict[str, object] = json.loads(shapely.to_geojson(shapely.orient_polygons(polygon)))
    return told
