"""A city's API in OpenAPI 3.0, made by hand.

GIS clients read OpenAPI 3.0 and match its paths literally: they start at ``/collections``, the component
``limit`` is called exactly that, and a filter counts only with ``style`` and ``explode`` written out.
"""

from typing import Any

from fastapi import Request

from api.links import city_url
from api.negotiation import OPENAPI_TYPE
from api.ogc import formats
from api.ogc.crs import CRS84, served
from api.ogc.documents import ABOUT, GEOJSON, HTML, JSON, SCHEMA
from api.ogc.filters import DRAFT_TEXT, TEXT, simple_queryables
from api.ogc.filters import JSON as CQL2_JSON
from api.ogc.openapi_writes import add_writes
from api.ogc.schemas import OF_KIND, description
from api.version import program_version
from inventory.store.features import CityOnPage, Collection, queryables_of

_Json = dict[str, Any]
# Parameters of items that a download does not take.
_OF_PAGES = ("limit", "cursor", "offset", "resultType", "crs", "bbox-crs")


def document(request: Request, city: CityOnPage, *, default_limit: int, maximum_limit: int) -> _Json:
    """The description of one city's API; ``servers`` names its landing page."""
    paths = _paths()
    if request.app.state.settings.allow_unauthenticated_writes:
        add_writes(paths)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": f"Inventory of {city.name}",
            "description": "OGC API Features of one city’s inventory, and its counts.",
            "version": program_version(),
            "contact": {"name": "the operator of this service", "url": city_url(request, city.code)},
            "license": {"name": "Imagery and counts: see attribution"},
        },
        "servers": [{"url": city_url(request, city.code)}],
        "tags": [
            {"name": "features", "description": "OGC API Features"},
            {"name": "tiles"},
            {"name": "counts"},
        ],
        "paths": paths,
        "components": {
            "parameters": _parameters(city, default_limit, maximum_limit),
            "schemas": _schemas(),
            "responses": {
                "Problem": {
                    "description": "What is wrong, where, and what to do.",
                    "content": {
                        "application/problem+json": {"schema": _ref("schemas", "problem")},
                        HTML: {"schema": {"type": "string"}},
                    },
                }
            },
        },
    }


def _paths() -> _Json:
    paths: _Json = {
        "/": _get("getLandingPage", "This city’s landing page", _ok(JSON, "landing")),
        "/conformance": _get("getConformance", "Fulfilled standards", _ok(JSON, "conformance")),
        "/api": _get("getApi", "This document", _ok(OPENAPI_TYPE, "object")),
        "/collections": _get("getCollections", "The collections", _ok(JSON, "collections")),
    }
    for named in Collection:
        paths |= _of_collection(named)
    paths |= (
        _tiles("", "dataset")
        | _tiles("/collections/assets", "assets")
        | _tiles("/collections/areas", "areas")
    )
    paths["/tileMatrixSets"] = _get("getTileMatrixSets", "Grids of tiles", _ok(JSON, "object"), tag="tiles")
    paths["/tileMatrixSets/{grid}"] = _get(
        "getTileMatrixSet",
        "The grid of web maps",
        _ok(JSON, "object"),
        [_ref("parameters", "grid")],
        tag="tiles",
    )
    counted = [_ref("parameters", name) for name in ("class", "as_of", "bom")]
    by_area = [_ref("parameters", name) for name in ("area", "level", "group-by", "from", "to", "step")]
    paths["/counts"] = {
        **_get(
            "getCounts",
            "Counts by area, class, date",
            _ok(JSON, "counts"),
            by_area + counted,
            tag="counts",
            form="f-table",
        ),
        "post": {
            "operationId": "countInPolygon",
            "summary": "Counts in a polygon",
            "tags": ["counts"],
            "parameters": [*counted, _ref("parameters", "f-table")],
            "requestBody": {"required": True, "content": {GEOJSON: {"schema": {"type": "object"}}}},
            "responses": _responses(_ok(JSON, "counts"), *_OF_A_BODY),
        },
    }
    return paths


def _tiles(root: str, name: str) -> _Json:
    """The paths of tiles; the OGC's suite looks for an operation with “.getTile” in its name."""
    place = [_ref("parameters", each) for each in ("tileMatrix", "tileRow", "tileCol")]
    conditions = [_ref("parameters", each) for each in ("class", "datetime", "level")]
    grid = [_ref("parameters", "grid")]
    made = {
        "description": "A tile.",
        "content": {"application/vnd.mapbox-vector-tile": {"schema": {"type": "string"}}},
    }
    tile = _get(f"{name}.vector.getTile", "A vector tile", made, [*grid, *place, *conditions], tag="tiles")
    tile["get"]["responses"]["204"] = {"description": "Nothing is there."}
    return {
        f"{root}/tiles": _get(f"{name}.vector.getTileSetsList", "Tilesets", _ok(JSON, "object"), tag="tiles"),
        f"{root}/tiles/{{grid}}": _get(
            f"{name}.vector.getTileSet", "A tileset", _ok(JSON, "object"), grid, tag="tiles"
        ),
        f"{root}/tiles/{{grid}}/tilejson": _get(
            f"{name}.vector.getTileJson", "TileJSON", _ok(JSON, "object"), [*grid, *conditions], tag="tiles"
        ),
        f"{root}/tiles/{{grid}}/{{tileMatrix}}/{{tileRow}}/{{tileCol}}": tile,
    }


def _of_collection(named: Collection) -> _Json:
    about = ABOUT[named]
    name = str(named).capitalize()
    common = (
        *("limit", "bbox", "datetime", "cursor", "offset", "resultType", "crs", "bbox-crs"),
        *("filter", "filter-lang", "filter-crs"),
    )
    parameters = [_ref("parameters", each) for each in common]
    parameters += [_ref("parameters", each) for each in about.filters]
    # Written out, not by reference: QGIS and GDAL read only these.
    parameters += [
        _query(name, OF_KIND[one.kind], description(name))
        for name, one in queryables_of(named).items()
        if name in simple_queryables(named)
    ]
    conditions = [each for each in parameters if each not in [_ref("parameters", name) for name in _OF_PAGES]]
    return {
        f"/collections/{named}": _get(f"get{name}Collection", about.title, _ok(JSON, "collection")),
        f"/collections/{named}/items": _get(
            f"get{name}Items" if named is Collection.COUNTS else f"get{name}",
            about.description,
            _features_as(formats.ITEMS),
            [*parameters, _ref("parameters", "bom")],
            form="f-items",
        ),
        f"/collections/{named}/download": _get(
            f"download{name}",
            f"All {named} that match, as a file",
            _features_as(formats.DOWNLOADS),
            [*conditions, _ref("parameters", "bom")],
            form="f-download",
        ),
        **{
            f"/collections/{named}/{resource}": _get(
                f"get{name}{operation}", f"{title} of {named}", _described(SCHEMA)
            )
            for resource, operation, title in (
                ("queryables", "Queryables", "Queryables"),
                ("schema", "Schema", "Schema"),
                ("feature-schema", "FeatureSchema", "Schema of a feature"),
            )
        },
        f"/collections/{named}/items/{{featureId}}": _get(
            f"get{name}Feature", f"One of {named}", _ok(GEOJSON, "feature"), [_ref("parameters", "featureId")]
        ),
    }


def _get(
    operation: str,
    summary: str,
    ok: _Json,
    parameters: list[_Json] | None = None,
    *,
    tag: str = "features",
    form: str = "f",
) -> _Json:
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "tags": [tag],
            "parameters": [*(parameters or []), _ref("parameters", form)],
            "responses": _responses(ok),
        }
    }


def _responses(ok: _Json, *more: str) -> _Json:
    statuses = ("400", "404", "429", "503", *more)
    return {"200": ok, **{status: _ref("responses", "Problem") for status in statuses}}


_OF_A_BODY = ("408", "413", "422")


def _ok(media_type: str, schema: str) -> _Json:
    content: _Json = {media_type: {"schema": _ref("schemas", schema)}, HTML: {"schema": {"type": "string"}}}
    return {"description": "The resource.", "content": content}


def _described(media_type: str) -> _Json:
    return {"description": "A JSON Schema.", "content": {media_type: {"schema": _ref("schemas", "object")}}}


def _features_as(among: tuple[formats.Format, ...]) -> _Json:
    text: _Json = {"type": "string"}
    content = {each.media_type: {"schema": text} for each in among}
    content[GEOJSON] = {"schema": _ref("schemas", "featureCollection")}
    return {"description": "Features.", "content": content}


def _ref(kind: str, name: str) -> _Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _parameters(city: CityOnPage, default_limit: int, maximum_limit: int) -> _Json:
    text: _Json = {"type": "string"}
    day: _Json = {"type": "string", "format": "date"}
    count: _Json = {"type": "integer", "minimum": 0}
    crs: _Json = {"type": "string", "enum": [each.uri for each in served(city)], "default": CRS84}
    return {
        "grid": {
            "name": "grid",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "enum": ["WebMercatorQuad"]},
        },
        **{
            name: {"name": name, "in": "path", "required": True, "schema": count}
            for name in ("tileMatrix", "tileRow", "tileCol")
        },
        "featureId": {"name": "featureId", "in": "path", "required": True, "schema": text},
        "limit": _query(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": maximum_limit, "default": default_limit},
            "Features on a page; more than the maximum is taken for the maximum.",
        ),
        "bbox": _query(
            "bbox",
            {"type": "array", "minItems": 4, "maxItems": 6, "items": {"type": "number"}},
            "west,south,east,north in CRS84; west > east crosses the antimeridian.",
        ),
        "datetime": _query(
            "datetime", text, "A date (a local day), an instant, or START/END with .. for open."
        ),
        "cursor": _query("cursor", text, "Where the next page starts; taken from a “next” link."),
        "offset": _query("offset", count, "Features to skip; “next” links are better."),
        "resultType": _query(
            "resultType",
            {"type": "string", "enum": ["results", "hits"], "default": "results"},
            "hits: the total.",
        ),
        "crs": _query("crs", crs, "CRS of the answer, its axes in the authority’s order."),
        "bbox-crs": _query("bbox-crs", crs, "CRS of bbox."),
        "filter": _query("filter", text, "CQL2 over the collection’s queryables."),
        "filter-lang": _query(
            "filter-lang",
            {"type": "string", "enum": [TEXT, CQL2_JSON, DRAFT_TEXT], "default": TEXT},
            "Encoding of the filter; cql-text is the draft’s name, without which GDAL sends none.",
        ),
        "filter-crs": _query("filter-crs", crs, "CRS of the filter’s geometries."),
        "class": _query("class", text, "Class of the asset taxonomy, as tree."),
        "status": _query("status", text, "present, doubtful, gone or rejected, whether listed or not."),
        "area": _query("area", text, "Code of an area."),
        "level": _query("level", text, "Level of areas, as district; of things in an area, with its code."),
        "current": _query("current", {"type": "boolean"}, "The stock of classes that move."),
        "as_of": _query(
            "as_of", {"type": "string", "format": "date"}, "Counts at the end of this local day."
        ),
        "group-by": _query("group-by", text, "Of level, area, class, date: what rows are told apart by."),
        "from": _query("from", day, "With group-by=date: the first of dates a step apart."),
        "to": _query("to", day, "The last of them there may be; today without it."),
        "step": _query("step", {**text, "default": "P1Y"}, "Between them: P1Y, P3M, P1W, P10D."),
        "bom": _query(
            "bom", {"type": "boolean", "default": True}, "CSV: false leaves out the byte order mark."
        ),
        "f": _query("f", {"type": "string", "enum": ["json", "geojson", "html"]}, "The form of the answer."),
        "f-table": _query(
            "f", {"type": "string", "enum": ["json", "html", "csv"]}, "The form of the counts."
        ),
        "f-items": _query("f", _names(formats.ITEMS), "The format of the features."),
        "f-download": _query("f", _names(formats.DOWNLOADS), "The format of the file."),
    }


def _names(among: tuple[formats.Format, ...]) -> _Json:
    return {"type": "string", "enum": [each.name for each in among]}


def _query(name: str, schema: _Json, description: str) -> _Json:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "required": False,
        "schema": schema,
        "style": "form",
        "explode": False,
    }


def _object(required: list[str], **properties: _Json) -> _Json:
    return {"type": "object", "required": required, "properties": properties}


def _schemas() -> _Json:
    text: _Json = {"type": "string"}
    number: _Json = {"type": "number"}
    nullable: _Json = {"type": "number", "nullable": True}
    links: _Json = {"type": "array", "items": _ref("schemas", "link")}
    return {
        "object": {"type": "object"},
        "link": _object(["href", "rel", "type"], href=text, rel=text, type=text, title=text),
        "landing": _object(["links"], title=text, description=text, links=links),
        "conformance": _object(["conformsTo"], conformsTo={"type": "array", "items": text}),
        "collection": _object(["id", "links"], id=text, title=text, description=text, links=links),
        "collections": _object(
            ["links", "collections"],
            links=links,
            collections={"type": "array", "items": _ref("schemas", "collection")},
        ),
        "feature": _object(
            ["type", "geometry", "properties"],
            type={"type": "string", "enum": ["Feature"]},
            id=text,
            geometry={"type": "object", "nullable": True},
            properties={"type": "object"},
            links=links,
        ),
        "featureCollection": _object(
            ["type", "features"],
            type={"type": "string", "enum": ["FeatureCollection"]},
            features={"type": "array", "items": _ref("schemas", "feature")},
            links=links,
            timeStamp={"type": "string", "format": "date-time"},
            numberMatched={"type": "integer", "minimum": 0},
            numberReturned={"type": "integer", "minimum": 0},
        ),
        "counts": _object(["counts"], counts={"type": "array", "items": _ref("schemas", "count")}),
        "count": {
            "type": "object",
            "description": "count and coverage are null where nothing was surveyed: that is not 0.",
            "required": ["class", "count", "coverage", "as_of"],
            "properties": {
                "area": {"type": "string", "nullable": True},
                "name": {"type": "string", "nullable": True},
                "class": text,
                "count": {"type": "integer", "nullable": True},
                "low": nullable,
                "high": nullable,
                "basis": {"type": "string", "nullable": True},
                "coverage": nullable,
                "as_of": {"type": "string", "format": "date"},
                "oldest_look": {"type": "string", "nullable": True},
                "newest_look": {"type": "string", "nullable": True},
            },
        },
        "problem": _object(
            ["title", "status", "code"],
            title=text, status=number, detail=text, code=text, what=text, where=text, do=text, trace=text,
        ),
    }  # fmt: skip
