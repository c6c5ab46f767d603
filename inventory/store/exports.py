"""Assets as rows with everything that is public about them, read a few thousand at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from inventory.domain.places import City

_ROWS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFilter:
    """Which assets; all conditions hold together.

    Attributes:
        as_of: aware instant in the world.
        classes: any of these.
        statuses: any of these, listed or not; None: what is listed, so that the rows are the count (R8).
        areas: area versions, one of which must hold the position; None: everywhere.
    """

    as_of: datetime
    classes: Sequence[str]
    statuses: Sequence[str] | None = None
    areas: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRow:
    """One asset; positions in degrees EPSG:4326, ``areas``: level → code, ``values``: by public name."""

    lon: float
    lat: float
    areas: dict[str, str]
    values: dict[str, Any]


# A mobile class has no ids (R10): its items are named by their observations, as in the API.
_ASSETS = text("""
    SELECT coalesce(a.public_id, s.observation_id::text) AS id, s.class, s.status, s.listed, s.verified,
           s.review, s.probability, s.score, s.error_m AS position_error_m, s.width_m, s.height_m, s.hits,
           s.first_seen, s.last_seen, s.first_missed,
           CASE WHEN d.id IS NULL THEN 'survey' ELSE 'decision' END AS evidence_kind,
           coalesce(d.public_id, u.public_id) AS evidence, coalesce(d.at, i.taken_at) AS evidence_at,
           u.public_id AS survey, i.public_id AS scene, u.model, u.model_version, o.name AS source,
           coalesce(i.licence, o.licence) AS licence,
           coalesce(i.attribution, o.attribution) AS attribution,
           ST_X(s.geom) AS lon, ST_Y(s.geom) AS lat, m.areas
    FROM urban_inventory.asset_state s
    LEFT JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id
    LEFT JOIN urban_inventory.survey u ON u.id = s.survey_id
    LEFT JOIN urban_inventory.scene i ON i.id = u.scene_id
    LEFT JOIN urban_inventory.source o ON o.id = i.source_id
    LEFT JOIN urban_inventory.decision d ON d.city_id = s.city_id AND d.id = s.decision_id
    LEFT JOIN LATERAL (
        SELECT jsonb_object_agg(v.level, v.code) AS areas
        FROM urban_inventory.membership b
        JOIN urban_inventory.area_version v ON v.id = b.area_version_id
        WHERE b.city_id = s.city_id AND b.state_id = s.id
            AND b.valid_from <= :as_of AND (b.valid_to IS NULL OR b.valid_to > :as_of)
    ) m ON true
    WHERE s.city_id = :city AND s.class = ANY(CAST(:classes AS text[]))
        AND s.valid_from <= :as_of AND (s.valid_to IS NULL OR s.valid_to > :as_of)
        AND CASE WHEN CAST(:statuses AS text[]) IS NULL THEN s.listed
                 ELSE s.status = ANY(CAST(:statuses AS text[])) END
        AND (CAST(:areas AS bigint[]) IS NULL OR EXISTS (
            SELECT FROM urban_inventory.membership b
            WHERE b.city_id = s.city_id AND b.state_id = s.id
                AND b.area_version_id = ANY(CAST(:areas AS bigint[]))
                AND b.valid_from <= :as_of AND (b.valid_to IS NULL OR b.valid_to > :as_of)))
    ORDER BY s.asset_id, s.id
""")


def stream_assets(connection: Connection, city: City, wanted: AssetFilter) -> Iterator[list[AssetRow]]:
    """The assets, some thousands at a time through a server-side cursor, oldest identity first."""
    parameters = {
        "city": city.id,
        "as_of": wanted.as_of,
        "classes": list(wanted.classes),
        "statuses": None if wanted.statuses is None else list(wanted.statuses),
        "areas": None if wanted.areas is None else list(wanted.areas),
    }
    options = {"stream_results": True, "yield_per": _ROWS_AT_ONCE}
    with connection.execute(_ASSETS, parameters, execution_options=options) as result:
        for rows in result.mappings().partitions():
            yield [_row(dict(row)) for row in rows]


def _row(values: dict[str, Any]) -> AssetRow:
    lon, lat, areas = values.pop("lon"), values.pop("lat"), values.pop("areas")
    return AssetRow(lon=lon, lat=lat, areas=areas or {}, values=values)
