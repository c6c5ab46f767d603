"""Dates that people and files give, as instants of a city."""

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
