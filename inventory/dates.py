"""Dates that people and files give, as instants of a city."""

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from inventory.domain.places import City
from inventory.errors import TimeUnusable

_FIRST_YEAR = 1800
"""Nothing is known of a city's trees from before; earlier dates are slips of the keyboard."""


def parse_instant(given: str) -> datetime:
    """``2025-06-30`` (noon of that day) or ``2025-06-30T10:15[:00][+08:00]``; naive without an offset.

    Raises:
        TimeUnusable: neither.
    """
    try:
        if len(given) == len("2025-06-30"):
            # A day without an hour: noon is within it under any clock, and its end is not tomorrow.
            return datetime.combine(date.fromisoformat(given), time(12))
        return datetime.fromisoformat(given)
    except ValueError:
        raise TimeUnusable(
            f"“{given}” is no date", do="Write 2025-06-30, 2025-06-30T10:15 or 2025-06-30T10:15+08:00."
        ) from None


def instant_in(city: City, given: datetime, *, where: str | None = None) -> datetime:
    """An instant at which something can have been seen; a naive one is in the city's time zone.

    Evidence from after today would be in what holds now and not in the count of today.

    Args:
        where: what the date is of, for the message.

    Raises:
        TimeUnusable: after the end of the city's today, or from before 1800.
    """
    zone = ZoneInfo(city.time_zone)
    at = given if given.tzinfo else given.replace(tzinfo=zone)
    if at.year < _FIRST_YEAR:
        raise TimeUnusable(f"{given:%Y-%m-%d} is too long ago", where=where, do="Mend the year.")
    today = datetime.now(UTC).astimezone(zone).date()
    if at > datetime.combine(today + timedelta(days=1), time(), tzinfo=zone):
        raise TimeUnusable(
            f"{given:%Y-%m-%d} has not come yet: in {city.name} it is {today}",
            where=where,
            do="Mend the date.",
        )
    return at


_STEP = re.compile(r"P(?=.)(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})W)?(?:(\d{1,5})D)?")


def days_from(first: date, last: date, step: str, *, most: int) -> list[date]:
    """The first day and every step after it up to the last: ``P1Y``, ``P3M``, ``P1W``, ``P10D`` (ISO 8601).

    A day that a month does not have is that month's last, and the next step is from the first day again: the ends of
    months stay ends of months.

    Args:
        most: days at most.

    Raises:
        TimeUnusable: the step is none, the last day comes before the first, or there are too many.
    """
    found = _STEP.fullmatch(step)
    years, months, weeks, days = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    if not (years or months or weeks or days):
        raise TimeUnusable(
            f"“{step[:40]}” is no step", where="step", do="Write P1Y, P3M, P1W or P10D (ISO 8601)."
        )
    if last < first:
        raise TimeUnusable(f"{last} comes before {first}", where="to", do="Give the earlier date first.")
    made: list[date] = []
    while (day := _stepped(first, len(made), 12 * years + months, 7 * weeks + days)) and day <= last:
        if len(made) == most:
            raise TimeUnusable(
                f"from {first} to {last} by {step} are more than {most} dates",
                where="step",
                do="Take longer steps.",
            )
        made.append(day)
    return made


def _stepped(first: date, times: int, months: int, days: int) -> date | None:
    """So many steps after a day; None: after the year 9999."""
    year, month = divmod(12 * first.year + first.month - 1 + times * months, 12)
    if year > date.max.year:
        return None
    day = date(year, month + 1, min(first.day, calendar.monthrange(year, month + 1)[1]))
    try:
        return day + timedelta(days=times * days)
    except OverflowError:
        return None
