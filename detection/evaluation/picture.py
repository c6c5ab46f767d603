"""A picture of what a model got right and wrong, for a person to look at."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from detection.evaluation.measures import Matched

#: Blue, orange and magenta stay apart for colour-blind eyes, and from crowns and roofs.
HIT = (64, 160, 255)
MISS = (255, 176, 0)
FALSE_ALARM = (255, 64, 200)
LEGEND_PX = 24


def draw_matches(pixels: NDArray[np.uint8], matched: Matched, out: Path) -> None:
    """Writes the picture with hits (blue), misses (orange) and false alarms (magenta).

    Args:
        pixels: (rows, columns, 3) uint8: the picture that ``matched`` speaks of.
        out: a file Pillow can write, by its suffix.
    """
    height, width = pixels.shape[:2]
    image = Image.new("RGB", (max(width, 330), height + LEGEND_PX))
    image.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(image)
    found = set(matched.truth.tolist())
    true = set(matched.detection.tolist())
    for index, box in enumerate(matched.ground.truth_px.tolist()):
        if index not in found:
            _box(draw, box, MISS, points=matched.ground.points)
    for index, box in enumerate(matched.ground.detected_px.tolist()):
        _box(draw, box, HIT if index in true else FALSE_ALARM)
    _legend(draw, matched, height)
    out.parent.mkdir(parents=True, exist_ok=True)
    image.save(out)


def _box(
    draw: ImageDraw.ImageDraw,
    box: list[float],
    colour: tuple[int, int, int],
    *,
    points: bool = False,
) -> None:
    x_min, y_min, x_max, y_max = box
    if points:
        draw.ellipse((x_min - 4, y_min - 4, x_max + 4, y_max + 4), outline=colour, width=2)
    else:
        draw.rectangle((x_min, y_min, max(x_min, x_max), max(y_min, y_max)), outline=colour, width=2)


def _legend(draw: ImageDraw.ImageDraw, matched: Matched, top: int) -> None:
    """Below the picture, where it hides no ground."""
    entries = (
        (HIT, f"{matched.hits} found"),
        (MISS, f"{matched.misses} missed"),
        (FALSE_ALARM, f"{matched.false_alarms} false alarms"),
    )
    for index, (colour, text) in enumerate(entries):
        left = 8 + 100 * index
        draw.rectangle((left, top + 6, left + 11, top + 17), fill=colour)
        draw.text((left + 18, top + 6), text, fill=(255, 255, 255))
