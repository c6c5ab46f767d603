"""Reading the evidence of a class back from the store, as the fold wants it."""

import json
from collections import defaultdict
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from sqlalchemy import Connection, func, select

from detection.models import ModelCard
from detection.taxonomy import AssetClass
from inventory.domain.evidence import (
    Decision,
    DecisionKind,
    Evidence,
    Look,
    Micros,
    Observations,
    Reliability,
    SceneLook,
    content_hashes,
    to_micros,
)
from inventory.domain.places import City
from inventory.store.schema import decision, observation, scene, survey, survey_class


def load_evidence(connection: Connection, city: City, asset_class: AssetClass) -> Evidence:
    """All looks in force and adequate for a class, and all decisions about it (R1, R3, R5, R11)."""
    rows = connection.execute(
        select(
            survey.c.id,
            survey.c.model_sha256,
            survey.c.card,
            func.ST_AsBinary(survey.c.surveyed).label("surveyed"),
            scene.c.campaign_id,
            scene.c.taken_at,
            scene.c.ground_resolution_m,
            scene.c.pixel_hash,
            scene.c.georeference_hash,
        )
        .join(scene, scene.c.id == survey.c.scene_id)
        .join(survey_class, survey_class.c.survey_id == survey.c.id)
        .where(
            survey.c.city_id == city.id,
            survey_class.c["class"] == asset_class.name,
            survey_class.c.in_force,
            survey_class.c.adequate,
        )
    ).all()
    to_metric = Transformer.from_crs(4326, city.metric_crs, always_xy=True)
    campaigns: dict[int, list[tuple[int, SceneLook]]] = defaultdict(list)
    seen = _observations(connection, city.id, asset_class.name, {row.id: row.pixel_hash for row in rows})
    for row in rows:
        look = SceneLook(
            survey_id=row.id,
            model=row.model_sha256,
            reliability=reliability_of(ModelCard.model_validate(row.card), asset_class),
            ground_resolution_m=row.ground_resolution_m,
            surveyed=_to_metric(shapely.from_wkb(bytes(row.surveyed)), to_metric),
            content=row.pixel_hash + row.georeference_hash,
            observations=seen[row.id],
        )
        campaigns[row.campaign_id].append((to_micros(row.taken_at), look))
    looks = tuple(
        Look(
            at=Micros(max(at for at, _ in scenes)),
            scenes=tuple(sorted((look for _, look in scenes), key=lambda look: look.content)),
        )
        for scenes in campaigns.values()
    )
    return Evidence(
        class_name=asset_class.name,
        looks=looks,
        decisions=_decisions(connection, city.id, asset_class.name),
    )


def reliability_of(card: ModelCard, asset_class: AssetClass) -> Reliability:
    """What the card's evaluation says of a class; unvalidated, the taxonomy's cautious values (R13)."""
    measured = card.evidence.get(asset_class.name)
    values = measured or asset_class.cautious
    return Reliability(
        precision=values.precision,
        recall=values.recall,
        false_alarms_per_m2=values.false_alarms_per_km2 / 1e6,
        persistent_share=values.persistent_share,
    )


def _observations(
    connection: Connection, city_id: int, class_name: str, scene_of_survey: dict[int, str]
) -> dict[int, Observations]:
    """Plausible observations of each survey, in the order of their content."""
    columns = observation.c
    # Options of the statement: those of a connection would stay with it.
    result = connection.execute(
        select(
            columns.survey_id,
            columns.id,
            columns.x,
            columns.y,
            columns.error_m,
            columns.width_m,
            columns.height_m,
            columns.score,
            columns.box_px[1],
            columns.box_px[2],
            columns.box_px[3],
            columns.box_px[4],
        ).where(
            columns.city_id == city_id,
            columns.survey_id.in_(scene_of_survey),
            columns["class"] == class_name,
            columns.plausible,
        ),
        execution_options={"stream_results": True, "yield_per": 50_000},
    )
    # float64 holds row numbers exactly up to 2⁵³.
    parts = [np.array([tuple(row) for row in part], np.float64) for part in result.partitions()]
    table = np.concatenate(parts) if parts else np.empty((0, 12))
    return {
        survey_id: _of_survey(table[table[:, 0] == survey_id], pixel_hash)
        for survey_id, pixel_hash in scene_of_survey.items()
    }


def _of_survey(table: NDArray[np.float64], pixel_hash: str) -> Observations:
    content = content_hashes(pixel_hash, table[:, 8:12])
    order = np.argsort(content, kind="stable")
    rows = table[order]
    return Observations(
        id=rows[:, 1].astype(np.int64),
        x=rows[:, 2],
        y=rows[:, 3],
        error_m=rows[:, 4],
        width_m=rows[:, 5],
        height_m=rows[:, 6],
        score=rows[:, 7],
        content=content[order],
    )


def _decisions(connection: Connection, city_id: int, class_name: str) -> tuple[Decision, ...]:
    rows = connection.execute(
        select(decision)
        .where(decision.c.city_id == city_id, decision.c["class"] == class_name)
        .order_by(decision.c.id)
    )
    return tuple(_decision(row._mapping) for row in rows)


def _decision(row: Any) -> Decision:
    details = row["details"]
    return Decision(
        sequence=row["id"],
        kind=DecisionKind(row["kind"]),
        class_name=row["class"],
        at=to_micros(row["at"]),
        x=row["x"],
        y=row["y"],
        gate_m=row["gate_m"],
        details=json.loads(details) if isinstance(details, str) else details,
        retracts=row["retracts"],
    )


def _to_metric(geometry: Any, transformer: Transformer) -> Any:
    def move(lon_lat: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(lon_lat[:, 0], lon_lat[:, 1]))

    return shapely.transform(geometry, move)
