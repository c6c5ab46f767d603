"""Assets changed as features are: every change of one becomes decisions (R11), nothing is written past them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from detection.taxonomy import Taxonomy
from inventory.decisions import Decided, NewDecision, decide_all
from inventory.domain.evidence import DecisionKind
from inventory.errors import DecisionsUnusable, DecisionUnusable
from inventory.store.database import Connection, Database

WRITABLE = ("class", "verified", "text", "reason", "at")
"""Properties that an edit may set; ``text``, ``reason`` and ``at`` go into the decisions and are not asked back."""
_SAME_PLACE_DEG = 3e-7
"""Three centimetres: projected coordinates come rounded to one, and a whole feature sent back is not moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What a person wants an asset to be.

    Attributes:
        lon_lat: where it stands, EPSG:4326; None: where it is.
        properties: those of ``WRITABLE`` that are to be set.
    """

    lon_lat: tuple[float, float] | None = None
    properties: Mapping[str, Any]

    def at(self) -> datetime | None:
        """Since when it is so; None: now."""
        at: datetime | None = self.properties.get("at")
        return at


def add_asset(database: Database, city_code: str, edit: Edit, *, taxonomy: Taxonomy) -> str:
    """Adds an asset; where one of its class stands already, that one is meant, as imagery would have it.

    Who adds something says that it is there: it is verified with that.

    Returns:
        The id of the asset that it made or met.

    Raises:
        UnknownName, DecisionUnusable, TimeUnusable: as ``decide``.
    """
    details = {} if edit.properties.get("text") is None else {"text": edit.properties["text"]}
    new = _said(
        edit, DecisionKind.ADD, class_name=edit.properties.get("class"), lon_lat=edit.lon_lat, details=details
    )
    (decided,) = _decided(database, city_code, [new], taxonomy)
    found = decided.made or decided.asset
    assert found is not None, "an addition of what stays makes an asset or meets one"
    return found


def change_asset(
    database: Database,
    city_code: str,
    asset: str,
    edit: Edit,
    *,
    known: Mapping[str, Any],
    taxonomy: Taxonomy,
    only_if: Callable[[Connection], None] | None = None,
) -> list[Decided]:
    """Makes an asset what an edit wants: a decision for each thing that differs, all of them or none.

    Args:
        known: the asset as its feature shows it: ``lon_lat``, ``class``, ``verified``.
        only_if: as ``decide_all`` takes it.

    Raises:
        UnknownName, DecisionUnusable, TimeUnusable: as ``decide``.
    """
    new: list[NewDecision] = []
    wanted = edit.properties
    if wanted.get("class") not in (None, known["class"]):
        new.append(_said(edit, DecisionKind.RECLASSIFY, asset=asset, class_name=wanted["class"]))
    if wanted.get("text") is not None:
        new.append(_said(edit, DecisionKind.DESCRIBE, asset=asset, details={"text": wanted["text"]}))
    if wanted.get("verified") is True and not known["verified"]:
        new.append(_said(edit, DecisionKind.VERIFY, asset=asset))
    if wanted.get("verified") is False and known["verified"]:
        raise DecisionUnusable(
            f"that somebody verified {asset} is a decision of its own",
            where="properties.verified",
            do="Take that decision back: see the collection “decisions”.",
        )
    # Last: each of them finds the asset by the place that it had before.
    if edit.lon_lat is not None and _differ(edit.lon_lat, known["lon_lat"]):
        new.append(_said(edit, DecisionKind.MOVE, asset=asset, lon_lat=edit.lon_lat))
    return _decided(database, city_code, new, taxonomy, only_if) if new else []


def remove_asset(
    database: Database,
    city_code: str,
    asset: str,
    *,
    taxonomy: Taxonomy,
    reason: str | None = None,
    only_if: Callable[[Connection], None] | None = None,
) -> None:
    """Says that an asset is none, or is no more: it is counted no longer, and its history stays.

    Raises:
        UnknownName: no such asset stands now.
    """
    new = NewDecision(kind=DecisionKind.REJECT, asset=asset, reason=reason)
    _decided(database, city_code, [new], taxonomy, only_if)


def _said(edit: Edit, kind: DecisionKind, **more: Any) -> NewDecision:
    return NewDecision(kind=kind, at=edit.at(), reason=edit.properties.get("reason"), **more)


def _decided(
    database: Database,
    city_code: str,
    new: list[NewDecision],
    taxonomy: Taxonomy,
    only_if: Callable[[Connection], None] | None = None,
) -> list[Decided]:
    try:
        return decide_all(database, city_code, new, taxonomy=taxonomy, only_if=only_if)
    except DecisionsUnusable as error:
        raise next(iter(error.problems.values())) from None


def _differ(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return any(abs(a - b) > _SAME_PLACE_DEG for a, b in zip(one, other, strict=True))
