"""Areas for tests: squares of a hundred-and-twenty-eighth of a degree, and files that hold them."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
from shapely import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from inventory.domain.datum import ground_area_m2
from inventory.domain.levels import DrawnArea
from inventory.domain.places import AreaVersion

SIDE = 1 / 128
"""Degrees; halves of halves, so that corners are exact also in the seven digits of GeoJSON."""
WEST, SOUTH = 100.90625, 22.703125
"""Where square (0, 0) begins: Simao in Pu'er."""


def square(column: float, row: float, width: float = 1, height: float = 1) -> Polygon:
    """A rectangle on a grid of squares, columns eastwards and rows northwards."""
    west, south = WEST + column * SIDE, SOUTH + row * SIDE
    return box(west, south, west + width * SIDE, south + height * SIDE)


def make_drawn(
    code: str,
    geometry: Polygon | MultiPolygon,
    *,
    level: str = "county",
    name: str = "",
    parent: str | None = None,
) -> DrawnArea:
    """An area as drawn."""
    polygons = geometry if isinstance(geometry, MultiPolygon) else MultiPolygon([geometry])
    return DrawnArea(
        level=level,
        code=code,
        name=name or code,
        parent_code=parent,
        geometry=polygons,
        area_m2=ground_area_m2(polygons),
    )


def make_version(
    code: str,
    geometry: Polygon | MultiPolygon,
    *,
    level: str = "county",
    rank: int = 0,
    id: int = 0,
    name: str = "",
    parent: tuple[str, str] | None = None,
    valid_from: date | None = None,
    valid_to: date | None = None,
) -> AreaVersion:
    """A version of an area."""
    drawn = make_drawn(code, geometry, level=level, name=name)
    return AreaVersion(
        id=id,
        level=level,
        level_rank=rank,
        code=code,
        name=drawn.name,
        parent_level=parent[0] if parent else None,
        parent_code=parent[1] if parent else None,
        valid_from=valid_from,
        valid_to=valid_to,
        geometry=drawn.geometry,
        area_m2=drawn.area_m2,
    )


def write_areas(
    path: Path,
    rows: Sequence[tuple[BaseGeometry | None, Mapping[str, Any]]],
    *,
    crs: str = "EPSG:4326",
    **options: Any,
) -> Path:
    """Writes rows of (geometry in EPSG:4326, fields) to a file of the path's format, in ``crs``."""
    table = geopandas.GeoDataFrame(
        [dict(fields) for _, fields in rows], geometry=[geometry for geometry, _ in rows], crs="EPSG:4326"
    )
    table.to_crs(crs).to_file(path, engine="pyogrio", **options)
    return path


COUNTIES = (
    (square(0, 0), {"adcode": 530802, "name": "思茅区"}),
    (square(1, 0), {"adcode": 530821, "name": "宁洱哈尼族彝族自治县"}),
)
"""Two counties side by side, as a Chinese file names them."""
