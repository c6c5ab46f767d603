"""The documents that describe a city's collections, as the OGC and its clients read them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Request

from api.links import Link, base_url, city_url, link
from api.negotiation import OPENAPI_TYPE
from api.ogc import formats
from api.ogc.crs import CRS84, served
from detection.errors import UnknownName
from inventory.store.features import CityOnPage, Collection

GEOJSON = "application/geo+json"
JSON = "application/json"
HTML = "text/html"

# Only what answers: QGIS pushes down filters to whatever is declared.
_SPEC = "http://www.opengis.net/spec"
_CLASSES = {
    "ogcapi-features-1/1.0": ("core", "oas30", "html", "geojson"),
    "ogcapi-features-2/1.0": ("crs",),
    "ogcapi-features-3/1.0": ("filter", "features-filter", "queryables", "queryables-query-parameters"),
    "ogcapi-features-5/1.0": ("schemas", "returnables-and-receivables", "queryables", "core-roles-features"),
    "ogcapi-tiles-1/1.0": (
        *("core", "tileset", "tilesets-list", "dataset-tilesets", "geodata-tilesets", "mvt", "oas30"),
    ),
    "cql2/1.0": (
        "cql2-text",
        "cql2-json",
        "basic-cql2",
        "advanced-comparison-operators",
        "case-insensitive-comparison",
        "accent-insensitive-comparison",
        "basic-spatial-functions",
        # Withdrawn, but the only name that QGIS knew until 3.44.
        "basic-spatial-operators",
        "basic-spatial-functions-plus",
        "spatial-functions",
        "temporal-functions",
        "arithmetic",
        "property-property",
    ),
}
CONFORMANCE = tuple(f"{_SPEC}/{part}/conf/{name}" for part, names in _CLASSES.items() for name in names)
_WRITING = tuple(
    f"{_SPEC}/ogcapi-features-4/1.0/conf/{name}" for name in ("create-replace-delete", "update", "features")
)


def declared(request: Request) -> list[str]:
    """The classes of the standards that are fulfilled; those of writing where somebody may write."""
    writes = request.app.state.settings.allow_unauthenticated_writes
    return [*CONFORMANCE, *(_WRITING if writes else ())]


SCHEMA = "application/schema+json"
_REL = "http://www.opengis.net/def/rel/ogc/1.0"
# The standard's relation, and the one word that GDAL compares with.
_SCHEMAS = (
    ("queryables", f"{_REL}/queryables", "What filters may name"),
    ("queryables", "queryables", "What filters may name"),
    ("schema", f"{_REL}/schema", "What features hold"),
    ("schema", "[ogc-rel:schema]", "What features hold"),
    ("feature-schema", "describedby", "A feature’s schema, as GeoJSON"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Words about a collection, and the filters that its items take beside bbox, datetime and limit."""

    title: str
    description: str
    filters: tuple[str, ...]


ABOUT = {
    Collection.ASSETS: About(
        title="Assets",
        description="What stands in the city and is counted: listed now or, with datetime, as of then.",
        filters=("class", "status", "area", "level"),
    ),
    Collection.AREAS: About(
        title="Areas",
        description="The city’s areas of every level, in the version in force now or on the datetime given.",
        filters=("level", "area"),
    ),
    Collection.SURVEYS: About(
        title="Surveys",
        description="Which ground was looked at, when, by which model; with each scene’s attribution.",
        filters=("class", "area", "level"),
    ),
    Collection.OBSERVATIONS: About(
        title="Observations",
        description="What each survey saw. With current=true only the stock of classes that move.",
        filters=("class", "area", "level", "current"),
    ),
    Collection.DECISIONS: About(
        title="Decisions",
        description="What people decided of assets and places; with datetime, since when they say it is so.",
        filters=("class", "area", "level"),
    ),
    Collection.COUNTS: About(
        title="Counts by area",
        description="Areas with their counts as columns, with coverage and intervals; as of now or of the datetime.",
        filters=("class", "area", "level"),
    ),
}


def collection_named(name: str) -> Collection:
    """The collection of that name.

    Raises:
        UnknownName: there is none.
    """
    try:
        return Collection(name)
    except ValueError:
        known = ", ".join(Collection)
        raise UnknownName(f"no collection is called “{name[:64]}”", do=f"Collections: {known}.") from None


def landing(request: Request, city: CityOnPage) -> dict[str, Any]:
    """The landing page of a city."""
    root = city_url(request, city.code)
    return {
        "title": city.name,
        "description": f"Inventory of {city.name}: what stands and moves there, counted from imagery.",
        "attribution": f"{base_url(request)}/attribution",
        "extent": _extent(city),
        "conformsTo": declared(request),
        "links": [
            *_self_and_page(f"{root}/", JSON),
            link(f"{root}/api", "service-desc", OPENAPI_TYPE, "The API, for programs"),
            link(f"{root}/api?f=html", "service-doc", HTML, "The API, for people"),
            link(f"{root}/conformance", "conformance", JSON, "What of the standards is fulfilled"),
            link(f"{root}/collections", "data", JSON, "The collections"),
            link(f"{root}/tiles", f"{_REL}/tilesets-vector", JSON, "Vector tiles"),
            link(f"{root}/tileMatrixSets", f"{_REL}/tiling-schemes", JSON, "Grids of tiles"),
            link(f"{root}/counts", "related", JSON, "Counts by area and class"),
            link(f"{root}/stac", "related", JSON, "The imagery, as a STAC catalogue"),
            link(f"{base_url(request)}/attribution", "license", HTML, "Whose imagery this is"),
            link(f"{base_url(request)}/source", "related", HTML, "The program’s source"),
        ],
    }


def conformance(request: Request, city: CityOnPage) -> dict[str, Any]:
    """What of the standards is fulfilled."""
    address = f"{city_url(request, city.code)}/conformance"
    return {"conformsTo": declared(request), "links": _self_and_page(address, JSON)}


def collections(request: Request, city: CityOnPage, totals: dict[Collection, int | None]) -> dict[str, Any]:
    """The list of a city's collections."""
    return {
        "links": _self_and_page(f"{city_url(request, city.code)}/collections", JSON),
        "collections": [collection(request, city, each, totals[each]) for each in Collection],
    }


def collection(request: Request, city: CityOnPage, named: Collection, count: int | None) -> dict[str, Any]:
    """One collection; ``itemCount`` is left out where it could not be counted in time."""
    address = f"{city_url(request, city.code)}/collections/{named}"
    about = ABOUT[named]
    return {
        "id": str(named),
        "title": about.title,
        "description": about.description,
        "itemType": "feature",
        **({} if count is None else {"itemCount": count}),
        "extent": _extent(city),
        "crs": [each.uri for each in served(city)],
        "storageCrs": CRS84,
        "links": [
            *_self_and_page(address, JSON),
            link(f"{address}/items", "items", GEOJSON, f"{about.title} as GeoJSON"),
            *(
                link(
                    f"{address}/items?f={each.name}",
                    "items",
                    each.media_type,
                    f"{about.title} as {each.title}",
                )
                for each in formats.LINKED
                if each is not formats.GEOJSON
            ),
            *(
                link(
                    f"{address}/download?f={each.name}",
                    "enclosure",
                    each.media_type,
                    f"All {named} as {each.title}",
                )
                for each in formats.DOWNLOADS
            ),
            *(link(f"{address}/{name}", rel, SCHEMA, title) for name, rel, title in _SCHEMAS),
            *(
                [link(f"{address}/tiles", f"{_REL}/tilesets-vector", JSON, "Vector tiles")]
                if named in (Collection.ASSETS, Collection.AREAS)
                else []
            ),
            link(f"{base_url(request)}/attribution", "license", HTML, "Whose imagery this is"),
        ],
    }


def time_stamp() -> str:
    """Now, as answers carry it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _self_and_page(address: str, media_type: str) -> list[Link]:
    return [
        link(address, "self", media_type, "This document"),
        link(f"{address}?f=html", "alternate", HTML, "This document as a page"),
    ]


def _extent(city: CityOnPage) -> dict[str, Any]:
    began = None if city.oldest_look is None else city.oldest_look.astimezone(UTC)
    return {
        "spatial": {"bbox": [[round(number, 7) for number in city.box]], "crs": CRS84},
        "temporal": {
            "interval": [[None if began is None else began.strftime("%Y-%m-%dT%H:%M:%SZ"), None]],
            "trs": "http://www.opengis.net/def/uom/ISO-8601/0/Gregorian",
        },
    }
