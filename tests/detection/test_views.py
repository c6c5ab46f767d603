"""Several looks at one window: what comes back is where it was, and the looks agree or count for less."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection.detector import Boxes, build_detector, iou_matrix
from detection.models import Model
from detection.sweep import SweepOptions, settings_key
from detection.views import VIEWS, SeveralViews, View, fused
from tests.support.networks import make_model
from tests.support.scenes import draw_ground, draw_squares


def with_views(model: Model, views: int) -> Model:
    asked = model.card.input.model_copy(update={"views": views})
    return replace(model, card=model.card.model_copy(update={"input": asked}))


def boxes_of(*rows: tuple[float, float, float, float, float], of_class: int = 0) -> Boxes:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Boxes(
        corners=table[:, :4], scores=table[:, 4], class_index=np.full(len(table), of_class, np.int16)
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_box_comes_back_to_where_it_was(view: View) -> None:
    """A white rectangle is looked at, found by its pixels, and undone."""
    window = np.zeros((1, 100, 100, 3), np.uint8)
    window[0, 20:35, 60:95] = 255
    seen = view.of(window)
    assert seen.shape == window.shape
    rows, columns = np.nonzero(seen[0, :, :, 0] > 200)
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    undone = view.undone(box, 100)
    assert undone == pytest.approx(np.array([[60, 20, 95, 35]], np.float32), abs=1.3)


def test_no_two_views_are_alike_and_each_prefix_is_half_at_full_size() -> None:
    assert len(set(VIEWS)) == len(VIEWS) == 8
    for count in (2, 4, 8):
        assert sum(view.scale == 1 for view in VIEWS[:count]) == count // 2


def test_a_box_that_all_looks_see_keeps_its_score_and_one_that_half_of_them_see_half() -> None:
    sure, other = (10, 10, 20, 20, 0.8), (50, 50, 60, 60, 0.6)
    boxes = fused([boxes_of(sure, other), boxes_of(sure)])
    assert boxes.corners == pytest.approx(np.array([[10, 10, 20, 20], [50, 50, 60, 60]]))
    assert boxes.scores == pytest.approx([0.8, 0.3])


def test_corners_are_averaged_by_score() -> None:
    boxes = fused([boxes_of((0, 0, 10, 10, 0.6)), boxes_of((0, 0, 12, 10, 0.3))])
    assert boxes.corners[0] == pytest.approx([0, 0, (10 * 0.6 + 12 * 0.3) / 0.9, 10])


def test_two_objects_that_one_look_tells_apart_stay_two() -> None:
    # A box takes one box of each other look, the nearest, and none of its own.
    first = boxes_of((0, 0, 10, 10, 0.9), (3, 0, 13, 10, 0.8))
    second = boxes_of((0, 0, 10, 10, 0.7), (3, 0, 13, 10, 0.6))
    assert fused([first, second]).scores == pytest.approx([0.8, 0.7])


def test_classes_are_fused_apart() -> None:
    assert len(fused([boxes_of((0, 0, 10, 10, 0.9)), boxes_of((0, 0, 10, 10, 0.9), of_class=1)])) == 2


def test_nothing_is_fused_from_nothing() -> None:
    assert len(fused([boxes_of(), boxes_of()])) == 0


class Twice:
    """A detector that sees one box in the first look and none in the second."""

    def __init__(self) -> None:
        self.looks = iter([boxes_of((10, 10, 20, 20, 0.5)), boxes_of()])

    def detect(self, windows: np.ndarray) -> list[Boxes]:
        return [next(self.looks)]


@pytest.mark.parametrize(("threshold", "found"), [(0.25, 1), (0.26, 0)])
def test_the_threshold_is_asked_of_the_mean(threshold: float, found: int) -> None:
    detector = SeveralViews(Twice(), np.array([threshold], np.float32), views=2, iou=0.5)
    (boxes,) = detector.detect(np.zeros((1, 64, 64, 3), np.uint8))
    assert len(boxes) == found


def test_a_card_with_views_is_another_model_that_finds_the_same_squares(tmp_path: Path) -> None:
    once = make_model(tmp_path)
    twice = with_views(once, 2)
    ground = np.moveaxis(draw_squares(draw_ground(128, 128), [(10, 20), (60, 61)]), 0, -1)[None]
    # The network of these tests is meant for squares of one size: the smaller look is less sure of them.
    (seen,) = build_detector(twice, threshold_override=0.1).detect(ground)
    (wanted,) = build_detector(once).detect(ground)
    assert len(wanted) == 2
    assert (iou_matrix(wanted.corners, seen.corners).max(axis=1) > 0.6).all()
    assert once.card.model_sha256 == once.card.sha256 != twice.card.model_sha256
    assert settings_key(once, SweepOptions()) != settings_key(twice, SweepOptions())
