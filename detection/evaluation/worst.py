"""The false alarms that a model was surest of, as a sheet of crops: what it takes for an object, to learn from."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.evaluate import Evaluation
from detection.evaluation.labels import Boxes
from detection.evaluation.sheet import BLUE, MAGENTA, Colour, Mark, Panel, Shape, draw_sheet

WORST = 10
_LEAST_SIDE_M = 12.0


def draw_worst(evaluation: Evaluation, classes: tuple[str, ...], out: Path, *, count: int = WORST) -> int:
    """Writes the sheet, the surest first; returns how many it shows. What was labelled beside them is drawn, too.

    Args:
        classes: the model's, by index.
        out: a file Pillow can write, by its suffix.
    """
    found: list[tuple[float, int, int]] = []
    for number in range(len(evaluation.images)):
        matched = evaluation.matched(number)
        false = np.setdiff1d(np.arange(len(matched.ground.scores)), matched.detection)
        found += [(float(matched.ground.scores[index]), number, int(index)) for index in false]
    shown = sorted(found, key=lambda one: (-one[0], one[1], one[2]))[:count]
    panels = [_panel(evaluation, number, index, score, classes) for score, number, index in shown]
    draw_sheet(
        panels,
        out,
        title=f"{len(shown)} surest of {len(found):,} false alarms",
        legend=((MAGENTA, Shape.BOX, "detected, and not labelled"), (BLUE, Shape.BOX, "labelled")),
    )
    return len(shown)


def _panel(evaluation: Evaluation, number: int, index: int, score: float, classes: tuple[str, ...]) -> Panel:
    ground = evaluation.matched(number).ground
    pixels = evaluation.pictures[number]()
    box = ground.detected_px[index]
    side = int(max(3 * max(box[2] - box[0], box[3] - box[1]), _LEAST_SIDE_M / ground.ground_resolution_m))
    corner = np.round((box[:2] + box[2:]) / 2 - side / 2).astype(int)
    crop = _crop(pixels, corner, side)
    offset = np.array([*corner, *corner])
    marks = [_mark(box - offset, MAGENTA)]
    inside = (ground.truth_px[:, 2:] > corner).all(axis=1) & (ground.truth_px[:, :2] < corner + side).all(
        axis=1
    )
    marks += [_mark(one - offset, BLUE) for one in ground.truth_px[inside]]
    return Panel(
        rgb=crop,
        marks=marks,
        heading=f"{classes[int(ground.detected_class[index])]}, {score:.2f}",
        verdict="false alarm",
        colour=MAGENTA,
        lines=[ground.name, f"at {int(box[0])}, {int(box[1])} px"],
        ground_resolution_m=ground.ground_resolution_m,
    )


def _crop(pixels: NDArray[np.uint8], corner: NDArray[np.int_], side: int) -> NDArray[np.uint8]:
    """A square of the picture; black beyond its edge."""
    square = np.zeros((side, side, 3), np.uint8)
    height, width = pixels.shape[:2]
    x, y = corner
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
    square[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
    return square


def _mark(box: Boxes, colour: Colour) -> Mark:
    x_min, y_min, x_max, y_max = (float(value) for value in box)
    return Mark(box_px=(x_min, y_min, x_max, y_max), colour=colour)
