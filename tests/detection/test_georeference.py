"""From pixels to the ground and back."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from detection.imagery.georeference import (
    centres_lon_lat,
    position_errors_m,
    sizes_m,
    to_ground,
    to_pixels,
)
from detection.imagery.scene import Scene, open_scene, scene_from_pixels
from detection.models import CardEvidence
from tests.support.scenes import draw_ground, write_scene


@pytest.fixture(scope="module", params=["north-up", "rotated", "south-up"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    turn = Affine.rotation(33) if request.param == "rotated" else Affine.identity()
    down = 0.1 if request.param == "south-up" else -0.1
    transform = Affine.translation(541_000, 7_737_000) @ turn @ Affine.scale(0.1, down)
    path = tmp_path_factory.mktemp("scene") / "a.tif"
    return open_scene(write_scene(path, draw_ground(60, 50), transform=transform))


@given(column=st.floats(-1e5, 1e5), row=st.floats(-1e5, 1e5))
def test_pixel_to_ground_to_pixel_returns(scene: Scene, column: float, row: float) -> None:
    x, y = to_ground(scene, np.array([column]), np.array([row]))
    back = to_pixels(scene, x, y)
    assert back[0][0] == pytest.approx(column, abs=1e-6)
    assert back[1][0] == pytest.approx(row, abs=1e-6)


def test_centres_do_not_suffer_from_single_precision(tmp_path: Path) -> None:
    scene = open_scene(
        write_scene(
            tmp_path / "a.tif", draw_ground(60, 50), crs="EPSG:31981", origin=(747_000.0, 7_737_000.0)
        )
    )
    boxes = np.array([[n, 0, n + 1, 1] for n in range(60)], np.float32)
    lon = centres_lon_lat(boxes, scene)[:, 0]
    steps = np.diff(lon)
    assert steps == pytest.approx(steps.mean(), rel=1e-4)


def test_a_scene_that_lies_nowhere_has_sizes_but_no_places() -> None:
    scene = scene_from_pixels(np.zeros((50, 60, 3), np.uint8), 0.2)
    boxes = np.array([[0, 0, 10, 20]], np.float32)
    assert np.isnan(centres_lon_lat(boxes, scene)).all()
    assert sizes_m(boxes, scene).tolist() == [[2.0, 4.0]]


def test_r6_position_errors_join_the_scenes_and_the_boxs() -> None:
    measured = CardEvidence(
        precision=0.7,
        recall=0.7,
        false_alarms_per_km2=100,
        persistent_share=0.5,
        relative_error=0.1,
        dispersion=1,
        position_error_m=0.75,
    )
    size_m = np.array([[3, 4], [2, 5]], np.float32)
    errors = position_errors_m(size_m, np.array([0, 1], np.int16), ("tree", "car"), {"tree": measured})
    assert errors == pytest.approx([np.hypot(1, 0.75), np.hypot(1, 0.5)])
