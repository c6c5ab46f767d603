"""What people decide: verify, reject, move, reclassify, describe, add, merge, split, retract (R11)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import shapely
from pyproj import Transformer

from detection.errors import CallerError, UrbanInventoryError
from detection.taxonomy import ClassKind, Taxonomy
from inventory.dates import instant_in
from inventory.domain.binding import REACH_M, meant
from inventory.domain.evidence import DecisionKind
from inventory.domain.matching import GATE_MAXIMUM_M
from inventory.domain.places import City
from inventory.errors import DecisionsUnusable, DecisionUnusable
from inventory.refolding import refold
from inventory.store import cities, decisions, surveys
from inventory.store.database import Connection, Database, Patience
from inventory.store.decisions import AssetPlace
from inventory.store.states import Cause

_NEEDS_PLACE = (DecisionKind.MOVE, DecisionKind.ADD, DecisionKind.SPLIT)
_ONE_CROWN_M = 40.0
"""Wider than any crown: what stands further apart was never taken for one thing, nor one thing for two."""
_TWO_THINGS_M = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """What a person says.

    Attributes:
        asset: the id it is about; None: the asset at ``at_lon_lat``.
        class_name: the class of an addition, the new one of a reclassification; else that of the asset meant.
        lon_lat: the place meant by add, move and split, EPSG:4326.
        at_lon_lat: where the asset stands, where no id is given.
        other_asset, other_lon_lat: the second asset of a merge, by id or by place.
        at: since when it is so; None: now.
    """

    kind: DecisionKind
    asset: str | None = None
    class_name: str | None = None
    lon_lat: tuple[float, float] | None = None
    at_lon_lat: tuple[float, float] | None = None
    other_asset: str | None = None
    other_lon_lat: tuple[float, float] | None = None
    retracts: str | None = None
    at: datetime | None = None
    author: str = "local"
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision as recorded.

    Attributes:
        named: the id that the person gave; a merge may have made it an alias of ``asset``.
        asset: the asset it found; None: nothing stands there as of its date, and it waits for imagery.
        made: the asset that it brought into being: of an addition where nothing stood, of a split.
        is_counted: whether the asset is listed as of the decision's date.
        is_new: False for one that the same file has said before.
    """

    decision: str
    kind: DecisionKind
    named: str | None
    asset: str | None
    made: str | None
    is_counted: bool
    is_new: bool = True

    def as_json(self) -> dict[str, Any]:
        """The object of ``decide --json``."""
        return {
            "decision": self.decision,
            "kind": self.kind.value,
            "asset": self.asset,
            "made": self.made,
            "status": "recorded" if self.is_new else "unchanged",
        }


def decide(database: Database, city_code: str, new: NewDecision, *, taxonomy: Taxonomy) -> str:
    """Records a decision and folds it in; returns its public id.

    Raises:
        UnknownName: no such city, asset, class or decision.
        DecisionUnusable: something is missing, the place lies outside the city, or means no or several assets.
        TimeUnusable: the date has not come yet.
        StoreBusy: another job wrote for more than 30 s.
    """
    return decide_one(database, city_code, new, taxonomy=taxonomy).decision


def decide_one(database: Database, city_code: str, new: NewDecision, *, taxonomy: Taxonomy) -> Decided:
    """Like ``decide``; says what the decision found and made."""
    try:
        (decided,) = decide_all(database, city_code, [new], taxonomy=taxonomy)
    except DecisionsUnusable as error:
        raise error.problems[0] from None
    return decided


def decide_all(
    database: Database,
    city_code: str,
    new: Sequence[NewDecision | CallerError],
    *,
    taxonomy: Taxonomy,
    file_hash: str | None = None,
    only_if: Callable[[Connection], None] | None = None,
) -> list[Decided]:
    """Records decisions in their order and folds them in, all in one transaction or none.

    Each speaks of the inventory as it was before: one that needs what another makes belongs in a later call.

    Args:
        new: with what is wrong in place of one that could not be read: it is told with the others' faults.
        file_hash: of the file that says all this; the same again changes nothing.
        only_if: raises where it must not be; asked when nobody else writes the city any more.

    Raises:
        UnknownName: no such city.
        DecisionsUnusable: ``problems`` holds for each unusable one, by its number, what ``decide`` would raise.
        StoreBusy: another job wrote for more than 30 s.
    """
    said = [one for one in new if isinstance(one, NewDecision)]
    with database.transaction(Patience.DECISION) as connection:
        city = cities.get_city(connection, city_code)
        cities.lock_city(connection, city.id)
        if only_if is not None:
            only_if(connection)
        ids = None if file_hash is None else _recorded_before(connection, city, file_hash)
        is_new = ids is None
        if ids is None:
            stored = _all_resolved(connection, city, new, taxonomy)
            ids = [decisions.insert_decision(connection, city, **one) for one in stored]
            classes = {one["class_name"] for one in stored}
            refold(connection, city, taxonomy, classes, _cause(said, ids), surveys_changed=False)
            if file_hash is not None:
                authors = ", ".join(dict.fromkeys(one.author for one in said))
                surveys.log_event(connection, city, "decided", file_hash, author=authors, decisions=ids)
            decisions.note_met_assets(connection, city, ids)
        bound = decisions.bound_assets(connection, city, ids)
    return [
        Decided(
            decision=public,
            kind=one.kind,
            named=one.asset,
            asset=bound[public].asset,
            made=bound[public].made,
            is_counted=bound[public].is_counted,
            is_new=is_new,
        )
        for one, public in zip(said, ids, strict=True)
    ]


def _cause(new: Sequence[NewDecision], ids: Sequence[str]) -> Cause:
    if len(new) == 1:
        return Cause(what=f"decision {new[0].kind.value}", subject=ids[0], author=new[0].author)
    authors = dict.fromkeys(one.author for one in new)
    return Cause(what="decisions", subject=",".join(ids), author=", ".join(authors))


def _all_resolved(
    connection: Connection, city: City, new: Sequence[NewDecision | CallerError], taxonomy: Taxonomy
) -> list[dict[str, Any]]:
    stored: list[dict[str, Any]] = []
    problems: dict[int, UrbanInventoryError] = {}
    for number, one in enumerate(new):
        try:
            if isinstance(one, CallerError):
                raise one
            stored.append(_resolved(connection, city, one, taxonomy))
        except CallerError as error:
            problems[number] = error
    if problems:
        raise DecisionsUnusable(problems, of=len(new))
    return stored


def _resolved(connection: Connection, city: City, new: NewDecision, taxonomy: Taxonomy) -> dict[str, Any]:
    """The columns of the decision: place, class and gate, which bind it whatever becomes of the ids."""
    at = _instant(new.at, city)
    common = {"kind": new.kind.value, "at": at, "author": new.author, "reason": new.reason}
    if new.kind is DecisionKind.RETRACT:
        return {**common, **_taken_back(connection, city, new)}
    if new.kind is DecisionKind.ADD:
        return {**common, **_added(city, new, taxonomy)}
    known = _subject(connection, city, new, taxonomy, at)
    details = dict(new.details)
    if new.kind in _NEEDS_PLACE:
        details["x"], details["y"] = _metric(city, _place(new, city))
    if new.kind is DecisionKind.SPLIT:
        _require_near("its second half", known, (details["x"], details["y"]))
    if new.kind is DecisionKind.VERIFY:
        # How large it is, for when the imagery that showed it is withdrawn.
        details["crown_m"] = round(known.crown_m, 2)
    if new.kind is DecisionKind.RECLASSIFY:
        if new.class_name is None:
            raise DecisionUnusable("“reclassify” needs a class", do="Name it: --class CLASS.")
        details["class"] = _static(taxonomy, new.class_name)
    if new.kind is DecisionKind.MERGE:
        other = _other(connection, city, new, at)
        if other.public_id == known.public_id:
            raise DecisionUnusable(
                f"{known.public_id} cannot be merged with itself", do="Name two different assets."
            )
        _require_near(other.public_id, known, (other.x, other.y), may_touch=True)
        details["x"], details["y"] = other.x, other.y
        details["with"] = other.public_id
    return {
        **common,
        "class_name": known.class_name,
        "lon_lat": (known.lon, known.lat),
        "xy": (known.x, known.y),
        "gate_m": min(max(3 * known.error_m, known.crown_m / 2), GATE_MAXIMUM_M),
        "asset": new.asset or known.public_id,
        "details": details,
        "retracts": None,
    }


def _require_near(
    what: str, known: AssetPlace, place: tuple[float, float], *, may_touch: bool = False
) -> None:
    """Two things that were taken for one, or one for two, stand under what could be one crown."""
    distance = float(np.hypot(place[0] - known.x, place[1] - known.y))
    if distance > _ONE_CROWN_M:
        raise DecisionUnusable(
            f"{what} is {distance:,.0f} m away from {known.public_id}: no crown is as wide",
            do="Check ids and places.",
        )
    if distance < _TWO_THINGS_M and not may_touch:
        raise DecisionUnusable(
            f"{what} is where {known.public_id} stands", do="Give the place of the second one."
        )


def _recorded_before(connection: Connection, city: City, file_hash: str) -> list[str] | None:
    """The decisions that the same file has brought."""
    details = surveys.details_of_event(connection, city, "decided", file_hash)
    return None if details is None else list(details["decisions"])


def _subject(
    connection: Connection, city: City, new: NewDecision, taxonomy: Taxonomy, at: datetime
) -> AssetPlace:
    """The asset it is about: by its id, else the one that the place means as of the decision's instant."""
    if new.asset is not None:
        return decisions.place_of_asset(connection, city, new.asset, at)
    if new.at_lon_lat is None:
        raise DecisionUnusable(f"“{new.kind.value}” needs an asset", do="Name it: --asset ID.")
    wanted = None if new.kind is DecisionKind.RECLASSIFY else new.class_name
    if wanted is not None:
        taxonomy.get(wanted)
    return _meant(connection, city, new.at_lon_lat, at, wanted)


def _meant(
    connection: Connection, city: City, lon_lat: tuple[float, float], at: datetime, class_name: str | None
) -> AssetPlace:
    _require_inside(lon_lat, city)
    named = class_name or "asset"
    near = decisions.assets_near(
        connection, city, _metric(city, lon_lat), lon_lat, at, class_name=class_name, reach_m=REACH_M
    )
    found = meant(near)
    day = at.astimezone(ZoneInfo(city.time_zone)).date().isoformat()
    if not found:
        raise DecisionUnusable(
            f"no {named} is known within {REACH_M:g} m of {lon_lat[0]:.6f}, {lon_lat[1]:.6f} on {day}",
            do="Mend the place or the date, name the asset, or say “add”.",
        )
    if len(found) > 1:
        several = ", ".join(f"{one.public_id} ({one.distance_m:.1f} m)" for one in found[:5])
        raise DecisionUnusable(
            f"the place {lon_lat[0]:.6f}, {lon_lat[1]:.6f} may mean several on {day}: {several}",
            do="Name the asset.",
        )
    return decisions.place_of_asset(connection, city, found[0].public_id, at)


def _static(taxonomy: Taxonomy, name: str) -> str:
    known = taxonomy.get(name)
    if known.kind is not ClassKind.STATIC:
        raise DecisionUnusable(
            f"“{name}” is a class of things that move: they have no identity that could become one",
            do="Name a class of things that stay.",
        )
    return known.name


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
        "class_name": _static(taxonomy, new.class_name),
        "lon_lat": place,
        "xy": _metric(city, place),
        "gate_m": 3.0,
        "asset": None,
        "details": dict(new.details),
        "retracts": None,
    }


def _other(connection: Connection, city: City, new: NewDecision, at: datetime) -> AssetPlace:
    if new.other_asset is not None:
        return decisions.place_of_asset(connection, city, new.other_asset, at)
    if new.other_lon_lat is not None:
        return _meant(connection, city, new.other_lon_lat, at, None)
    raise DecisionUnusable("“merge” needs a second asset", do="Name it: --with ID.")


def _place(new: NewDecision, city: City) -> tuple[float, float]:
    if new.lon_lat is None:
        raise DecisionUnusable(f"“{new.kind.value}” needs a place", do="Name it: --lon-lat LON,LAT.")
    _require_inside(new.lon_lat, city)
    return new.lon_lat


def _require_inside(lon_lat: tuple[float, float], city: City) -> None:
    lon, lat = lon_lat
    if shapely.intersects_xy(city.boundary, lon, lat):
        return
    swapped = shapely.intersects_xy(city.boundary, lat, lon)
    raise DecisionUnusable(
        f"longitude {lon:g}, latitude {lat:g} lies outside {city.code}",
        do="Longitude comes first: they are swapped." if swapped else "Check the place, or the city.",
    )


def _metric(city: City, lon_lat: tuple[float, float]) -> tuple[float, float]:
    x, y = Transformer.from_crs(4326, city.metric_crs, always_xy=True).transform(*lon_lat)
    return x, y


def _instant(at: datetime | None, city: City) -> datetime:
    if at is None:
        return datetime.now(UTC)
    return instant_in(city, at)
