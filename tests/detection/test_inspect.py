"""The pre-flight: every bad file ends in one clear message that says what to do, and nothing else."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import shapely

from detection.errors import SceneUnusable
from detection.imagery.inspect import Inspection, Severity, inspect_imagery
from detection.imagery.scene import open_scene
from tests.support.networks import make_model
from tests.support.scenes import UTM, draw_ground, make_scene_file, write_scene


def finding(report: Inspection, subject: str) -> tuple[Severity, str]:
    found = next(one for one in report.findings if one.subject == subject)
    return found.severity, f"{found.what} {found.do or ''}"


def test_a_good_file_has_nothing_to_mend(tmp_path: Path) -> None:
    path = make_scene_file(tmp_path / "a.tif", trees=[(10, 10)])
    scene = open_scene(path)
    card = make_model(tmp_path / "model").card
    report = inspect_imagery(path, card=card, boundary=scene.surveyed().buffer(0.01), boundary_name="Town")
    assert {one.severity for one in report.findings} == {Severity.OK}
    assert report.usable_scene().content_hash == scene.content_hash
    assert "2026-05-17" in finding(report, "date")[1]
    assert "100%" in finding(report, "city")[1]


def test_what_is_mended_is_said(tmp_path: Path) -> None:
    card = make_model(tmp_path / "model").card
    pixels = draw_ground(400, 300)
    pixels[:, :, :100] = 0
    deep = pixels.astype(np.uint16) * 200
    report = inspect_imagery(write_scene(tmp_path / "a.tif", deep, pixel_m=0.05), card=card)
    for subject, words in (
        ("nodata", "black border"),
        ("depth", "uint16"),
        ("bands", "taken for red, green, blue"),
        ("resolution", "resampled to the 0.1 m"),
    ):
        severity, text = finding(report, subject)
        assert severity is Severity.MENDED
        assert words in text


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("hello")


def vrt(path: Path) -> None:
    path.write_text('<VRTDataset rasterXSize="4" rasterYSize="4"></VRTDataset>')


def jpeg_2000(path: Path) -> None:
    path.write_bytes(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64))


def truncated(path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 255, (3, 300, 400)).astype(np.uint8)
    write_scene(path, random)
    path.write_bytes(path.read_bytes()[:200_000])


def without_crs(path: Path) -> None:
    make_scene_file(path, crs=None)


def too_coarse(path: Path) -> None:
    make_scene_file(path, pixel_m=0.6)


def impossible_degrees(path: Path) -> None:
    make_scene_file(path, crs="EPSG:4326", pixel_m=1e-6, origin=(24.0, 121.5))


def elsewhere(path: Path) -> None:
    make_scene_file(path, origin=(560_000.0, 4_977_000.0))


def all_black(path: Path) -> None:
    write_scene(path, np.zeros((3, 90, 90), np.uint8))


def undated(path: Path) -> None:
    make_scene_file(path, taken_at=None)


@pytest.mark.parametrize(
    ("make", "name", "code", "words"),
    [
        (empty, "a.tif", "scene_unreadable", ["empty"]),
        (text, "a.tif", "scene_unreadable", ["not an image"]),
        (vrt, "a.tif", "format_not_allowed", ["VRT", "gdal_translate"]),
        (vrt, "a.vrt", "format_not_allowed", ["gdal_translate", "a.vrt a.tif"]),
        (jpeg_2000, "a.jp2", "format_not_allowed", ["JPEG 2000", "gdal_translate"]),
        (text, "a.ecw", "format_not_allowed", ["ECW", "gdal_translate"]),
        (truncated, "a.tif", "scene_unreadable", ["damaged or cut off"]),
        (without_crs, "a.tif", "scene_without_crs", ["--crs"]),
        (too_coarse, "a.tif", "scene_too_coarse", ["0.6 m", "0.3 m"]),
        (impossible_degrees, "a.tif", "scene_not_projected", ["swapped"]),
        (elsewhere, "a.tif", "scene_outside_city", ["km outside Town"]),
        (all_black, "a.tif", "scene_without_ground", ["no pixel is valid"]),
        (undated, "a.tif", "scene_without_date", ["--taken-at"]),
    ],
)
def test_a_bad_file_is_refused_in_words(
    tmp_path: Path, make: Callable[[Path], None], name: str, code: str, words: list[str]
) -> None:
    make(tmp_path / name)
    town = open_scene(make_scene_file(tmp_path / "good.tif")).surveyed().buffer(0.01)
    report = inspect_imagery(
        tmp_path / name, card=make_model(tmp_path / "model").card, boundary=town, boundary_name="Town"
    )
    assert not report.is_usable
    with pytest.raises(SceneUnusable) as caught:
        report.usable_scene()
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)
    assert name in str(caught.value)


def test_exchanged_axes_are_recognised_by_the_city(tmp_path: Path) -> None:
    town = shapely.box(-110.6, 44.8, -110.3, 45.1)
    degrees = make_scene_file(tmp_path / "a.tif", crs="EPSG:4326", pixel_m=1e-6, origin=(44.94, 110.48 - 180))
    report = inspect_imagery(degrees, boundary=shapely.box(-69.7, 44.8, -69.3, 45.1))
    assert "swapped" in finding(report, "city")[1]
    metres = make_scene_file(tmp_path / "b.tif", crs=UTM, origin=(4_977_000.0, 541_000.0))
    report = inspect_imagery(metres, boundary=town)
    assert not report.is_usable
    assert "swapped" in " ".join(one.what for one in report.findings)


def test_a_given_date_serves_where_the_file_has_none(tmp_path: Path) -> None:
    path = make_scene_file(tmp_path / "a.tif", taken_at=None)
    assert not inspect_imagery(path).is_usable
    assert inspect_imagery(path, taken_at=datetime(2026, 5, 17)).is_usable
    assert inspect_imagery(path).usable_scene(without_date=True).size_px == (400, 300)
