"""What people decide: verify, reject, move, reclassify, describe, add, merge, split, retract (R11)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import shapely
from pyproj import Transformer

from detection.taxonomy import Taxonomy
from inventory.domain.evidence import DecisionKind
from inventory.domain.matching import GATE_MAXIMUM_M
from inventory.domain.places import City
from inventory.errors import DecisionUnusable
from inventory.refolding import refold
from inventory.store import cities, decisions
from inventory.store.database import Connection, Database, Patience
from inventory.store.decisions import AssetPlace
from inventory.store.states import Cause

_NEEDS_PLACE = (DecisionKind.MOVE, DecisionKind.ADD, DecisionKind.SPLIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """What a person says. ``lon_lat`` is the place meant by add, move and split, EPSG:4326."""

    kind: DecisionKind
    asset: str | None = None
    class_name: str | None = None
    lon_lat: tuple[float, float] | None = None
    other_asset: str | None = None
    retracts: str | None = None
    at: datetime | None = None
    author: str = "local"
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def decide(database: Database, city_code: str, new: NewDecision, *, taxonomy: Taxonomy) -> str:
    """Records a decision and folds it in; returns its public id.

    Raises:
        UnknownName: no such city, asset, class or decision.
        DecisionUnusable: something is missing, or the place lies outside the city.
        StoreBusy: another job wrote for more than 30 s.
    """
    with database.transaction(Patience.DECISION) as connection:
        city = cities.get_city(connection, city_code)
        cities.lock_city(connection, city.id)
        stored = _resolved(connection, city, new, taxonomy)
        public = decisions.insert_decision(connection, city, **stored)
        cause = Cause(what=f"decision {new.kind.value}", subject=public, author=new.author)
        refold(connection, city, taxonomy, [stored["class_name"]], cause, surveys_changed=False)
        return public


def _resolved(connection: Connection, city: City, new: NewDecision, taxonomy: Taxonomy) -> dict[str, Any]:
    """The columns of the decision: place, class and gate, which bind it whatever becomes of the ids."""
    at = _instant(new.at, city)
    common = {"kind": new.kind.value, "at": at, "author": new.author, "reason": new.reason}
    if new.kind is DecisionKind.RETRACT:
        return {**common, **_taken_back(connection, city, new)}
    if new.kind is DecisionKind.ADD:
        return {**common, **_added(city, new, taxonomy)}
    if new.asset is None:
        raise DecisionUnusable(f"“{new.kind.value}” needs an asset", do="Name it: --asset ID.")
    known = decisions.place_of_asset(connection, city, new.asset, at)
    details = dict(new.details)
    if new.kind in _NEEDS_PLACE:
        details["x"], details["y"] = _metric(city, _place(new, city))
    if new.kind is DecisionKind.RECLASSIFY:
        if new.class_name is None:
            raise DecisionUnusable("“reclassify” needs a class", do="Name it: --class CLASS.")
        details["class"] = taxonomy.get(new.class_name).name
    if new.kind is DecisionKind.MERGE:
        other = _other(connection, city, new, at)
        details["x"], details["y"] = other.x, other.y
    return {
        **common,
        "class_name": known.class_name,
        "lon_lat": (known.lon, known.lat),
        "xy": (known.x, known.y),
        "gate_m": min(max(3 * known.error_m, known.crown_m / 2), GATE_MAXIMUM_M),
        "asset": new.asset,
        "details": details,
        "retracts": None,
    }


def _taken_back(connection: Connection, city: City, new: NewDecision) -> dict[str, Any]:
    if new.retracts is None:
        raise DecisionUnusable("“retract” needs a decision", do="Name it: --decision ID.")
    earlier = decisions.get_decision(connection, city, new.retracts)
    return {
        "class_name": earlier.class_name,
        "lon_lat": earlier.lon_lat,
        "xy": earlier.xy,
        "gate_m": earlier.gate_m,
        "asset": earlier.asset,
        "details": {},
        "retracts": earlier.id,
    }


def _added(city: City, new: NewDecision, taxonomy: Taxonomy) -> dict[str, Any]:
    if new.class_name is None:
        raise DecisionUnusable("“add” needs a class", do="Name it: --class tree.")
    place = _place(new, city)
    return {
        "class_name": taxonomy.get(new.class_name).name,
        "lon_lat": place,
        "xy": _metric(city, place),
        "gate_m": 3.0,
        "asset": None,
        "details": dict(new.details),
        "retracts": None,
    }


def _other(connection: Connection, city: City, new: NewDecision, at: datetime) -> AssetPlace:
    if new.other_asset is None:
        raise DecisionUnusable("“merge” needs a second asset", do="Name it: --with ID.")
    return decisions.place_of_asset(connection, city, new.other_asset, at)


def _place(new: NewDecision, city: City) -> tuple[float, float]:
    if new.lon_lat is None:
        raise DecisionUnusable(f"“{new.kind.value}” needs a place", do="Name it: --lon-lat LON,LAT.")
    lon, lat = new.lon_lat
    if not shapely.contains_xy(city.boundary, lon, lat):
        raise DecisionUnusable(
            f"longitude {lon}, latitude {lat} lies outside {city.code}", do="Longitude comes first."
        )
    return lon, lat


def _metric(city: City, lon_lat: tuple[float, float]) -> tuple[float, float]:
    x, y = Transformer.from_crs(4326, city.metric_crs, always_xy=True).transform(*lon_lat)
    return x, y


def _instant(at: datetime | None, city: City) -> datetime:
    if at is None:
        return datetime.now(UTC)
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(city.time_zone))
