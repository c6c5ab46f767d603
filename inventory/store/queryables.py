"""What filters may name: the properties of features as expressions over the rows that a page's keys come from."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, String, bindparam, cast, func, select

from inventory.store import schema
from inventory.store.filter_operators import Kind
from inventory.store.filters import Elsewhere, Queryable

GEOMETRY = "geom"
CITY = bindparam("city_of_filters", type_=BigInteger)
"""The city's number, which whoever executes a condition sets (``of_city``)."""


def of_city(keys: Select[tuple[int, int]], city_id: int) -> Select[tuple[int, int]]:
    """A statement with conditions on queryables, bound to its city."""
    return keys.params({CITY.key: city_id})


def of_assets() -> Mapping[str, Queryable]:
    """Of assets as they stood: over ``asset_state``."""
    state, asset = schema.asset_state.c, schema.asset
    # The number, not the state's column: compared with that, all would be looked up for each state.
    rows = select(asset.c.id).where(asset.c.city_id == CITY)
    public_id = (
        select(asset.c.public_id)
        .where(asset.c.city_id == CITY, asset.c.id == state.asset_id)
        .scalar_subquery()
    )
    return {
        "id": Queryable(
            kind=Kind.TEXT,
            expression=public_id,
            elsewhere=Elsewhere(reference=state.asset_id, rows=rows, value=asset.c.public_id),
        ),
        **_of_states(),
        "first_seen": _of(Kind.INSTANT, state.first_seen),
        "last_seen": _of(Kind.INSTANT, state.last_seen),
        "first_missed": _of(Kind.INSTANT, state.first_missed),
        GEOMETRY: _of(Kind.GEOMETRY, state.geom),
    }


def of_stock() -> Mapping[str, Queryable]:
    """Of the stock of mobile classes: over ``asset_state``, with the names that observations have."""
    state = schema.asset_state.c
    kept = {"class", "score", "width_m", "height_m", "position_error_m"}
    return {
        "id": _of(Kind.TEXT, cast(state.observation_id, String)),
        **{name: one for name, one in _of_states().items() if name in kept},
        "taken_at": _of(Kind.INSTANT, state.last_seen),
        GEOMETRY: _of(Kind.GEOMETRY, state.geom),
    }


def of_observations() -> Mapping[str, Queryable]:
    """Of what surveys saw: over ``observation``."""
    seen, survey, scene = schema.observation.c, schema.survey, schema.scene
    taken_at = (
        select(scene.c.taken_at)
        .join(survey, survey.c.scene_id == scene.c.id)
        .where(survey.c.id == seen.survey_id)
        .scalar_subquery()
    )
    surveys = select(survey.c.id).join(scene, survey.c.scene_id == scene.c.id).where(survey.c.city_id == CITY)
    return {
        "id": _of(Kind.TEXT, cast(seen.id, String)),
        "class": _of(Kind.TEXT, seen["class"]),
        "score": _of(Kind.NUMBER, seen.score),
        "width_m": _of(Kind.NUMBER, seen.width_m),
        "height_m": _of(Kind.NUMBER, seen.height_m),
        "position_error_m": _of(Kind.NUMBER, seen.error_m),
        "plausible": _of(Kind.BOOLEAN, seen.plausible),
        "taken_at": Queryable(
            kind=Kind.INSTANT,
            expression=taken_at,
            elsewhere=Elsewhere(reference=seen.survey_id, rows=surveys, value=scene.c.taken_at),
        ),
        GEOMETRY: _of(Kind.GEOMETRY, seen.geom),
    }


def of_areas() -> Mapping[str, Queryable]:
    """Of areas: over ``area_version``."""
    version = schema.area_version.c
    return {
        "id": _of(Kind.TEXT, version.level + ":" + version.code),
        "code": _of(Kind.TEXT, version.code),
        "name": _of(Kind.TEXT, version.name),
        "level": _of(Kind.TEXT, version.level),
        "level_rank": _of(Kind.INTEGER, version.level_rank),
        "parent_level": _of(Kind.TEXT, version.parent_level),
        "parent_code": _of(Kind.TEXT, version.parent_code),
        "valid_from": _of(Kind.DATE, func.lower(version.valid)),
        "valid_to": _of(Kind.DATE, func.upper(version.valid) - 1),
        "area_m2": _of(Kind.NUMBER, func.round(version.area_m2)),
        GEOMETRY: _of(Kind.GEOMETRY, version.geom),
    }


def of_surveys() -> Mapping[str, Queryable]:
    """Of surveys: over ``survey`` joined with ``scene``."""
    survey, scene, source = schema.survey.c, schema.scene.c, schema.source
    named = select(source.c.name).where(source.c.id == scene.source_id).scalar_subquery()
    return {
        "id": _of(Kind.TEXT, survey.public_id),
        "scene": _of(Kind.TEXT, scene.public_id),
        "taken_at": _of(Kind.INSTANT, scene.taken_at),
        "source": _of(Kind.TEXT, named),
        "kind": _of(Kind.TEXT, scene.kind),
        "ground_resolution_m": _of(Kind.NUMBER, scene.ground_resolution_m),
        "model": _of(Kind.TEXT, survey.model),
        "model_version": _of(Kind.TEXT, survey.model_version),
        "classes": _of(Kind.TEXT, func.array_to_string(survey.classes, ",")),
        "withdrawn_at": _of(Kind.INSTANT, survey.withdrawn_at),
        "windows": _of(Kind.INTEGER, survey.windows),
        "recorded_at": _of(Kind.INSTANT, survey.recorded_at),
        GEOMETRY: _of(Kind.GEOMETRY, survey.surveyed),
    }


def of_decisions() -> Mapping[str, Queryable]:
    """Of what people decided: over ``decision``."""
    said = schema.decision.c
    return {
        "id": _of(Kind.TEXT, said.public_id),
        "kind": _of(Kind.TEXT, said.kind),
        "class": _of(Kind.TEXT, said["class"]),
        "asset": _of(Kind.TEXT, said.asset),
        "at": _of(Kind.INSTANT, said.at),
        "author": _of(Kind.TEXT, said.author),
        "reason": _of(Kind.TEXT, said.reason),
        "recorded_at": _of(Kind.INSTANT, said.recorded_at),
        GEOMETRY: _of(Kind.GEOMETRY, said.geom),
    }


def _of_states() -> dict[str, Queryable]:
    state = schema.asset_state.c
    return {
        "class": _of(Kind.TEXT, state["class"]),
        "status": _of(Kind.TEXT, state.status),
        "listed": _of(Kind.BOOLEAN, state.listed),
        "verified": _of(Kind.BOOLEAN, state.verified),
        "review": _of(Kind.BOOLEAN, state.review),
        "probability": _of(Kind.NUMBER, state.probability),
        "score": _of(Kind.NUMBER, state.score),
        "width_m": _of(Kind.NUMBER, state.width_m),
        "height_m": _of(Kind.NUMBER, state.height_m),
        "position_error_m": _of(Kind.NUMBER, state.error_m),
        "hits": _of(Kind.INTEGER, state.hits),
    }


def _of(kind: Kind, expression: ColumnElement[Any]) -> Queryable:
    return Queryable(kind=kind, expression=expression)
