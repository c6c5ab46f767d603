"""Surveys without imagery: stored and folded in as ``ingest`` does it, from columns, at any size.

A survey's content decides its hashes, so that two databases which are given the same surveys in another
order hold the same evidence. Positions are in the city's metric CRS. No loop goes over observations: a
survey may hold a million of them.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from sqlalchemy import text

from detection.errors import Conflict
from detection.models import CardEvidence, CardInput, CardOutput, Model, ModelCard
from detection.taxonomy import SceneKind, Taxonomy, shipped_taxonomy
from inventory.domain.evidence import DecisionKind
from inventory.domain.fold import SurveyTally
from inventory.domain.places import AreaVersion, City
from inventory.domain.revision import Revision
from inventory.ingest import Status
from inventory.refolding import refold
from inventory.store import cities, decisions, identities, surveys
from inventory.store.database import Connection, Database, Patience
from inventory.store.states import Cause
from inventory.store.surveys import NewScene, ObservationColumns, SceneRow

SETTINGS = "fake"
"""Key of the settings of every survey here: they are of no model that runs."""

# --- models and taxonomy -----------------------------------------------------------------------------


def make_card(
    name: str,
    *classes: str,
    evidence: Mapping[str, CardEvidence] | None = None,
    range_m: tuple[float, float] = (0.02, 0.3),
) -> ModelCard:
    """The card of a model that is never run."""
    return ModelCard(
        name=name,
        version="1",
        file=f"{name}.onnx",
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        licence="AGPL-3.0-or-later",
        description="Never run.",
        input=CardInput(ground_resolution_m=0.1, range_m=range_m, window_px=640, margin_px=64),
        output=CardOutput(head="one-to-many", classes=classes),
        threshold=dict.fromkeys(classes, 0.5),
        evidence=dict(evidence or {}),
    )


def make_evidence_of_card(**values: float) -> CardEvidence:
    """What a card's evaluation found: precision and recall 0.73 unless said otherwise."""
    measured = {
        "precision": 0.73, "recall": 0.73, "false_alarms_per_km2": 300.0, "persistent_share": 0.5,
        "relative_error": 0.05, "dispersion": 1.5, "position_error_m": 0.5,
    }  # fmt: skip
    return CardEvidence(**{**measured, **values})


CROWNS = make_card("crowns", "tree", evidence={"tree": make_evidence_of_card()})
"""Sees trees, is evaluated, and is in force until a city chooses another."""
CANOPIES = make_card("canopies", "tree")
"""Sees trees, and was never evaluated."""
WHEELS = make_card("wheels", "car", evidence={"car": make_evidence_of_card(false_alarms_per_km2=50.0)})
CARDS = {card.name: card for card in (CROWNS, CANOPIES, WHEELS)}


def model_of(card: ModelCard) -> Model:
    """A model for use cases that look at nothing but its card."""
    return Model(card=card, path=Path(card.file))


def make_taxonomy() -> Taxonomy:
    """The shipped classes and shrubs, which stay as trees do; ``CROWNS`` sees trees, ``WHEELS`` cars."""
    shipped = shipped_taxonomy().classes
    in_force = {"tree": (CROWNS.name,), "car": (WHEELS.name,)}
    return Taxonomy(
        classes={
            **shipped,
            "shrub": shipped["tree"].model_copy(update={"name": "shrub", "models": ()}),
            **{
                name: shipped[name].model_copy(update={"models": models}) for name, models in in_force.items()
            },
        }
    )


# --- a survey as a value -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a model sees, (n,) each; ``xy`` metric, ``size_m`` width and height of the box on the ground.

    Boxes tell observations of one scene and class apart: give each its own.
    """

    class_name: NDArray[Any]
    xy: NDArray[np.float64]
    size_m: NDArray[np.float32]
    score: NDArray[np.float32]
    error_m: NDArray[np.float32]
    box_px: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.xy)


def make_seen(
    xy: Any,
    *,
    class_name: Any = "tree",
    size_m: Any = 5.0,
    score: Any = 0.8,
    error_m: Any = 1.0,
    origin: tuple[float, float] = (0.0, 0.0),
    ground_resolution_m: float = 0.1,
) -> Seen:
    """Observations at metric positions; every other argument is one value for all, or a column.

    Args:
        xy: (n, 2).
        size_m: crown diameters.
        origin: upper left corner of the scene, from which boxes are measured.
    """
    places = np.asarray(xy, np.float64).reshape(-1, 2)
    n = len(places)
    crown = np.broadcast_to(np.asarray(size_m, np.float32), n)
    centre = (places - np.asarray(origin)) * (1, -1) / ground_resolution_m
    half = (crown / 2 / ground_resolution_m)[:, None]
    return Seen(
        class_name=np.full(n, class_name, object) if isinstance(class_name, str) else np.asarray(class_name),
        xy=places,
        size_m=np.column_stack([crown, crown]),
        score=np.broadcast_to(np.asarray(score, np.float32), n),
        error_m=np.broadcast_to(np.asarray(error_m, np.float32), n),
        box_px=np.hstack([centre - half, centre + half]).astype(np.float32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSurvey:
    """A scene and what one model sees on it. ``surveyed`` is metric; without ``campaign`` the local date.

    ``pixels`` stands for the scene's pixels: hexadecimal, the same for every model that runs on it.
    """

    surveyed: shapely.MultiPolygon
    taken_at: datetime
    seen: Seen
    pixels: str
    card: ModelCard = CROWNS
    source: str = "plane"
    campaign: str | None = None
    scene_kind: SceneKind = SceneKind.NADIR
    ground_resolution_m: float = 0.1
    licence: str | None = "CC BY 4.0"
    attribution: str | None = "Test Fliers"

    @property
    def georeference_hash(self) -> str:
        """Of where the pixels are said to lie."""
        return hashlib.sha256(shapely.to_wkb(self.surveyed)).hexdigest()

    def by(self, card: ModelCard, seen: Seen) -> "FakeSurvey":
        """The same scene, seen by another model."""
        return replace(self, card=card, seen=seen)

    def moved(self, east_m: float, north_m: float) -> "FakeSurvey":
        """The same pixels and boxes with a corrected georeference (R2)."""
        offset = np.array([east_m, north_m])
        return replace(
            self,
            surveyed=shapely.transform(self.surveyed, lambda xy: xy + offset),
            seen=replace(self.seen, xy=self.seen.xy + offset),
        )


def make_survey(
    surveyed: shapely.Geometry,
    taken_at: datetime,
    seen: Seen,
    *,
    pixels: str | None = None,
    **options: Any,
) -> FakeSurvey:
    """A survey whose pixels are a pure function of its ground, date and observations."""
    polygons = _polygons(surveyed)
    return FakeSurvey(
        surveyed=polygons,
        taken_at=taken_at,
        seen=seen,
        pixels=pixels or _pixels(polygons, taken_at, seen),
        **options,
    )


def _polygons(ground: shapely.Geometry) -> shapely.MultiPolygon:
    return cast("shapely.MultiPolygon", shapely.multipolygons(shapely.get_parts(ground)))


def _pixels(surveyed: shapely.MultiPolygon, taken_at: datetime, seen: Seen) -> str:
    digest = hashlib.sha256(shapely.to_wkb(surveyed) + taken_at.isoformat().encode())
    for column in (seen.xy, seen.size_m, seen.score, seen.error_m, seen.box_px):
        digest.update(np.ascontiguousarray(column).tobytes())
    names, codes = np.unique(seen.class_name.astype(str), return_inverse=True)
    digest.update("".join(names).encode() + codes.astype(np.int16).tobytes())
    return digest.hexdigest()


# --- a city ------------------------------------------------------------------------------------------


def add_plain_city(
    database: Database,
    code: str,
    *,
    metric_crs: str,
    ground: shapely.Geometry,
    areas: Mapping[str, shapely.Geometry],
    time_zone: str,
    classes: Sequence[str] = ("tree",),
) -> None:
    """A city without files: ``ground`` and the areas of its one level in its metric CRS."""
    taxonomy = make_taxonomy()
    with database.transaction(Patience.JOB) as connection:
        cities.sync_asset_classes(connection, taxonomy.classes.values())
        new = City(
            id=0,
            code=code,
            name=code,
            time_zone=time_zone,
            metric_crs=metric_crs,
            boundary=_polygons(ground),
            boundary_given=True,
        )
        city = cities.insert_city(connection, replace(new, boundary=_to_lon_lat(new, new.boundary)))
        cities.set_classes(connection, city.id, classes)
        versions = tuple(
            AreaVersion(
                id=0,
                level="district",
                level_rank=0,
                code=area,
                name=area,
                parent_level=None,
                parent_code=None,
                valid_from=None,
                valid_to=None,
                geometry=_to_lon_lat(city, _polygons(drawn)),
                area_m2=float(shapely.area(drawn)),
            )
            for area, drawn in areas.items()
        )
        cities.apply_revisions(connection, city.id, [Revision(inserted=versions)])


# --- storing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of a survey: public ids of scene and survey, and what it brought when folded."""

    status: Status
    scene: str
    survey: str
    tally: SurveyTally | None = None


def store_surveys(
    database: Database,
    city_code: str,
    new: Sequence[FakeSurvey],
    *,
    taxonomy: Taxonomy,
    author: str = "local",
    before_folding: Callable[[], None] | None = None,
) -> list[Stored]:
    """Stores surveys and folds them in, in one transaction under the city's writer lock, as ``ingest`` does.

    Args:
        before_folding: called between the two, for those who measure.

    Raises:
        Conflict: the pixels are stored with another date (R2).
    """
    with database.transaction(Patience.JOB) as connection:
        city = cities.get_city(connection, city_code)
        cities.lock_city(connection, city.id)
        stored = [insert_survey(connection, city, one, taxonomy, author=author) for one in new]
        touched = {name for _, _, classes in stored for name in classes}
        cause = Cause(
            what="ingest", subject=",".join(sorted({one.scene for one, _, _ in stored})), author=author
        )
        if before_folding is not None:
            before_folding()
        tallies = refold(connection, city, taxonomy, touched, cause)
        in_force = {row.id for row in surveys.list_surveys(connection, city) if row.in_force}
    return [_outcome(one, survey_id, tallies, in_force) for one, survey_id, _ in stored]


def _outcome(one: Stored, survey_id: int, tallies: Mapping[int, SurveyTally], in_force: set[int]) -> Stored:
    if one.status is Status.UNCHANGED:
        return one
    if survey_id not in in_force:
        return replace(one, status=Status.NOT_IN_FORCE)
    return replace(one, tally=tallies.get(survey_id))


def insert_survey(
    connection: Connection, city: City, new: FakeSurvey, taxonomy: Taxonomy, *, author: str = "local"
) -> tuple[Stored, int, set[str]]:
    """The rows of scene, survey and observations, without folding.

    Returns:
        What became of it, the survey's row number, and the classes to fold: those of a superseded scene, too.

    Raises:
        Conflict: the pixels are stored with another date (R2).
    """
    known = surveys.scene_with_pixels(connection, city, new.pixels)
    if known is not None and known.taken_at != new.taken_at:
        raise Conflict(f"these pixels are scene {known.public_id} already", do="scene redate")
    supersedes = known is not None and known.georeference_hash != new.georeference_hash
    classes = [name for name in new.card.output.classes if name in taxonomy.classes]
    touched = set(classes)
    if known is not None and not supersedes:
        scene_id, scene_public = known.id, known.public_id
        before = surveys.find_survey(connection, scene_id, new.card, SETTINGS).survey
        if before is not None:
            same = surveys.get_survey(connection, city, before)
            return Stored(status=Status.UNCHANGED, scene=scene_public, survey=before), same.id, touched
    else:
        scene_id, scene_public = _insert_scene(connection, city, new, known, author)
    survey_id, public = surveys.insert_survey(
        connection,
        city,
        scene_id,
        card=new.card,
        settings_key=SETTINGS,
        classes=classes,
        adequate={name: taxonomy.get(name).sees(new.scene_kind, new.ground_resolution_m) for name in classes},
        surveyed=_to_lon_lat(city, new.surveyed),
        windows=1,
        seconds=0.0,
    )
    surveys.insert_observations(connection, city, survey_id, _columns(city, new.seen, taxonomy))
    if known is not None and supersedes:
        for row in surveys.list_surveys(connection, city):
            if row.scene == known.public_id:
                touched |= set(row.classes)
                if row.model_sha256 == new.card.sha256:
                    identities.successor_roots(connection, city, row.id, survey_id)
    status = Status.SUPERSEDED if supersedes else Status.STORED
    return Stored(status=status, scene=scene_public, survey=public), survey_id, touched


def _insert_scene(
    connection: Connection, city: City, new: FakeSurvey, known: SceneRow | None, author: str
) -> tuple[int, str]:
    of_source = surveys.source_id(
        connection, city, new.source, licence=new.licence, attribution=new.attribution
    )
    if known is not None:
        # Out of the way first: two scenes with the same pixels cannot both be in force.
        surveys.supersede_scene(connection, known.id, known.id)
    local_day = new.taken_at.astimezone(ZoneInfo(city.time_zone)).date().isoformat()
    of_campaign = surveys.campaign_id(connection, city, of_source, new.campaign or local_day)
    scene_id, public = surveys.insert_scene(
        connection,
        city,
        of_campaign,
        of_source,
        NewScene(
            path=f"{new.pixels[:12]}.tif",
            pixel_hash=new.pixels,
            georeference_hash=new.georeference_hash,
            taken_at=new.taken_at,
            kind=new.scene_kind.value,
            ground_resolution_m=new.ground_resolution_m,
            size_px=(1, 1),
            footprint=_to_lon_lat(city, new.surveyed),
            licence=new.licence,
            attribution=new.attribution,
        ),
    )
    if known is not None:
        surveys.supersede_scene(connection, known.id, scene_id)
        surveys.log_event(connection, city, "superseded", known.public_id, author=author, by=public)
    return scene_id, public


def _columns(city: City, seen: Seen, taxonomy: Taxonomy) -> ObservationColumns:
    to_lon_lat = Transformer.from_crs(city.metric_crs, 4326, always_xy=True)
    return ObservationColumns(
        class_name=seen.class_name,
        lon_lat=np.column_stack(to_lon_lat.transform(seen.xy[:, 0], seen.xy[:, 1])),
        xy=seen.xy,
        error_m=seen.error_m,
        size_m=seen.size_m,
        score=seen.score,
        plausible=_plausible(seen, taxonomy),
        box_px=seen.box_px,
    )


def _plausible(seen: Seen, taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """Whether the longer side lies within the class's range (R6)."""
    longer = seen.size_m.max(axis=1, initial=0)
    plausible = np.zeros(len(seen), bool)
    for name in set(seen.class_name.tolist()):
        smallest, largest = taxonomy.get(name).size_m
        plausible |= (seen.class_name == name) & (longer >= smallest) & (longer <= largest)
    return plausible


def _to_lon_lat(city: City, metric: Any) -> Any:
    transformer = Transformer.from_crs(city.metric_crs, 4326, always_xy=True)
    return shapely.transform(metric, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))


# --- decisions by place ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeDecision:
    """A decision about a metric place, whatever asset stands there: the same in every database.

    ``retracts`` is the public id of an earlier one; ``decide`` finds places by assets, which depend on what
    is stored already.
    """

    kind: DecisionKind
    at: datetime
    xy: tuple[float, float]
    class_name: str = "tree"
    gate_m: float = 3.0
    details: Mapping[str, Any]
    retracts: str | None = None
    author: str = "local"


def store_decision(database: Database, city_code: str, new: FakeDecision, *, taxonomy: Taxonomy) -> str:
    """Stores a decision and folds it in; returns its public id."""
    with database.transaction(Patience.JOB) as connection:
        city = cities.get_city(connection, city_code)
        cities.lock_city(connection, city.id)
        to_lon_lat = Transformer.from_crs(city.metric_crs, 4326, always_xy=True)
        earlier = decisions.get_decision(connection, city, new.retracts) if new.retracts else None
        public = decisions.insert_decision(
            connection,
            city,
            kind=new.kind.value,
            class_name=new.class_name,
            at=new.at,
            lon_lat=to_lon_lat.transform(*new.xy),
            xy=new.xy,
            gate_m=new.gate_m,
            asset=None,
            details=new.details,
            author=new.author,
            reason=None,
            retracts=earlier.id if earlier else None,
        )
        cause = Cause(what=f"decision {new.kind.value}", subject=public, author=new.author)
        refold(connection, city, taxonomy, [new.class_name], cause)
        return public


def database_clock(database: Database) -> datetime:
    """The instant of a transaction of its own: later than all that was recorded before."""
    with database.transaction(read_only=True) as connection:
        return connection.execute(text("SELECT clock_timestamp()")).scalar_one()  # type: ignore[no-any-return]
