"""The crops of one asset through the years, one a look: hits boxed, misses marked, dates below (R15 below that)."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from detection.errors import CallerError, UrbanInventoryError
from detection.evaluation.sheet import BLUE, GREY, ORANGE, Colour, Mark, Panel, Shape, draw_sheet
from detection.imagery.crops import Crop, cut_out, pixel_of
from inventory.domain.datum import wgs84_to_gcj02
from inventory.domain.life import Event, EventKind, LifeLook
from inventory.lives import Life

_LEAST_SIDE_M, _MOST_SIDE_M = 14.0, 50.0
_CROWNS_ASIDE = 5.0
"""A crop is this many crowns wide, so that its neighbours tell the place."""
_LEGEND = (
    (BLUE, Shape.BOX, "seen by the model"),
    (ORANGE, Shape.RING, "missed: here it should be"),
    (GREY, Shape.RING, "not judged, or not there yet"),
)
_VERDICTS: dict[str, tuple[str, Colour]] = {
    EventKind.FIRST_SEEN: ("first seen", BLUE),
    EventKind.SEEN: ("seen", BLUE),
    EventKind.MISSED: ("missed", ORANGE),
    EventKind.GONE: ("gone", ORANGE),
    EventKind.NOT_JUDGED: ("partly in view", GREY),
    EventKind.NOT_YET: ("not there yet", GREY),
}


def draw_life(life: Life, out: Path) -> int:
    """Writes the picture; returns how many looks it shows.

    A look whose file is gone, or no longer the scene's, has a placeholder that says so.

    Raises:
        CallerError: no look in force ever saw the asset's ground, or the file cannot be written.
    """
    told = [event for event in life.events if event.look is not None and event.event in _VERDICTS]
    if not told:
        raise CallerError(
            f"there is no look to show of {life.names.public_id}: nothing in force has seen it",
            do="Nothing can be shown; see “urban-inventory survey list”.",
        )
    panels = [_panel(life, event, event.look) for event in told if event.look is not None]
    try:
        draw_sheet(
            panels,
            out,
            title=_title(life),
            subtitle=_subtitle(life),
            legend=_legend(panels),
            footer=list(_attributions(life)),
        )
    except (OSError, ValueError) as error:
        raise CallerError(f"cannot be written: {error}", where=str(out), do="Name a .png file.") from error
    return len(panels)


def _legend(panels: list[Panel]) -> list[tuple[Colour, Shape, str]]:
    """What the marks on these panels mean."""
    drawn = {(mark.colour, mark.shape) for panel in panels for mark in panel.marks}
    return [entry for entry in _LEGEND if (entry[0], entry[1]) in drawn]


def _title(life: Life) -> str:
    state = life.state
    if state is None:
        return f"{life.names.class_name} {life.names.public_id} in {life.city.code}"
    counted = "counted" if state.listed else "not counted"
    return f"{state.class_name} {life.names.public_id} in {life.city.code}: {state.status}, {counted}"


def _subtitle(life: Life) -> str:
    state = life.state
    if state is None:
        return ""
    zone = ZoneInfo(life.city.time_zone)
    first, last = (at.astimezone(zone).date().isoformat() for at in (state.first_seen, state.last_seen))
    lon, lat = state.lon_lat
    return f"longitude {lon:.6f}, latitude {lat:.6f}; first seen {first}, last seen {last}"


def _panel(life: Life, event: Event, look: LifeLook) -> Panel:
    verdict, colour = _VERDICTS[event.event]
    day = look.taken_at.astimezone(ZoneInfo(life.city.time_zone)).date().isoformat()
    score = "" if look.score is None else f", score {look.score:.2f}"
    lines = (f"{look.model} on {look.source}{score}", f"scene {look.scene}")
    crop = marks = None
    missing = ""
    try:
        crop, marks = _cropped(life, look, colour)
    except UrbanInventoryError as error:
        missing = error.what
    return Panel(
        rgb=None if crop is None else crop.rgb,
        marks=marks or (),
        heading=day,
        verdict=verdict,
        colour=colour,
        lines=lines,
        missing=missing,
        ground_resolution_m=None if crop is None else crop.ground_resolution_m,
    )


def _cropped(life: Life, look: LifeLook, colour: Colour) -> tuple[Crop, tuple[Mark, ...]]:
    """The ground and the mark on it.

    Raises:
        CallerError: the file is not there, not the scene's, or does not say where it lies.
    """
    if look.path is None or not Path(look.path).is_file():
        raise CallerError(f"the file of scene {look.scene} is gone: urban-inventory scene locate")
    path, crown_m = Path(look.path), life.state.crown_m if life.state else 3.0
    side_m = float(np.clip(_CROWNS_ASIDE * crown_m, _LEAST_SIDE_M, _MOST_SIDE_M))
    if look.box_px is not None:
        x_min, y_min, x_max, y_max = look.box_px
        centre = (x_min + x_max) / 2, (y_min + y_max) / 2
    else:
        centre = pixel_of(path, _in_datum(life, look))
    crop = cut_out(
        path,
        centre,
        side_m=side_m,
        ground_resolution_m=look.ground_resolution_m,
        size_px=look.size_px,
    )
    if look.box_px is not None:
        return crop, (Mark(box_px=crop.within(look.box_px), colour=colour),)
    reach_px = max(crown_m / 2, 1.0) / look.ground_resolution_m
    around = (centre[0] - reach_px, centre[1] - reach_px, centre[0] + reach_px, centre[1] + reach_px)
    return crop, (Mark(box_px=crop.within(around), colour=colour, shape=Shape.RING),)


def _in_datum(life: Life, look: LifeLook) -> tuple[float, float]:
    """Where the asset stood as of the look, in the datum of its file."""
    lon, lat = look.lon_lat
    if not look.georeference_hash.startswith("gcj02:"):
        return lon, lat
    ((lon, lat),) = wgs84_to_gcj02(np.array([[lon, lat]])).tolist()
    return lon, lat


def _attributions(life: Life) -> Iterator[str]:
    """Whom to name, each once (R15)."""
    named = dict.fromkeys(f"{look.attribution} ({look.source})" for look in life.looks if look.attribution)
    if named:
        yield f"Imagery: {'; '.join(named)}"
