"""Counts by level, area, class and date at once: many questions of ``counting.py``, asked together."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from enum import StrEnum
from typing import Any

from detection.errors import CallerError
from inventory.counting import count_many
from inventory.domain.tally import CountRow
from inventory.store.database import Database

DATES_MOST = 120
SUM = "sum of classes"


class By(StrEnum):
    """What counts are told apart by."""

    LEVEL = "level"
    AREA = "area"
    CLASS = "class"
    DATE = "date"


def grouped_counts(
    database: Database,
    city_code: str,
    by: Sequence[By],
    *,
    classes: Sequence[str] | None,
    levels: Sequence[str],
    dates: Sequence[date | None],
) -> list[dict[str, Any]]:
    """Rows as ``CountRow.as_json`` gives them; with ``level`` where they are told apart by it.

    Without *class* the classes of a place are added up: how many things there are. Intervals of different models do not
    add up, so a sum has none; it is null where one of its classes was not looked at.

    Args:
        levels: those whose areas are counted, by *area* or *level*; by neither the city as a whole is.

    Raises:
        CallerError: several dates, and not told apart by them.
        UnknownName: as ``count``.
    """
    if len(dates) > 1 and By.DATE not in by:
        raise CallerError("as_of names several dates", do="Add date to group-by.")
    if len(dates) > DATES_MOST:
        raise CallerError(f"more than {DATES_MOST} dates", do="Ask for them in parts.")
    asked: list[str | None] = list(levels) if By.AREA in by or By.LEVEL in by else [None]
    found: list[dict[str, Any]] = []
    for level, rows in count_many(database, city_code, classes=classes, levels=asked, days=dates):
        told = {"level": level} if By.LEVEL in by else {}
        apart = rows if By.CLASS in by else _added_up(rows)
        found += [{**told, **row.as_json()} for row in apart]
    return found


def _added_up(rows: Sequence[CountRow]) -> list[CountRow]:
    by_place: dict[str | None, list[CountRow]] = {}
    for row in rows:
        by_place.setdefault(row.area, []).append(row)
    return [one[0] if len(one) == 1 else _sum(one) for one in by_place.values()]


def _sum(rows: Sequence[CountRow]) -> CountRow:
    counts = [row.count for row in rows if row.count is not None]
    coverage = [row.coverage for row in rows if row.coverage is not None]
    looks = [(row.oldest_look, row.newest_look) for row in rows]
    is_known = len(counts) == len(rows)
    return replace(
        rows[0],
        class_name=",".join(row.class_name for row in rows),
        count=sum(counts) if is_known else None,
        low=None,
        high=None,
        basis=SUM,
        coverage=min(coverage) if is_known and len(coverage) == len(rows) else None,
        oldest_look=min((old for old, _ in looks if old is not None), default=None),
        newest_look=max((new for _, new in looks if new is not None), default=None),
    )
