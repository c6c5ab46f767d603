"""The conditions of a request for features: every parameter that says which of a collection are meant."""

from collections.abc import Collection as Named
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Request

from api.ogc import parameters
from api.ogc.crs import CRS84, Crs, read_crs
from api.ogc.documents import ABOUT
from api.ogc.filters import equalities, read_filter, simple_queryables
from api.requests import today_in
from detection.errors import CallerError, UnknownName
from detection.taxonomy import shipped_taxonomy
from inventory.domain.tracks import STATUSES
from inventory.store import features
from inventory.store.database import Connection
from inventory.store.features import CityOnPage, Collection, Wanted, When

Names = Annotated[str | None, Query(alias="class", description="Names, with commas between.")]

_WITH_LEVELS = frozenset({Collection.AREAS, Collection.COUNTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What items and downloads take alike; read when the city is known (``wanted``)."""

    bbox: Annotated[
        str | None,
        Query(
            description="west,south,east,north in degrees, or in bbox-crs", examples=["100.9,22.7,101.0,22.8"]
        ),
    ] = None
    datetime: Annotated[
        str | None,
        Query(
            description="Date, instant or START/END; a date is a whole local day.", examples=["2026-01-02"]
        ),
    ] = None
    class_: Names = None
    area: Annotated[str | None, Query(description="Code of an area.")] = None
    level: Annotated[str | None, Query(description="Level of the area, or of areas.")] = None
    status: Annotated[
        str | None, Query(description="present, doubtful, gone or rejected: listed or not.")
    ] = None
    current: Annotated[bool | None, Query(description="Observations: the stock of mobile classes.")] = None
    filter_: Annotated[
        str | None,
        Query(alias="filter", description="CQL2 over the collection’s queryables.", examples=["width_m > 5"]),
    ] = None
    filter_lang: Annotated[
        str | None, Query(alias="filter-lang", description="cql2-text or cql2-json.", examples=["cql2-text"])
    ] = None
    filter_crs: Annotated[
        str | None, Query(alias="filter-crs", description="CRS of the filter’s geometries.", examples=[CRS84])
    ] = None
    bbox_crs: Annotated[
        str | None, Query(alias="bbox-crs", description="CRS of bbox: one of “crs”.", examples=[CRS84])
    ] = None

    def wanted(
        self, request: Request, connection: Connection, city: CityOnPage, collection: Collection
    ) -> Wanted:
        """The conditions, read; the area is the version in force at the time asked for.

        Raises:
            CallerError, FilterUnusable, TimeUnusable, UnknownName: what a parameter says is nothing of its kind.
        """
        self._require_of(collection)
        span = parameters.read_span(self.datetime, city.time_zone)
        today = today_in(city.time_zone)
        dates = (today, today) if span is None else parameters.local_dates(span, city.time_zone)
        if collection is Collection.COUNTS:
            # A count is as of one date: of an interval its end, and now where that is open.
            dates = (dates[1] or today,) * 2
        current = bool(self.current)
        is_state = collection is Collection.ASSETS or current
        box_crs = read_crs(self.bbox_crs, city, "bbox-crs")
        return Wanted(
            boxes=parameters.read_boxes(self.bbox, box_crs),
            when=parameters.end_of_today(today, city.time_zone)
            if span is None
            else _when(span, is_state=is_state),
            local_dates=dates,
            classes=_known("class", self.class_, shipped_taxonomy().classes),
            statuses=_known("status", self.status, STATUSES),
            levels=_known("level", self.level, features.levels_of(connection, city.id))
            if self.level is not None and self.area is None
            else (),
            area=None
            if self.area is None
            else features.area_version(
                connection, city.id, self.area, level=self.level, on=dates[1] or today
            ),
            current=current,
            filters=(
                *parameters.read_box_filters(self.bbox, box_crs),
                *read_filter(self.filter_, self.filter_lang, self._crs_of_filter(city)),
                *equalities(request.query_params, collection, current=current),
            ),
        )

    def _require_of(self, collection: Collection) -> None:
        """A condition that means nothing here must not pass for none.

        Raises:
            CallerError: it is of other collections.
        """
        given = {
            "class": self.class_, "status": self.status, "area": self.area, "level": self.level,
            "current": self.current,
        }  # fmt: skip
        of_collection = ABOUT[collection].filters
        for name, value in given.items():
            if value is not None and name not in of_collection:
                raise CallerError(
                    f"{collection} are not told apart by it",
                    where=name,
                    do=f"Of such conditions they take {', '.join(of_collection)}.",
                )
        if self.level is not None and self.area is None and collection not in _WITH_LEVELS:
            raise CallerError(
                "it only says which of the areas with a code is meant", where="level", do="Add area=CODE."
            )

    def _crs_of_filter(self, city: CityOnPage) -> Crs:
        return read_crs(self.filter_crs, city, "filter-crs")


def queryables_asked(request: Request) -> frozenset[str]:
    """Queryables that may stand as parameters of the collection asked for."""
    with suppress(ValueError):
        return simple_queryables(Collection(request.path_params.get("collection", "")))
    return frozenset()


def _known(parameter: str, value: str | None, known: Named[str]) -> tuple[str, ...]:
    """Names of a list, each of which must be known: a misspelt one would find nothing, and look like 0.

    Raises:
        UnknownName: one of them is not.
    """
    names = parameters.read_names(value)
    for name in names:
        if name not in known:
            raise UnknownName(
                f"none is called “{name[:64]}”", where=parameter, do=f"There are: {', '.join(sorted(known))}."
            )
    return names


def _when(span: parameters.Span, *, is_state: bool) -> When:
    """States are asked for as of the end of a date; surveys and observations for any time within it."""
    if is_state and span.single:
        return When(as_of=span.end)
    return When(interval=(span.start, span.end))
