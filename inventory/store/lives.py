"""One asset through the years: its names, what was said of it, who looked, what people decided (R7, R9, R11)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from detection.errors import UnknownName
from inventory.domain.life import LifeDecision, LifeLook, LifeState, Recorded
from inventory.domain.places import City


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """An identity: the id that its track carries, and those that lead to it."""

    id: int
    public_id: str
    class_name: str
    aliases: tuple[str, ...]
    replaces: str | None
    replaced_by: tuple[str, ...]


_CARRIER = text(
    """
    WITH RECURSIVE trail AS (
        SELECT a.id, a.alias_of, 0 AS step FROM urban_inventory.asset a
        WHERE a.city_id = :city AND a.public_id = :asset
        UNION ALL
        SELECT a.id, a.alias_of, t.step + 1 FROM trail t
        JOIN urban_inventory.asset a ON a.city_id = :city AND a.id = t.alias_of
        WHERE t.step < 100
    )
    SELECT a.id, a.public_id, a.class, r.public_id AS replaces,
        (SELECT coalesce(array_agg(n.public_id ORDER BY n.id), '{}') FROM urban_inventory.asset n
            WHERE n.city_id = a.city_id AND n.replaces = a.id) AS replaced_by
    FROM (SELECT id FROM trail ORDER BY step DESC LIMIT 1) last
    JOIN urban_inventory.asset a ON a.city_id = :city AND a.id = last.id
    LEFT JOIN urban_inventory.asset r ON r.city_id = a.city_id AND r.id = a.replaces
    """
)
_ALIASES = text(
    """
    WITH RECURSIVE led AS (
        SELECT a.id, a.public_id, 0 AS step FROM urban_inventory.asset a WHERE a.city_id = :city AND a.alias_of = :id
        UNION ALL
        SELECT a.id, a.public_id, l.step + 1 FROM led l
        JOIN urban_inventory.asset a ON a.city_id = :city AND a.alias_of = l.id
        WHERE l.step < 100
    )
    SELECT DISTINCT ON (id) public_id FROM led ORDER BY id
    """
)


def names_of(connection: Connection, city: City, asset: str) -> Names:
    """The identity behind a public id: an alias leads to the id that its track carries.

    Raises:
        UnknownName: the city never gave this id.
    """
    row = connection.execute(_CARRIER, {"city": city.id, "asset": asset}).one_or_none()
    if row is None:
        raise UnknownName(
            f"no asset “{asset[:64]}” in {city.code}",
            do="Ids are on the map page, in the collection “assets”, and in “urban-inventory export”.",
        )
    aliases = connection.execute(_ALIASES, {"city": city.id, "id": row.id}).scalars()
    return Names(
        id=row.id,
        public_id=row.public_id,
        class_name=row._mapping["class"],
        aliases=tuple(aliases),
        replaces=row.replaces,
        replaced_by=tuple(row.replaced_by),
    )


_STATES = text(
    """
    SELECT s.class, s.valid_from, s.valid_to, s.listed, s.status, s.verified, s.review, s.probability,
        ST_X(s.geom) AS lon, ST_Y(s.geom) AS lat, s.x, s.y, s.error_m, (s.width_m + s.height_m) / 2 AS crown_m, s.hits,
        s.first_seen, s.last_seen, s.first_missed
    FROM urban_inventory.asset_state s
    WHERE s.city_id = :city AND s.asset_id = :asset ORDER BY s.valid_from
    """
)


def states_of(connection: Connection, city: City, asset_id: int) -> tuple[LifeState, ...]:
    """Everything that is said of an asset, by as-of time; none where its evidence is withdrawn."""
    return tuple(
        LifeState(
            class_name=row._mapping["class"],
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            listed=row.listed,
            status=row.status,
            verified=row.verified,
            review=row.review,
            lon_lat=(row.lon, row.lat),
            xy=(row.x, row.y),
            error_m=row.error_m,
            crown_m=row.crown_m,
            probability=row.probability,
            hits=row.hits,
            first_seen=row.first_seen,
            last_seen=row.last_seen,
            first_missed=row.first_missed,
        )
        for row in connection.execute(_STATES, {"city": city.id, "asset": asset_id})
    )


# Hits first, by the asset: a survey's observations may be a million. A look is a campaign, in effect when the last
# of its scenes was taken (R4). Where the asset stood is asked as of each look; looks before its first state are asked
# about the place where it was first seen.
_LOOKS = text(
    """
    WITH hits AS MATERIALIZED (
        SELECT DISTINCT ON (o.survey_id) o.survey_id, o.box_px, o.score
        FROM urban_inventory.asset_hit l
        JOIN urban_inventory.observation o ON o.city_id = l.city_id AND o.id = l.observation_id
        WHERE l.city_id = :city AND l.asset_id = :asset AND o.class = :class
        ORDER BY o.survey_id, o.score DESC
    ), seen AS (
        SELECT v.id, v.public_id, v.scene_id, v.model, v.model_version, v.surveyed, i.public_id AS scene, i.path,
            i.taken_at, i.ground_resolution_m, i.width_px, i.height_px, i.georeference_hash, g.name AS campaign,
            o.name AS source, coalesce(i.licence, o.licence) AS licence,
            coalesce(i.attribution, o.attribution) AS attribution,
            i.campaign_id, max(i.taken_at) OVER (PARTITION BY i.campaign_id) AS at
        FROM urban_inventory.survey v
        JOIN urban_inventory.survey_class k ON k.survey_id = v.id AND k.class = :class AND k.in_force AND k.adequate
        JOIN urban_inventory.scene i ON i.id = v.scene_id
        JOIN urban_inventory.campaign g ON g.id = i.campaign_id
        JOIN urban_inventory.source o ON o.id = i.source_id
        WHERE v.city_id = :city
    )
    SELECT w.*, h.box_px, h.score, ST_X(place.geom) AS lon, ST_Y(place.geom) AS lat
    FROM seen w
    CROSS JOIN LATERAL (
        SELECT s.geom FROM urban_inventory.asset_state s WHERE s.city_id = :city AND s.asset_id = :asset
        ORDER BY s.valid_from <= w.at DESC, abs(extract(epoch FROM s.valid_from - w.at)) LIMIT 1
    ) place
    LEFT JOIN hits h ON h.survey_id = w.id
    WHERE h.box_px IS NOT NULL OR ST_Intersects(w.surveyed, place.geom)
    ORDER BY w.at, h.score DESC NULLS LAST, w.ground_resolution_m, w.scene
    """
)


def looks_at(connection: Connection, city: City, names: Names) -> tuple[LifeLook, ...]:
    """The surveys in force that saw an asset or the ground where it stood, oldest look first.

    Of one campaign those that hit it come first, then the finest.
    """
    parameters = {"city": city.id, "asset": names.id, "class": names.class_name}
    return tuple(
        LifeLook(
            at=row.at,
            campaign_id=row.campaign_id,
            campaign=row.campaign,
            source=row.source,
            survey=row.public_id,
            survey_id=row.id,
            scene=row.scene,
            path=row.path,
            taken_at=row.taken_at,
            model=f"{row.model}@{row.model_version}",
            lon_lat=(row.lon, row.lat),
            ground_resolution_m=row.ground_resolution_m,
            size_px=(row.width_px, row.height_px),
            georeference_hash=row.georeference_hash,
            attribution=row.attribution or row.licence,
            box_px=None if row.box_px is None else tuple(row.box_px),
            score=row.score,
        )
        for row in connection.execute(_LOOKS, parameters)
    )


# A decision belongs to an asset by the id that the person named, by what it made, or by what was said because of it.
_DECISIONS = text(
    """
    SELECT d.public_id, d.kind, d.at, d.author, d.reason, d.recorded_at, d.details, r.public_id AS retracts,
        t.public_id AS taken_back_by, t.recorded_at AS taken_back_at, t.author AS taken_back_author
    FROM urban_inventory.decision d
    LEFT JOIN urban_inventory.decision r ON r.city_id = d.city_id AND r.id = d.retracts
    LEFT JOIN LATERAL (
        SELECT b.public_id, b.recorded_at, b.author FROM urban_inventory.decision b
        WHERE b.city_id = d.city_id AND b.retracts = d.id ORDER BY b.id LIMIT 1
    ) t ON true
    WHERE d.city_id = :city AND (
        d.asset = ANY(CAST(:names AS text[])) OR r.asset = ANY(CAST(:names AS text[]))
        OR d.details ->> 'with' = ANY(CAST(:names AS text[]))
        OR d.id IN (SELECT s.decision_id FROM urban_inventory.asset_state s
                    WHERE s.city_id = :city AND s.asset_id = :asset)
        OR d.id IN (SELECT a.root_decision FROM urban_inventory.asset a
                    WHERE a.city_id = :city AND a.public_id = ANY(CAST(:names AS text[]))))
    ORDER BY d.at, d.id
    """
)


def decisions_on(connection: Connection, city: City, names: Names) -> tuple[LifeDecision, ...]:
    """What people said of an asset, under any of its ids, in order of date; retractions with what they retract."""
    called = [names.public_id, *names.aliases]
    rows = connection.execute(_DECISIONS, {"city": city.id, "asset": names.id, "names": called})
    return tuple(
        LifeDecision(
            public_id=row.public_id,
            kind=row.kind,
            at=row.at,
            author=row.author,
            reason=row.reason,
            recorded_at=row.recorded_at,
            details=row.details,
            retracts=row.retracts,
            taken_back_by=row.taken_back_by,
        )
        for row in rows
    )


def first_seen_of(connection: Connection, city: City, assets: Sequence[str]) -> dict[str, datetime]:
    """When each of these assets was first seen; those without any evidence are left out."""
    rows = connection.execute(
        text(
            """
            SELECT a.public_id, min(s.first_seen) AS at FROM urban_inventory.asset a
            JOIN urban_inventory.asset_state s ON s.city_id = a.city_id AND s.asset_id = a.id
            WHERE a.city_id = :city AND a.public_id = ANY(CAST(:assets AS text[])) GROUP BY a.public_id
            """
        ),
        {"city": city.id, "assets": list(assets)},
    )
    return {row.public_id: row.at for row in rows}


# --- what was recorded (R14) -------------------------------------------------------------------------------

_WRITTEN = text(
    """
    SELECT DISTINCT ON (said.valid_from) said.valid_from AS since, c.recorded_at, c.cause, c.subject, c.author
    FROM (
        SELECT valid_from, change_id FROM urban_inventory.asset_state WHERE city_id = :city AND asset_id = :asset
        UNION ALL
        SELECT valid_from, change_id FROM urban_inventory.history WHERE city_id = :city AND asset_id = :asset
    ) said
    JOIN urban_inventory.change c ON c.city_id = :city AND c.id = said.change_id
    ORDER BY said.valid_from, c.id
    """
)
_RECORD = text(
    """
    SELECT c.recorded_at, c.cause, c.subject, c.author FROM urban_inventory.change c
    WHERE c.city_id = :city AND c.id IN (
        SELECT change_id FROM urban_inventory.asset_state WHERE city_id = :city AND asset_id = :asset
        UNION ALL
        SELECT unnest(ARRAY[change_id, ended_by]) FROM urban_inventory.history
        WHERE city_id = :city AND asset_id = :asset)
    ORDER BY c.id
    """
)


def recorded_causes(
    connection: Connection, city: City, asset_id: int
) -> tuple[dict[datetime, Recorded], tuple[Recorded, ...]]:
    """The change by which something was first said of each instant, and every change that ever touched the asset.

    A state is written anew when a later one ends it; what is told is when its beginning was first known. The
    only place that reads the history of one asset.
    """
    parameters = {"city": city.id, "asset": asset_id}
    written = {row.since: _recorded(row) for row in connection.execute(_WRITTEN, parameters)}
    return written, tuple(_recorded(row) for row in connection.execute(_RECORD, parameters))


def _recorded(row: Any) -> Recorded:
    return Recorded(at=row.recorded_at, cause=row.cause, subject=row.subject, author=row.author)
