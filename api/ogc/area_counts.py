"""The collection ``counts``: areas as polygons with their counts as plain columns, to be styled as they come.

For each class that a city counts: ``tree_count``, ``tree_low``, ``tree_high``, ``tree_coverage``, ``tree_basis``. Where
nobody looked they are null, never 0. What lies outside of all areas of a level has no polygon: ``GET …/counts`` tells
it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import orjson
import pyarrow as pa

from api.ogc.parameters import read_names
from inventory.counting import OUTSIDE, count_seen
from inventory.feature_tables import LAYERS, Layer
from inventory.store import features
from inventory.store.database import Connection
from inventory.store.features import CityOnPage, Collection, Wanted

COLUMNS = {
    "count": ("Count of {}", "How many {} are listed; empty where nobody looked.", {"type": "integer"}),
    "low": ("Low of {}", "Lower end of the count’s 90 % interval.", {"type": "number"}),
    "high": ("High of {}", "Upper end of the count’s 90 % interval.", {"type": "number"}),
    "coverage": (
        "Coverage for {}",
        "Share of the ground that was looked at for {}, 0 to 1.",
        {"type": "number"},
    ),
    "basis": ("Basis of {}", "On whose word the count of {} stands.", {"type": "string"}),
}
_TYPES = {"integer": pa.int32(), "number": pa.float64(), "string": pa.string()}


def layer_of(collection: Collection, city: CityOnPage) -> Layer:
    """A collection as a table; those of counts have columns of the city's classes."""
    layer = LAYERS[collection]
    if collection is not Collection.COUNTS:
        return layer
    own = {name: _TYPES[said["type"]] for name, said in columns_of(city).items()}
    return replace(layer, fields={**layer.fields, "as_of": pa.date32(), **own})


def columns_of(city: CityOnPage) -> dict[str, dict[str, str]]:
    """The schema of the columns that the city's classes make."""
    return {
        f"{name}_{column}": {"title": title.format(name), "description": words.format(name), **kind}
        for name in city.classes
        for column, (title, words, kind) in COLUMNS.items()
    }


def with_counts(
    connection: Connection,
    city: CityOnPage,
    wanted: Wanted,
    texts: Iterable[bytes],
    separator: str,
    *,
    classes: str | None = None,
) -> Iterator[bytes]:
    """Texts of areas, each with the counts of its area as of the end of what is wanted."""
    day = wanted.local_dates[1] or wanted.local_dates[0]
    levels = [
        each for each in features.levels_of(connection, city.id) if each in wanted.levels or not wanted.levels
    ]
    told = _told(connection, city, day, levels, read_names(classes) or None)
    for text in texts:
        found = orjson.loads(b"[" + text.replace(separator.encode(), b",") + b"]")
        for area in found:
            known = area["properties"]
            area["properties"] = {**known, **told.get((known["level"], known["code"]), {})}
        yield separator.encode().join(orjson.dumps(area) for area in found)


def _told(
    connection: Connection,
    city: CityOnPage,
    day: date | None,
    levels: Iterable[str],
    classes: tuple[str, ...] | None,
) -> dict[tuple[str, str], dict[str, Any]]:
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for level in levels:
        for row in count_seen(connection, city.code, level=level, classes=classes, as_of=day):
            if row.area is None or row.area == OUTSIDE:
                continue
            said = told.setdefault((level, row.area), {"as_of": row.as_of.isoformat()})
            values = (row.count, row.low, row.high, row.coverage, row.basis)
            said |= {
                f"{row.class_name}_{column}": value for column, value in zip(COLUMNS, values, strict=True)
            }
    return told
