"""Vector tiles of a city as a transaction sees it: which ground and layers they have, and each of them.

The service and files (``tile_archives.py``) give out the same tiles, from here. What is asked again for each tile is
kept as long as the city has the same version (``store/known.py``).
"""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

import orjson

from detection.errors import UnknownName
from detection.taxonomy import ClassKind, shipped_taxonomy
from inventory.counting import OUTSIDE, classes_asked, count_within
from inventory.domain.tiles import DEEPEST_ZOOM, Tile, tile_of
from inventory.store import features, tiles
from inventory.store.database import Connection
from inventory.store.features import CityOnPage
from inventory.store.known import known_city
from inventory.store.tiles import CityLeaves, TileWanted

FIRST_ZOOM, LAST_ZOOM = 0, 18
"""Zooms that clients are told of; they draw those beyond from the last: a step of it is 4 cm."""
_ZOOM_OF_RANK = (0, 9, 12, 14)
"""Zoom from which on areas of each rank are shown, unless a level is asked for."""
# Where an edge of a tile runs through the outermost point, both its sides are within.
_ROOM_DEG = 1e-6


class TiledLayer(StrEnum):
    """What tiles are made of."""

    ASSETS = "assets"
    AREAS = "areas"


@dataclass(frozen=True, slots=True, kw_only=True)
class TilesAsked:
    """Which tiles of a city.

    Attributes:
        classes: those counted, in points and clusters as in areas; empty: all.
        level: that of areas; None: by zoom.
        as_of, day: an instant, and its date in the city's time zone.
        now: whether the instant is the end of today, whose states have an index.
    """

    layers: tuple[TiledLayer, ...]
    classes: tuple[str, ...] = ()
    level: str | None = None
    as_of: datetime
    day: date
    now: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TileLimits:
    """First and last column and row of a zoom that have anything."""

    first_column: int
    last_column: int
    first_row: int
    last_row: int

    def hold(self, tile: Tile) -> bool:
        """Whether a tile of this zoom is within."""
        in_column = self.first_column <= tile.column <= self.last_column
        return in_column and self.first_row <= tile.row <= self.last_row


class Tiling:
    """The tiles that are asked for, in a transaction that only reads and sees one snapshot.

    Raises:
        UnknownName: no such level, or a class of which the city knows nothing.
    """

    def __init__(self, connection: Connection, city: CityOnPage, asked: TilesAsked) -> None:
        self._connection = connection
        self._city = city
        self._asked = asked
        self._known = known_city(connection, city.code, now=(city.id, city.version))
        self._levels: list[str] = self._known.part("levels", lambda: features.levels_of(connection, city.id))
        if asked.level is not None and asked.level not in self._levels:
            raise UnknownName(
                f"level: none is called “{asked.level[:64]}”",
                do=f"Levels: {', '.join(self._levels) or 'none'}.",
            )
        self.counted: tuple[str, ...] = self._part(("classes", frozenset(asked.classes)), self._classes)
        """Classes of which areas tell their counts."""

    def _part(self, name: Hashable, read: Any) -> Any:
        return self._known.part(("tiling", name), read)

    def _classes(self) -> tuple[str, ...]:
        names = classes_asked(self._connection, self._known.city, self._asked.classes or None)
        return tuple(dict.fromkeys(names))

    @cached_property
    def standing(self) -> tuple[str, ...]:
        """Classes whose assets tiles show: what moves has none (R10)."""
        if self._asked.classes:
            return tuple(name for name in self.counted if _stands(name))
        held = self._part("held", lambda: tiles.classes_held(self._connection, self._city.id))
        return tuple(name for name in dict.fromkeys((*self.counted, *held)) if _stands(name))

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """West, south, east, north of all that tiles show; degrees, EPSG:4326."""
        found: tuple[float, float, float, float] = self._part(
            "box", lambda: tiles.box_with_assets(self._connection, self._leaves, self._city.box)
        )
        return found

    @cached_property
    def _leaves(self) -> CityLeaves:
        found: CityLeaves = self._part("leaves", lambda: tiles.city_leaves(self._connection, self._city.id))
        return found

    def limits(self, zoom: int) -> TileLimits:
        """The tiles of a zoom that may have anything."""
        west, south, east, north = self.box
        first = tile_of(west - _ROOM_DEG, north + _ROOM_DEG, zoom)
        last = tile_of(east + _ROOM_DEG, south - _ROOM_DEG, zoom)
        return TileLimits(
            first_column=first.column, last_column=last.column, first_row=first.row, last_row=last.row
        )

    def tile(self, tile: Tile) -> bytes:
        """A tile with the layers asked for; empty where nothing is.

        Raises:
            UnknownName: it lies beyond the limits.
        """
        if not (0 <= tile.zoom <= DEEPEST_ZOOM and self.limits(tile.zoom).hold(tile)):
            raise UnknownName(
                f"no tile {tile.zoom}/{tile.row}/{tile.column} here",
                do="See the tileset’s tileMatrixSetLimits; the row comes before the column.",
            )
        content = b""
        if TiledLayer.ASSETS in self._asked.layers:
            content += tiles.assets_tile(self._connection, self._leaves, tile, self._wanted).content
        if TiledLayer.AREAS in self._asked.layers:
            content += self._areas(tile)
        return content

    def assets_in(self, tile: Tile) -> int:
        """How many assets a tile has, as points or in clusters."""
        return tiles.assets_in(self._connection, self._leaves, tile, self._wanted)

    def is_clustered(self, tile: Tile) -> bool:
        """Whether it has more assets than it shows one by one."""
        return self.assets_in(tile) > tiles.POINTS_MOST

    def has_anything(self, tile: Tile) -> bool:
        """Whether it, or a deeper one within it, may have anything: areas are small from afar, and levels differ."""
        return self.limits(tile.zoom).hold(tile) and bool(
            tiles.areas_in(self._connection, tile, self._city.id, self._asked.level, self._asked.day)
            or self.assets_in(tile)
        )

    def areas_at(self, tile: Tile) -> list[tuple[int, str]]:
        """Number and code of each area in a tile, of the level that its zoom shows."""
        level = self._level(tile.zoom)
        if level is None:
            return []
        return tiles.areas_in(self._connection, tile, self._city.id, level, self._asked.day)

    @property
    def _wanted(self) -> TileWanted:
        return TileWanted(
            city_id=self._city.id, classes=self.standing, as_of=self._asked.as_of, now=self._asked.now
        )

    # --- areas ------------------------------------------------------------------------------------------------

    def _level(self, zoom: int) -> str | None:
        if self._asked.level is not None:
            return self._asked.level
        shown = [rank for rank, first in enumerate(_ZOOM_OF_RANK) if zoom >= first]
        return self._levels[min(shown[-1], len(self._levels) - 1)] if self._levels else None

    def _areas(self, tile: Tile) -> bytes:
        found = self.areas_at(tile)
        if not found:
            return b""
        level = self._level(tile.zoom)
        assert level is not None
        told = self._told(level)
        return tiles.areas_tile(
            self._connection, tile, [number for number, _ in found], [told.get(code) for _, code in found]
        )

    def _told(self, level: str) -> dict[str, str]:
        """What tiles tell of each area's counts, by its code."""
        if not self._asked.now:
            return self._counts(level)
        # Of now alone: there is no end of dates that somebody may ask for.
        found: dict[str, str] = self._part(
            ("counts", level, self._asked.day, self.counted), lambda: self._counts(level)
        )
        return found

    def _counts(self, level: str) -> dict[str, str]:
        told: dict[str, dict[str, Any]] = {}
        rows = count_within(
            self._connection, self._known.city, classes=self.counted, level=level, as_of=self._asked.day
        )
        for row in rows:
            # What nobody looked at is left out, never 0 (R13).
            if row.area is None or row.area == OUTSIDE or row.count is None:
                continue
            said = told.setdefault(row.area, {})
            for column, value in (("count", row.count), ("coverage", row.coverage)):
                said[f"{row.class_name}_{column}"] = value
                if len(self.counted) == 1:
                    said[column] = value
        return {code: orjson.dumps(said).decode() for code, said in told.items()}

    # --- what they are told to be -----------------------------------------------------------------------------

    def fields(self) -> dict[str, dict[str, str]]:
        """The fields of each layer, as TileJSON has them."""
        found: dict[str, dict[str, str]] = {}
        if TiledLayer.ASSETS in self._asked.layers:
            each = {f"{name}_count": _NUMBER for name in self.standing} if len(self.standing) > 1 else {}
            found["assets"] = {**_ASSET_FIELDS, **each}
        if TiledLayer.AREAS in self._asked.layers:
            columns = [f"{name}_" for name in self.counted] + ([""] if len(self.counted) == 1 else [])
            counts = {f"{name}{column}": _NUMBER for name in columns for column in ("count", "coverage")}
            found["areas"] = found["area_labels"] = {**_AREA_FIELDS, **counts}
        return found


_TEXT, _NUMBER, _YES_NO = "String", "Number", "Boolean"
_ASSET_FIELDS = {
    "id": _TEXT, "class": _TEXT, "status": _TEXT, "verified": _YES_NO, "review": _YES_NO, "probability": _NUMBER,
    "width_m": _NUMBER, "height_m": _NUMBER, "last_seen": _TEXT, "count": _NUMBER,
}  # fmt: skip
_AREA_FIELDS = {"code": _TEXT, "name": _TEXT, "level": _TEXT}


def attributions(connection: Connection, city_code: str) -> list[str]:
    """Whose imagery is behind the tiles, each once, with its licence."""
    found = features.attributions(connection, city_code)
    return list(dict.fromkeys(named(said or source, licence) for source, said, licence, _ in found))


def named(whose: str | None, licence: str | None) -> str:
    """An attribution with its licence, as far as they are known."""
    return ", ".join(each for each in (whose, licence) if each)


def _stands(name: str) -> bool:
    known = shipped_taxonomy().classes
    return name not in known or known[name].kind is ClassKind.STATIC
