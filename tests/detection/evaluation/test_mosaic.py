"""Patches laid together: a crown on a seam is one crown."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.errors import LabelsUnusable
from detection.evaluation.labels import ClassNames, LabelFormat, read_labelled_pictures
from detection.evaluation.mosaic import lay_together, layout_beside, merge_parts

TREE = np.zeros(20, dtype=np.int16)


def test_parts_join_where_their_ends_along_the_seam_agree() -> None:
    boxes = np.array([[80.0, 10, 100, 40], [100, 11, 120, 41], [100, 60, 130, 90]])
    merged, classes = merge_parts(boxes, TREE[:3], (100, 100))
    assert sorted(merged.tolist()) == [[80, 10, 120, 41], [100, 60, 130, 90]]
    assert len(classes) == 2


def test_a_crown_over_four_patches_is_one() -> None:
    boxes = np.array([[90.0, 80, 100, 100], [100, 80, 115, 100], [90, 100, 100, 120], [100, 100, 115, 120]])
    merged, _ = merge_parts(boxes, TREE[:4], (100, 100))
    assert merged.tolist() == [[90, 80, 115, 120]]


def test_parts_of_different_classes_stay_apart() -> None:
    boxes = np.array([[80.0, 10, 100, 40], [100, 10, 120, 40]])
    merged, _ = merge_parts(boxes, np.array([0, 1], dtype=np.int16), (100, 100))
    assert len(merged) == 2


def test_two_crowns_that_touch_inside_a_patch_stay_two() -> None:
    boxes = np.array([[30.0, 10, 50, 40], [50, 10, 70, 40]])
    merged, _ = merge_parts(boxes, TREE[:2], (100, 100))
    assert len(merged) == 2


def _patches(folder: Path) -> Path:
    images = folder / "patches"
    images.mkdir()
    for name, grey, label in (("007", 10, "80 10 100 40\n"), ("008", 20, "0 10 20 40\n")):
        Image.new("RGB", (100, 100), (grey, grey, grey)).save(images / f"{name}.png")
        (images / f"{name}.txt").write_text(label)
    (folder / "patches.csv").write_text("patch,row,col\n007,4,7\n008,4,8\n")
    return images


def test_patches_lie_where_the_table_has_them(tmp_path: Path) -> None:
    images = _patches(tmp_path)
    layout = layout_beside(images)
    assert layout is not None
    labelled = read_labelled_pictures(images, images, LabelFormat.XYXY, ClassNames(wanted=("tree",)))
    mosaic = lay_together(labelled, layout)
    assert mosaic.pixels.shape == (100, 200, 3)
    assert mosaic.pixels[0, [0, 199], 0].tolist() == [10, 20]
    assert mosaic.boxes_px.tolist() == [[80, 10, 120, 40]]
    assert (mosaic.joined, mosaic.present) == (1, 1.0)


def test_a_patch_without_a_place_is_refused(tmp_path: Path) -> None:
    images = _patches(tmp_path)
    (tmp_path / "patches.csv").write_text("patch,row,col\n007,4,7\n")
    labelled = read_labelled_pictures(images, images, LabelFormat.XYXY, ClassNames(wanted=("tree",)))
    with pytest.raises(LabelsUnusable, match="no row and col"):
        lay_together(labelled, tmp_path / "patches.csv")
