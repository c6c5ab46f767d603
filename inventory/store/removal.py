"""All rows of a city, to be saved before they are dropped."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geoalchemy2 import Geometry
from sqlalchemy import ARRAY, Column, Connection, Select, Table, Text, cast, func, select
from sqlalchemy.dialects.postgresql import DATERANGE, JSONB

from inventory.store.schema import (
    area_version,
    asset,
    asset_state,
    decision,
    history,
    observation,
    scene,
    survey,
)

_ROWS_AT_ONCE = 20_000

# What nobody can make again comes first: areas and what people decided.
LAYERS: dict[str, Table] = {
    "areas": area_version,
    "decisions": decision,
    "assets": asset_state,
    "scenes": scene,
    "surveys": survey,
    "observations": observation,
    "history": history,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows of a layer as columns; ``geometry`` is WKB in EPSG:4326, None for a layer without places."""

    columns: dict[str, list[Any]]
    geometry: list[bytes | None] | None


def count_rows(connection: Connection, city_id: int) -> dict[str, int]:
    """layer → how many rows it has."""
    counts = {}
    for layer, table in LAYERS.items():
        statement = select(func.count()).select_from(table).where(table.c.city_id == city_id)
        counts[layer] = connection.execute(statement).scalar_one()
    return counts


def stream_rows(connection: Connection, city_id: int, layer: str) -> Iterator[Rows]:
    """The rows of a layer, some thousands at a time; nothing for a layer without rows."""
    table = LAYERS[layer]
    place = next((column for column in table.c if isinstance(column.type, Geometry)), None)
    names = [column.name for column in table.c if column is not place and column.name != "city_id"]
    if table is asset_state:
        names.append("asset")
    statement = _statement(table, place, city_id).execution_options(yield_per=_ROWS_AT_ONCE)
    with connection.execute(statement) as result:
        for rows in result.partitions():
            columns = {name: [row._mapping[name] for row in rows] for name in names}
            geometry = None if place is None else [row._mapping["wkb"] for row in rows]
            yield Rows(columns=columns, geometry=geometry)


def stored_images(connection: Connection, city_id: int) -> list[str]:
    """Paths of the city's imagery that no other city's scenes have."""
    others = select(scene.c.path).where(scene.c.city_id != city_id, scene.c.path.is_not(None))
    statement = select(scene.c.path).where(
        scene.c.city_id == city_id, scene.c.path.is_not(None), scene.c.path.not_in(others)
    )
    return sorted(set(connection.execute(statement).scalars()))


def _statement(table: Table, place: Column[Any] | None, city_id: int) -> Select[Any]:
    values: list[Any] = []
    for column in table.c:
        if column is place:
            values.append(func.ST_AsBinary(column).label("wkb"))
        elif isinstance(column.type, ARRAY | JSONB | DATERANGE):
            values.append(cast(column, Text).label(column.name))  # no such types in a GeoPackage
        elif column.name != "city_id":
            values.append(column)
    statement = select(*values)
    if table is asset_state:
        same = (asset.c.city_id == asset_state.c.city_id) & (asset.c.id == asset_state.c.asset_id)
        statement = statement.add_columns(asset.c.public_id.label("asset")).outerjoin(asset, same)
    return statement.where(table.c.city_id == city_id)
