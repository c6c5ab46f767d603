"""The imagery behind the counts as pictures: tiles of a scene, of the city as of a date, and previews.

A file that is gone, or no longer the scene's, is told by the scene's id; where it lies is nobody's business who asks.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import ceil, cos, log2, radians
from pathlib import Path
from stat import S_ISREG

import numpy as np
import shapely

from detection.errors import Conflict, SceneUnusable, SceneWithoutCrs, TooMuchToRead, UnknownName
from detection.imagery.kept import forget
from detection.imagery.map_tiles import (
    MOST_BYTES,
    Picture,
    ShownFile,
    preview_of_scene,
    surveyed_in,
    tile_of_scene,
)
from detection.imagery.scene import open_scene
from detection.taxonomy import Taxonomy
from inventory.domain.datum import wgs84_to_gcj02
from inventory.domain.tiles import DEEPEST_ZOOM, Tile
from inventory.errors import StoreBusy
from inventory.store.catalogue import AllScenes, CatalogueScene, Seeing, scenes_on_map
from inventory.store.database import Connection
from inventory.store.features import Box, CityOnPage

DEEPER_THAN_ITSELF = 3
"""So many zooms beyond a scene's own resolution are worth a tile; a map draws larger pixels by itself."""
SCENES_OF_A_TILE = 64
"""More scenes than these are not put into one tile: the newest, since each must be opened."""
_BYTES_OF_A_TILE = 2 * MOST_BYTES
_AT_ONCE, _MOST_WAITING, _WAIT_S = 2, 12, 10.0
_COMPARED_WAIT_S = 3.0
_COMPARED_KEPT = 4_096
_METRES_A_PIXEL_AT_0 = 156_543.034
"""Of the grid WebMercatorQuad, 256 pixels a tile, at the equator (OGC 17-083r4, annex D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CityPicture:
    """Scenes put together; ``is_whole`` unless the file of one could not be used, which may be mended."""

    picture: Picture | None
    is_whole: bool


# --- turns -----------------------------------------------------------------------------------------------------


class Turns:
    """So many decode at once, since that fills memory and processors; some wait; the others are told to come again.

    Who waits holds one of the service's threads: were their number open, pictures would keep all of them from others.
    """

    def __init__(self, at_once: int, most_waiting: int, patience_s: float) -> None:
        self._turn = threading.BoundedSemaphore(at_once)
        self._line = threading.BoundedSemaphore(at_once + most_waiting)
        self._patience_s = patience_s

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Holds a turn.

        Raises:
            StoreBusy: too many wait already, or it took too long.
        """
        if not self._line.acquire(blocking=False):
            raise _busy()
        try:
            if not self._turn.acquire(timeout=self._patience_s):
                raise _busy()
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._line.release()


def _busy() -> StoreBusy:
    return StoreBusy("too many pictures are being read", do="Try again in a moment.")


_TURNS = Turns(_AT_ONCE, _MOST_WAITING, _WAIT_S)


# --- pictures ---------------------------------------------------------------------------------------------------


def scene_tile(scene: CatalogueScene, tile: Tile, side_px: int) -> Picture | None:
    """A scene in a tile; None where it has nothing there.

    Raises:
        UnknownName: the zoom is deeper than the scene is worth, or too much would be read for it.
        Conflict: its file is not where it was, is another one, or does not say where it lies.
        StoreBusy: too many are being read, or its file is being compared.
    """
    if tile.zoom > zooms_of(scene)[1] + DEEPER_THAN_ITSELF:
        raise UnknownName(
            f"scene {scene.public_id} shows no more at zoom {tile.zoom}",
            do=f"Ask for zoom {zooms_of(scene)[1] + DEEPER_THAN_ITSELF} at most, and enlarge that.",
        )
    file = _file(scene, tile)
    with _TURNS.taken(), _told(scene):
        try:
            return tile_of_scene(file, (tile.zoom, tile.column, tile.row), side_px=side_px)
        except TooMuchToRead as error:
            raise UnknownName(
                f"scene {scene.public_id} is not shown at zoom {tile.zoom}: too much of its file would be read",
                do=f"Ask for a deeper zoom; the operator can mend it: {_OVERVIEWS}",
            ) from error


def scene_preview(scene: CatalogueScene) -> Picture:
    """A scene as a small picture.

    Raises:
        TooMuchToRead: its file has no overviews, and is too large without.
        Conflict, StoreBusy: as ``scene_tile``.
    """
    file = _file(scene)
    with _TURNS.taken(), _told(scene):
        try:
            return preview_of_scene(file)
        except TooMuchToRead as error:
            raise TooMuchToRead(
                f"scene {scene.public_id} is too large to be shown whole",
                do=f"The operator can mend it: {_OVERVIEWS}",
            ) from error


def scenes_in(
    connection: Connection, city: CityOnPage, tile: Tile, until: datetime | None, *, taxonomy: Taxonomy
) -> list[CatalogueScene]:
    """The scenes with pixels that touch a tile as of an instant, the first on top: adequate for a class that the city
    counts (R5), the newest; then others from above."""
    west, south, east, north = tile.box
    counted = [taxonomy.classes[name] for name in city.classes if name in taxonomy.classes]
    seeing = [
        Seeing(
            kinds=one.scene_kinds, finest_m=one.ground_resolution_m[0], coarsest_m=one.ground_resolution_m[1]
        )
        for one in counted
    ]
    box = Box(west=west, south=south, east=east, north=north)
    return scenes_on_map(connection, city, box, until=until, seeing=seeing, limit=SCENES_OF_A_TILE)


def city_tile(scenes: Sequence[CatalogueScene], tile: Tile, side_px: int) -> CityPicture:
    """Scenes put together in a tile, the first on top.

    Left out are those whose file cannot be used now, and those that would cost too much at this zoom, all together.

    Raises:
        StoreBusy: too many are being read.
    """
    place = tile.zoom, tile.column, tile.row
    whole: Picture | None = None
    shown, lacking = np.zeros((side_px, side_px), bool), np.zeros((side_px, side_px), bool)
    with _TURNS.taken():
        for scene in scenes:
            most = min(MOST_BYTES, _BYTES_OF_A_TILE - (0 if whole is None else whole.bytes_read))
            try:
                file = _file(scene, tile, patience_s=0)
                picture = tile_of_scene(file, place, side_px=side_px, most_bytes=most)
            except (TooMuchToRead, SceneWithoutCrs):
                # It stays so until somebody changes the scene, and with it the city's version.
                continue
            except (SceneUnusable, Conflict, StoreBusy):
                lacking |= surveyed_in(scene.footprint, place, side_px)
                continue
            if picture is not None:
                shown |= surveyed_in(scene.footprint, place, side_px)
                whole = picture if whole is None else picture.under(whole)
                if whole.mask.all():
                    break
    # A file that is lacking does no harm where others lie over its ground.
    return CityPicture(picture=whole, is_whole=not (lacking & ~shown).any())


def zooms_of(scene: CatalogueScene) -> tuple[int, int]:
    """The zoom at which a scene is some ten pixels wide, and the one that shows all it has."""
    _, latitude = _middle(scene.footprint)
    finest = zoom_of(scene.ground_resolution_m, latitude)
    return max(0, finest - round(log2(max(max(scene.size_px) / 10, 1)))), finest


def deepest_zoom(scenes: AllScenes) -> int:
    """The zoom that shows all that a city's imagery has."""
    if scenes.finest_m is None or scenes.box is None:
        return DEEPEST_ZOOM
    return zoom_of(scenes.finest_m, (scenes.box[1] + scenes.box[3]) / 2)


def zoom_of(ground_resolution_m: float, latitude: float) -> int:
    """The first zoom whose pixels, 256 a tile, are no larger than these."""
    side_m = _METRES_A_PIXEL_AT_0 * cos(radians(latitude))
    return min(max(ceil(log2(side_m / ground_resolution_m) - 1e-3), 0), DEEPEST_ZOOM)


# --- files --------------------------------------------------------------------------------------------------------


_OVERVIEWS = "gdaladdo -r average FILE 4 16 64, which changes no pixel."


def _file(
    scene: CatalogueScene, tile: Tile | None = None, *, patience_s: float = _COMPARED_WAIT_S
) -> ShownFile:
    """The scene's file, as it was ingested.

    Args:
        tile: near which it is shown.
        patience_s: longest wait for the comparison of one that changed.

    Raises:
        Conflict: there is none, or another one.
        StoreBusy: it changed since, and is being compared.
    """
    if scene.path is None:
        raise Conflict(f"the pixels of scene {scene.public_id} were purged", do="Ask for another scene.")
    path = Path(scene.path)
    try:
        stamp = path.stat()
    except OSError:
        raise _moved(scene) from None
    if not S_ISREG(stamp.st_mode):
        # Opening a pipe waits for who writes to it.
        raise _moved(scene)
    # As ``doctor`` has it: a file that nobody wrote since is the one that was read.
    if stamp.st_mtime > scene.recorded_at.timestamp() and not _COMPARED.holds(path, scene, patience_s):
        raise _moved(scene)
    return ShownFile(
        path=path, size_px=scene.size_px, ground=scene.footprint, datum_shift_deg=_datum_shift(scene, tile)
    )


def _datum_shift(scene: CatalogueScene, tile: Tile | None) -> tuple[float, float]:
    """What the file's longitudes and latitudes have too much where it is shown; metres change by centimetres a km."""
    if not scene.is_gcj02 or tile is None:
        return 0.0, 0.0
    shown = shapely.clip_by_rect(scene.footprint, *tile.box)
    middle = np.array([_middle(scene.footprint if shapely.is_empty(shown) else shown)])
    ((lon, lat),) = (wgs84_to_gcj02(middle) - middle).tolist()
    return lon, lat


def _middle(ground: shapely.Geometry) -> tuple[float, float]:
    west, south, east, north = shapely.bounds(ground).tolist()
    return (west + east) / 2, (south + north) / 2


@contextmanager
def _told(scene: CatalogueScene) -> Iterator[None]:
    """What is wrong with a scene's file, without its place."""
    try:
        yield
    except TooMuchToRead:
        raise
    except SceneWithoutCrs as error:
        raise Conflict(
            f"the file of scene {scene.public_id} does not say where it lies: its CRS was given beside it",
            do="The operator can put it in: gdal_translate -a_srs EPSG:… FILE placed.tif, then "
            f"urban-inventory scene locate {scene.public_id} placed.tif.",
        ) from error
    except SceneUnusable as error:
        raise _moved(scene) from error


def _moved(scene: CatalogueScene) -> Conflict:
    return Conflict(
        f"the file of scene {scene.public_id} is not where it was, or another one",
        do=f"The operator can say where: urban-inventory scene locate {scene.public_id} FILE.",
    )


class _Compared:
    """Whether files that changed since they were ingested still hold their scene's pixels.

    Each state of a file is read once, from end to end, in a thread of its own, one file at a time; who asks meanwhile
    waits a little, and is then told to come again.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._answers: OrderedDict[tuple[object, ...], Future[bool]] = OrderedDict()
        self._reading = False

    def holds(self, path: Path, scene: CatalogueScene, patience_s: float) -> bool:
        """Raises:
        StoreBusy: it is being read, or another one is.
        """
        stamp = path.stat()
        key = (path, stamp.st_mtime_ns, stamp.st_size, scene.pixel_hash)
        with self._turn:
            answer = self._answers.get(key)
            if answer is None and not self._reading:
                answer = self._answers[key] = Future()
                self._reading = True
                arguments = (answer, path, scene.pixel_hash)
                threading.Thread(target=self._compare, args=arguments, daemon=True).start()
                while len(self._answers) > _COMPARED_KEPT:
                    self._answers.popitem(last=False)
        try:
            if answer is not None:
                return answer.result(timeout=patience_s)
        except TimeoutError:
            pass
        raise StoreBusy(
            f"the file of scene {scene.public_id} changed, and is being compared with what was ingested",
            do="Try again in a moment.",
        )

    def _compare(self, answer: Future[bool], path: Path, pixel_hash: str) -> None:
        is_same = False
        try:
            found = open_scene(path, allow_unlocated=True, readers=1)
            forget(found.content_hash)
            is_same = found.pixel_hash == pixel_hash
        except (SceneUnusable, OSError):
            pass  # no picture of this scene, whatever is wrong with it
        finally:
            self._reading = False
            answer.set_result(is_same)


_COMPARED = _Compared()
