"""The main job: imagery → detections → observations → assets → counts.

Each file is looked over first; what can be used is swept, files of one campaign as one mosaic, outside the
city's writer lock. Then everything of one ingest is stored in one transaction: scenes, surveys,
observations, and what all evidence together says of the city now. A killed ingest leaves finished blocks
under ``checkpoints``; the same command goes on from there.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import shapely
from pyproj import Transformer

from detection.errors import Conflict, ModelError, SceneWithoutDate, UrbanInventoryError
from detection.imagery.inspect import check_resolution, inspect_imagery
from detection.imagery.scene import Scene
from detection.models import Model, ModelRegistry
from detection.sweep import Progress, SweepOptions, SweepResult, settings_key, sweep
from detection.taxonomy import Taxonomy
from inventory.dates import instant_in
from inventory.domain.datum import gcj02_to_wgs84, wgs84_to_gcj02
from inventory.domain.fold import SurveyTally
from inventory.domain.in_use import models_in_use
from inventory.domain.places import City
from inventory.errors import StoreError
from inventory.refolding import refold
from inventory.store import cities, identities, surveys
from inventory.store.database import Connection, Database, Patience
from inventory.store.states import Cause
from inventory.store.surveys import NewScene, ObservationColumns, SceneRow


class Status(StrEnum):
    """What became of a file."""

    STORED = "stored"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    NOT_IN_FORCE = "not_in_force"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What the caller says of the files, and how to sweep them."""

    taken_at: datetime | None = None
    source: str = "unnamed"
    campaign: str | None = None
    model: str | None = None
    licence: str | None = None
    attribution: str | None = None
    datum: str | None = None
    crs: str | None = None
    copy_to: Path | None = None
    author: str = "local"
    sweep: SweepOptions = field(default_factory=SweepOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The outcome for one file and model; counts of assets are None where nothing was folded."""

    file: str
    status: Status
    scene: str | None = None
    survey: str | None = None
    model: str | None = None
    windows: int = 0
    observations: int = 0
    new: int | None = None
    matched: int | None = None
    missed: int | None = None
    seconds: float = 0.0
    shift_m: tuple[float, float] | None = None
    shift_unknown: bool = False
    """Something was known there, and too little of it was seen again to tell a shift from none (R7)."""
    error: UrbanInventoryError | None = None

    def as_json(self) -> dict[str, Any]:
        """The object of ``ingest --json``."""
        shown: dict[str, Any] = {
            "file": self.file,
            "scene": self.scene,
            "survey": self.survey,
            "status": self.status.value,
            "model": self.model,
            "windows": self.windows,
            "observations": self.observations,
            "new": self.new,
            "matched": self.matched,
            "missed": self.missed,
            "seconds": round(self.seconds, 3),
        }
        if self.shift_unknown:
            shown["shift"] = "cannot tell"
        elif self.shift_m is not None:
            shown["shift"] = "removed" if any(self.shift_m) else "none"
            shown["shift_m"] = [round(value, 2) for value in self.shift_m]
        if self.error is not None:
            shown["message"] = str(self.error)
            shown["code"] = self.error.code
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A file that can be ingested: its scene, its date, and what is stored of it already."""

    file: Path
    scene: Scene
    taken_at: datetime
    campaign: str
    known: SceneRow | None

    @property
    def supersedes(self) -> bool:
        return self.known is not None and self.known.georeference_hash != self.scene.georeference_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class _Swept:
    """A candidate, what one model saw on it, and where the file is to be found from now on."""

    candidate: _Candidate
    model: Model
    result: SweepResult
    kept_at: Path


def ingest(
    database: Database,
    city_code: str,
    files: Sequence[Path],
    *,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    options: IngestOptions,
    executor: Executor | None = None,
    checkpoints: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[Ingested]:
    """Counts what is to be seen in imagery; one outcome per file and model, in the order of the files.

    A file that cannot be used is refused with its error as a value; the rest goes on.

    Raises:
        UnknownName: no such city or model.
        StoreError: the database cannot be reached or written; nothing is stored then.
    """
    outcomes: dict[Path, list[Ingested]] = {file: [] for file in files}
    with database.transaction(Patience.JOB, read_only=True) as connection:
        city = cities.get_city(connection, city_code)
        models = _Models(connection, city, registry, taxonomy, options.model)
    candidates: list[_Candidate] = []
    for file in outcomes:
        try:
            candidates.append(_look_over(database, city, file, options))
        except UrbanInventoryError as error:
            outcomes[file].append(Ingested(file=str(file), status=Status.REFUSED, error=error))
    swept: list[_Swept] = []
    for model, mosaic in _mosaics(database, city, candidates, models, options, outcomes):
        results = sweep(
            [candidate.scene for candidate in mosaic],
            model,
            options.sweep,
            executor=executor,
            checkpoints=checkpoints,
            progress=progress,
        )
        swept += [
            _Swept(candidate=candidate, model=model, result=result, kept_at=_keep(candidate, options.copy_to))
            for candidate, result in zip(mosaic, results, strict=True)
        ]
    for file, outcome in _store(database, city, swept, taxonomy, options):
        outcomes[file].append(outcome)
    return [outcome for of_file in outcomes.values() for outcome in of_file]


def rerun(
    database: Database,
    city_code: str,
    scenes: Sequence[SceneRow],
    *,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    options: IngestOptions,
    checkpoints: Path | None = None,
) -> list[Ingested]:
    """Runs the model of ``options`` on scenes that are stored already; files that are gone are refused.

    Raises:
        UnknownName, StoreError: as ``ingest``.
    """
    outcomes: list[Ingested] = []
    for scene in scenes:
        if scene.path is None:
            continue
        outcomes += ingest(
            database,
            city_code,
            [Path(scene.path)],
            registry=registry,
            taxonomy=taxonomy,
            options=replace(options, taken_at=scene.taken_at, source=scene.source, campaign=scene.campaign),
            checkpoints=checkpoints,
        )
    return outcomes


# --- looking over --------------------------------------------------------------------------------------


def _look_over(database: Database, city: City, file: Path, options: IngestOptions) -> _Candidate:
    """The pre-flight, and what is stored of the file's pixels already.

    Raises:
        CallerError: the first thing that blocks.
    """
    shifted = options.datum == "gcj02"
    boundary = shapely.transform(city.boundary, wgs84_to_gcj02) if shifted else city.boundary
    report = inspect_imagery(
        file,
        boundary=boundary,
        boundary_name=city.name,
        crs=options.crs,
        taken_at=options.taken_at,
    )
    scene = report.usable_scene()
    if shifted:
        # The same file said to lie on another datum lies elsewhere: a corrected georeference (R2).
        scene = replace(scene, georeference_hash=f"gcj02:{scene.georeference_hash}")
    taken_at = _taken_at(scene, city, options.taken_at)
    with database.transaction(read_only=True) as connection:
        known = surveys.scene_with_pixels(connection, city, scene.pixel_hash)
    _require_same_date(known, taken_at, city, scene)
    local_day = taken_at.astimezone(ZoneInfo(city.time_zone)).date()
    return _Candidate(
        file=file,
        scene=scene,
        taken_at=taken_at,
        campaign=options.campaign or local_day.isoformat(),
        known=known,
    )


def _require_same_date(known: SceneRow | None, taken_at: datetime, city: City, scene: Scene) -> None:
    if known is None or known.taken_at == taken_at:
        return
    zone = ZoneInfo(city.time_zone)
    before, now = (at.astimezone(zone).isoformat() for at in (known.taken_at, taken_at))
    raise Conflict(
        f"these pixels are scene {known.public_id} already, taken at {before}, not {now}",
        where=scene.name,
        do=f"To correct its date: urban-inventory scene redate {known.public_id} --city {city.code} "
        f"--taken-at {now}",
    )


def _taken_at(scene: Scene, city: City, given: datetime | None) -> datetime:
    """When the scene was taken: as told, else by the file's own tag, never by the file's time (R2)."""
    taken = given if given is not None else scene.taken_at
    if taken is None:
        raise SceneWithoutDate(
            "nothing says when the image was taken", where=scene.name, do="Name it: --taken-at 2025-06-30."
        )
    return instant_in(city, taken, where=scene.name)


def _on_earth(ground: shapely.Geometry, datum: str | None) -> Any:
    if datum != "gcj02":
        return ground
    return shapely.transform(ground, gcj02_to_wgs84)


# --- which models, and what is there already -------------------------------------------------------------


class _Models:
    """The model to run on a scene: the caller's, or those in force for the classes that the city counts."""

    def __init__(
        self,
        connection: Connection,
        city: City,
        registry: ModelRegistry,
        taxonomy: Taxonomy,
        named: str | None,
    ) -> None:
        self._registry = registry
        self._named = registry.find(named) if named else None
        self._in_force = {
            name: models_in_use(taxonomy.get(name).models, surveys.model_choices(connection, city, name))
            for name in cities.classes_of(connection, city.id)
        }

    def for_scene(self, scene: Scene) -> list[Model]:
        """Each model once.

        Raises:
            ModelError: no model at hand counts any of the city's classes.
            SceneTooCoarse: models there are, but none sees at this ground resolution.
        """
        if self._named is not None:
            check_resolution(scene, self._named.card)
            return [self._named]
        chosen: dict[str, Model] = {}
        candidates: list[Model] = []
        for names in self._in_force.values():
            for name in names:
                model = self._registry.get(name)
                candidates.append(model)
                if model.card.sees(scene.kind, scene.ground_resolution_m):
                    chosen.setdefault(model.card.name, model)
                    break
        if not chosen:
            if candidates:
                check_resolution(scene, candidates[0].card)
            counted = ", ".join(self._in_force) or "nothing"
            raise ModelError(
                f"no model at hand counts what the city counts ({counted}) in a {scene.kind} scene",
                where=scene.name,
                do="Name one with --model, or choose one with “urban-inventory models use”.",
            )
        return list(chosen.values())


def _mosaics(
    database: Database,
    city: City,
    candidates: Iterable[_Candidate],
    models: _Models,
    options: IngestOptions,
    outcomes: dict[Path, list[Ingested]],
) -> list[tuple[Model, list[_Candidate]]]:
    """Scenes to sweep, by model and campaign; scenes surveyed before and unusable ones go to ``outcomes``."""
    groups: dict[tuple[str, str], tuple[Model, list[_Candidate]]] = {}
    seen: dict[str, _Candidate] = {}
    for candidate in candidates:
        if candidate.scene.pixel_hash in seen:
            twin = _unchanged(candidate.file)
            outcomes[candidate.file].append(twin)
            continue
        seen[candidate.scene.pixel_hash] = candidate
        try:
            wanted = models.for_scene(candidate.scene)
        except UrbanInventoryError as error:
            outcomes[candidate.file].append(
                Ingested(file=str(candidate.file), status=Status.REFUSED, error=error)
            )
            continue
        for model in wanted:
            survey = _surveyed_before(database, candidate, model, options)
            if survey is not None and candidate.known is not None:
                outcomes[candidate.file].append(
                    _unchanged(
                        candidate.file, scene=candidate.known.public_id, survey=survey, model=model.card.name
                    )
                )
                continue
            _, mosaic = groups.setdefault((model.card.name, candidate.campaign), (model, []))
            mosaic.append(candidate)
    return list(groups.values())


def _unchanged(
    file: Path, *, scene: str | None = None, survey: str | None = None, model: str | None = None
) -> Ingested:
    return Ingested(
        file=str(file),
        status=Status.UNCHANGED,
        scene=scene,
        survey=survey,
        model=model,
        new=0,
        matched=0,
        missed=0,
    )


def _surveyed_before(
    database: Database, candidate: _Candidate, model: Model, options: IngestOptions
) -> str | None:
    if candidate.known is None or candidate.supersedes:
        return None
    key = settings_key(model, options.sweep)
    with database.transaction(read_only=True) as connection:
        return surveys.find_survey(connection, candidate.known.id, model.card, key).survey


def _keep(candidate: _Candidate, copy_to: Path | None) -> Path:
    """Where the file lies: where it is, or a copy of ours named by its content.

    Raises:
        StoreError: the copy cannot be written.
    """
    if copy_to is None:
        return candidate.file.resolve()
    copy = copy_to / f"{candidate.scene.content_hash}{candidate.file.suffix.lower()}"
    unfinished = copy.with_suffix(".part")
    try:
        copy_to.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copyfile(candidate.file, unfinished)
            unfinished.replace(copy)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(
            f"no copy can be kept: {error.strerror}",
            where=str(copy_to),
            do="Free some space, or leave out --copy.",
        ) from error
    return copy


# --- storing -------------------------------------------------------------------------------------------


def _store(
    database: Database, city: City, swept: Sequence[_Swept], taxonomy: Taxonomy, options: IngestOptions
) -> list[tuple[Path, Ingested]]:
    """Everything of one ingest in one transaction, under the city's writer lock."""
    if not swept:
        return []
    stored: list[tuple[_Swept, int, Ingested]] = []
    refused: list[tuple[Path, Ingested]] = []
    with database.transaction(Patience.JOB) as connection:
        cities.lock_city(connection, city.id)
        scenes: dict[str, tuple[int, str]] = {}
        touched: set[str] = set()
        for one in _as_known_now(connection, city, swept, refused):
            classes = [name for name in one.model.card.output.classes if name in taxonomy.classes]
            touched.update(classes)
            touched.update(_classes_superseded(connection, city, one.candidate, taxonomy))
            stored.append(_store_survey(connection, city, one, classes, scenes, taxonomy, options))
        cause = Cause(
            what="ingest", subject=",".join(sorted({s for _, s in scenes.values()})), author=options.author
        )
        tallies = refold(connection, city, taxonomy, touched, cause)
        in_force = {row.id for row in surveys.list_surveys(connection, city) if row.in_force}
    return refused + [
        (one.candidate.file, _with_tally(outcome, tallies.get(survey_id), in_force=survey_id in in_force))
        for one, survey_id, outcome in stored
    ]


def _as_known_now(
    connection: Connection, city: City, swept: Sequence[_Swept], refused: list[tuple[Path, Ingested]]
) -> list[_Swept]:
    """What was swept, beside the scenes that are stored now: others may have written while the network looked."""
    known: dict[str, SceneRow | None] = {}
    usable: list[_Swept] = []
    for one in swept:
        scene = one.candidate.scene
        if scene.pixel_hash not in known:
            known[scene.pixel_hash] = surveys.scene_with_pixels(connection, city, scene.pixel_hash)
        try:
            _require_same_date(known[scene.pixel_hash], one.candidate.taken_at, city, scene)
        except Conflict as error:
            outcome = Ingested(file=str(one.candidate.file), status=Status.REFUSED, error=error)
            refused.append((one.candidate.file, outcome))
            continue
        usable.append(replace(one, candidate=replace(one.candidate, known=known[scene.pixel_hash])))
    return usable


def _store_survey(
    connection: Connection,
    city: City,
    one: _Swept,
    classes: list[str],
    scenes: dict[str, tuple[int, str]],
    taxonomy: Taxonomy,
    options: IngestOptions,
) -> tuple[_Swept, int, Ingested]:
    candidate, card = one.candidate, one.model.card
    pixels = candidate.scene.pixel_hash
    if pixels not in scenes:
        scenes[pixels] = _store_scene(connection, city, one, options)
    scene_id, scene_public = scenes[pixels]
    place = surveys.find_survey(connection, scene_id, card, settings_key(one.model, options.sweep))
    if place.survey is not None:
        same = surveys.get_survey(connection, city, place.survey)
        outcome = _unchanged(candidate.file, scene=scene_public, survey=place.survey, model=card.name)
        return one, same.id, outcome
    adequate = {
        name: taxonomy.get(name).sees(candidate.scene.kind, candidate.scene.ground_resolution_m)
        for name in classes
    }
    survey_id, survey_public = surveys.insert_survey(
        connection,
        city,
        scene_id,
        card=card,
        settings_key=place.settings_key,
        classes=classes,
        adequate=adequate,
        surveyed=_on_earth(one.result.surveyed, options.datum),
        windows=one.result.windows,
        seconds=one.result.seconds,
    )
    columns = _columns(one.result, city, taxonomy, options.datum)
    surveys.insert_observations(connection, city, survey_id, columns)
    if candidate.supersedes and candidate.known is not None:
        _inherit_roots(connection, city, candidate.known, card.model_sha256, survey_id)
    outcome = Ingested(
        file=str(candidate.file),
        status=Status.SUPERSEDED if candidate.supersedes else Status.STORED,
        scene=scene_public,
        survey=survey_public,
        model=card.name,
        windows=one.result.windows,
        observations=len(columns.score),
        seconds=one.result.seconds,
    )
    return one, survey_id, outcome


def _store_scene(connection: Connection, city: City, one: _Swept, options: IngestOptions) -> tuple[int, str]:
    """The scene's row: the one there is, or a new one, which takes the place of one wrongly placed (R2)."""
    candidate, scene = one.candidate, one.candidate.scene
    known = candidate.known
    if known is not None and not candidate.supersedes:
        return known.id, known.public_id
    of_source = surveys.source_id(
        connection, city, options.source, licence=options.licence, attribution=options.attribution
    )
    if known is not None:
        # Out of the way first: two scenes with the same pixels cannot both be in force.
        surveys.supersede_scene(connection, known.id, known.id)
    scene_id, public = surveys.insert_scene(
        connection,
        city,
        surveys.campaign_id(connection, city, of_source, candidate.campaign),
        of_source,
        NewScene(
            path=str(one.kept_at),
            pixel_hash=scene.pixel_hash,
            georeference_hash=scene.georeference_hash,
            taken_at=candidate.taken_at,
            kind=scene.kind,
            ground_resolution_m=scene.ground_resolution_m,
            size_px=scene.size_px,
            footprint=_on_earth(one.result.surveyed, options.datum),
            licence=options.licence,
            attribution=options.attribution,
        ),
    )
    if known is not None:
        surveys.supersede_scene(connection, known.id, scene_id)
        surveys.log_event(connection, city, "superseded", known.public_id, author=options.author, by=public)
    return scene_id, public


def _classes_superseded(
    connection: Connection, city: City, candidate: _Candidate, taxonomy: Taxonomy
) -> set[str]:
    """Classes that any model saw on the scene that this one takes the place of."""
    if candidate.known is None or not candidate.supersedes:
        return set()
    old = [row for row in surveys.list_surveys(connection, city) if row.scene == candidate.known.public_id]
    return {name for row in old for name in row.classes if name in taxonomy.classes}


def _inherit_roots(
    connection: Connection, city: City, old: SceneRow, model_sha256: str, new_survey: int
) -> None:
    for row in surveys.list_surveys(connection, city):
        if row.scene == old.public_id and row.model_sha256 == model_sha256:
            identities.successor_roots(connection, city, row.id, new_survey)


def _columns(result: SweepResult, city: City, taxonomy: Taxonomy, datum: str | None) -> ObservationColumns:
    """A sweep's observations as rows of the city; classes outside the taxonomy are no assets here."""
    seen = result.observations
    names = np.array(seen.classes, object)[seen.class_index]
    known = np.isin(names.astype(str), list(taxonomy.classes))
    lon_lat = seen.lon_lat[known]
    if datum == "gcj02":
        lon_lat = gcj02_to_wgs84(lon_lat)
    to_metric = Transformer.from_crs(4326, city.metric_crs, always_xy=True)
    longer = seen.size_m[known].max(axis=1, initial=0)
    return ObservationColumns(
        class_name=names[known],
        lon_lat=lon_lat,
        xy=np.column_stack(to_metric.transform(lon_lat[:, 0], lon_lat[:, 1])),
        error_m=seen.error_m[known],
        size_m=seen.size_m[known],
        score=seen.score[known],
        plausible=taxonomy.plausible(names[known], longer),
        box_px=seen.box_px[known],
    )


def _with_tally(outcome: Ingested, tally: SurveyTally | None, *, in_force: bool) -> Ingested:
    if outcome.status is Status.UNCHANGED:
        return outcome
    if not in_force:
        return replace(outcome, status=Status.NOT_IN_FORCE)
    if tally is None:
        return outcome
    shift = tally.shift
    return replace(
        outcome,
        new=tally.new,
        matched=tally.matched,
        missed=tally.missed,
        shift_m=(shift.x_m, shift.y_m) if shift else None,
        shift_unknown=shift is None and tally.matched + tally.missed > 0,
    )
