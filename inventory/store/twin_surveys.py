"""Scenes on which two models have run, and what each of them saw there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select, text

from inventory.domain.places import City
from inventory.store.schema import observation


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinSurveys:
    """A scene in force, and its newest survey by each of two models, as row numbers."""

    scene: str
    path: str | None
    taken_at: datetime
    source: str
    attribution: str | None
    ground_resolution_m: float
    size_px: tuple[int, int]
    old_survey: int
    new_survey: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Plausible observations of one class in one survey, (n,) each; ``xy`` in the city's metric CRS, metres."""

    box_px: NDArray[np.float64]
    lon_lat: NDArray[np.float64]
    xy: NDArray[np.float64]


_TWINS = text(
    """
    WITH newest AS (
        SELECT DISTINCT ON (v.scene_id, v.model) v.scene_id, v.model, v.id
        FROM urban_inventory.survey v
        WHERE v.city_id = :city AND v.withdrawn_at IS NULL AND v.model = ANY(CAST(:models AS text[]))
        ORDER BY v.scene_id, v.model, v.recorded_at DESC, v.id DESC
    )
    SELECT i.public_id, i.path, i.taken_at, i.ground_resolution_m, i.width_px, i.height_px, o.name AS source,
        coalesce(i.attribution, o.attribution, i.licence, o.licence) AS attribution, a.id AS old_id, b.id AS new_id
    FROM newest a
    JOIN newest b ON b.scene_id = a.scene_id AND b.model = :new
    JOIN urban_inventory.scene i ON i.id = a.scene_id
    JOIN urban_inventory.source o ON o.id = i.source_id
    WHERE a.model = :old AND i.superseded_by IS NULL AND i.purged_at IS NULL
    ORDER BY i.taken_at DESC, i.id
    """
)


def twin_surveys(connection: Connection, city: City, old: str, new: str) -> list[TwinSurveys]:
    """The scenes in force that both models have seen, the newest first."""
    parameters = {"city": city.id, "models": [old, new], "old": old, "new": new}
    return [
        TwinSurveys(
            scene=row.public_id,
            path=row.path,
            taken_at=row.taken_at,
            source=row.source,
            attribution=row.attribution,
            ground_resolution_m=row.ground_resolution_m,
            size_px=(row.width_px, row.height_px),
            old_survey=row.old_id,
            new_survey=row.new_id,
        )
        for row in connection.execute(_TWINS, parameters)
    ]


def seen_in(connection: Connection, city: City, survey: int, classes: Sequence[str]) -> dict[str, Seen]:
    """What a survey saw, by class; classes of which it saw nothing have none."""
    columns = observation.c
    rows = connection.execute(
        select(
            columns["class"],
            columns.box_px,
            func.ST_X(columns.geom).label("lon"),
            func.ST_Y(columns.geom).label("lat"),
            columns.x,
            columns.y,
        )
        .where(
            columns.city_id == city.id,
            columns.survey_id == survey,
            columns["class"].in_(list(classes)),
            columns.plausible,
        )
        .order_by(columns.id)
    ).all()
    names = np.array([row[0] for row in rows], object)
    boxes = np.array([row.box_px for row in rows], np.float64).reshape(-1, 4)
    places = np.array([(row.lon, row.lat, row.x, row.y) for row in rows], np.float64).reshape(-1, 4)
    return {
        name: Seen(
            box_px=boxes[names == name],
            lon_lat=places[names == name, :2],
            xy=places[names == name, 2:],
        )
        for name in classes
    }
