"""What one survey saw, read back as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from inventory.domain.places import City
from inventory.store.schema import observation


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBoxes:
    """A survey's observations of one class, (n,) in the order they were stored.

    Attributes:
        box_px: (n, 4) float64; x_min, y_min, x_max, y_max in pixels of the scene, y down.
        score: (n,) float32.
        plausible: (n,) whether the size is within the class's range (R6).
    """

    box_px: NDArray[np.float64]
    score: NDArray[np.float32]
    plausible: NDArray[np.bool_]


def boxes_of_survey(connection: Connection, city: City, survey_id: int, class_name: str) -> SeenBoxes:
    """The boxes of one class that a survey stored."""
    rows = connection.execute(
        select(observation.c.box_px, observation.c.score, observation.c.plausible)
        .where(
            observation.c.city_id == city.id,
            observation.c.survey_id == survey_id,
            observation.c["class"] == class_name,
        )
        .order_by(observation.c.id)
    ).all()
    return SeenBoxes(
        box_px=np.array([row.box_px for row in rows], dtype=np.float64).reshape(-1, 4),
        score=np.array([row.score for row in rows], dtype=np.float32),
        plausible=np.array([row.plausible for row in rows], dtype=np.bool_),
    )
