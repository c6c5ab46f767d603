"""Features as columns and as rows of a table: what files for other programs are made of.

A collection is a layer: its fields with their types, in the order in which they are shown, and the type of its
geometries. Features come as the GeoJSON that the store makes, so that every format says the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import shapely

from inventory.store.features import Collection

GEOMETRY = "geometry"
POINT, POLYGONS = "Point", "MultiPolygon"
TIME = pa.timestamp("us", tz="UTC")
_TEXT, _NUMBER, _COUNT, _YES_NO, _DAY = pa.string(), pa.float64(), pa.int32(), pa.bool_(), pa.date32()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A table with geometries, EPSG:4326 with longitude first.

    Attributes:
        fields: name → type, in order; the first is the feature's ``id``.
        geometry_type: ``Point`` or ``MultiPolygon``.
    """

    name: str
    fields: Mapping[str, pa.DataType]
    geometry_type: str

    @property
    def schema(self) -> pa.Schema:
        """The fields and, as WKB, the geometry; name and geometry type are in its metadata."""
        columns = [*self.fields.items(), (GEOMETRY, pa.binary())]
        return pa.schema(columns, metadata={"layer": self.name, "geometry_type": self.geometry_type})

    @property
    def csv_header(self) -> list[str]:
        """Names of a CSV's columns: points as numbers, other geometries as WKT, which GDAL knows by that name."""
        place = ["longitude", "latitude"] if self.geometry_type == POINT else ["WKT"]
        return [*self.fields, *place]

    def batch(self, rows: Sequence[Mapping[str, Any]], geometries: Sequence[bytes | None]) -> pa.RecordBatch:
        """Rows as columns.

        Args:
            rows: values by name of field; what is missing is null. Times may be ISO texts.
            geometries: WKB of each, or None.
        """
        columns = [_column([row.get(name) for row in rows], kind) for name, kind in self.fields.items()]
        columns.append(pa.array(geometries, pa.binary()))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_temporal(kind) and any(isinstance(value, str) for value in values):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)


_ASSETS = {
    "id": _TEXT,
    "class": _TEXT,
    "status": _TEXT,
    "listed": _YES_NO,
    "verified": _YES_NO,
    "review": _YES_NO,
    "probability": _NUMBER,
    "score": _NUMBER,
    "width_m": _NUMBER,
    "height_m": _NUMBER,
    "position_error_m": _NUMBER,
    "hits": _COUNT,
    "first_seen": TIME,
    "last_seen": TIME,
    "first_missed": TIME,
    "survey": _TEXT,
    "scene": _TEXT,
    "evidence_kind": _TEXT,
    "evidence": _TEXT,
    "evidence_at": TIME,
}
_AREAS = {
    "id": _TEXT,
    "code": _TEXT,
    "name": _TEXT,
    "level": _TEXT,
    "level_rank": _COUNT,
    "parent_level": _TEXT,
    "parent_code": _TEXT,
    "valid_from": _DAY,
    "valid_to": _DAY,
    "area_m2": _NUMBER,
}
_SURVEYS = {
    "id": _TEXT,
    "scene": _TEXT,
    "taken_at": TIME,
    "source": _TEXT,
    "campaign": _TEXT,
    "kind": _TEXT,
    "ground_resolution_m": _NUMBER,
    "model": _TEXT,
    "model_version": _TEXT,
    "classes": _TEXT,
    "in_force": _TEXT,
    "withdrawn_at": TIME,
    "windows": _COUNT,
    "recorded_at": TIME,
    "licence": _TEXT,
    "attribution": _TEXT,
}
_OBSERVATIONS = {
    "id": _TEXT,
    "class": _TEXT,
    "score": _NUMBER,
    "width_m": _NUMBER,
    "height_m": _NUMBER,
    "position_error_m": _NUMBER,
    "plausible": _YES_NO,
    "taken_at": TIME,
    "survey": _TEXT,
    "scene": _TEXT,
    "asset": _TEXT,
}

_DECISIONS = {
    "id": _TEXT,
    "kind": _TEXT,
    "class": _TEXT,
    "asset": _TEXT,
    "at": TIME,
    "author": _TEXT,
    "reason": _TEXT,
    "text": _TEXT,
    "retracts": _TEXT,
    "retracted": _YES_NO,
    "recorded_at": TIME,
}

LAYERS = {
    Collection.ASSETS: Layer(name="assets", fields=_ASSETS, geometry_type=POINT),
    Collection.AREAS: Layer(name="areas", fields=_AREAS, geometry_type=POLYGONS),
    Collection.SURVEYS: Layer(name="surveys", fields=_SURVEYS, geometry_type=POLYGONS),
    Collection.OBSERVATIONS: Layer(name="observations", fields=_OBSERVATIONS, geometry_type=POINT),
    Collection.DECISIONS: Layer(name="decisions", fields=_DECISIONS, geometry_type=POINT),
    # What counts add to areas is a city's own, columns of its classes: ``api/ogc/area_counts.py``.
    Collection.COUNTS: Layer(name="counts", fields=_AREAS, geometry_type=POLYGONS),
}


def parsed(text: bytes) -> list[dict[str, Any]]:
    """The Features of a text that holds them with commas between."""
    features: list[dict[str, Any]] = orjson.loads(b"[" + text + b"]")
    return features


def feature_batch(layer: Layer, features: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Features as columns of their layer."""
    rows = [{**feature["properties"], "id": str(feature["id"])} for feature in features]
    return layer.batch(rows, _wkb(layer, [feature[GEOMETRY] for feature in features]))


def feature_rows(layer: Layer, features: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """Features as rows below ``csv_header``."""
    names = [name for name in layer.fields if name != "id"]
    for feature in features:
        values = feature["properties"]
        geometry = feature[GEOMETRY]
        if layer.geometry_type == POINT:
            place = [None, None] if geometry is None else geometry["coordinates"][:2]
        else:
            place = [None if geometry is None else shapely.to_wkt(_shape(geometry), rounding_precision=7)]
        yield [str(feature["id"]), *(values.get(name) for name in names), *place]


def _wkb(layer: Layer, geometries: list[dict[str, Any] | None]) -> list[bytes | None]:
    if layer.geometry_type == POINT and None not in geometries:
        lon_lat = np.array([geometry["coordinates"][:2] for geometry in geometries if geometry])
        return list(shapely.to_wkb(shapely.points(lon_lat.reshape(-1, 2))))
    return [None if geometry is None else shapely.to_wkb(_shape(geometry)) for geometry in geometries]


def _shape(geometry: dict[str, Any]) -> shapely.Geometry:
    return shapely.from_geojson(orjson.dumps(geometry))
