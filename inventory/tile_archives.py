"""All tiles of a city in one file (PMTiles 3), for maps without a server: any web storage gives out its parts.

The tiles are those that the service gives out (``tiling.py``), as of one instant, from one snapshot.
"""

import gzip
import html
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from detection.errors import CallerError
from inventory.domain.tiles import Tile
from inventory.store import features
from inventory.store.database import Database, Patience
from inventory.store.features import CityOnPage
from inventory.store.states import end_of_day
from inventory.tiling import LAST_ZOOM, TiledLayer, TilesAsked, Tiling, attributions

FINE_ZOOM = 15
"""A file goes at least so deep: a step of its tiles is 0.3 m at the equator, and maps draw deeper zooms from them."""
_WHOLE = Tile(0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedTiles:
    """What was written."""

    city: str
    file: Path
    assets: int
    tiles: int
    deepest_zoom: int
    as_of: date
    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    """Classes of the city that move: tiles tell how many an area has, and show none."""


def export_tiles(
    database: Database,
    city_code: str,
    file: Path,
    *,
    classes: Sequence[str] | None = None,
    as_of: date | None = None,
) -> ArchivedTiles:
    """Writes the tiles of a city; an earlier file is replaced once all is written.

    It goes down to the first zoom at which no tile has more assets than it shows one by one.

    Args:
        classes: those shown; None: all.
        as_of: a local date of the city, meaning its end; None: now.

    Raises:
        UnknownName: no such city or class.
        CallerError: the file cannot be written.
    """
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        city = features.city_on_page(connection, city_code)
        day = as_of or datetime.now(ZoneInfo(city.time_zone)).date()
        asked = TilesAsked(
            layers=tuple(TiledLayer),
            classes=tuple(classes or ()),
            as_of=end_of_day(day, city.time_zone),
            day=day,
            now=as_of is None,
        )
        tiling = Tiling(connection, city, asked)
        deepest = _deepest(tiling)
        said = _metadata(city, tiling, attributions(connection, city.code), day)
        written = _write(tiling, deepest, said, file)
        assets = tiling.assets_in(_WHOLE)
    return ArchivedTiles(
        city=city.code,
        file=file,
        assets=assets,
        tiles=written,
        deepest_zoom=deepest,
        as_of=day,
        classes=tiling.standing,
        left_out=tuple(name for name in tiling.counted if name not in tiling.standing),
    )


def _deepest(tiling: Tiling) -> int:
    deepest, waiting = FINE_ZOOM, [_WHOLE]
    while waiting:
        tile = waiting.pop()
        if tile.zoom < LAST_ZOOM and tiling.is_clustered(tile):
            deepest = max(deepest, tile.zoom + 1)
            waiting += tile.children()
    return deepest


def _contents(tiling: Tiling, deepest: int) -> Iterator[tuple[int, bytes]]:
    """Number and content of each tile that is not empty, in the order of the format: zoom by zoom, along its curve."""
    found = [_WHOLE]
    while found:
        there = [tile for tile in found if tiling.has_anything(tile)]
        numbered = sorted((zxy_to_tileid(tile.zoom, tile.column, tile.row), tile) for tile in there)
        for number, tile in numbered:
            if content := tiling.tile(tile):
                yield number, gzip.compress(content, mtime=0)
        found = [child for tile in there if tile.zoom < deepest for child in tile.children()]


def _write(tiling: Tiling, deepest: int, metadata: dict[str, Any], file: Path) -> int:
    unfinished = file.with_name(f".part-{file.name}")
    written = 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as out:
            writer: Any = Writer(out)  # type: ignore[no-untyped-call]  # the library has no types
            for number, content in _contents(tiling, deepest):
                writer.write_tile(number, content)
                written += 1
            if not written:
                # A file without any tile is none to most readers.
                writer.write_tile(0, gzip.compress(b"", mtime=0))
            writer.finalize(_header(tiling, deepest), metadata)
        unfinished.replace(file)
    except OSError as error:
        raise CallerError(
            f"cannot be written: {error.strerror or error}", where=str(file), do="Name another place with -o."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return written


def _header(tiling: Tiling, deepest: int) -> dict[str, Any]:
    west, south, east, north = (round(edge * 1e7) for edge in tiling.box)
    return {
        "tile_type": TileType.MVT,
        "tile_compression": Compression.GZIP,
        "min_lon_e7": west,
        "min_lat_e7": south,
        "max_lon_e7": east,
        "max_lat_e7": north,
        "center_zoom": min(deepest, _zoom_of_whole(tiling)),
        "center_lon_e7": (west + east) // 2,
        "center_lat_e7": (south + north) // 2,
    }


def _zoom_of_whole(tiling: Tiling) -> int:
    """The deepest zoom of which two tiles a side hold all."""
    zoom = 0
    while zoom < FINE_ZOOM:
        next_one = tiling.limits(zoom + 1)
        wide = next_one.last_column - next_one.first_column
        if max(wide, next_one.last_row - next_one.first_row) > 1:
            break
        zoom += 1
    return zoom


def _metadata(city: CityOnPage, tiling: Tiling, said: list[str], day: date) -> dict[str, Any]:
    return {
        "name": city.name,
        "description": f"What is listed in {city.name} as of {day.isoformat()}, and counts by area.",
        "version": f"{city.version}.{day.isoformat()}",
        # As HTML, which is how maps show it.
        "attribution": html.escape("; ".join(said)),
        "type": "overlay",
        "format": "pbf",
        "generator": "urban-inventory",
        "as_of": day.isoformat(),
        "vector_layers": [{"id": layer, "fields": fields} for layer, fields in tiling.fields().items()],
    }
