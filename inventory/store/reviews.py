"""What later imagery asks people again: verified assets that it did not see (R11)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from inventory.domain.places import City


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """An open question about one asset.

    ``since``: the first look that missed it; ``missed_by``: surveys in force that saw its ground from then on and did
    not see it, as (survey, scene, model, taken at), oldest first. ``decision`` is what a person had said last.
    """

    asset: str
    class_name: str
    status: str
    listed: bool
    since: datetime
    last_seen: datetime
    lon_lat: tuple[float, float]
    error_m: float
    decision: str | None
    kind: str | None
    decided_at: datetime | None
    author: str | None
    reason: str | None
    missed_by: tuple[tuple[str, str, str, datetime], ...]


_REVIEWS = text(
    """
    SELECT a.public_id, s.class, s.status, s.listed, coalesce(s.first_missed, s.valid_from) AS since, s.last_seen,
        ST_X(s.geom) AS lon, ST_Y(s.geom) AS lat, s.error_m,
        d.public_id AS decision, d.kind, d.at, d.author, d.reason, coalesce(m.surveys, '[]') AS surveys
    FROM urban_inventory.asset_state s
    JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id
    LEFT JOIN LATERAL (
        SELECT b.public_id, b.kind, b.at, b.author, b.reason FROM urban_inventory.decision b
        WHERE b.city_id = s.city_id AND b.kind NOT IN ('retract', 'describe', 'reject')
            AND (b.id = s.decision_id OR b.id = a.root_decision OR b.asset = a.public_id OR b.asset IN (
                SELECT n.public_id FROM urban_inventory.asset n WHERE n.city_id = a.city_id AND n.alias_of = a.id))
            AND NOT EXISTS (
                SELECT FROM urban_inventory.decision r WHERE r.city_id = b.city_id AND r.retracts = b.id)
        ORDER BY b.at DESC, b.id DESC LIMIT 1
    ) d ON true
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(o.survey_id), '{}') AS surveys FROM urban_inventory.asset_hit l
        JOIN urban_inventory.observation o ON o.city_id = l.city_id AND o.id = l.observation_id
        WHERE l.city_id = s.city_id AND l.asset_id = s.asset_id
    ) hit
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_array(v.public_id, i.public_id, v.model || '@' || v.model_version, i.taken_at)
            ORDER BY i.taken_at, v.id) AS surveys
        FROM urban_inventory.survey v
        JOIN urban_inventory.survey_class k ON k.survey_id = v.id AND k.class = a.class AND k.in_force AND k.adequate
        JOIN urban_inventory.scene i ON i.id = v.scene_id
        WHERE v.city_id = s.city_id AND ST_Intersects(v.surveyed, s.geom) AND i.taken_at > s.last_seen
            AND v.id <> ALL(hit.surveys)
    ) m ON true
    WHERE s.city_id = :city AND s.review AND s.valid_to IS NULL
        AND (CAST(:classes AS text[]) IS NULL OR s.class = ANY(CAST(:classes AS text[])))
    ORDER BY since, a.public_id
    """
)


def open_reviews(connection: Connection, city: City, classes: Sequence[str] | None) -> list[Review]:
    """The open reviews, the longest open first.

    Args:
        classes: only of these; None: all.
    """
    parameters = {"city": city.id, "classes": None if classes is None else list(classes)}
    return [
        Review(
            asset=row.public_id,
            class_name=row._mapping["class"],
            status=row.status,
            listed=row.listed,
            since=row.since,
            last_seen=row.last_seen,
            lon_lat=(row.lon, row.lat),
            error_m=row.error_m,
            decision=row.decision,
            kind=row.kind,
            decided_at=row.at,
            author=row.author,
            reason=row.reason,
            missed_by=tuple(
                (survey, scene, model, datetime.fromisoformat(taken_at))
                for survey, scene, model, taken_at in row.surveys
            ),
        )
        for row in connection.execute(_REVIEWS, parameters)
    ]
