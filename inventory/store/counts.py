"""Counts: sums of what the fold has written, never a walk over all assets of an area (R8, R12, R13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on

from inventory.domain.places import City
from inventory.domain.tally import Counted, CountError
from inventory.store.schema import asset_state, decision, leaf_delta, leaf_list, survey, survey_class


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """A step of coverage: share of the ground, dates of its looks, SHA-256 of the models that count there."""

    share: float
    oldest_look: datetime
    newest_look: datetime
    models: tuple[str, ...]


_COUNTS = text(
    """
    SELECT area_version_id, class, sum(listed) AS listed, sum(verified) AS verified
    FROM urban_inventory.area_count_delta
    WHERE city_id = :city AND area_version_id = ANY(CAST(:areas AS bigint[]))
        AND class = ANY(CAST(:classes AS text[])) AND at <= :as_of
    GROUP BY area_version_id, class
    """
)

_COVERAGE = text(
    """
    SELECT DISTINCT ON (area_version_id, class) area_version_id, class, share, oldest_look, newest_look, models
    FROM urban_inventory.coverage
    WHERE city_id = :city AND area_version_id = ANY(CAST(:areas AS bigint[]))
        AND class = ANY(CAST(:classes AS text[])) AND at <= :as_of
    ORDER BY area_version_id, class, at DESC
    """
)


def counts_as_of(
    connection: Connection, city: City, areas: Sequence[int], classes: Sequence[str], as_of: datetime
) -> dict[tuple[int, str], Counted]:
    """Listed assets per area version (0 is the city) and class; areas without any are left out."""
    rows = connection.execute(_COUNTS, _parameters(city, classes, as_of, areas=_array(areas)))
    return {
        (row.area_version_id, row[1]): Counted(listed=int(row.listed), verified=int(row.verified))
        for row in rows
    }


def coverage_as_of(
    connection: Connection, city: City, areas: Sequence[int], classes: Sequence[str], as_of: datetime
) -> dict[tuple[int, str], Covered]:
    """The step of coverage in force, per area version or stand-in and class; unsurveyed ones are left out."""
    rows = connection.execute(_COVERAGE, _parameters(city, classes, as_of, areas=_array(areas)))
    return {
        (row.area_version_id, row[1]): Covered(
            share=row.share,
            oldest_look=row.oldest_look,
            newest_look=row.newest_look,
            models=tuple(row.models),
        )
        for row in rows
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOfClass:
    """What a model's card says of counts of a class; ``error`` and ``recall`` None: never evaluated."""

    name: str
    version: str
    error: CountError | None
    recall: float | None


def cards(connection: Connection, city: City, classes: Sequence[str]) -> dict[tuple[str, str], CardOfClass]:
    """The cards of all models that surveyed the city, by (SHA-256, class).

    Of several cards of one network, as after a new threshold, the one in force for the class speaks.
    """
    rows = connection.execute(
        select(
            survey.c.model_sha256,
            survey_class.c["class"],
            survey.c.model,
            survey.c.model_version,
            survey.c.card,
        )
        .join(survey_class, survey_class.c.survey_id == survey.c.id)
        .where(survey.c.city_id == city.id, survey_class.c["class"].in_(list(classes)))
        .ext(distinct_on(survey.c.model_sha256, survey_class.c["class"]))
        .order_by(
            survey.c.model_sha256, survey_class.c["class"], survey_class.c.in_force.desc(), survey.c.id.desc()
        )
    ).all()
    return {
        (row.model_sha256, row[1]): CardOfClass(
            name=row.model,
            version=row.model_version,
            error=_error(row.card, row[1]),
            recall=row.card.get("evidence", {}).get(row[1], {}).get("recall"),
        )
        for row in rows
    }


def classes_with_assets(connection: Connection, city: City) -> list[str]:
    """Classes of which something is or was listed, or decided."""
    # Millions of states would take seconds to look through for what these few rows say.
    listed, waiting, decided = (
        select(table.c["class"]).where(table.c.city_id == city.id)
        for table in (leaf_list, leaf_delta, decision)
    )
    return list(connection.execute(listed.union(waiting, decided)).scalars())


def listed_total(connection: Connection, city: City, class_name: str) -> int:
    """Listed rows of now, counted one by one: what the sums are compared with by ``doctor``."""
    query = select(func.count()).where(
        asset_state.c.city_id == city.id,
        asset_state.c["class"] == class_name,
        asset_state.c.listed,
        asset_state.c.valid_to.is_(None),
    )
    return int(connection.execute(query).scalar_one())


def _error(card: dict[str, Any], class_name: str) -> CountError | None:
    evidence = card.get("evidence", {}).get(class_name)
    if evidence is None:
        return None
    return CountError(relative_error=evidence["relative_error"], dispersion=evidence["dispersion"])


def _array(numbers: Sequence[int]) -> str:
    # As PostgreSQL writes it: the driver takes five times as long for a list.
    return f"{{{','.join(map(str, numbers))}}}"


def _parameters(city: City, classes: Sequence[str], as_of: datetime, **more: Any) -> dict[str, Any]:
    return {"city": city.id, "classes": list(classes), "as_of": as_of, **more}
