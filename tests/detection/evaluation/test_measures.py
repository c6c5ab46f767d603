"""Figures against cases worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from detection.evaluation.measures import (
    average_precision,
    count_calibrated_threshold,
    error_between_domains,
    error_model,
    match_ground,
    measure,
)
from tests.support.labelled import make_ground

A, B, C = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]
NOWHERE = [80.0, 80, 90, 90]


def test_average_precision_of_a_hand_computed_case() -> None:
    # Ranked: hit, false, hit; the third object is never found. Recall 1/3, 1/3, 2/3 at precision
    # 1, 1/2, 2/3; made monotone 1, 2/3, 2/3: area = 1/3 · 1 + 1/3 · 2/3 = 5/9.
    ground = make_ground([A, B, C], [A, NOWHERE, B], [0.9, 0.8, 0.7])
    assert average_precision([ground]) == pytest.approx(5 / 9)


def test_average_precision_ranks_over_all_images_together() -> None:
    # Image one's false alarm (0.95) outranks image two's hit: hit at rank 2 of 2 objects.
    one = make_ground([A], [NOWHERE], [0.95], name="one")
    two = make_ground([A], [A], [0.9], name="two")
    assert average_precision([one, two]) == pytest.approx(0.5 * 0.5)


def test_average_precision_wants_half_overlap_and_recall_less() -> None:
    shifted = [3.0, 0, 13, 10]  # 70 shared of 130: IoU 0.538
    further = [104.2, 0, 114.2, 10]  # 58 shared of 142: 0.408
    ground = make_ground([A, [100.0, 0, 110, 10]], [shifted, further], [0.9, 0.8])
    assert average_precision([ground]) == pytest.approx(0.5)
    assert match_ground(ground, np.array([0.5])).hits == 2


def test_average_precision_without_objects_is_not_a_number() -> None:
    assert np.isnan(average_precision([make_ground([], [A], [0.9])]))


def test_figures_at_the_threshold() -> None:
    one = make_ground([A, B], [A, NOWHERE, B], [0.9, 0.6, 0.2], name="one")
    two = make_ground([C], [], [], name="two")
    figures = measure([one, two], np.array([0.5]))
    assert (figures.precision, figures.recall) == (0.5, pytest.approx(1 / 3))
    assert (figures.count_true, figures.count_predicted) == (3, 2)
    assert figures.count_error == pytest.approx(-1 / 3)
    assert figures.per_image_mae == 0.5
    assert figures.false_alarms_per_km2 == pytest.approx(1 / 0.02)
    assert figures.position_error_m == 0.0


def test_without_classes_a_bus_called_a_car_is_found() -> None:
    ground = replace(
        make_ground([A, B, C], [A, B, NOWHERE], [0.9, 0.8, 0.7]),
        truth_class=np.array([0, 1, 1], np.int16),
        detected_class=np.array([0, 0, 1], np.int16),
    )
    thresholds = np.array([0.5, 0.75])
    apart = measure([ground], thresholds)
    assert (apart.precision, apart.recall, apart.count_predicted) == (0.5, pytest.approx(1 / 3), 2)
    agnostic = measure([replace(ground, class_agnostic=True)], thresholds)
    # Each detection keeps its own class's threshold: the third stays out.
    assert (agnostic.precision, agnostic.recall, agnostic.count_predicted) == (1.0, pytest.approx(2 / 3), 2)
    assert agnostic.ap50 == pytest.approx(2 / 3)


def test_points_are_met_within_the_distance_asked_for() -> None:
    # Middles 5 px off at 1 m a pixel.
    ground = make_ground(
        [[10.0, 10, 10, 10]], [[12.0, 7, 18, 13]], [0.9], points=True, ground_resolution_m=1.0
    )
    assert match_ground(ground, np.array([0.5])).hits == 1
    assert match_ground(replace(ground, point_reach_m=4.9), np.array([0.5])).hits == 0


def test_no_object_and_no_detection_has_no_count_error() -> None:
    figures = measure([make_ground([], [], [])], np.array([0.5]))
    assert figures.count_error is None
    assert (figures.precision, figures.recall) == (0.0, 0.0)


def test_position_error_is_in_metres_along_an_axis() -> None:
    ground = make_ground([A], [[1.0, 0, 11, 10]], [0.9], ground_resolution_m=0.2)
    figures = measure([ground], np.array([0.5]))
    assert figures.position_error_m == pytest.approx(0.2 / np.sqrt(2))


def test_points_are_hit_within_six_metres() -> None:
    ground = make_ground([[5.0, 5, 5, 5], [200, 200, 200, 200]], [A, NOWHERE], [0.9, 0.9], points=True)
    figures = measure([ground], np.array([0.5]))
    assert (figures.precision, figures.recall) == (0.5, 0.5)
    assert figures.recall_by_size == ()


def test_the_threshold_makes_the_count_right() -> None:
    scores = [0.9, 0.8, 0.6, 0.4, 0.3]
    grounds = [make_ground([A, B, C], [A, B, NOWHERE, C, NOWHERE], scores)]
    threshold = count_calibrated_threshold([grounds], 0)
    assert threshold == pytest.approx(0.5)
    assert measure(grounds, np.array([threshold])).count_error == 0.0


def test_the_threshold_of_a_poor_model_comes_as_near_as_it_can() -> None:
    grounds = [make_ground([A, B, C], [A], [0.5])]
    threshold = count_calibrated_threshold([grounds], 0)
    assert measure(grounds, np.array([threshold])).count_predicted == 1


def test_domains_weigh_alike_however_many_objects_they_show() -> None:
    # One domain: four objects, detections .9 .8 .7 .6; the other: one object, detections .85 .3.
    many = [make_ground([A, B, C, NOWHERE], [A, B, C, NOWHERE], [0.9, 0.8, 0.7, 0.6])]
    few = [make_ground([A], [A, B], [0.85, 0.3])]
    # Shares reached by falling score: 1/4, 1 1/4, 1 1/2, 1 3/4, 2: all but the last.
    assert count_calibrated_threshold([many, few], 0) == pytest.approx(0.45)
    empty = [make_ground([], [A], [0.99])]
    assert count_calibrated_threshold([many, few, empty], 0) == pytest.approx(0.45)
    assert count_calibrated_threshold([empty], 0) == 0.25


def test_error_model_tells_bias_from_scatter() -> None:
    biased = [(n, round(1.2 * n)) for n in (10, 50, 100, 500, 1000)]
    e, phi = error_model(biased)
    assert e == pytest.approx(0.2, abs=0.01)
    assert phi == pytest.approx(0, abs=0.1)
    random = np.random.default_rng(0)
    sizes = random.integers(5, 400, 800)
    scattered = [(int(n), int(n + random.normal(0, np.sqrt(1.5 * n)))) for n in sizes]
    e, phi = error_model(scattered)
    assert phi == pytest.approx(1.5, rel=0.2)
    assert e < 0.06


def test_domains_that_err_in_opposite_directions_show_in_the_error() -> None:
    assert error_between_domains([(1000, 1200), (1000, 800)], 0.0) == pytest.approx(0.2)
    # Ten objects with φ = 2 scatter by 45 %: 20 % says nothing.
    assert error_between_domains([(10, 12), (10, 8)], 2.0) == 0.0
    assert error_between_domains([(0, 3)], 1.0) == 0.0
