"""Decisions and the assets they speak of: every SQL statement about them (R11)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import cos, radians
from typing import Any

from sqlalchemy import Connection, func, insert, select, text

from detection.errors import UnknownName
from inventory.domain.binding import Candidate
from inventory.domain.places import City
from inventory.store.identities import public_id
from inventory.store.schema import decision


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetPlace:
    """An asset as of an instant: what a decision binds to. ``x`` and ``y`` are metric."""

    public_id: str
    class_name: str
    lon: float
    lat: float
    x: float
    y: float
    crown_m: float
    error_m: float
    status: str


_PLACE = text(
    """
    SELECT a.public_id, a.class AS minted_class, s.status, ST_X(s.geom) AS lon, ST_Y(s.geom) AS lat, s.x, s.y,
        (s.width_m + s.height_m) / 2 AS crown_m, s.error_m
    FROM urban_inventory.asset named
    JOIN urban_inventory.asset a ON a.city_id = named.city_id AND a.id = coalesce(named.alias_of, named.id)
    -- One state by its index: joined freely, the planner expects hundreds and starts workers for them (20 ms).
    CROSS JOIN LATERAL (
        SELECT * FROM urban_inventory.asset_state t
        WHERE t.city_id = :city AND t.asset_id = a.id AND t.valid_from <= :at
        ORDER BY t.valid_from DESC LIMIT 1
    ) s
    WHERE named.city_id = :city AND named.public_id = :asset
    """
)


def place_of_asset(connection: Connection, city: City, asset: str, at: datetime) -> AssetPlace:
    """Where an asset (or the one it is an alias of) was, as of an instant.

    Raises:
        UnknownName: the city has no such asset then.
    """
    row = connection.execute(_PLACE, {"city": city.id, "asset": asset, "at": at}).one_or_none()
    if row is None:
        raise UnknownName(f"no asset “{asset}” in {city.code} on that date", do="Check the id and the date.")
    return AssetPlace(
        public_id=row.public_id,
        class_name=row.minted_class,
        lon=row.lon,
        lat=row.lat,
        x=row.x,
        y=row.y,
        crown_m=row.crown_m,
        error_m=row.error_m,
        status=row.status,
    )


_NEAR = text(
    """
    SELECT a.public_id, s.class, s.status, s.listed, sqrt((s.x - :x) ^ 2 + (s.y - :y) ^ 2) AS distance_m
    FROM urban_inventory.asset_state s
    JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id AND a.alias_of IS NULL
    WHERE s.city_id = :city AND s.valid_from <= :at AND (s.valid_to IS NULL OR s.valid_to > :at)
        AND (CAST(:class AS text) IS NULL OR s.class = :class)
        AND s.geom && ST_Expand(ST_SetSRID(ST_MakePoint(:lon, :lat), 4326), :reach_lon, :reach_lat)
        AND (s.x - :x) ^ 2 + (s.y - :y) ^ 2 <= :reach_m ^ 2
    """
)
_METRES_PER_DEGREE = 110_000.0
"""Of latitude; a little less than anywhere on earth, so that the box holds the circle."""


def assets_near(
    connection: Connection,
    city: City,
    xy: tuple[float, float],
    lon_lat: tuple[float, float],
    at: datetime,
    *,
    class_name: str | None,
    reach_m: float,
) -> list[Candidate]:
    """The assets, of any class unless one is given, that stand within reach of a place as of an instant."""
    reach_lat = 1.1 * reach_m / _METRES_PER_DEGREE
    rows = connection.execute(
        _NEAR,
        {
            "city": city.id,
            "at": at,
            "class": class_name,
            "x": xy[0],
            "y": xy[1],
            "lon": lon_lat[0],
            "lat": lon_lat[1],
            "reach_lon": reach_lat / max(cos(radians(lon_lat[1])), 0.01),
            "reach_lat": reach_lat,
            "reach_m": reach_m,
        },
    ).mappings()
    return [
        Candidate(
            public_id=row["public_id"],
            class_name=row["class"],
            status=row["status"],
            listed=row["listed"],
            distance_m=row["distance_m"],
        )
        for row in rows
    ]


def insert_decision(
    connection: Connection,
    city: City,
    *,
    kind: str,
    class_name: str,
    at: datetime,
    lon_lat: tuple[float, float],
    xy: tuple[float, float],
    gate_m: float,
    asset: str | None,
    details: Mapping[str, Any],
    author: str,
    reason: str | None,
    retracts: int | None,
) -> str:
    """Stores a decision; returns its public id."""
    public = public_id()
    connection.execute(
        insert(decision).values(
            {
                "city_id": city.id,
                "public_id": public,
                "kind": kind,
                "class": class_name,
                "at": at,
                "geom": func.ST_SetSRID(func.ST_MakePoint(*lon_lat), 4326),
                "x": xy[0],
                "y": xy[1],
                "gate_m": gate_m,
                "asset": asset,
                "details": dict(details),
                "author": author,
                "reason": reason,
                "retracts": retracts,
            }
        )
    )
    return public


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """A decision as stored."""

    id: int
    public_id: str
    kind: str
    class_name: str
    at: datetime
    lon_lat: tuple[float, float]
    xy: tuple[float, float]
    gate_m: float
    asset: str | None
    author: str
    reason: str | None


def get_decision(connection: Connection, city: City, public: str) -> DecisionRow:
    """The decision of this public id.

    Raises:
        UnknownName: the city has none.
    """
    row = connection.execute(
        select(
            decision,
            func.ST_X(decision.c.geom).label("lon"),
            func.ST_Y(decision.c.geom).label("lat"),
        ).where(decision.c.city_id == city.id, decision.c.public_id == public)
    ).one_or_none()
    if row is None:
        raise UnknownName(
            f"no decision “{public}” in {city.code}",
            do=f"“urban-inventory asset ID --city {city.code}” lists the decisions about an asset.",
        )
    return DecisionRow(
        id=row.id,
        public_id=row.public_id,
        kind=row.kind,
        class_name=row._mapping["class"],
        at=row.at,
        lon_lat=(row.lon, row.lat),
        xy=(row.x, row.y),
        gate_m=row.gate_m,
        asset=row.asset,
        author=row.author,
        reason=row.reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a decision found when it was folded in: an asset, and one that it made."""

    asset: str | None
    made: str | None
    is_counted: bool


# Only an addition names no asset: what it found is told by the state near it that stands on its word.
_BOUND = text(
    """
    SELECT d.public_id,
        (SELECT a.public_id FROM urban_inventory.asset a
            WHERE a.city_id = d.city_id AND a.root_decision = d.id) AS made,
        CASE WHEN d.kind = 'add' THEN
            (SELECT a.public_id FROM urban_inventory.asset_state s
                JOIN urban_inventory.asset a ON a.city_id = s.city_id AND a.id = s.asset_id
                WHERE s.city_id = d.city_id AND s.decision_id = d.id AND s.geom && ST_Expand(d.geom, 0.001)
                ORDER BY s.valid_from LIMIT 1)
        ELSE
            (SELECT coalesce(c.public_id, a.public_id) FROM urban_inventory.asset a
                LEFT JOIN urban_inventory.asset c ON c.city_id = a.city_id AND c.id = a.alias_of
                WHERE a.city_id = d.city_id AND a.public_id = d.asset)
        END AS asset,
        EXISTS (SELECT FROM urban_inventory.asset a JOIN urban_inventory.asset_state s
                ON s.city_id = a.city_id AND s.asset_id = coalesce(a.alias_of, a.id) AND s.listed
                WHERE a.city_id = d.city_id AND a.public_id = d.asset AND s.valid_from <= d.at
                    AND (s.valid_to IS NULL OR s.valid_to > d.at)) AS is_counted
    FROM urban_inventory.decision d
    WHERE d.city_id = :city AND d.public_id = ANY(CAST(:decisions AS text[]))
    """
)


# So that the id stays with an addition's word when the imagery that had shown the thing is withdrawn.
_NOTE_MET = text(
    f"""
    UPDATE urban_inventory.decision d SET asset = b.asset FROM ({_BOUND.text}) b
    WHERE d.city_id = :city AND d.public_id = b.public_id AND d.kind = 'add' AND b.made IS NULL
    """
)


def note_met_assets(connection: Connection, city: City, decisions: Sequence[str]) -> None:
    """Writes down which asset each addition met."""
    connection.execute(_NOTE_MET, {"city": city.id, "decisions": list(decisions)})


def bound_assets(connection: Connection, city: City, decisions: Sequence[str]) -> dict[str, Bound]:
    """What each decision found and made, once it is folded in."""
    rows = connection.execute(_BOUND, {"city": city.id, "decisions": list(decisions)})
    return {
        row.public_id: Bound(
            asset=row.asset, made=row.made, is_counted=row.is_counted or row.made is not None
        )
        for row in rows
    }
