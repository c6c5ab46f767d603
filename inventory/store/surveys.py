"""Scenes, campaigns and surveys: every SQL statement about the looks themselves."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from geoalchemy2.shape import from_shape
from numpy.typing import NDArray
from shapely import MultiPolygon
from sqlalchemy import Connection, Row, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from detection.errors import UnknownName
from detection.models import ModelCard
from detection.taxonomy import SceneKind
from inventory.domain.cells import cell_of
from inventory.domain.in_use import Standing
from inventory.domain.places import City
from inventory.store.copy import copy_rows, next_job
from inventory.store.identities import public_id
from inventory.store.schema import (
    campaign,
    model_choice,
    scene,
    scene_log,
    source,
    staging_observation,
    survey,
    survey_class,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRow:
    """A scene as stored."""

    id: int
    public_id: str
    path: str | None
    pixel_hash: str
    georeference_hash: str
    taken_at: datetime
    scene_kind: SceneKind
    ground_resolution_m: float
    source: str
    campaign: str
    superseded: bool
    purged: bool
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyRow:
    """A survey as stored, with the classes for which it is in force."""

    id: int
    public_id: str
    scene: str
    taken_at: datetime
    model: str
    model_sha256: str
    settings_key: str
    classes: tuple[str, ...]
    in_force: tuple[str, ...]
    windows: int
    observations: int
    withdrawn: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewScene:
    """What ``insert_scene`` stores."""

    path: str
    pixel_hash: str
    georeference_hash: str
    taken_at: datetime
    kind: str
    ground_resolution_m: float
    size_px: tuple[int, int]
    footprint: MultiPolygon
    licence: str | None
    attribution: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationColumns:
    """A survey's observations, (n,) each; positions in degrees and in the city's metric CRS."""

    class_name: NDArray[Any]
    lon_lat: NDArray[np.float64]
    xy: NDArray[np.float64]
    error_m: NDArray[np.float32]
    size_m: NDArray[np.float32]
    score: NDArray[np.float32]
    plausible: NDArray[np.bool_]
    box_px: NDArray[np.float32]


# --- sources and campaigns ---------------------------------------------------------------------------


def source_id(
    connection: Connection, city: City, name: str, *, licence: str | None, attribution: str | None
) -> int:
    """The source of this name, made on first use; licence and attribution given now stand."""
    given = {
        key: value for key, value in (("licence", licence), ("attribution", attribution)) if value is not None
    }
    statement = upsert(source).values(city_id=city.id, name=name, **given)
    statement = statement.on_conflict_do_update(
        index_elements=["city_id", "name"], set_=given or {"name": statement.excluded.name}
    )
    return int(connection.execute(statement.returning(source.c.id)).scalar_one())


def campaign_id(connection: Connection, city: City, of_source: int, name: str) -> int:
    """The campaign of this name by a source, made on first use."""
    statement = upsert(campaign).values(city_id=city.id, source_id=of_source, name=name)
    statement = statement.on_conflict_do_update(
        index_elements=["city_id", "source_id", "name"], set_={"name": statement.excluded.name}
    )
    return int(connection.execute(statement.returning(campaign.c.id)).scalar_one())


# --- scenes ------------------------------------------------------------------------------------------


def scene_with_pixels(connection: Connection, city: City, pixel_hash: str) -> SceneRow | None:
    """The scene in force with these pixels, or None."""
    row = connection.execute(
        _scenes(city).where(
            scene.c.pixel_hash == pixel_hash, scene.c.superseded_by.is_(None), scene.c.purged_at.is_(None)
        )
    ).one_or_none()
    return None if row is None else _scene(row)


def get_scene(connection: Connection, city: City, public: str) -> SceneRow:
    """The scene of this public id.

    Raises:
        UnknownName: the city has none.
    """
    row = connection.execute(_scenes(city).where(scene.c.public_id == public)).one_or_none()
    if row is None:
        raise UnknownName(
            f"no scene “{public}” in {city.code}",
            do=f"List them: urban-inventory scene list --city {city.code}.",
        )
    return _scene(row)


def list_scenes(connection: Connection, city: City) -> list[SceneRow]:
    """All scenes, newest look first."""
    return [
        _scene(row) for row in connection.execute(_scenes(city).order_by(scene.c.taken_at.desc(), scene.c.id))
    ]


def insert_scene(
    connection: Connection, city: City, of_campaign: int, of_source: int, new: NewScene
) -> tuple[int, str]:
    """Stores a scene; returns its row number and public id."""
    public = public_id()
    number = connection.execute(
        insert(scene)
        .values(
            city_id=city.id,
            public_id=public,
            campaign_id=of_campaign,
            source_id=of_source,
            path=new.path,
            pixel_hash=new.pixel_hash,
            georeference_hash=new.georeference_hash,
            taken_at=new.taken_at,
            kind=new.kind,
            ground_resolution_m=new.ground_resolution_m,
            width_px=new.size_px[0],
            height_px=new.size_px[1],
            footprint=from_shape(new.footprint, srid=4326),
            licence=new.licence,
            attribution=new.attribution,
        )
        .returning(scene.c.id)
    ).scalar_one()
    return int(number), public


def update_scene(connection: Connection, scene_id: int, **values: Any) -> None:
    """Changes columns of a scene."""
    connection.execute(update(scene).where(scene.c.id == scene_id).values(**values))


def supersede_scene(connection: Connection, old: int, new: int) -> None:
    """A corrected georeference takes the place of the old scene (R2)."""
    connection.execute(update(scene).where(scene.c.id == old).values(superseded_by=new))


def purge_scene(connection: Connection, city: City, scene_id: int) -> None:
    """Removes a scene's surveys and observations for good; the scene's row stays as its own gravestone."""
    parameters = {"city": city.id, "scene": scene_id}
    surveys = "SELECT id FROM urban_inventory.survey WHERE scene_id = :scene"
    connection.execute(
        text(f"DELETE FROM urban_inventory.observation WHERE city_id = :city AND survey_id IN ({surveys})"),
        parameters,
    )
    connection.execute(delete(survey).where(survey.c.scene_id == scene_id))
    connection.execute(update(scene).where(scene.c.id == scene_id).values(path=None, purged_at=func.now()))


def _scenes(city: City) -> Any:
    return (
        select(scene, source.c.name.label("source_name"), campaign.c.name.label("campaign_name"))
        .join(source, source.c.id == scene.c.source_id)
        .join(campaign, campaign.c.id == scene.c.campaign_id)
        .where(scene.c.city_id == city.id)
    )


def _scene(row: Row[Any]) -> SceneRow:
    return SceneRow(
        id=row.id,
        public_id=row.public_id,
        path=row.path,
        pixel_hash=row.pixel_hash,
        georeference_hash=row.georeference_hash,
        taken_at=row.taken_at,
        scene_kind=SceneKind(row.kind),
        ground_resolution_m=row.ground_resolution_m,
        source=row.source_name,
        campaign=row.campaign_name,
        superseded=row.superseded_by is not None,
        purged=row.purged_at is not None,
        recorded_at=row.recorded_at,
    )


# --- surveys -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyPlace:
    """The settings key that a survey goes under, and the public id of the one that is there."""

    settings_key: str
    survey: str | None


def find_survey(connection: Connection, scene_id: int, card: ModelCard, settings_key: str) -> SurveyPlace:
    """The survey of a scene by this very card with these settings.

    Cards of other names, versions or evidence may share a network and all its settings: the first of them goes
    under the plain key, the others under one that says which card it is.
    """
    told = f"{card.name} {card.version} {sorted(card.evidence.items())!r}"
    own_key = hashlib.sha256(f"{settings_key} {told}".encode()).hexdigest()[:16]
    rows = connection.execute(
        select(survey.c.public_id, survey.c.settings_key, survey.c.card).where(
            survey.c.scene_id == scene_id,
            survey.c.model_sha256 == card.model_sha256,
            survey.c.settings_key.in_([settings_key, own_key]),
        )
    ).all()
    for row in rows:
        theirs = ModelCard.model_validate(row.card)
        if (theirs.name, theirs.version, theirs.evidence) == (card.name, card.version, card.evidence):
            return SurveyPlace(settings_key=row.settings_key, survey=row.public_id)
    return SurveyPlace(settings_key=own_key if rows else settings_key, survey=None)


def insert_survey(
    connection: Connection,
    city: City,
    scene_id: int,
    *,
    card: ModelCard,
    settings_key: str,
    classes: Sequence[str],
    adequate: Mapping[str, bool],
    surveyed: MultiPolygon,
    windows: int,
    seconds: float,
) -> tuple[int, str]:
    """Stores a survey, in force for nothing yet; returns its row number and public id."""
    public = public_id()
    number = connection.execute(
        insert(survey)
        .values(
            city_id=city.id,
            public_id=public,
            scene_id=scene_id,
            model=card.name,
            model_version=card.version,
            model_sha256=card.model_sha256,
            settings_key=settings_key,
            card=card.model_dump(mode="json"),
            classes=list(classes),
            surveyed=from_shape(surveyed, srid=4326),
            windows=windows,
            seconds=seconds,
        )
        .returning(survey.c.id)
    ).scalar_one()
    connection.execute(
        insert(survey_class),
        [
            {"survey_id": number, "class": name, "in_force": False, "adequate": adequate[name]}
            for name in classes
        ],
    )
    return int(number), public


_INSERT_OBSERVATIONS = text(
    """
    INSERT INTO urban_inventory.observation (
        city_id, survey_id, class, geom, x, y, error_m, width_m, height_m, score, plausible, box_px, cell)
    SELECT :city, survey_id, class, ST_SetSRID(ST_MakePoint(lon, lat), 4326), x, y, error_m, width_m, height_m,
        score, plausible, ARRAY[x_min, y_min, x_max, y_max], cell
    FROM urban_inventory.staging_observation WHERE job = :job
    -- Neighbours get neighbouring numbers: what later follows them stays together on disk and in every index.
    ORDER BY cell, y
    """
)


def insert_observations(connection: Connection, city: City, survey_id: int, new: ObservationColumns) -> None:
    """Stores a survey's observations by COPY."""
    job = next_job(connection)
    copy_rows(
        connection,
        staging_observation,
        {
            "job": job,
            "survey_id": survey_id,
            "class": new.class_name,
            "lon": new.lon_lat[:, 0],
            "lat": new.lon_lat[:, 1],
            "x": new.xy[:, 0],
            "y": new.xy[:, 1],
            "error_m": new.error_m,
            "width_m": new.size_m[:, 0],
            "height_m": new.size_m[:, 1],
            "score": new.score,
            "plausible": new.plausible,
            "cell": cell_of(new.xy[:, 0], new.xy[:, 1]),
            **{name: new.box_px[:, i] for i, name in enumerate(("x_min", "y_min", "x_max", "y_max"))},
        },
    )
    connection.execute(_INSERT_OBSERVATIONS, {"city": city.id, "job": job})
    connection.execute(delete(staging_observation).where(staging_observation.c.job == job))


def set_withdrawn(connection: Connection, survey_id: int, *, withdrawn: bool) -> None:
    """Takes a survey out of the evidence, or back in."""
    connection.execute(
        update(survey).where(survey.c.id == survey_id).values(withdrawn_at=func.now() if withdrawn else None)
    )


def withdraw_all(connection: Connection, scene_id: int) -> None:
    """Takes every survey of a scene out of the evidence."""
    connection.execute(
        update(survey)
        .where(survey.c.scene_id == scene_id, survey.c.withdrawn_at.is_(None))
        .values(withdrawn_at=func.now())
    )


def get_survey(connection: Connection, city: City, public: str) -> SurveyRow:
    """The survey of this public id.

    Raises:
        UnknownName: the city has none.
    """
    found = [row for row in list_surveys(connection, city) if row.public_id == public]
    if not found:
        raise UnknownName(
            f"no survey “{public}” in {city.code}",
            do=f"List them: urban-inventory survey list --city {city.code}.",
        )
    return found[0]


_LIST = text(
    """
    SELECT v.*, s.public_id AS scene, s.taken_at,
        (SELECT count(*) FROM urban_inventory.observation o WHERE o.city_id = v.city_id AND o.survey_id = v.id)
            AS observations,
        (SELECT coalesce(array_agg(k.class ORDER BY k.class), '{}') FROM urban_inventory.survey_class k
            WHERE k.survey_id = v.id AND k.in_force) AS in_force
    FROM urban_inventory.survey v JOIN urban_inventory.scene s ON s.id = v.scene_id
    WHERE v.city_id = :city ORDER BY s.taken_at DESC, v.id
    """
)


def list_surveys(connection: Connection, city: City) -> list[SurveyRow]:
    """All surveys, newest look first."""
    return [
        SurveyRow(
            id=row.id,
            public_id=row.public_id,
            scene=row.scene,
            taken_at=row.taken_at,
            model=row.model,
            model_sha256=row.model_sha256,
            settings_key=row.settings_key,
            classes=tuple(row.classes),
            in_force=tuple(row.in_force),
            windows=row.windows,
            observations=row.observations,
            withdrawn=row.withdrawn_at is not None,
        )
        for row in connection.execute(_LIST, {"city": city.id})
    ]


# --- which survey is in force (R3) ---------------------------------------------------------------------

_IN_FORCE = text(
    """
    WITH standing AS (
        SELECT * FROM unnest(CAST(:models AS text[]), CAST(:ranks AS integer[]),
            CAST(:since AS timestamptz[]), CAST(:until AS timestamptz[])) AS s (model, rank, since, until)
    ), ranked AS (
        SELECT v.id, row_number() OVER (
            PARTITION BY v.scene_id ORDER BY max(c.rank) DESC, v.recorded_at DESC, v.id DESC) AS place
        FROM urban_inventory.survey v
        JOIN urban_inventory.survey_class k ON k.survey_id = v.id AND k.class = :class
        JOIN urban_inventory.scene s ON s.id = v.scene_id
        JOIN standing c ON c.model = v.model
            AND v.recorded_at >= coalesce(c.since, '-infinity') AND v.recorded_at < coalesce(c.until, 'infinity')
        WHERE v.city_id = :city AND v.withdrawn_at IS NULL AND s.superseded_by IS NULL AND s.purged_at IS NULL
        GROUP BY v.id
    )
    UPDATE urban_inventory.survey_class k SET in_force = (r.place IS NOT DISTINCT FROM 1)
    FROM urban_inventory.survey v LEFT JOIN ranked r ON r.id = v.id
    WHERE k.survey_id = v.id AND v.city_id = :city AND k.class = :class
        AND k.in_force <> (r.place IS NOT DISTINCT FROM 1)
    """
)


def derive_in_force(
    connection: Connection, city: City, class_name: str, standing: Sequence[Standing]
) -> None:
    """Per scene, the survey in force: of those whose model stands for the class, the one of the highest rank (R3)."""
    connection.execute(
        _IN_FORCE,
        {
            "city": city.id,
            "class": class_name,
            "models": [one.model for one in standing],
            "ranks": [one.rank for one in standing],
            "since": [one.since for one in standing],
            "until": [one.until for one in standing],
        },
    )


def model_choices(connection: Connection, city: City, class_name: str) -> list[tuple[str, datetime]]:
    """The models that the city chose for a class, and when; earliest first."""
    rows = connection.execute(
        select(model_choice.c.model, model_choice.c.recorded_at)
        .where(model_choice.c.city_id == city.id, model_choice.c["class"] == class_name)
        .order_by(model_choice.c.id)
    ).all()
    return [(row.model, row.recorded_at) for row in rows]


def choose_model(connection: Connection, city: City, class_name: str, model: str) -> None:
    """Notes that the city uses a model for a class from now on."""
    connection.execute(insert(model_choice).values({"city_id": city.id, "class": class_name, "model": model}))


def scenes_without(connection: Connection, city: City, model: str) -> list[SceneRow]:
    """Scenes in force that a model has not run on."""
    ran = select(survey.c.scene_id).where(survey.c.city_id == city.id, survey.c.model == model)
    query = _scenes(city).where(
        scene.c.superseded_by.is_(None), scene.c.purged_at.is_(None), scene.c.id.not_in(ran)
    )
    return [_scene(row) for row in connection.execute(query.order_by(scene.c.taken_at, scene.c.id))]


def details_of_event(connection: Connection, city: City, event: str, subject: str) -> dict[str, Any] | None:
    """What was noted with the first such event of a subject, if there was any."""
    return connection.execute(
        select(scene_log.c.details)
        .where(scene_log.c.city_id == city.id, scene_log.c.event == event, scene_log.c.subject == subject)
        .order_by(scene_log.c.id)
        .limit(1)
    ).scalar_one_or_none()


def log_event(
    connection: Connection, city: City, event: str, subject: str, *, author: str, **details: Any
) -> None:
    """Appends what was said about evidence (R14)."""
    connection.execute(
        insert(scene_log).values(
            city_id=city.id, event=event, subject=subject, author=author, details=details
        )
    )
