"""Scenes: where the pixels lie, how much ground they cover, which of them count, and what they are called."""

from datetime import datetime
from math import cos, radians
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from pyproj import CRS, Proj

from detection.errors import (
    CallerError,
    FormatNotAllowed,
    SceneNotProjected,
    SceneUnreadable,
    SceneWithoutCrs,
)
from detection.imagery.bands import bands_of
from detection.imagery.reader import open_reader, resampled
from detection.imagery.scene import Scene, in_infrared, open_scene, scene_from_pixels
from detection.imagery.windows import Rectangle
from tests.support.scenes import draw_ground, draw_squares, make_scene_file, write_scene


def read_all(scene: Scene) -> tuple[np.ndarray, np.ndarray | None]:
    reader = open_reader(scene)
    pixels, valid = reader.read(Rectangle(0, 0, *scene.size_px))
    reader.close()
    return pixels, valid


# --- content (R2) -----------------------------------------------------------------------------------


def test_r2_the_same_pixels_written_otherwise_have_the_same_hash(tmp_path: Path) -> None:
    pixels = draw_squares(draw_ground(1100, 700), [(30, 40), (900, 600)])
    tiled = open_scene(write_scene(tmp_path / "a.tif", pixels))
    strips = open_scene(
        write_scene(tmp_path / "b.tif", pixels, tiled=False, blockxsize=None, blockysize=7, compress="lzw")
    )
    assert tiled.pixel_hash == strips.pixel_hash
    assert tiled.content_hash == strips.content_hash


def test_r2_a_corrected_georeference_keeps_the_pixel_hash(tmp_path: Path) -> None:
    pixels = draw_ground(60, 50)
    one = open_scene(write_scene(tmp_path / "a.tif", pixels))
    moved = open_scene(write_scene(tmp_path / "b.tif", pixels, origin=(541_001.0, 4_977_000.0)))
    assert one.pixel_hash == moved.pixel_hash
    assert one.georeference_hash != moved.georeference_hash
    assert one.content_hash != moved.content_hash


def test_r2_one_changed_pixel_is_another_scene(tmp_path: Path) -> None:
    pixels = draw_ground(60, 50)
    one = open_scene(write_scene(tmp_path / "a.tif", pixels))
    pixels[2, 49, 59] += 1
    assert open_scene(write_scene(tmp_path / "b.tif", pixels)).pixel_hash != one.pixel_hash


def test_r2_the_hash_stays_what_it_was(tmp_path: Path) -> None:
    # Stored scenes are known by it: whoever changes how it is made makes all of them strangers.
    pixels = (np.arange(3 * 700 * 90) % 251).astype(np.uint8).reshape(3, 700, 90)
    scene = open_scene(write_scene(tmp_path / "a.tif", pixels))
    assert scene.pixel_hash.startswith("aaa8bd338bf8f43d")


def test_the_hash_does_not_depend_on_the_number_of_readers(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", draw_ground(700, 1600))
    assert open_scene(path, readers=1).content_hash == open_scene(path, readers=3).content_hash


# --- ground -----------------------------------------------------------------------------------------


def test_ground_resolution_leaves_the_projections_scale_out(tmp_path: Path) -> None:
    x, y = Proj("EPSG:3857")(10.0, 60.0)
    path = write_scene(tmp_path / "a.tif", draw_ground(40, 40), crs="EPSG:3857", origin=(x, y), pixel_m=0.2)
    assert open_scene(path).ground_resolution_m == pytest.approx(0.1, rel=0.004)


def test_ground_resolution_equals_snyders_areal_scale(tmp_path: Path) -> None:
    scene = open_scene(write_scene(tmp_path / "a.tif", draw_ground(40, 40), origin=(200_000.0, 5_000_000.0)))
    factors = Proj("EPSG:32612").get_factors(*scene.centre_lon_lat())
    assert scene.ground_resolution_m == pytest.approx(0.1 / factors.areal_scale**0.5, rel=1e-6)


def test_feet_and_degrees_are_ground_metres(tmp_path: Path) -> None:
    feet = open_scene(
        write_scene(
            tmp_path / "feet.tif",
            draw_ground(40, 40),
            crs="EPSG:2263",
            pixel_m=0.5,
            origin=(987_000.0, 210_000.0),
        )
    )
    assert feet.ground_resolution_m == pytest.approx(0.5 * 1200 / 3937, rel=1e-4)
    step = 0.1 / 111_195
    degrees = open_scene(
        write_scene(
            tmp_path / "deg.tif", draw_ground(40, 40), crs="EPSG:4326", pixel_m=step, origin=(10.0, 60.0)
        )
    )
    across, down = degrees.pixel_ground_m
    assert down == pytest.approx(0.1, rel=0.005)
    assert across == pytest.approx(0.1 * cos(radians(60)), rel=0.005)


def test_rotated_and_oblong_pixels_are_measured_along_their_sides(tmp_path: Path) -> None:
    turned = Affine.translation(541_000, 4_977_000) @ Affine.rotation(30) @ Affine.scale(0.1, -0.2)
    scene = open_scene(write_scene(tmp_path / "a.tif", draw_ground(40, 40), transform=turned))
    assert scene.pixel_ground_m == pytest.approx((0.1, 0.2), rel=1e-3)
    assert scene.ground_resolution_m == pytest.approx(0.02**0.5, rel=1e-3)


def test_surveyed_ground_is_the_rasters_outline_in_degrees(tmp_path: Path) -> None:
    scene = open_scene(write_scene(tmp_path / "a.tif", draw_ground(400, 300)))
    surveyed = scene.surveyed()
    assert surveyed.geom_type == "MultiPolygon"
    to_metric = Proj("EPSG:32612")
    metric = shapely.transform(surveyed, lambda xy: np.stack(to_metric(xy[:, 0], xy[:, 1]), axis=1))
    assert metric.area == pytest.approx(40 * 30, rel=1e-6)
    assert metric.bounds == pytest.approx((541_000, 4_976_970, 541_040, 4_977_000), abs=1e-3)


def test_a_file_without_crs_is_refused_and_names_the_option(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", draw_ground(40, 40), crs=None)
    with pytest.raises(SceneWithoutCrs, match="--crs"):
        open_scene(path)
    assert open_scene(path, crs="EPSG:32612").ground_resolution_m == pytest.approx(0.1, rel=1e-3)


def test_a_crs_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", draw_ground(40, 40))
    with pytest.raises(CallerError, match="zone 12N"):
        open_scene(path, crs="EPSG:32613")


def test_a_world_file_and_a_crs_place_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.moveaxis(draw_ground(40, 30), 0, -1)).save(path)
    with pytest.raises(SceneWithoutCrs, match="world file"):
        open_scene(path)
    path.with_suffix(".pgw").write_text("0.1\n0\n0\n-0.1\n541000.05\n4976999.95\n")
    scene = open_scene(path, crs="EPSG:32612")
    expected = (0.1, 0, 541_000, 0, -0.1, 4_977_000)
    assert tuple(scene.transform[:6]) == pytest.approx(expected, rel=0, abs=1e-6)


def test_coordinates_that_are_not_on_earth_are_refused(tmp_path: Path) -> None:
    path = write_scene(
        tmp_path / "a.tif", draw_ground(40, 40), crs="EPSG:4326", pixel_m=1e-6, origin=(20.0, 120.9)
    )
    with pytest.raises(SceneNotProjected, match="swapped"):
        open_scene(path)


# --- bands ------------------------------------------------------------------------------------------


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    indices = (np.arange(40 * 30) % 3).reshape(1, 30, 40).astype(np.uint8)
    write_scene(path, indices, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (9, 8, 7, 255), 1: (0, 255, 0, 255), 2: (200, 100, 50, 255)})
    pixels, _ = read_all(open_scene(path))
    assert pixels[:, 0, :3].T.tolist() == [[9, 8, 7], [0, 255, 0], [200, 100, 50]]


def test_a_grey_image_is_shown_in_all_three_bands(tmp_path: Path) -> None:
    grey = draw_ground(40, 30)[:1]
    pixels, _ = read_all(open_scene(write_scene(tmp_path / "a.tif", grey)))
    assert (pixels == grey).all()


def test_near_infrared_marked_as_alpha_is_no_mask(tmp_path: Path) -> None:
    infrared = np.random.default_rng(1).integers(0, 255, (1, 30, 40)).astype(np.uint8)
    path = write_scene(tmp_path / "a.tif", np.concatenate([draw_ground(40, 30), infrared]))
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3].name == "alpha"  # what GDAL writes unasked
    scene = open_scene(path)
    assert scene.bands.alpha is None
    assert scene.validity.share == 1
    assert "infrared" in scene.bands.assumed[0]
    assert scene.bands.near_infrared == 4
    pixels, _ = read_all(in_infrared(scene))
    np.testing.assert_array_equal(pixels, np.concatenate([infrared, draw_ground(40, 30)[:2]]))


def test_near_infrared_is_the_only_band_beside_the_colours_or_the_one_that_says_so(tmp_path: Path) -> None:
    pixels = np.concatenate([draw_ground(40, 30), draw_ground(40, 30)[:2]])
    four = write_scene(tmp_path / "four.tif", pixels[:4], photometric="rgb", alpha="no")
    assert open_scene(four).bands.near_infrared == 4
    five = write_scene(tmp_path / "five.tif", pixels, photometric="rgb", alpha="no")
    assert open_scene(five).bands.near_infrared is None
    with rasterio.open(five, "r+") as dataset:
        dataset.set_band_description(4, "red edge")
        dataset.set_band_description(5, "NIR")
    with rasterio.open(five) as dataset:
        assert bands_of(dataset).near_infrared == 5
    assert open_scene(write_scene(tmp_path / "three.tif", pixels[:3])).bands.near_infrared is None


def test_bands_are_found_by_their_colours(tmp_path: Path) -> None:
    rgb = draw_ground(40, 30)
    path = write_scene(tmp_path / "a.tif", rgb[::-1])
    with rasterio.open(path, "r+") as dataset:
        names = [rasterio.enums.ColorInterp[name] for name in ("blue", "green", "red")]
        dataset.colorinterp = names
    pixels, _ = read_all(open_scene(path))
    assert (pixels == rgb).all()


def test_sixteen_bits_are_stretched_once_for_the_whole_scene(tmp_path: Path) -> None:
    rgb = draw_squares(draw_ground(300, 200), [(10, 10), (150, 100)], side_px=40)
    deep = rgb.astype(np.uint16) * 16 + 300
    scene = open_scene(write_scene(tmp_path / "a.tif", deep, photometric="rgb"))
    pixels, _ = read_all(scene)
    assert pixels.dtype == np.uint8
    reader = open_reader(scene)
    part, _ = reader.read(Rectangle(100, 50, 200, 150))
    assert (part == pixels[:, 50:150, 100:200]).all()
    difference = np.abs(pixels.astype(int) - rgb.astype(int))
    assert np.median(difference) < 25


@pytest.mark.parametrize("shape", [(512, 512), (100, 640), (2, 3), (639, 77)])
def test_enlarging_is_pillows_bilinear_filter(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (3, *shape)).astype(np.uint8)
    expected = [
        np.asarray(Image.fromarray(band).resize((640, 640), Image.Resampling.BILINEAR)) for band in rgb
    ]
    assert np.abs(resampled(rgb, 640).astype(int) - np.stack(expected)).max() <= 2


# --- validity ---------------------------------------------------------------------------------------


def test_alpha_mask_and_nodata_value_say_which_pixels_count(tmp_path: Path) -> None:
    rgb = draw_ground(160, 120)
    valid = np.ones((120, 160), bool)
    valid[:, :56] = False
    alpha = np.concatenate([rgb, (valid * 255).astype(np.uint8)[None]])
    void = np.where(valid, rgb, 0)
    paths = [
        write_scene(tmp_path / "alpha.tif", alpha, photometric="rgb", alpha="yes"),
        write_scene(tmp_path / "mask.tif", rgb, mask=valid),
        write_scene(tmp_path / "nodata.tif", void, nodata=0),
        write_scene(tmp_path / "border.tif", void),
        write_scene(tmp_path / "white.tif", np.where(valid, rgb, 255).astype(np.uint8)),
    ]
    for path in paths:
        scene = open_scene(path)
        _, mask = read_all(scene)
        assert mask is not None, path.name
        assert (mask == valid).all(), path.name
        assert scene.validity.share == pytest.approx(valid.mean(), abs=0.06), path.name


def test_black_inside_the_picture_is_no_border(tmp_path: Path) -> None:
    rgb = draw_ground(400, 300)
    rgb[:, 100:200, 100:250] = 0
    scene = open_scene(write_scene(tmp_path / "a.tif", rgb))
    assert scene.validity.share == 1


def test_a_dark_but_not_black_edge_is_no_border(tmp_path: Path) -> None:
    rgb = draw_ground(400, 300)
    rgb[:, :, :80] = np.random.default_rng(2).integers(0, 11, (3, 300, 80))
    rgb[:, :, 330:] = 6
    assert open_scene(write_scene(tmp_path / "a.tif", rgb)).validity.share == 1


def test_a_slanted_border_is_left_out_to_the_pixel(tmp_path: Path) -> None:
    rgb = draw_ground(400, 300)
    columns, rows = np.meshgrid(np.arange(400), np.arange(300))
    valid = columns + 0.4 * rows > 150
    scene = open_scene(write_scene(tmp_path / "a.tif", np.where(valid, rgb, 0).astype(np.uint8)))
    _, mask = read_all(scene)
    assert mask is not None
    assert np.mean(mask != valid) < 0.002
    inside = shapely.contains_xy(scene.validity.outline_px(), columns + 0.5, rows + 0.5)
    assert np.mean(inside != valid) < 0.02


def test_the_black_border_of_a_real_ortho_is_not_surveyed(shared: Path) -> None:
    (path,) = (shared / "datasets" / "ortho-manila").glob("*.tif")
    scene = open_scene(path)
    assert scene.ground_resolution_m == pytest.approx(0.097, abs=5e-4)
    _, mask = read_all(scene)
    assert mask is not None
    assert 0.181 <= 1 - mask.mean() < 0.19  # 18.1 % pure black by its README, and JPEG's ring around it


def test_the_ring_of_jpeg_around_a_border_is_border_too(tmp_path: Path) -> None:
    rgb = draw_squares(
        draw_ground(400, 304), [(x, y) for x in range(170, 390, 30) for y in range(4, 290, 30)]
    )
    columns, rows = np.meshgrid(np.arange(400), np.arange(304))
    valid = columns + 0.4 * rows > 150
    path = write_scene(
        tmp_path / "a.tif",
        np.where(valid, rgb, 0).astype(np.uint8),
        compress="jpeg",
        photometric="ycbcr",
        jpeg_quality=60,
    )
    pixels, mask = read_all(open_scene(path))
    assert mask is not None
    ring = ~valid & (pixels.max(axis=0) > 0)
    assert ring.sum() > 500
    assert mask[ring & (pixels.max(axis=0) <= 12)].mean() < 0.02
    assert mask[valid].mean() > 0.98


def test_black_inside_stays_although_there_is_a_border(tmp_path: Path) -> None:
    rgb = draw_ground(400, 300)
    rgb[:, 100:200, 200:320] = 0
    rgb[:, :, :80] = 0
    _, mask = read_all(open_scene(write_scene(tmp_path / "a.tif", rgb)))
    assert mask is not None
    assert mask[:, 80:].all()
    assert not mask[:, :80].any()


def test_an_empty_raster_has_no_surveyed_ground(tmp_path: Path) -> None:
    scene = open_scene(write_scene(tmp_path / "a.tif", np.zeros((3, 90, 90), np.uint8)))
    assert scene.validity.share == 0
    assert scene.surveyed().is_empty


# --- dates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("2026:05:17 10:30:00", datetime(2026, 5, 17, 10, 30)),
        ("0000:00:00 00:00:00", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_the_date_is_the_files_own_tag_or_nothing(
    tmp_path: Path, tag: str | None, expected: datetime | None
) -> None:
    assert (
        open_scene(make_scene_file(tmp_path / "a.tif", size_px=(40, 30), taken_at=tag)).taken_at == expected
    )


# --- hostile files ----------------------------------------------------------------------------------


def test_ra1_a_vrt_named_tif_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    secret = write_scene(tmp_path / "secret.tif", draw_ground(40, 30))
    path = tmp_path / "a.tif"
    path.write_text(
        '<VRTDataset rasterXSize="40" rasterYSize="30"><VRTRasterBand band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(FormatNotAllowed, match="gdal_translate"):
        open_scene(path)


def test_ra4_overviews_redirected_to_another_file_are_refused(tmp_path: Path) -> None:
    other = write_scene(tmp_path / "other.tif", draw_ground(40, 30))
    path = write_scene(tmp_path / "a.tif", draw_ground(40, 30))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(other))
    with pytest.raises(SceneUnreadable, match="other files"):
        open_scene(path)


def test_ra12_more_bands_than_any_camera_has_are_refused(tmp_path: Path) -> None:
    # 60,000 bands of four pixels took minutes.
    path = write_scene(tmp_path / "a.tif", np.zeros((513, 2, 2), np.uint8), tiled=False)
    with pytest.raises(SceneUnreadable, match="513 bands"):
        open_scene(path)


def test_ra6_names_that_gdal_would_interpret_are_only_names(tmp_path: Path) -> None:
    for name in ("/vsicurl/http://127.0.0.1:9/x.tif", "GTIFF_DIR:1:a.tif", "https://127.0.0.1/x.tif"):
        with pytest.raises(SceneUnreadable, match="cannot be read"):
            open_scene(Path(name))


def test_ra9_sidecar_files_are_not_looked_at(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", draw_ground(40, 30))
    before = open_scene(path)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3857</SRS><Metadata><MDI key='TIFFTAG_DATETIME'>2001:01:01 00:00:00</MDI>"
        "</Metadata></PAMDataset>"
    )
    (tmp_path / "a.tif.ovr").write_text('<VRTDataset rasterXSize="20" rasterYSize="15"/>')
    after = open_scene(path)
    assert after.taken_at is None
    assert after.content_hash == before.content_hash


def test_ra10_a_raster_of_absurd_size_is_refused_before_a_pixel_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 300_000, "height": 300_000, "count": 1, "dtype": "uint8"}
    blocks = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(
        path, "w", crs="EPSG:32612", transform=Affine(0.1, 0, 0, 0, -0.1, 0), **profile, **blocks
    ):
        pass
    with pytest.raises(SceneUnreadable, match="300000 × 300000"):
        open_scene(path)


def test_pixels_in_memory_make_a_scene_that_lies_nowhere() -> None:
    scene = scene_from_pixels(np.zeros((30, 40, 3), np.uint8), 0.1)
    assert scene.size_px == (40, 30)
    assert scene.surveyed().is_empty
    with pytest.raises(SceneWithoutCrs):
        scene.centre_lon_lat()
    with pytest.raises(CallerError, match="uint8"):
        scene_from_pixels(np.zeros((30, 40), np.uint8), 0.1)
    assert CRS.from_epsg(4326).is_geographic
