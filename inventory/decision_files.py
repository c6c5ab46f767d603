"""Decisions as a file: GeoJSON points whose properties say what a person saw there (R11).

The whole file is read and checked before any of it is stored. Programs that draw such files write empty columns
as null or ""; both mean that nothing is said.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import orjson

from detection.errors import CallerError
from detection.taxonomy import Taxonomy
from inventory.dates import parse_instant
from inventory.decisions import Decided, NewDecision, decide_all
from inventory.domain.evidence import DecisionKind
from inventory.errors import DecisionsUnusable, DecisionUnusable, JsonUnusable
from inventory.store.database import Database

_LIMIT_BYTES = 64 * 1024**2
_LON_LAT_NAME = re.compile(r"(^|[:/])(CRS84|EPSG:(|:|[0-9.]+:)4326)$", re.IGNORECASE)
_LONGEST_TEXT = 2_000
_KINDS = ", ".join(kind.value for kind in DecisionKind)
_ANOTHER_PLACE = (DecisionKind.MOVE, DecisionKind.SPLIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFile:
    """What a file says: decisions in the order of its features, and the SHA-256 of what they say."""

    path: Path
    content_hash: str
    decisions: tuple[NewDecision | CallerError, ...]
    """In place of one that cannot be used, why."""


def decide_file(
    database: Database, city_code: str, file: Path, *, taxonomy: Taxonomy, author: str = "local"
) -> list[Decided]:
    """Records all decisions of a file in one transaction, or none; the same file again changes nothing.

    Args:
        author: of features that name none.

    Raises:
        UnknownName: no such city.
        JsonUnusable, DecisionUnusable: the file is no GeoJSON of points in longitude and latitude.
        DecisionsUnusable: some of its features cannot be used; says for each what and why.
        StoreBusy: another job wrote for more than 30 s.
    """
    read = read_decisions(file, author=author)
    try:
        return decide_all(database, city_code, read.decisions, taxonomy=taxonomy, file_hash=read.content_hash)
    except DecisionsUnusable as error:
        raise DecisionsUnusable(error.problems, of=error.of, where=str(file), noun="feature") from error


def read_decisions(file: Path, *, author: str = "local") -> DecisionFile:
    """The decisions in a file, its features checked one by one; the city is not looked at yet.

    Raises:
        CallerError: the file cannot be read.
        JsonUnusable, DecisionUnusable: as ``decide_file``.
    """
    features = _features(file)
    read: list[NewDecision | CallerError] = []
    for feature in features:
        try:
            read.append(_decision(feature, author))
        except CallerError as error:
            read.append(error)
    said = hashlib.sha256(orjson.dumps(features, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return DecisionFile(path=file, content_hash=said, decisions=tuple(read))


def _features(file: Path) -> list[Any]:
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size <= _LIMIT_BYTES else b""
    except OSError as error:
        raise CallerError(
            f"cannot be read: {error.strerror}", where=str(file), do="Check the path."
        ) from error
    if size > _LIMIT_BYTES:
        raise DecisionUnusable(
            f"{size:,} bytes are more than {_LIMIT_BYTES:,}", where=str(file), do="Cut it up."
        )
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise JsonUnusable(
            f"this is not JSON: {error.msg} (line {error.lineno}, column {error.colno})",
            where=str(file),
            do="Save it as GeoJSON, UTF-8.",
        ) from error
    return _of_collection(document, file)


def _of_collection(document: Any, file: Path) -> list[Any]:
    kind = document.get("type") if isinstance(document, dict) else None
    if kind == "Feature":
        document = {"features": [document], "crs": document.get("crs")}
    elif kind != "FeatureCollection":
        raise DecisionUnusable(
            "this is no GeoJSON FeatureCollection", where=str(file), do="Save the points as GeoJSON."
        )
    named = _crs_name(document.get("crs"))
    if not _LON_LAT_NAME.search(named):
        raise DecisionUnusable(
            f"the coordinates are in another CRS: {named[:80]}",
            where=str(file),
            do="Save it in longitude, latitude (EPSG:4326).",
        )
    features = document.get("features")
    if not isinstance(features, list) or not features:
        raise DecisionUnusable("there are no features in it", where=str(file), do="Give a point a decision.")
    return features


def _crs_name(crs: Any) -> str:
    """The name in GeoJSON's old member ``crs``, which many programs still write."""
    if crs is None:
        return "CRS84"
    properties = crs.get("properties") if isinstance(crs, dict) else None
    return str(properties.get("name") if isinstance(properties, dict) else crs)


# --- one feature -------------------------------------------------------------------------------------------


def _decision(feature: Any, author: str) -> NewDecision:
    """A feature as a decision.

    Raises:
        CallerError: the first thing that is wrong with it.
    """
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise DecisionUnusable("this is no GeoJSON Feature", do="Save the points as GeoJSON.")
    said = _Properties(feature.get("properties"))
    kind = _kind(said)
    asset = said.text("asset")
    place = _point(feature.get("geometry"), needed=asset is None and kind is not DecisionKind.RETRACT)
    at = parse_instant(said.needed("at", "since when it is so, as 2026-11-02"))
    reason = said.needed("reason", "why, for those who read it later")
    target, second = _places(kind, asset, place, said)
    described = said.text("text")
    return NewDecision(
        kind=kind,
        asset=None if kind is DecisionKind.ADD else asset,
        class_name=_class(kind, said),
        lon_lat=target,
        at_lon_lat=None if kind in (DecisionKind.ADD, DecisionKind.RETRACT) else place,
        other_asset=_other(kind, said, second),
        other_lon_lat=second if kind is DecisionKind.MERGE else None,
        retracts=_retracts(kind, said),
        at=at,
        author=said.text("author") or author,
        reason=reason,
        details={"text": described} if described else {},
    )


def _kind(said: "_Properties") -> DecisionKind:
    given = said.needed("decision", f"one of {_KINDS}")
    try:
        return DecisionKind(given.lower())
    except ValueError:
        raise DecisionUnusable(f"“{given[:40]}” is no decision", do=f"One of {_KINDS}.") from None


def _class(kind: DecisionKind, said: "_Properties") -> str | None:
    needed = kind in (DecisionKind.ADD, DecisionKind.RECLASSIFY)
    return said.needed("class", "as tree") if needed else said.text("class")


def _places(
    kind: DecisionKind, asset: str | None, place: tuple[float, float] | None, said: "_Properties"
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """The place that add, move and split mean; and the property ``to``.

    The point of a move or split is where the asset stands, and ``to`` where it really stands, or its second half.
    Where the asset is named, the point may itself be that place.
    """
    to = said.place("to")
    if kind is DecisionKind.ADD:
        return place, to
    if kind in _ANOTHER_PLACE:
        target = to or (place if asset is not None else None)
        if target is None:
            raise DecisionUnusable(f"“{kind.value}” needs a second place", do="Give it as to: [lon, lat].")
        return target, to
    return None, to


def _other(kind: DecisionKind, said: "_Properties", second: tuple[float, float] | None) -> str | None:
    other = said.text("with")
    if kind is DecisionKind.MERGE and other is None and second is None:
        raise DecisionUnusable(
            "“merge” needs a second asset", do="Give its id as with, or its place as to: [lon, lat]."
        )
    return other if kind is DecisionKind.MERGE else None


def _retracts(kind: DecisionKind, said: "_Properties") -> str | None:
    return said.needed("retracts", "the decision taken back") if kind is DecisionKind.RETRACT else None


def _point(geometry: Any, *, needed: bool) -> tuple[float, float] | None:
    if geometry is None:
        if needed:
            raise DecisionUnusable("it has no geometry", do="Draw a point, or name the asset.")
        return None
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    coordinates = geometry.get("coordinates") if isinstance(geometry, dict) else None
    if kind == "MultiPoint" and isinstance(coordinates, list) and len(coordinates) == 1:
        # Some programs write every layer of points so.
        kind, coordinates = "Point", coordinates[0]
    if kind != "Point":
        raise DecisionUnusable(f"its geometry is no point but {str(kind)[:40]}", do="Draw a point.")
    return _lon_lat(coordinates)


def _lon_lat(value: Any) -> tuple[float, float]:
    fits = isinstance(value, list) and 2 <= len(value) <= 4
    if not fits or not all(type(number) in (int, float) and isfinite(number) for number in value):
        raise DecisionUnusable(f"{str(value)[:60]} is no place", do="Write [lon, lat].")
    lon, lat = float(value[0]), float(value[1])
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise DecisionUnusable(
            f"({lon:g}, {lat:g}) is outside of ±180, ±90",
            do="Longitude comes first: they are swapped."
            if -90 <= lon <= 90 and -180 <= lat <= 180
            else "Positions are longitude, latitude in degrees (EPSG:4326), not metres of a projection.",
        )
    return lon, lat


class _Properties:
    """A feature's properties; null and empty texts are nothing said."""

    def __init__(self, given: Any) -> None:
        self._given: Mapping[str, Any] = given if isinstance(given, dict) else {}

    def text(self, name: str) -> str | None:
        """A text, or None."""
        value = self._given.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise DecisionUnusable(f"{name} is no text but {str(value)[:40]}", do=f"Write {name} as a text.")
        if len(value) > _LONGEST_TEXT:
            raise DecisionUnusable(f"{name} has {len(value):,} letters", do=f"At most {_LONGEST_TEXT:,}.")
        if "\x00" in value:
            raise DecisionUnusable(f"{name} has a zero byte in it", do="Take it out.")
        return value.strip() or None

    def needed(self, name: str, what: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            raise DecisionUnusable(f"it has no “{name}”", do=f"Give {name}: {what}.")
        return value

    def place(self, name: str) -> tuple[float, float] | None:
        """``[lon, lat]``, or the text ``lon,lat`` (tables have no lists); None where there is none."""
        value = self._given.get(name)
        if value is None or value == "":
            return None
        return _lon_lat(_numbers(value) if isinstance(value, str) else value)


def _numbers(text: str) -> Any:
    try:
        return [float(part) for part in text.strip(" []()").split(",")]
    except ValueError:
        return text
