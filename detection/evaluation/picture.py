"""A picture of what a model got right and wrong, for a person to look at."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from detection.evaluation.measures import Matched

#: Blue, orange and magenta stay apart for colour-blind eyes, and from crowns and roofs.
HIT = (64, 160, 255)
MISS = (255, 176, 0)
FALSE_ALARM = (255, 64, 200)
_PAPER = (24, 26, 30)
_INK = (240, 240, 240)
_NARROWEST_PX = 560
_SMALLEST_TEXT_PX, _LARGEST_TEXT_PX = 15, 44


def draw_matches(pixels: NDArray[np.uint8], matched: Matched, out: Path, *, title: str | None = None) -> None:
    """Writes the picture with hits (blue), misses (orange) and false alarms (magenta).

    Hits and false alarms are drawn where the model saw them, misses where the label is. Small pictures are
    enlarged by a whole number, so that boxes do not hide what is in them.

    Args:
        pixels: (rows, columns, 3) uint8: the picture that ``matched`` speaks of.
        out: a file Pillow can write, by its suffix.
        title: one line above the picture.
    """
    height, width = pixels.shape[:2]
    zoom = max(1, min(3, 1600 // max(width, height)))
    scene = Image.fromarray(pixels).resize((width * zoom, height * zoom), Image.Resampling.LANCZOS)
    _draw_boxes(scene, matched, zoom)
    text_px = int(np.clip(scene.width // 50, _SMALLEST_TEXT_PX, _LARGEST_TEXT_PX))
    bar_px = text_px * 2
    top = bar_px if title else 0
    sheet = Image.new("RGB", (max(scene.width, _NARROWEST_PX), top + scene.height + bar_px), _PAPER)
    sheet.paste(scene, ((sheet.width - scene.width) // 2, top))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(text_px)
    if title:
        pen.text((text_px // 2, bar_px // 2), title, fill=_INK, font=font, anchor="lm")
    _legend(pen, matched, top + scene.height + bar_px // 2, text_px, font)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".part-{out.name}")
    sheet.save(unfinished)
    unfinished.replace(out)


def _draw_boxes(scene: Image.Image, matched: Matched, zoom: int) -> None:
    pen = ImageDraw.Draw(scene)
    line_px = max(2, scene.width // 750)
    found = set(matched.truth.tolist())
    true = set(matched.detection.tolist())
    for index, box in enumerate((matched.ground.detected_px * zoom).tolist()):
        _box(pen, box, HIT if index in true else FALSE_ALARM, line_px)
    # Last, so that what the model did not see is not hidden by what it did.
    for index, box in enumerate((matched.ground.truth_px * zoom).tolist()):
        if index not in found:
            _box(pen, box, MISS, line_px, points=matched.ground.points)


def _box(
    pen: ImageDraw.ImageDraw,
    box: list[float],
    colour: tuple[int, int, int],
    line_px: int,
    *,
    points: bool = False,
) -> None:
    x_min, y_min, x_max, y_max = box
    if points:
        pen.ellipse((x_min - 4, y_min - 4, x_max + 4, y_max + 4), outline=colour, width=line_px)
    else:
        pen.rectangle((x_min, y_min, max(x_min, x_max), max(y_min, y_max)), outline=colour, width=line_px)


def _legend(
    pen: ImageDraw.ImageDraw,
    matched: Matched,
    middle: int,
    text_px: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Below the picture, where it hides no ground."""
    entries = (
        (HIT, f"{matched.hits:,} found"),
        (MISS, f"{matched.misses:,} missed"),
        (FALSE_ALARM, f"{matched.false_alarms:,} false alarms"),
    )
    left: float = text_px // 2
    for colour, text in entries:
        half = text_px // 2
        pen.rectangle((left, middle - half, left + text_px, middle + half), outline=colour, width=3)
        left += text_px * 1.5
        pen.text((left, middle), text, fill=_INK, font=font, anchor="lm")
        left += pen.textlength(text, font=font) + text_px * 1.5
