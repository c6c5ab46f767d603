"""A sheet of small pictures side by side, each with marks and a caption: the same ground at several dates."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from math import ceil, cos, pi, sin
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Blue, orange and magenta stay apart for colour-blind eyes, and from crowns and roofs.
BLUE: Colour = (64, 160, 255)
ORANGE: Colour = (255, 176, 0)
MAGENTA: Colour = (255, 64, 200)
GREY: Colour = (150, 154, 162)
_PAPER: Colour = (24, 26, 30)
_EMPTY: Colour = (38, 41, 47)
_INK: Colour = (240, 240, 240)
_FAINT: Colour = (170, 174, 182)
_SHADE: Colour = (0, 0, 0)
_PANEL_PX = 320
_GAP_PX = 14
_MARGIN_PX = 22
_TITLE_PX, _DATE_PX, _TEXT_PX = 24, 19, 15
_MOST_COLUMNS = 5
_SCALE_SHARE = 0.3
"""A scale bar is about this long, in panels."""
#: Tried in order where a text has letters that Pillow's own font lacks: Chinese names of places, mostly.
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "SourceHanSansCN-Regular.otf", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc", "msyh.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf",
)  # fmt: skip


_NO_LETTER = "\uffff"


class Shape(Enum):
    """How a mark is drawn: what was seen has a box, what was missed a broken ring at the place."""

    BOX = "box"
    RING = "ring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A box in pixels of its panel's picture: x_min, y_min, x_max, y_max."""

    box_px: tuple[float, float, float, float]
    colour: Colour
    shape: Shape = Shape.BOX


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: ``rgb`` (side, side, 3) uint8, or None with ``missing`` saying why there is none.

    ``heading`` is its date or name; ``verdict`` one short word in its colour; ``lines`` smaller text below.
    """

    rgb: NDArray[np.uint8] | None
    marks: Sequence[Mark] = ()
    heading: str
    verdict: str
    colour: Colour
    lines: Sequence[str] = ()
    missing: str = ""
    ground_resolution_m: float | None = None


def draw_sheet(
    panels: Sequence[Panel],
    out: Path,
    *,
    title: str,
    subtitle: str = "",
    legend: Sequence[tuple[Colour, Shape, str]] = (),
    footer: Sequence[str] = (),
) -> None:
    """Writes panels from left to right, then downwards, with title, legend and footer.

    Args:
        out: a file Pillow can write, by its suffix; an earlier one is replaced once all is drawn.
        legend: colour, shape and meaning of the marks.
        footer: lines below: whom to name for the pixels.
    """
    columns = max(min(len(panels), _MOST_COLUMNS), 1)
    if len(panels) > _MOST_COLUMNS:
        columns = ceil(len(panels) / ceil(len(panels) / _MOST_COLUMNS))
    rows = max(ceil(len(panels) / columns), 1)
    lines = max((len(_wrapped(panel)) for panel in panels), default=0)
    caption_px = _DATE_PX + lines * (_TEXT_PX + 4) + 20
    width = 2 * _MARGIN_PX + max(columns, 2) * (_PANEL_PX + _GAP_PX) - _GAP_PX
    head = [*_folded(title, _TITLE_PX, width - 2 * _MARGIN_PX)]
    under = [*_folded(subtitle, _TEXT_PX, width - 2 * _MARGIN_PX)] if subtitle else []
    foot = [part for line in footer for part in _folded(line, _TEXT_PX, width - 2 * _MARGIN_PX)]
    top = _MARGIN_PX + len(head) * (_TITLE_PX + 8) + len(under) * (_TEXT_PX + 6) + 12
    below = top + rows * (_PANEL_PX + caption_px + _GAP_PX)
    height = below + (_TEXT_PX + 14 if legend else 0) + len(foot) * (_TEXT_PX + 6) + _MARGIN_PX
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _head(pen, head, under)
    for number, panel in enumerate(panels):
        x = _MARGIN_PX + number % columns * (_PANEL_PX + _GAP_PX)
        y = top + number // columns * (_PANEL_PX + caption_px + _GAP_PX)
        sheet.paste(_picture(panel), (x, y))
        _caption(pen, panel, x, y + _PANEL_PX)
    if legend:
        _legend(pen, legend, below)
        below += _TEXT_PX + 14
    for number, line in enumerate(foot):
        pen.text((_MARGIN_PX, below + number * (_TEXT_PX + 6)), line, fill=_FAINT, font=_font(_TEXT_PX, line))
    _save(sheet, out)


def _head(pen: ImageDraw.ImageDraw, title: Sequence[str], subtitle: Sequence[str]) -> None:
    y = _MARGIN_PX
    for line in title:
        pen.text((_MARGIN_PX, y), line, fill=_INK, font=_font(_TITLE_PX, line))
        y += _TITLE_PX + 8
    for line in subtitle:
        pen.text((_MARGIN_PX, y), line, fill=_FAINT, font=_font(_TEXT_PX, line))
        y += _TEXT_PX + 6


def _picture(panel: Panel) -> Image.Image:
    if panel.rgb is None:
        return _placeholder(panel)
    zoom = _PANEL_PX / panel.rgb.shape[1]
    # Enlarged smoothly: the squares of a few pixels would be taken for the ground's own.
    filter_ = Image.Resampling.BICUBIC if zoom > 1 else Image.Resampling.LANCZOS
    picture = Image.fromarray(panel.rgb).resize((_PANEL_PX, _PANEL_PX), filter_)
    pen = ImageDraw.Draw(picture)
    for mark in panel.marks:
        box = [side * zoom for side in mark.box_px]
        # A dark line around each bright one: seen on snow and on shadow.
        for colour, line_px in ((_SHADE, 5), (mark.colour, 3)):
            (_box if mark.shape is Shape.BOX else _ring)(pen, box, colour, line_px)
    if panel.ground_resolution_m is not None:
        _scale_bar(pen, panel.ground_resolution_m / zoom)
    return picture


def _box(pen: ImageDraw.ImageDraw, box: list[float], colour: Colour, line_px: int) -> None:
    grown = (line_px - 3) / 2
    pen.rectangle(
        (box[0] - grown, box[1] - grown, box[2] + grown, box[3] + grown), outline=colour, width=line_px
    )


def _ring(pen: ImageDraw.ImageDraw, box: list[float], colour: Colour, line_px: int) -> None:
    grown = (line_px - 3) / 2
    around = (box[0] - grown, box[1] - grown, box[2] + grown, box[3] + grown)
    for start in range(0, 360, 30):
        pen.arc(around, start, start + 18, fill=colour, width=line_px)


def _scale_bar(pen: ImageDraw.ImageDraw, metres_per_px: float) -> None:
    wanted = _PANEL_PX * _SCALE_SHARE * metres_per_px
    metres = max((step for step in (1, 2, 5, 10, 20, 50, 100) if step <= wanted), default=1)
    length, y = metres / metres_per_px, _PANEL_PX - 12
    x = _PANEL_PX - 12 - length
    text = f"{metres} m"
    for colour, line_px in ((_SHADE, 5), (_INK, 2)):
        pen.line((x, y, x + length, y), fill=colour, width=line_px)
    pen.text(
        (x + length / 2, y - 5),
        text,
        fill=_INK,
        font=_font(_TEXT_PX - 2, text),
        anchor="mb",
        stroke_width=2,
        stroke_fill=_SHADE,
    )


def _placeholder(panel: Panel) -> Image.Image:
    picture = Image.new("RGB", (_PANEL_PX, _PANEL_PX), _EMPTY)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, _PANEL_PX - 1, _PANEL_PX - 1), outline=(70, 74, 82))
    lines = _folded(panel.missing, _TEXT_PX, _PANEL_PX - 40)
    y = _PANEL_PX / 2 - len(lines) * (_TEXT_PX + 5) / 2
    for line in lines:
        pen.text((_PANEL_PX / 2, y), line, fill=_FAINT, font=_font(_TEXT_PX, line), anchor="ma")
        y += _TEXT_PX + 5
    return picture


def _caption(pen: ImageDraw.ImageDraw, panel: Panel, x: int, y: int) -> None:
    pen.rectangle((x, y, x + _PANEL_PX - 1, y + 3), fill=panel.colour)
    y += 10
    heading = _font(_DATE_PX, panel.heading)
    pen.text((x, y), panel.heading, fill=_INK, font=heading)
    pen.text(
        (x + _PANEL_PX, y),
        panel.verdict,
        fill=panel.colour,
        font=_font(_DATE_PX, panel.verdict),
        anchor="ra",
    )
    y += _DATE_PX + 6
    for line in _wrapped(panel):
        pen.text((x, y), line, fill=_FAINT, font=_font(_TEXT_PX, line))
        y += _TEXT_PX + 4


def _legend(pen: ImageDraw.ImageDraw, legend: Sequence[tuple[Colour, Shape, str]], top: int) -> None:
    left: float = _MARGIN_PX
    for colour, shape, text in legend:
        box = [left + 1, top + 1.0, left + _TEXT_PX, top + _TEXT_PX]
        if shape is Shape.BOX:
            _box(pen, box, colour, 3)
        else:
            middle, reach = (left + _TEXT_PX / 2, top + _TEXT_PX / 2), _TEXT_PX / 2 - 1
            for step in range(8):
                angle = step * pi / 4
                spot = middle[0] + reach * cos(angle), middle[1] + reach * sin(angle)
                pen.ellipse((spot[0] - 1.5, spot[1] - 1.5, spot[0] + 1.5, spot[1] + 1.5), fill=colour)
        font = _font(_TEXT_PX, text)
        pen.text((left + _TEXT_PX + 8, top + _TEXT_PX / 2), text, fill=_INK, font=font, anchor="lm")
        left += _TEXT_PX + 8 + pen.textlength(text, font=font) + 26


def _save(sheet: Image.Image, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".part-{out.name}")
    try:
        sheet.save(unfinished)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


# --- texts -------------------------------------------------------------------------------------------------


def _wrapped(panel: Panel) -> list[str]:
    return [part for line in panel.lines for part in _folded(line, _TEXT_PX, _PANEL_PX)]


def _folded(text: str, size_px: int, width_px: int) -> list[str]:
    """Lines that fit; a word that is too long for a line is cut."""
    font = _font(size_px, text)
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px:
            lines[-1] = longer
            continue
        rest = word
        while font.getlength(rest) > width_px:
            fits = next(n for n in range(len(rest), 0, -1) if n == 1 or font.getlength(rest[:n]) <= width_px)
            lines.append(rest[:fits])
            rest = rest[fits:]
        lines.append(rest)
    return [line for line in lines if line]


@cache
def _font(size_px: int, text: str) -> Font:
    """Pillow's own font; where it lacks letters of the text, the first of the system that has them all."""
    own = ImageFont.load_default(size_px)
    if not _lacks(own, text):
        return own
    for name in _WIDE_FONTS:
        try:
            font = ImageFont.truetype(name, size_px)
        except OSError:
            continue
        if not _lacks(font, text):
            return font
    return own


def _lacks(font: Font, text: str) -> bool:
    """Whether a font draws any letter as the sign for letters that it does not have."""
    unknown = bytes(font.getmask(_NO_LETTER))
    return any(letter > "~" and bytes(font.getmask(letter)) == unknown for letter in set(text))
