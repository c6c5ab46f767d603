"""Evaluation over pictures and scenes, with a model whose answers are known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from detection.errors import LabelsUnusable
from detection.evaluation.card import evaluation_entry, evidence_of_class
from detection.evaluation.evaluate import (
    Found,
    Look,
    cut_into_blocks,
    evaluate_pictures,
    evaluate_scene,
)
from detection.evaluation.labels import ClassNames, LabelFormat, read_labelled_pictures
from detection.evaluation.picture import FALSE_ALARM, HIT, MISS, draw_matches
from detection.evaluation.worst import draw_worst
from detection.imagery.scene import Scene
from tests.support.labelled import make_ground, write_labelled_folder

TREES = ClassNames(wanted=("tree",))
HALF = np.array([0.5])


def _answering(boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> Look:
    def look(scene: Scene) -> Found:
        return Found(
            boxes_px=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            class_index=np.zeros(len(scores), dtype=np.int16),
            scores=np.array(scores, dtype=np.float32),
        )

    return look


def _scene(folder: Path) -> Path:
    """200 × 100 px of 0.1 m, south-up corner at a UTM place."""
    path = folder / "scene.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=200,
        height=100,
        count=3,
        dtype="uint8",
        crs="EPSG:31981",
        transform=Affine(0.1, 0, 500000, 0, -0.1, 7700000),
    ) as file:
        file.write(np.full((3, 100, 200), 120, dtype=np.uint8))
    return path


def _truth(folder: Path, boxes: Sequence[tuple[Sequence[float], str]]) -> Path:
    features = []
    for (x0, y0, x1, y1), split in boxes:
        east = [500000 + x * 0.1 for x in (x0, x1)]
        north = [7700000 - y * 0.1 for y in (y0, y1)]
        ring = [[east[i], north[j]] for i, j in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
        features.append(
            {
                "type": "Feature",
                "properties": {"split": split},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    path = folder / "truth.geojson"
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::31981"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    return path


LEFT, SEAM, RIGHT = (10, 10, 40, 40), (85, 10, 115, 40), (150, 10, 180, 40)


def test_scene_truth_is_laid_on_pixels(tmp_path: Path) -> None:
    truth = _truth(tmp_path, [(LEFT, ""), (RIGHT, "")])
    look = _answering([LEFT, (60, 60, 80, 80)], [0.9, 0.8])
    figures = evaluate_scene(look, _scene(tmp_path), truth, TREES, HALF).figures
    assert (figures.count_true, figures.count_predicted) == (2, 2)
    assert (figures.precision, figures.recall) == (0.5, 0.5)
    assert figures.position_error_m == pytest.approx(0, abs=1e-3)
    assert figures.area_km2 == pytest.approx(200e-6, rel=0.01)


def test_objects_on_the_seam_of_a_split_are_ignored(tmp_path: Path) -> None:
    truth = _truth(tmp_path, [(LEFT, "train"), (SEAM, "both"), (RIGHT, "held-out")])
    look = _answering([LEFT, SEAM, RIGHT, (160, 70, 180, 90)], [0.9, 0.9, 0.9, 0.9])
    evaluation = evaluate_scene(look, _scene(tmp_path), truth, TREES, HALF, split="held-out")
    figures = evaluation.figures
    assert (figures.count_true, figures.count_predicted) == (1, 2)
    assert (figures.precision, figures.recall) == (0.5, 1.0)
    assert figures.area_km2 < 0.5 * 200e-6


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    truth = _truth(tmp_path, [(LEFT, "train")])
    with pytest.raises(LabelsUnusable, match="Splits there: train"):
        evaluate_scene(_answering([], []), _scene(tmp_path), truth, TREES, HALF, split="test")


def test_truth_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    truth = _truth(tmp_path, [((1000, 1000, 1010, 1010), "")])
    with pytest.raises(LabelsUnusable, match="no object of class tree"):
        evaluate_scene(_answering([], []), _scene(tmp_path), truth, TREES, HALF)


def test_pictures_are_measured_each_alone(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path, 2)
    labelled = read_labelled_pictures(tmp_path / "images", tmp_path / "labels", LabelFormat.XYXY, TREES)
    look = _answering(labelled[0].boxes_px.tolist(), [0.9] * 6)
    figures = evaluate_pictures(look, labelled, HALF, ground_resolution_m=0.1).figures
    assert (figures.images, figures.count_true, figures.count_predicted) == (2, 12, 12)
    assert figures.per_image_mae == 0.0
    assert 0.5 <= figures.recall < 1.0


def test_a_picture_without_position_needs_a_resolution(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path, 1)
    labelled = read_labelled_pictures(tmp_path / "images", tmp_path / "labels", LabelFormat.XYXY, TREES)
    with pytest.raises(LabelsUnusable, match="--resolution-m"):
        evaluate_pictures(_answering([], []), labelled, HALF, ground_resolution_m=None)


def test_blocks_share_out_all_objects_and_the_ground() -> None:
    ground = make_ground([LEFT, SEAM, RIGHT], [LEFT, RIGHT], [0.9, 0.4])
    blocks = list(cut_into_blocks(ground, 5.0))
    assert sum(len(block.truth_px) for block in blocks) == 3
    assert sum(len(block.scores) for block in blocks) == 2
    assert sum(block.area_km2 for block in blocks) == pytest.approx(ground.area_km2)


def test_evidence_says_what_one_look_is_worth() -> None:
    ground = make_ground([LEFT, SEAM, RIGHT], [LEFT, RIGHT, (0, 80, 20, 99)], [0.9, 0.9, 0.9])
    evidence = evidence_of_class(0, [ground], list(cut_into_blocks(ground, 5.0)), HALF)
    assert evidence is not None
    assert evidence.precision == evidence.recall == pytest.approx(2 / 3, abs=1e-4)
    assert evidence.false_alarms_per_km2 == 100.0
    assert evidence.relative_error >= 0.05


def test_no_hit_is_no_evidence() -> None:
    ground = make_ground([LEFT], [], [])
    assert evidence_of_class(0, [ground], [ground, ground], HALF) is None


def test_the_cards_entry_keeps_the_counts_of_blocks(tmp_path: Path) -> None:
    truth = _truth(tmp_path, [(LEFT, ""), (RIGHT, "")])
    look = _answering([LEFT], [0.9])
    figures = evaluate_scene(look, _scene(tmp_path), truth, TREES, HALF).figures
    entry = evaluation_entry("drawn", "all", figures)
    assert (entry.count_true, entry.count_predicted, entry.count_error) == (2, 1, -0.5)
    assert entry.model_dump()["block_counts"] == [[2, 1]]


def test_the_picture_shows_hits_misses_and_false_alarms(tmp_path: Path) -> None:
    truth = _truth(tmp_path, [(LEFT, ""), (RIGHT, "")])
    look = _answering([LEFT, (60, 60, 80, 90)], [0.9, 0.8])
    evaluation = evaluate_scene(look, _scene(tmp_path), truth, TREES, HALF)
    out = tmp_path / "pictures" / "seen.png"
    draw_matches(evaluation.pictures[0](), evaluation.matched(0), out)
    with Image.open(out) as image:
        seen = np.asarray(image)[: image.height - 60]  # without the legend
    left, right = (_columns(seen, colour) for colour in (HIT, MISS))
    between = _columns(seen, FALSE_ALARM)
    assert left.max() < between.min() <= between.max() < right.min()


def test_the_surest_false_alarms_are_shown_first(tmp_path: Path) -> None:
    boxes = [[20, 20, 40, 40], [60, 20, 80, 40], [120, 50, 140, 70]]
    look = _answering([*boxes, [150, 80, 170, 100]], [0.9, 0.6, 0.8, 0.3])
    truth = _truth(tmp_path, [(boxes[0], "train")])
    evaluation = evaluate_scene(look, _scene(tmp_path), truth, TREES, HALF)
    out = tmp_path / "worst.png"
    # Of four detections one is the object, and one lies below the threshold.
    assert draw_worst(evaluation, ("tree",), out) == 2
    assert draw_worst(evaluation, ("tree",), out, count=1) == 1
    with Image.open(out) as sheet:
        assert _columns(np.asarray(sheet.convert("RGB")), FALSE_ALARM).size


def _columns(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Columns that hold a pixel of this colour."""
    return np.flatnonzero((pixels == colour).all(axis=2).any(axis=0))
