"""Schemas of the collections: what features hold (Part 5), what filters may name (Part 3), what a Feature is (GDAL).

Types are single strings, never lists: QGIS takes a property of two types for text and leaves it out of filters.
"""

from typing import Any

import orjson
import pyarrow as pa
from fastapi import APIRouter, Depends, Request, Response

from api.fresh import city_asked
from api.links import city_url
from api.negotiation import preferred
from api.ogc.area_counts import columns_of
from api.ogc.documents import ABOUT, JSON, SCHEMA, collection_named
from api.requests import Store, json_alone
from inventory.editing import WRITABLE
from inventory.feature_tables import LAYERS, POINT
from inventory.store.features import CityOnPage, Collection, queryables_of
from inventory.store.filter_operators import Kind
from inventory.store.queryables import GEOMETRY

router = APIRouter(tags=["features"], dependencies=[Depends(json_alone)])

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_POINT_REF = "https://geojson.org/schema/Point.json"
_POLYGONS_REF = "https://geojson.org/schema/MultiPolygon.json"
_EXAMPLE = {"$schema": _DRAFT, "type": "object", "properties": {"class": {"type": "string"}}}
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"content": {SCHEMA: {"example": _EXAMPLE}}}}

TITLES = {
    "id": ("Id", "Durable identifier."),
    "class": ("Class", "Class of the taxonomy, as tree."),
    "status": ("Status", "present, doubtful, gone or rejected."),
    "listed": ("Listed", "Whether it is counted as present."),
    "verified": ("Verified", "Whether a person confirmed it."),
    "review": ("Review", "Whether later imagery asks a person again."),
    "probability": ("Probability", "Probability that it is there, 0 to 1."),
    "score": ("Score", "The detector’s score, 0 to 1."),
    "width_m": ("Width (m)", "Of its box on the ground, west to east, in metres."),
    "height_m": ("Height (m)", "Of its box on the ground, south to north, in metres."),
    "position_error_m": ("Position error (m)", "One standard error of the position, in metres."),
    "hits": ("Hits", "Looks that saw it."),
    "first_seen": ("First seen", "Instant of the first look that saw it."),
    "last_seen": ("Last seen", "Instant of the last look that saw it."),
    "first_missed": ("First missed", "First adequate look without it since it was last seen."),
    "survey": ("Survey", "Id of the survey that is its newest evidence."),
    "scene": ("Scene", "Id of the scene."),
    "evidence_kind": ("Kind of evidence", "survey or decision."),
    "evidence": ("Evidence", "Id of the newest evidence."),
    "evidence_at": ("Date of evidence", "Instant of the newest evidence."),
    "code": ("Code", "Code of the area, unique within its level."),
    "name": ("Name", "Name of the area."),
    "level": ("Level", "Level of the area, as district."),
    "level_rank": ("Rank of level", "0 is the top level."),
    "parent_level": ("Parent’s level", "Level of the area that holds this one."),
    "parent_code": ("Parent’s code", "Code of the area that holds this one."),
    "valid_from": ("Valid from", "First day of this version; empty: always."),
    "valid_to": ("Valid to", "Last day of this version; empty: until now."),
    "area_m2": ("Area (m²)", "Measured on the ellipsoid, in square metres."),
    "taken_at": ("Taken at", "When the imagery was taken."),
    "source": ("Source", "Where the imagery comes from."),
    "campaign": ("Campaign", "The look that the scene belongs to."),
    "kind": ("Kind", "nadir, oblique, street or fixed."),
    "ground_resolution_m": ("Ground resolution (m)", "Metres on the ground per pixel."),
    "model": ("Model", "Name of the detector."),
    "model_version": ("Model’s version", "Version of the detector."),
    "classes": ("Classes", "Classes that the survey looked for, with commas between."),
    "in_force": ("In force", "Classes for which the survey counts, with commas between."),
    "withdrawn_at": ("Withdrawn at", "Since when the survey is no evidence."),
    "windows": ("Windows", "Windows given to the network."),
    "recorded_at": ("Recorded at", "When we learned of it."),
    "licence": ("Licence", "Licence of the imagery."),
    "attribution": ("Attribution", "Whose imagery it is."),
    "plausible": ("Plausible", "Whether its size is one that the class can have."),
    "asset": ("Asset", "Id of the asset that it was matched to, or speaks of."),
    "at": ("At", "Since when it is so."),
    "author": ("Author", "Who said it."),
    "reason": ("Reason", "Why."),
    "text": ("Text", "What is to be known of it."),
    "retracts": ("Takes back", "Id of the decision that this one takes back."),
    "retracted": ("Taken back", "Whether a later decision took it back."),
}
OF_KIND: dict[Kind, dict[str, str]] = {
    Kind.TEXT: {"type": "string"},
    Kind.NUMBER: {"type": "number"},
    Kind.INTEGER: {"type": "integer"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.INSTANT: {"type": "string", "format": "date-time"},
    Kind.DATE: {"type": "string", "format": "date"},
}


@router.get("/cities/{city}/collections/{collection}/queryables", responses=_ANSWERS, response_class=Response)
def queryables(request: Request, store: Store, city: str, collection: str) -> Response:
    """What filters on the collection may name (OGC API Features, Part 3)."""
    named, address, _ = _asked(request, store, city, collection)
    properties: dict[str, Any] = {
        name: {**_titled(name), **OF_KIND[one.kind]}
        for name, one in queryables_of(named).items()
        if one.kind is not Kind.GEOMETRY
    }
    properties[GEOMETRY] = _geometry(named)
    return _schema(
        request, f"{address}/queryables", ABOUT[named].title, properties, additionalProperties=False
    )


@router.get("/cities/{city}/collections/{collection}/schema", responses=_ANSWERS, response_class=Response)
def schema(request: Request, store: Store, city: str, collection: str) -> Response:
    """What a feature of the collection holds, attributes at the top (OGC API Features, Part 5)."""
    named, address, shown = _asked(request, store, city, collection)
    properties = {**_attributes(named), **_of_counts(named, shown)}
    for place, name in enumerate(properties, start=1):
        properties[name] = {**properties[name], "x-ogc-propertySeq": place}
    properties[GEOMETRY] = {**_geometry(named), "x-ogc-propertySeq": len(properties) + 1}
    return _schema(request, f"{address}/schema", ABOUT[named].title, properties)


@router.get(
    "/cities/{city}/collections/{collection}/feature-schema", responses=_ANSWERS, response_class=Response
)
def feature_schema(request: Request, store: Store, city: str, collection: str) -> Response:
    """A whole GeoJSON Feature of the collection, as GDAL reads it."""
    named, address, shown = _asked(request, store, city, collection)
    layer = LAYERS[named]
    members = {
        "type": {"type": "string", "enum": ["Feature"]},
        "id": {"type": "string"},
        "geometry": {"$ref": _ref(named)},
        "properties": {
            "type": "object",
            "properties": {
                **{
                    name: {**_titled(name), **_type(kind)}
                    for name, kind in layer.fields.items()
                    if name != "id"
                },
                **_of_counts(named, shown),
            },
        },
    }
    return _schema(
        request, f"{address}/feature-schema", ABOUT[named].title, members,
        required=["type", "geometry", "properties"],
    )  # fmt: skip


def _asked(request: Request, store: Store, city: str, collection: str) -> tuple[Collection, str, CityOnPage]:
    named = collection_named(collection)
    with store.transaction(read_only=True) as connection:
        shown = city_asked(request, connection, city)
    return named, f"{city_url(request, shown.code)}/collections/{named}", shown


def _of_counts(named: Collection, city: CityOnPage) -> dict[str, dict[str, Any]]:
    """What counts add to the columns of areas."""
    if named is not Collection.COUNTS:
        return {}
    as_of = {"title": "As of", "description": "Local day at whose end it was so.", **OF_KIND[Kind.DATE]}
    return {
        "as_of": {**as_of, "readOnly": True},
        **{name: {**one, "readOnly": True} for name, one in columns_of(city).items()},
    }


def _schema(request: Request, address: str, title: str, properties: dict[str, Any], **more: Any) -> Response:
    document = {
        "$schema": _DRAFT, "$id": address, "type": "object", "title": title, "properties": properties, **more
    }  # fmt: skip
    # GDAL takes plain JSON alone, and tells its users of an error where it gets anything else.
    media_type = preferred(request.headers.get("accept", "*/*"), {SCHEMA: SCHEMA, JSON: JSON}, SCHEMA)
    return Response(orjson.dumps(document), media_type=media_type)


def _attributes(named: Collection) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in LAYERS[named].fields.items():
        role: dict[str, Any] = {"x-ogc-role": "id"} if name == "id" else {}
        if named is not Collection.ASSETS or name not in WRITABLE:
            role["readOnly"] = True
        found[name] = {**_titled(name), **_type(kind), **role}
    return found


def description(name: str) -> str:
    """What a property says, in words."""
    return TITLES[name][1]


def _titled(name: str) -> dict[str, str]:
    title, words = TITLES[name]
    return {"title": title, "description": words}


def _type(kind: pa.DataType) -> dict[str, str]:
    if pa.types.is_timestamp(kind):
        return OF_KIND[Kind.INSTANT]
    if pa.types.is_date(kind):
        return OF_KIND[Kind.DATE]
    if pa.types.is_boolean(kind):
        return OF_KIND[Kind.BOOLEAN]
    if pa.types.is_integer(kind):
        return OF_KIND[Kind.INTEGER]
    return OF_KIND[Kind.NUMBER if pa.types.is_floating(kind) else Kind.TEXT]


def _ref(named: Collection) -> str:
    return _POINT_REF if LAYERS[named].geometry_type == POINT else _POLYGONS_REF


def _geometry(named: Collection) -> dict[str, str]:
    # No “type”: with one, QGIS takes the geometry for an attribute.
    form = "geometry-point" if LAYERS[named].geometry_type == POINT else "geometry-multipolygon"
    return {"$ref": _ref(named), "format": form, "x-ogc-role": "primary-geometry"}
