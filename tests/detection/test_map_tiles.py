"""Scenes as pictures on a map: where pixels land, what is left out, and what may be read for it."""

from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.enums import ColorInterp, Resampling

from detection.errors import SceneUnreadable, SceneWithoutCrs, TooMuchToRead
from detection.imagery.map_tiles import Picture, ShownFile, preview_of_scene, tile_of_scene
from detection.imagery.raster import overview_factors
from detection.imagery.scene import open_scene
from tests.support.scenes import ORIGIN, UTM, draw_ground, draw_squares, write_scene

TREE = (0, 255, 0)
PIXEL_M = 0.2
TO_LON_LAT = Transformer.from_crs(UTM, 4326, always_xy=True)


def shown(path: Path, **known: Any) -> ShownFile:
    scene = open_scene(path)
    return ShownFile(path=path, size_px=scene.size_px, ground=known.pop("ground", scene.surveyed()), **known)


def place(column: float, row: float) -> tuple[float, float]:
    """Longitude and latitude of a pixel of a scene of ``PIXEL_M`` at ``ORIGIN``."""
    lon, lat = TO_LON_LAT.transform(ORIGIN[0] + column * PIXEL_M, ORIGIN[1] - row * PIXEL_M)
    return lon, lat


def at(lon_lat: tuple[float, float], zoom: int, side_px: int = 256) -> tuple[tuple[int, int, int], int, int]:
    """The tile that shows a place, and the column and row of the pixel in it."""
    sine = np.sin(np.radians(lon_lat[1]))
    x = (lon_lat[0] + 180) / 360 * 2**zoom
    y = (0.5 - np.log((1 + sine) / (1 - sine)) / (4 * pi)) * 2**zoom
    return (zoom, int(x), int(y)), int(x % 1 * side_px), int(y % 1 * side_px)


def pixel(file: ShownFile, lon_lat: tuple[float, float], zoom: int = 19, side_px: int = 256) -> np.ndarray:
    """Red, green, blue, mask of what a tile shows at a place."""
    tile, column, row = at(lon_lat, zoom, side_px)
    picture = tile_of_scene(file, tile, side_px=side_px)
    if picture is None:
        return np.zeros(4, int)
    return np.array([*picture.rgb[:, row, column], 255 * picture.mask[row, column]], int)


def looks_like(found: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(found[3] and (abs(found[:3] - np.array(colour)) <= 12).all())


def ground_with_a_tree(size: int = 400, corner: tuple[int, int] = (300, 100), side: int = 40) -> np.ndarray:
    return draw_squares(draw_ground(size, size), [corner], side_px=side)


# --- where pixels land ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_px", [256, 512])
@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("as most do", {}),
        ("in strips", {"tiled": False, "blockxsize": None, "blockysize": 7}),
        ("bands apart", {"interleave": "band"}),
    ],
)
def test_a_tree_stands_on_the_map_where_it_stands(
    tmp_path: Path, how: str, options: dict[str, Any], side_px: int
) -> None:
    file = shown(write_scene(tmp_path / "a.tif", ground_with_a_tree(), pixel_m=PIXEL_M, **options))
    assert looks_like(pixel(file, place(320, 120), side_px=side_px), TREE), how
    for beside in ((295, 120), (345, 120), (320, 95), (320, 145)):
        assert not looks_like(pixel(file, place(*beside), side_px=side_px), TREE)


def test_a_rotated_scene_lies_rotated_and_its_corners_are_empty(tmp_path: Path) -> None:
    turned = Affine.translation(*ORIGIN) @ Affine.rotation(30) @ Affine.scale(PIXEL_M, -PIXEL_M)
    file = shown(write_scene(tmp_path / "a.tif", ground_with_a_tree(), transform=turned))
    x, y = turned @ (320, 120)
    assert looks_like(pixel(file, TO_LON_LAT.transform(x, y)), TREE)
    # Beyond its edge, though within the box around it.
    x, y = turned @ (-20, 200)
    assert pixel(file, TO_LON_LAT.transform(x, y))[3] == 0


def test_a_scene_of_a_shifted_datum_is_shown_where_it_truly_lies(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", ground_with_a_tree(), pixel_m=PIXEL_M)
    shift = (0.004, -0.002)
    truly = shapely.transform(open_scene(path).surveyed(), lambda lon_lat: lon_lat - shift)
    file = shown(path, ground=truly, datum_shift_deg=shift)
    lon, lat = place(320, 120)
    assert looks_like(pixel(file, (lon - shift[0], lat - shift[1])), TREE)
    assert pixel(file, (lon, lat))[3] == 0


def test_a_tile_far_away_shows_nothing_and_reads_nothing(tmp_path: Path) -> None:
    file = shown(write_scene(tmp_path / "a.tif", ground_with_a_tree(), pixel_m=PIXEL_M))
    file.path.unlink()
    (zoom, column, row), _, _ = at(place(200, 200), 19)
    assert tile_of_scene(file, (zoom, column + 9, row)) is None


@pytest.mark.parametrize("zoom", [0, 1, 5, 10, 14])
def test_from_far_away_a_scene_is_a_speck_at_its_place(tmp_path: Path, zoom: int) -> None:
    file = shown(write_scene(tmp_path / "a.tif", ground_with_a_tree(), pixel_m=PIXEL_M))
    tile, column, row = at(place(200, 200), zoom)
    picture = tile_of_scene(file, tile)
    if picture is not None:
        rows, columns = np.nonzero(picture.mask)
        assert abs(rows - row).max() <= 9
        assert abs(columns - column).max() <= 9


# --- what is left out --------------------------------------------------------------------------------------------


def test_what_is_void_in_all_bands_is_transparent_and_what_is_in_one_is_not(tmp_path: Path) -> None:
    pixels = ground_with_a_tree()
    pixels[:, :, :200] = 0
    pixels[0, :, 200:] = 0
    file = shown(write_scene(tmp_path / "a.tif", pixels, pixel_m=PIXEL_M, nodata=0))
    file = shown(file.path, ground=shapely.box(-180, -80, 180, 80))
    assert pixel(file, place(100, 200))[3] == 0
    assert looks_like(pixel(file, place(300, 300)), (0, 60, 50))


def test_a_mask_inside_the_file_is_transparent(tmp_path: Path) -> None:
    mask = np.ones((400, 400), bool)
    mask[:, :200] = False
    path = write_scene(tmp_path / "a.tif", ground_with_a_tree(), pixel_m=PIXEL_M, mask=mask)
    file = shown(path, ground=shapely.box(-180, -80, 180, 80))
    assert pixel(file, place(100, 200))[3] == 0
    assert looks_like(pixel(file, place(320, 120)), TREE)


def test_a_black_border_that_was_not_surveyed_is_transparent(tmp_path: Path) -> None:
    pixels = ground_with_a_tree()
    pixels[:, :, :200] = 0
    file = shown(write_scene(tmp_path / "a.tif", pixels, pixel_m=PIXEL_M))
    for zoom in (16, 17, 18, 19):
        assert pixel(file, place(170, 200), zoom)[3] == 0
    assert looks_like(pixel(file, place(320, 120)), TREE)


def with_alpha(path: Path, alpha: np.ndarray) -> Path:
    pixels = np.concatenate([ground_with_a_tree(), alpha[None]]).astype(np.uint8)
    write_scene(path, pixels, pixel_m=PIXEL_M, photometric="RGB", alpha="YES")
    with rasterio.open(path) as made:
        assert made.colorinterp[3] == ColorInterp.alpha
    return path


def test_alpha_hides_and_near_infrared_marked_as_alpha_does_not(tmp_path: Path) -> None:
    alpha = np.full((400, 400), 255, np.uint8)
    alpha[:, :200] = 0
    everywhere = shapely.box(-180, -80, 180, 80)
    hidden = shown(with_alpha(tmp_path / "alpha.tif", alpha), ground=everywhere)
    assert pixel(hidden, place(100, 200))[3] == 0
    assert looks_like(pixel(hidden, place(320, 120)), TREE)
    infrared = np.random.default_rng(1).integers(20, 200, (400, 400))
    infrared[0, 0] = 255
    infrared[200:260, 200:260] = 0
    file = shown(with_alpha(tmp_path / "infrared.tif", infrared), ground=everywhere)
    assert looks_like(pixel(file, place(320, 120)), TREE)
    assert pixel(file, place(100, 200))[3] == 255
    assert preview_of_scene(file).mask.all()


def test_deep_pixels_are_stretched_alike_in_all_tiles_without_void_ones(tmp_path: Path) -> None:
    pixels = ground_with_a_tree().astype(np.uint16) * 100 + 3000
    pixels[:, :, :100] = 65535
    path = write_scene(tmp_path / "a.tif", pixels, pixel_m=PIXEL_M, nodata=65535)
    file = shown(path)
    ground = pixel(file, place(200, 300))
    assert looks_like(pixel(file, place(320, 120)), (0, 255, 0))
    # Had the void value been stretched over, all ground would be nearly black.
    assert 40 <= ground[0] <= 110
    assert abs(pixel(file, place(110, 20)) - ground).max() <= 15
    assert pixel(file, place(50, 200))[3] == 0


def test_a_picture_of_indices_is_shown_in_its_colours_and_no_others(tmp_path: Path) -> None:
    indices = np.zeros((1, 400, 400), np.uint8)
    indices[0, 100:140, 300:340] = 2
    path = write_scene(tmp_path / "a.tif", indices, pixel_m=PIXEL_M, photometric="PALETTE")
    colours = {0: (70, 60, 50, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255)}
    with rasterio.open(path, "r+") as made:
        made.write_colormap(1, colours)
    file = shown(path)
    assert looks_like(pixel(file, place(320, 120)), TREE)
    assert looks_like(pixel(file, place(200, 300)), (70, 60, 50))
    for zoom in (18, 20):
        picture = tile_of_scene(file, at(place(300, 100), zoom)[0])
        assert picture is not None
        assert {tuple(one) for one in picture.rgb[:, picture.mask].T.tolist()} == {(70, 60, 50), (0, 255, 0)}


# --- what may be read for it -------------------------------------------------------------------------------------


def test_a_picture_that_would_read_too_much_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    file = shown(write_scene(tmp_path / "a.tif", ground_with_a_tree(1200), pixel_m=PIXEL_M))
    near, far = at(place(600, 600), 20)[0], at(place(600, 600), 11)[0]
    near_picture, far_picture = tile_of_scene(file, near), tile_of_scene(file, far)
    assert near_picture is not None
    assert far_picture is not None
    # Whole blocks are counted, and all bands.
    assert near_picture.bytes_read < far_picture.bytes_read == 3 * 1280 * 1280
    with pytest.raises(TooMuchToRead, match="gdaladdo"):
        tile_of_scene(file, far, most_bytes=3 * 1280 * 1280 - 1)
    assert tile_of_scene(file, near, most_bytes=near_picture.bytes_read) is not None


def test_overviews_make_it_cheap_and_change_neither_content_nor_place(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", ground_with_a_tree(1200, (600, 200), 160), pixel_m=PIXEL_M)
    before = open_scene(path)
    with rasterio.open(path, "r+") as made:
        made.build_overviews([2, 4, 8], Resampling.average)
    file = shown(path)
    assert overview_factors(path) == (2, 4, 8)
    assert open_scene(path).content_hash == before.content_hash
    far, _, _ = at(place(680, 280), 16)
    picture = tile_of_scene(file, far, most_bytes=3 * 640 * 640)
    assert picture is not None
    assert 0 < picture.bytes_read <= 3 * 640 * 640
    assert looks_like(pixel(file, place(680, 280), zoom=16), TREE)
    assert looks_like(pixel(file, place(680, 280), zoom=20), TREE)
    for zoom in (16, 20):
        assert not looks_like(pixel(file, place(580, 280), zoom=zoom), TREE)
    assert preview_of_scene(file, side_px=150).bytes_read < 3 * 640 * 640


def test_a_block_is_counted_whole(tmp_path: Path) -> None:
    pixels = ground_with_a_tree(800)
    path = tmp_path / "a.tif"
    write_scene(path, pixels, pixel_m=PIXEL_M)
    tiff = tile_of_scene(shown(path), at(place(700, 700), 21)[0])
    assert tiff is not None
    with rasterio.open(path) as source:
        one_block = tmp_path / "b.tif"
        profile = {**source.profile, "blockysize": 800, "tiled": False}
        profile.pop("blockxsize")
        with rasterio.open(one_block, "w", **profile) as made:
            made.write(pixels)
    whole = tile_of_scene(shown(one_block), at(place(700, 700), 21)[0])
    assert whole is not None
    # One strip of the whole picture is decoded whole, whatever little of it is shown.
    assert whole.bytes_read == 3 * 800 * 800 > 4 * tiff.bytes_read


def test_another_file_than_the_scenes_is_refused_also_when_it_was_known_before(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", ground_with_a_tree(), pixel_m=PIXEL_M)
    file = shown(path)
    tile, _, _ = at(place(200, 200), 19)
    assert tile_of_scene(file, tile) is not None
    write_scene(path, draw_ground(300, 300), pixel_m=PIXEL_M)
    with pytest.raises(SceneUnreadable):
        tile_of_scene(file, tile)
    path.unlink()
    with pytest.raises(SceneUnreadable):
        tile_of_scene(file, tile)


def test_a_file_without_crs_says_so(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", ground_with_a_tree(), pixel_m=PIXEL_M, crs=None)
    ground = shapely.box(*place(0, 400), *place(400, 0))
    with pytest.raises(SceneWithoutCrs):
        tile_of_scene(ShownFile(path=path, size_px=(400, 400), ground=ground), at(place(200, 200), 19)[0])


def test_pictures_lie_over_one_another_where_they_have_something() -> None:
    def flat(value: int, columns: slice) -> Picture:
        mask = np.zeros((2, 4), bool)
        mask[:, columns] = True
        return Picture(rgb=np.full((3, 2, 4), value, np.uint8), mask=mask, bytes_read=1)

    both = flat(10, slice(0, 3)).under(flat(20, slice(2, 4)))
    assert both.rgb[0, 0].tolist() == [10, 10, 20, 20]
    assert both.mask.all()
    assert both.bytes_read == 2
