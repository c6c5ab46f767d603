"""Imagery as pictures: whose file, which scenes on top of which, and how many at once."""

import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from sqlalchemy import select

from detection.errors import Conflict, TooMuchToRead, UnknownName
from detection.imagery.scene import open_scene
from detection.taxonomy import shipped_taxonomy
from inventory import showing
from inventory.domain.datum import gcj02_to_wgs84
from inventory.domain.tiles import Tile, tile_of
from inventory.errors import StoreBusy
from inventory.showing import Turns, city_tile, scene_preview, scene_tile, scenes_in, zooms_of
from inventory.store import schema
from inventory.store.catalogue import CatalogueScene, ScenesWanted, all_scenes, find_scenes
from inventory.store.database import Database, Patience
from inventory.store.features import city_on_page
from tests.support.city import add_scene, make_city, square
from tests.support.scenes import UTM, draw_ground, draw_squares, write_scene

DAY = datetime(2025, 6, 1, 12, tzinfo=UTC)
PUER = ("EPSG:32647", (800_000.0, 2_520_000.0))


def stored(path: Path, *, number: int = 1, **known: Any) -> CatalogueScene:
    """A scene as the store knows it after the ingest of a file."""
    found = open_scene(path)
    scene = CatalogueScene(
        id=number,
        public_id=f"s{number}",
        taken_at=DAY,
        recorded_at=datetime.fromtimestamp(path.stat().st_mtime, UTC) + timedelta(milliseconds=1),
        kind="nadir",
        ground_resolution_m=found.ground_resolution_m,
        size_px=found.size_px,
        footprint=found.surveyed(),
        source="drone",
        campaign="one",
        licence=None,
        attribution=None,
        path=str(path),
        pixel_hash=found.pixel_hash,
        is_gcj02=False,
    )
    return replace(scene, **known)


def flat(path: Path, value: int, *, size: int = 400, hole: slice | None = None, **options: Any) -> Path:
    pixels = np.full((3, size, size), value, np.uint8)
    pixels[:, 0, 0] = value + 1
    if hole is not None:
        pixels[:, :, hole] = 0
    return write_scene(path, pixels, **{"pixel_m": 0.2, "nodata": 0, **options})


def over(scene: CatalogueScene, zoom: int = 18) -> Tile:
    middle = shapely.centroid(scene.footprint)
    return tile_of(middle.x, middle.y, zoom)


def values(picture: Any) -> set[int]:
    return set(picture.rgb[0][picture.mask].tolist())


# --- its file -----------------------------------------------------------------------------------------------------


def test_a_scene_is_shown_from_its_file_and_a_purged_or_missing_one_is_refused_without_its_place(
    tmp_path: Path,
) -> None:
    scene = stored(flat(tmp_path / "a.tif", 100))
    picture = scene_tile(scene, over(scene), 256)
    assert picture is not None
    assert values(picture) <= {100, 101}
    assert scene_preview(scene).mask.all()
    purged = replace(scene, path=None)
    gone = replace(scene, path=str(tmp_path / "elsewhere.tif"))
    for lost, word in ((purged, "purged"), (gone, "scene locate")):
        for show in (lambda one: scene_tile(one, over(one), 256), scene_preview):
            with pytest.raises(Conflict, match=word) as refused:
                show(lost)
            assert str(tmp_path) not in str(refused.value)


def test_a_file_written_since_is_compared_once_and_shown_if_it_holds_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = flat(tmp_path / "a.tif", 100)
    scene = stored(path)
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))
    reads: list[Path] = []

    def counted(file: Path, **options: Any) -> Any:
        reads.append(file)
        return open_scene(file, **options)

    monkeypatch.setattr(showing, "open_scene", counted)
    for _ in range(3):
        assert scene_tile(scene, over(scene), 256) is not None
    assert reads == [path]


def test_another_picture_of_the_same_size_at_the_same_place_is_not_shown(tmp_path: Path) -> None:
    path = flat(tmp_path / "a.tif", 100)
    scene = stored(path)
    flat(path, 50)
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))
    with pytest.raises(Conflict, match="scene locate"):
        scene_tile(scene, over(scene), 256)
    # As long as it is not used its ground is open: what was made of it must not be kept.
    made = city_tile([scene], over(scene), 256)
    assert made.picture is None
    assert not made.is_whole


def test_while_a_file_is_compared_who_asks_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = flat(tmp_path / "a.tif", 100)
    scene = stored(path)
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))
    done = threading.Event()

    def slow(file: Path, **options: Any) -> Any:
        done.wait(20)
        return open_scene(file, **options)

    monkeypatch.setattr(showing, "open_scene", slow)
    monkeypatch.setattr(showing, "_COMPARED_WAIT_S", 0.05)
    try:
        with pytest.raises(StoreBusy, match="compared"):
            scene_preview(scene)
    finally:
        done.set()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            assert scene_preview(scene).mask.all()
            return
        except StoreBusy:
            time.sleep(0.05)
    pytest.fail("it was never compared")


def test_a_file_whose_crs_was_given_beside_it_says_how_to_put_it_in(tmp_path: Path) -> None:
    path = flat(tmp_path / "a.tif", 100)
    scene = stored(path)
    bare = flat(tmp_path / "bare.tif", 100, crs=None)
    os.utime(bare, (0, 0))
    with pytest.raises(Conflict, match="gdal_translate -a_srs") as refused:
        scene_tile(replace(scene, path=str(bare)), over(scene), 256)
    assert str(tmp_path) not in str(refused.value)


def test_what_would_read_too_much_says_so_without_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = stored(flat(tmp_path / "a.tif", 100))
    monkeypatch.setattr("detection.imagery.map_tiles.MOST_BYTES", 1_000)
    with pytest.raises(TooMuchToRead, match="gdaladdo") as whole:
        scene_preview(scene)
    monkeypatch.setattr(showing.tile_of_scene, "__kwdefaults__", {"side_px": 256, "most_bytes": 1_000})
    with pytest.raises(UnknownName, match="gdaladdo") as tile:
        scene_tile(scene, over(scene), 256)
    assert str(tmp_path) not in f"{whole.value}{tile.value}"


def test_zooms_beyond_what_a_scene_has_are_bounded(tmp_path: Path) -> None:
    scene = stored(flat(tmp_path / "a.tif", 100))
    first, finest = zooms_of(scene)
    # 0.2 m a pixel at latitude 45: 0.11 m at zoom 20, 0.21 at 19, which is too coarse.
    assert finest == 20
    assert first == 20 - 5
    assert scene_tile(scene, over(scene, finest + 2), 256) is not None
    deeper = replace(scene, ground_resolution_m=1.0)
    assert zooms_of(deeper)[1] == 17
    with pytest.raises(UnknownName, match="zoom 20 at most"):
        scene_tile(deeper, over(scene, 21), 256)


# --- its datum ----------------------------------------------------------------------------------------------------


def test_a_scene_of_the_shifted_datum_lies_under_its_trees(tmp_path: Path) -> None:
    crs, origin = PUER
    pixels = draw_squares(draw_ground(400, 400), [(300, 100)], side_px=40)
    path = write_scene(tmp_path / "a.tif", pixels, crs=crs, origin=origin, pixel_m=0.2)
    to_lon_lat = Transformer.from_crs(crs, 4326, always_xy=True)
    said = np.array([to_lon_lat.transform(origin[0] + 64, origin[1] - 24)])
    ((lon, lat),) = gcj02_to_wgs84(said).tolist()
    truly = shapely.transform(open_scene(path).surveyed(), gcj02_to_wgs84)
    scene = stored(path, is_gcj02=True, footprint=truly)
    for zoom in (17, 19, 21):
        tile = tile_of(lon, lat, zoom)
        picture = scene_tile(scene, tile, 256)
        assert picture is not None
        x, y = tile.steps(np.array([lon]), np.array([lat]))
        red, green, _ = picture.rgb[:, int(y[0] / 16), int(x[0] / 16)].astype(int)
        assert green - red > 150, zoom
    # The shift is some 500 m: as its file has it, it would lie far away.
    assert abs(said - (lon, lat)).max() > 0.001


# --- scenes together ----------------------------------------------------------------------------------------------


def test_the_first_lies_on_top_and_shows_what_is_below_where_it_has_nothing(tmp_path: Path) -> None:
    top = stored(flat(tmp_path / "top.tif", 200, hole=slice(0, 200)), number=1)
    below = stored(flat(tmp_path / "below.tif", 100), number=2)
    made = city_tile([top, below], over(below), 256)
    assert made.is_whole
    assert made.picture is not None
    across = made.picture.rgb[0][:, made.picture.mask.any(axis=0)].max(axis=0)
    assert set(across[:5].tolist()) <= {100, 101}
    assert set(across[-5:].tolist()) <= {200, 201}
    assert values(city_tile([below, top], over(below), 256).picture) <= {100, 101}


def test_a_file_that_lacks_leaves_a_hole_only_where_no_other_lies(tmp_path: Path) -> None:
    lost = stored(flat(tmp_path / "lost.tif", 200), number=1)
    half = stored(flat(tmp_path / "half.tif", 100, hole=slice(0, 200)), number=2)
    full = stored(flat(tmp_path / "full.tif", 50), number=3)
    Path(lost.path or "").unlink()
    assert not city_tile([lost, half], over(full), 256).is_whole
    made = city_tile([lost, half, full], over(full), 256)
    assert made.is_whole
    assert made.picture is not None


def test_a_file_that_will_never_say_where_it_lies_keeps_no_tile_from_being_kept(tmp_path: Path) -> None:
    scene = stored(flat(tmp_path / "a.tif", 100))
    bare = flat(tmp_path / "bare.tif", 100, crs=None)
    os.utime(bare, (0, 0))
    made = city_tile([replace(scene, path=str(bare))], over(scene), 256)
    assert (made.picture, made.is_whole) == (None, True)


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    scene = stored(flat(tmp_path / "a.tif", 100))
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(Conflict, match="scene locate"):
        scene_preview(replace(scene, path=str(tmp_path / "pipe.tif")))


def test_scenes_together_may_not_read_more_than_a_tile_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [
        stored(flat(tmp_path / f"{n}.tif", 60 + 10 * n, hole=slice(80 * n, None)), number=n)
        for n in range(1, 5)
    ]
    tile = over(scenes[-1], 16)
    alone = scene_tile(scenes[0], tile, 256)
    assert alone is not None
    monkeypatch.setattr(showing, "_BYTES_OF_A_TILE", 2 * alone.bytes_read)
    made = city_tile(scenes, tile, 256).picture
    assert made is not None
    assert made.bytes_read == 2 * alone.bytes_read
    assert max(values(made)) < 90


def test_r5_on_top_is_the_newest_look_that_is_adequate_and_street_views_are_no_map(
    database: Database,
) -> None:
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "puer")
    tree = shipped_taxonomy().classes["tree"]
    later = DAY + timedelta(days=400)
    add_scene(database, "puer", "newer", taken_at=later)
    add_scene(database, "puer", "coarse", taken_at=later + timedelta(days=1), ground_resolution_m=30.0)
    add_scene(database, "puer", "street", taken_at=later + timedelta(days=2), kind="street")
    add_scene(database, "puer", "purged", taken_at=later + timedelta(days=3), path=None)
    add_scene(database, "puer", "elsewhere", footprint=square(101.0, 22.0, 101.1, 22.1))
    assert tree.sees(next(iter(tree.scene_kinds)), 0.1)
    assert not tree.sees(next(iter(tree.scene_kinds)), 30.0)
    tile = tile_of(100.05, 22.05, 14)
    with database.transaction(read_only=True) as connection:
        city = city_on_page(connection, "puer")

        def found(until: datetime | None) -> list[str]:
            return [
                one.public_id for one in scenes_in(connection, city, tile, until, taxonomy=shipped_taxonomy())
            ]

        assert found(None) == ["newer", "s1", "coarse"]
        assert found(DAY) == ["s1"]
        assert found(DAY - timedelta(days=900)) == []
        nothing_counted = replace(city, classes=())
        assert [
            one.public_id
            for one in scenes_in(connection, nothing_counted, tile, None, taxonomy=shipped_taxonomy())
        ] == ["coarse", "newer", "s1"]


def test_r2_a_superseded_scene_is_in_no_catalogue_and_on_no_map(database: Database) -> None:
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "puer")
    add_scene(database, "puer", "corrected")
    with database.transaction(Patience.JOB) as connection:
        ids = dict(connection.execute(select(schema.scene.c.public_id, schema.scene.c.id)).all())  # type: ignore[arg-type]
        connection.execute(
            schema.scene.update()
            .where(schema.scene.c.public_id == "s1")
            .values(superseded_by=ids["corrected"])
        )
    tile = tile_of(100.05, 22.05, 14)
    with database.transaction(read_only=True) as connection:
        city = city_on_page(connection, "puer")
        on_map = scenes_in(connection, city, tile, None, taxonomy=shipped_taxonomy())
        listed = find_scenes(connection, city, ScenesWanted(), limit=9)
    assert [one.public_id for one in on_map] == [one.public_id for one in listed] == ["corrected"]


def test_what_all_scenes_have_in_common(database: Database) -> None:
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "puer")
    later = DAY + timedelta(days=400)
    add_scene(
        database, "puer", "east", taken_at=later, licence="CC0", ground_resolution_m=0.05,
        footprint=square(100.5, 22.0, 100.6, 22.2),
    )  # fmt: skip
    add_scene(database, "puer", "street", kind="street", ground_resolution_m=0.01)
    with database.transaction(read_only=True) as connection:
        found = all_scenes(connection, city_on_page(connection, "puer"))
    assert found.box == (100.0, 22.0, 100.6, 22.2)
    assert found.newest == later
    assert found.finest_m == 0.05
    assert set(found.licences) == {"CC BY 4.0", "CC0"}


# --- turns --------------------------------------------------------------------------------------------------------


def test_no_more_than_so_many_decode_so_many_wait_and_the_rest_are_told_at_once() -> None:
    turns = Turns(at_once=1, most_waiting=1, patience_s=20)
    inside, leave = threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        with turns.taken():
            inside.set()
            leave.wait(20)
            order.append("first")

    def second() -> None:
        with turns.taken():
            order.append("second")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(20)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    time.sleep(0.3)
    # The second waits by now, so a third is refused without waiting.
    began = time.monotonic()
    with pytest.raises(StoreBusy), turns.taken():
        pass
    assert time.monotonic() - began < 5
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]


def test_who_waits_too_long_is_told_and_leaves_the_line() -> None:
    turns = Turns(at_once=1, most_waiting=1, patience_s=0.02)
    with turns.taken():
        for _ in range(3):
            with pytest.raises(StoreBusy), turns.taken():
                pass
    with turns.taken():
        pass


def test_a_turn_is_given_back_after_a_failure() -> None:
    turns = Turns(at_once=1, most_waiting=0, patience_s=0.02)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turns.taken():
            raise ZeroDivisionError
    with turns.taken():
        pass


def test_files_are_read_as_ingest_wrote_them(tmp_path: Path) -> None:
    """Overviews added later change the file, not its pixels: it is compared, and then cheaper to show."""
    path = write_scene(tmp_path / "a.tif", draw_ground(1200, 1200), pixel_m=0.2, crs=UTM)
    scene = stored(path)
    before = scene_tile(scene, over(scene, 15), 256)
    with rasterio.open(path, "r+") as made:
        made.build_overviews([4, 16])
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))
    after = scene_tile(scene, over(scene, 15), 256)
    assert before is not None
    assert after is not None
    assert after.bytes_read < before.bytes_read / 4
