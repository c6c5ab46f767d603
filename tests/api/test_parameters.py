"""The query parameters of the OGC API, read strictly."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ogc.parameters import decode_cursor, encode_cursor, local_dates, read_boxes, read_span
from detection.errors import CallerError
from inventory.errors import TimeUnusable

ZONE = "Asia/Shanghai"


def test_a_box_over_the_antimeridian_becomes_two() -> None:
    west, east = read_boxes("177,65,-177,70")

    assert (west.west, west.east, east.west, east.east) == (177, 180, -180, -177)


def test_heights_in_a_box_are_dropped() -> None:
    (box,) = read_boxes("1,2,-10,3,4,10")

    assert (box.west, box.south, box.east, box.north) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1,2,3",
        "1,2,3,4,5",
        "a,b,c,d",
        "nan,0,1,1",
        "inf,0,1,1",
        "0,91,1,92",
        "0,5,1,4",
        "181,0,182,1",
        "1_00,2,101,3",
        " 1,2,3,4",
        "1,2,3,4\n",
        "１,2,3,4",
        "1,2,9,3,4,8",
    ],
)
def test_a_box_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(CallerError):
        read_boxes(value)


def test_a_date_is_the_whole_local_day_of_the_city() -> None:
    span = read_span("2026-01-02", ZONE)

    assert span is not None
    assert span.start == datetime(2026, 1, 1, 16, tzinfo=UTC)
    assert span.end == datetime(2026, 1, 2, 15, 59, 59, 999_999, tzinfo=UTC)


def test_a_date_with_gdals_trailing_t_is_a_date() -> None:
    assert read_span("2026-01-02T", ZONE) == read_span("2026-01-02", ZONE)


@pytest.mark.parametrize("open_start", ["..", "", "0000-01-01T00:00:00Z"])
@pytest.mark.parametrize("open_end", ["..", "", "9999-12-31T00:00:00Z"])
def test_open_ends_are_dots_nothing_or_qgis_years(open_start: str, open_end: str) -> None:
    assert read_span(f"{open_start}/2026-01-02T03:04:05Z", ZONE) == (
        None, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), False,
    )  # fmt: skip
    assert read_span(f"2026-01-02T03:04:05Z/{open_end}", ZONE) == (
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None, False,
    )  # fmt: skip


def test_an_instant_without_a_zone_is_local() -> None:
    assert read_span("2026-01-02T08:00:00", ZONE) == read_span("2026-01-02T00:00:00Z", ZONE)


def test_an_interval_may_end_after_a_duration() -> None:
    span = read_span("2026-01-02T00:00:00Z/P1DT12H", ZONE)

    assert span is not None
    assert span.end == datetime(2026, 1, 3, 12, tzinfo=UTC)


def test_a_span_touches_local_dates() -> None:
    span = read_span("2026-01-01T16:00:00Z/2026-01-02T16:00:00Z", ZONE)

    assert span is not None
    assert local_dates(span, ZONE) == (date(2026, 1, 2), date(2026, 1, 3))


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        "2026",
        "2026-13-01",
        "2026-02-30",
        "a/b/c",
        "2026-01-02/2026-01-01",
        "2026-01-02/Pxyz",
        "..",
        "",
    ],
)
def test_a_time_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(TimeUnusable):
        read_span(value, ZONE)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/New_York"])
@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01",
        "0001-01-01T00:00:00+14:00",
        "0001-01-01T00:00:00/..",
        "9998-12-31T23:59:59-14:00",
        "9998-12-31/P365D",
        "2026-01-02/P99999W",
    ],
)
def test_times_at_the_ends_of_the_calendar_are_dates_in_every_zone(value: str, zone: str) -> None:
    span = read_span(value, zone)

    assert span is not None
    assert all(one is None or one.year in (1, 2026, 3942, 9998, 9999) for one in local_dates(span, zone))
    assert all(one is None or one.astimezone(UTC).year for one in span[:2])


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_cursor_comes_back_as_its_key_and_is_safe_in_a_uri(key: int) -> None:
    cursor = encode_cursor(key)

    assert decode_cursor(cursor) == key
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text("abzAZ019-_=+/ é", max_size=40))
def test_a_foreign_cursor_is_refused_or_a_number(cursor: str) -> None:
    try:
        key = decode_cursor(cursor)
    except CallerError:
        return
    assert key is not None
    assert 0 <= key < 10**18
