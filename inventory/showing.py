"""The imagery behind the counts as pictures: tiles of a scene, of the city as of a date, and previews.

A file that is gone, or no longer the scene's, is told by the scene's id; where it lies is nobody's business who asks.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from detection.errors import Conflict, SceneUnusable
from detection.imagery.map_tiles import Picture, preview_of_scene, tile_of_scene
from inventory.domain.tiles import Tile
from inventory.errors import StoreBusy
from inventory.store.catalogue import CatalogueScene, ScenesWanted, find_scenes
from inventory.store.database import Connection
from inventory.store.features import Box, CityOnPage

DEEPEST_OVER_NATIVE = 3
"""So many zooms beyond a scene's own resolution are worth a tile."""
SCENES_OF_A_TILE = 16
"""More scenes than these, the newest, are not put into one tile: from far away a map shows them by their footprints."""
_AT_ONCE = 2
_WAIT_S = 10.0
_TURN = threading.BoundedSemaphore(_AT_ONCE)


@contextmanager
def _place_to_decode() -> Iterator[None]:
    """Decoding fills memory and processors: so many at once.

    Raises:
        StoreBusy: others decode, for too long.
    """
    if not _TURN.acquire(timeout=_WAIT_S):
        raise StoreBusy("too many pictures are being read", do="Try again in a moment.")
    try:
        yield
    finally:
        _TURN.release()


def scene_tile(scene: CatalogueScene, tile: Tile, side_px: int) -> Picture | None:
    """A scene in a tile; None where it has nothing there.

    Raises:
        Conflict: its file is not where it was, or another one.
        StoreBusy: too many are being read.
    """
    path = _path(scene)
    with _place_to_decode():
        try:
            return tile_of_scene(
                path, (tile.zoom, tile.column, tile.row), scene_px=scene.size_px, side_px=side_px
            )
        except SceneUnusable as error:
            raise _moved(scene) from error


def scene_preview(scene: CatalogueScene) -> Picture:
    """A scene as a small picture.

    Raises:
        Conflict, StoreBusy: as ``scene_tile``.
    """
    path = _path(scene)
    with _place_to_decode():
        try:
            return preview_of_scene(path, scene_px=scene.size_px)
        except SceneUnusable as error:
            raise _moved(scene) from error


def scenes_in(
    connection: Connection, city: CityOnPage, tile: Tile, until: datetime | None
) -> list[CatalogueScene]:
    """The scenes that touch a tile as of an instant, newest first, with their pixels."""
    west, south, east, north = tile.box
    box = Box(west=west, south=south, east=east, north=north)
    found = find_scenes(
        connection, city, ScenesWanted(boxes=(box,), span=(None, until)), limit=SCENES_OF_A_TILE
    )
    return [scene for scene in found if scene.path is not None]


def city_tile(scenes: list[CatalogueScene], tile: Tile, side_px: int) -> Picture | None:
    """Scenes put together in a tile, the first on top; those whose file is gone are left out."""
    whole: Picture | None = None
    for scene in scenes:
        try:
            picture = scene_tile(scene, tile, side_px)
        except Conflict:
            continue
        if picture is None:
            continue
        whole = picture if whole is None else picture.under(whole)
        if whole.mask.all():
            break
    return whole if whole is not None and whole.mask.any() else None


def _path(scene: CatalogueScene) -> Path:
    if scene.path is None:
        raise Conflict(f"the pixels of scene {scene.public_id} were purged", do="Ask for another scene.")
    path = Path(scene.path)
    if not path.is_file():
        raise _moved(scene)
    return path


def _moved(scene: CatalogueScene) -> Conflict:
    return Conflict(
        f"the file of scene {scene.public_id} is not where it was, or another one",
        do=f"The operator can say where: urban-inventory scene locate {scene.public_id} FILE.",
    )
