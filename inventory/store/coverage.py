"""Coverage in steps: what share of every area was looked at, since when, and by which models (R5, R13)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from pyproj import Transformer
from sqlalchemy import Connection, text

from inventory.domain.evidence import Look
from inventory.domain.ownership import ground_of
from inventory.domain.places import City, versions_by_level
from inventory.domain.registration import in_order
from inventory.store import cities
from inventory.store.copy import instants
from inventory.store.schema import coverage

CITY = 0
"""In place of an area version: the whole city."""
_LEAST_SHARE = 1e-9
_NEWEST_SHARE = 1e-3
"""A model whose looks still are the newest on less than this share of an area says nothing of its count."""


def outside_of(level_rank: int) -> int:
    """In place of an area version: the ground outside all areas of a level."""
    return -level_rank - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _LookedAt:
    at: int
    ground: shapely.Geometry
    models: frozenset[str]


def replace_coverage(connection: Connection, city: City, class_name: str, seen: Sequence[Look]) -> None:
    """Computes the steps of a class anew, for the city, its areas, and outside of each level."""
    connection.execute(
        text("DELETE FROM urban_inventory.coverage WHERE city_id = :city AND class = :class"),
        {"city": city.id, "class": class_name},
    )
    looks = [
        _LookedAt(at=look.at, ground=ground_of(look), models=frozenset(scene.model for scene in look.scenes))
        for look in in_order(seen)
    ]
    if not looks:
        return
    rows = [
        {"city_id": city.id, "area_version_id": number, "class": class_name, **step}
        for number, ground in _grounds(connection, city, looks).items()
        for step in _steps(ground, looks)
    ]
    if rows:
        connection.execute(coverage.insert(), rows)


def _grounds(connection: Connection, city: City, looks: list[_LookedAt]) -> dict[int, shapely.Geometry]:
    """The ground of every area version, of the city and of “outside” of each level, in the metric CRS.

    “Outside” is what the city's boundary and its imagery hold beyond the areas of a level.
    """
    transformer = Transformer.from_crs(4326, city.metric_crs, always_xy=True)

    def to_metric(geometry: shapely.Geometry) -> shapely.Geometry:
        return shapely.transform(
            geometry, lambda lon_lat: np.column_stack(transformer.transform(lon_lat[:, 0], lon_lat[:, 1]))
        )

    versions = cities.all_area_versions(connection, city.id)
    grounds = {version.id: to_metric(version.geometry) for version in versions}
    boundary = to_metric(city.boundary)
    everything = shapely.union_all([boundary, *(look.ground for look in looks)])
    for of_level in versions_by_level(versions).values():
        held = shapely.union_all([grounds[version.id] for version in of_level])
        beyond = shapely.difference(everything, held)
        if shapely.area(beyond) > 1.0:  # square metres: slivers of rounding are no ground
            grounds[outside_of(of_level[0].level_rank)] = beyond
    grounds[CITY] = boundary
    return grounds


def _steps(ground: shapely.Geometry, looks: list[_LookedAt]) -> list[dict[str, object]]:
    """One step per look that touches the ground: share covered up to then, and the dates of the looks."""
    shapely.prepare(ground)
    touching = [look for look in looks if shapely.intersects(ground, look.ground)]
    whole = float(shapely.area(ground))
    several = len({look.models for look in touching}) > 1
    steps: list[dict[str, object]] = []
    covered: shapely.Geometry = shapely.MultiPolygon()
    newest: dict[frozenset[str], shapely.Geometry] = {}
    for number, look in enumerate(touching):
        seen = shapely.intersection(ground, look.ground)
        covered = shapely.union(covered, seen)
        if several:
            newest = _newest_after(newest, look, seen)
        if number + 1 < len(touching) and touching[number + 1].at == look.at:
            continue
        share = min(float(shapely.area(covered)) / whole, 1.0) if whole else 0.0
        if share > _LEAST_SHARE:
            oldest, now = instants(np.array([touching[0].at, look.at])).to_pylist()
            steps.append(
                {
                    "at": now,
                    "share": share,
                    "oldest_look": oldest,
                    "newest_look": now,
                    "models": sorted(look.models | _models_of(newest, whole)),
                }
            )
    return steps


def _newest_after(
    newest: dict[frozenset[str], shapely.Geometry], look: _LookedAt, seen: shapely.Geometry
) -> dict[frozenset[str], shapely.Geometry]:
    """The ground of which each set of models saw the newest look, after one more look."""
    left = {models: shapely.difference(ground, look.ground) for models, ground in newest.items()}
    known = left.get(look.models)
    return {**left, look.models: seen if known is None else shapely.union(known, seen)}


def _models_of(newest: dict[frozenset[str], shapely.Geometry], whole: float) -> set[str]:
    """Models whose looks are the newest on some of the ground: on their word the count stands."""
    return {
        model
        for models, ground in newest.items()
        if float(shapely.area(ground)) > _NEWEST_SHARE * whole
        for model in models
    }
