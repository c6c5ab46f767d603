"""The query parameters of the OGC API, read strictly: ``bbox``, ``datetime``, ``limit``, cursors, lists."""

import base64
import binascii
import re
from datetime import UTC, date, datetime, time, timedelta
from math import isfinite
from typing import NamedTuple
from zoneinfo import ZoneInfo

import shapely

from api.ogc.crs import LON_LAT, Crs
from detection.errors import CallerError
from inventory.errors import TimeUnusable
from inventory.store.features import Box, When
from inventory.store.filter_geometries import FilterGeometries
from inventory.store.filters import Filter
from inventory.store.queryables import GEOMETRY

# Beyond this, skipping rows costs more than reading them; cursors cost nothing.
MAXIMUM_OFFSET = 100_000

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")
"""As JSON and most languages write one: Python would also take “1_00”, spaces and digits of other scripts."""
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})T?")
_DURATION = re.compile(
    r"P(?=.)(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T(?=.)(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})S)?)?"
)
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_A_MICROSECOND = timedelta(microseconds=1)


class Span(NamedTuple):
    """A closed stretch of time; None is open. ``single`` where one date or instant was given."""

    start: datetime | None
    end: datetime | None
    single: bool


def read_boxes(value: str | None, crs: Crs = LON_LAT) -> tuple[Box, ...]:
    """The boxes of ``bbox`` in degrees: none without it, two where west > east (it crosses the antimeridian).

    Of a box in a projected CRS they hold all of it, and more: what lies in it is ``read_box_filters``.

    Raises:
        CallerError: not 4 or 6 numbers, out of range, or south above north.
    """
    if value is None:
        return ()
    corners = _corners(value)
    if not crs.is_geographic:
        shape = FilterGeometries(crs.for_filters()).shape({"bbox": list(corners)})
        west, south, east, north = shapely.bounds(shape).tolist()
        return (Box(west=west, south=south, east=east, north=north),)
    west, south, east, north = corners if crs.is_lon_lat else (corners[i] for i in (1, 0, 3, 2))
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise CallerError(
            f"bbox={value[:80]} is not within ±180, ±90, or its south lies above its north",
            do="Order: west,south,east,north in degrees, longitude first."
            if crs.is_lon_lat
            else f"Order in {crs.code}: south,west,north,east in degrees, latitude first.",
        )
    if west > east:
        return (
            Box(west=west, south=south, east=180.0, north=north),
            Box(west=-180.0, south=south, east=east, north=north),
        )
    return (Box(west=west, south=south, east=east, north=north),)


def read_box_filters(value: str | None, crs: Crs) -> tuple[Filter, ...]:
    """What ``bbox`` says beyond its boxes of degrees: in a projected CRS, to lie in it there.

    Raises:
        CallerError: as ``read_boxes``.
    """
    if value is None or crs.is_geographic:
        return ()
    inside = {"op": "s_intersects", "args": [{"property": GEOMETRY}, {"bbox": list(_corners(value))}]}
    return (Filter(cql2=inside, crs=crs.for_filters(), parameter="bbox"),)


def _corners(value: str) -> tuple[float, float, float, float]:
    parts = value.split(",")
    try:
        numbers = [float(part) for part in parts if _NUMBER.fullmatch(part)]
    except ValueError:
        numbers = []
    if len(numbers) != len(parts) or len(numbers) not in (4, 6) or not all(map(isfinite, numbers)):
        raise CallerError(
            f"bbox={value[:80]} is not 4 (or, with heights, 6) numbers",
            do="Give west,south,east,north in degrees.",
        )
    if len(numbers) == 6:
        if numbers[2] > numbers[5]:
            raise CallerError(
                f"bbox={value[:80]} ends below where it begins",
                do="Order: west,south,lowest,east,north,highest.",
            )
        # Heights are read and dropped: the inventory is flat.
        return numbers[0], numbers[1], numbers[3], numbers[4]
    return numbers[0], numbers[1], numbers[2], numbers[3]


def read_span(value: str | None, time_zone: str) -> Span | None:
    """The time of ``datetime``: a date (a whole local day of the city), an instant, or an interval.

    Ends are closed. Open ends are ``..`` or empty; the years 0000 and 9999, by which QGIS says *open*, are
    open too. ``2026-01-02T`` (GDAL) is a date. An instant without a zone is local. ``START/P1D`` is a
    duration.

    Raises:
        TimeUnusable: nothing of this kind, or an end before its start.
    """
    if value is None:
        return None
    zone = ZoneInfo(time_zone)
    parts = value.split("/")
    if len(parts) == 1 and value not in ("", ".."):
        start, end = _moment(value, zone)
        before_or_after_all = _FIRST if value.startswith("0000-") else _LAST
        return Span(start or before_or_after_all, end or before_or_after_all, True)
    if len(parts) != 2:
        raise _unreadable(value)
    start = None if parts[0] in ("", "..") else _moment(parts[0], zone)[0]
    if parts[1].startswith("P") and start is not None:
        end = _after(start, parts[1])
    else:
        end = None if parts[1] in ("", "..") else _moment(parts[1], zone)[1]
    if start is not None and end is not None and end < start:
        raise TimeUnusable(f"{value[:80]} ends before it starts", where="datetime")
    return Span(start, end, False)


def read_date(value: str, parameter: str) -> date:
    """A date as ``as_of`` takes it.

    Args:
        parameter: the name that it was given under.

    Raises:
        TimeUnusable: it is none.
    """
    try:
        if found := _DATE.fullmatch(value):
            return date(*(int(part) for part in found.groups()))
    except ValueError:
        pass
    raise TimeUnusable(f"“{value[:80]}” is no date", where=parameter, do="Write 2026-01-02.")


def local_dates(span: Span, time_zone: str) -> tuple[date | None, date | None]:
    """First and last city-local date that the span touches; None where it is open."""
    zone = ZoneInfo(time_zone)
    return (
        None if span.start is None else span.start.astimezone(zone).date(),
        None if span.end is None else span.end.astimezone(zone).date(),
    )


def end_of_today(today: date, time_zone: str) -> When:
    """Now: what is valid still, and what was counted until today ends."""
    return When(as_of=_moment(today.isoformat(), ZoneInfo(time_zone))[1], now=True)


def _moment(value: str, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    # Python's datetime ends at year 1; what lies before or after all imagery is as good as open.
    if value.startswith(("0000-", "9999-")):
        return None, None
    try:
        if day := _DATE.fullmatch(value):
            first = datetime.combine(date(*(int(part) for part in day.groups())), time(), zone)
            following = datetime.combine(first.date() + timedelta(days=1), time(), zone)
            return _within_years(first), _within_years(following - _A_MICROSECOND)
        if "T" not in value.upper() or len(value) > 40:
            raise _unreadable(value)
        instant = datetime.fromisoformat(value.replace(" ", "+"))
    except (ValueError, OverflowError):
        raise _unreadable(value) from None
    instant = _within_years(instant if instant.tzinfo is not None else instant.replace(tzinfo=zone))
    return instant, instant


def _within_years(instant: datetime) -> datetime:
    """The instant, or the nearest that is a date in every zone: the first and the last of Python's are not."""
    return min(max(instant, _FIRST), _LAST)


def _after(start: datetime, duration: str) -> datetime:
    found = _DURATION.fullmatch(duration)
    if found is None:
        raise _unreadable(duration)
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    try:
        return _within_years(
            start + timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        )
    except OverflowError:
        raise _unreadable(duration) from None


def _unreadable(value: str) -> TimeUnusable:
    return TimeUnusable(
        f"“{value[:80]}” is no date, instant or interval",
        where="datetime",
        do="Write 2026-01-02, 2026-01-02T03:04:05Z, or START/END with .. for an open end.",
    )


def encode_cursor(key: int, *, backwards: bool = False) -> str:
    """The cursor after a key, or of the page that ends before it; opaque to clients and safe in a URI."""
    text = f"-{key}" if backwards else str(key)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(value: str | None) -> int | None:
    """The key that a cursor stands for; negative: of the page that ends before it.

    Raises:
        CallerError: it is not one of ours.
    """
    if value is None:
        return None
    try:
        key = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not re.fullmatch(rb"-?[0-9]{1,18}", key):
        raise CallerError("the cursor is not one of ours", do="Follow the “next” link, or start without it.")
    return int(key)


def read_names(value: str | None) -> tuple[str, ...]:
    """The names of a comma-separated list, each once; empty without the parameter."""
    return () if value is None else tuple(dict.fromkeys(name.strip() for name in value.split(",")))
