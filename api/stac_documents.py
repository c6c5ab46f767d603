"""What the STAC catalogue says: catalogue, collection and items, made by pystac from the stored scenes.

Where a file lies is told to nobody: assets are pictures that this service makes. What the inventory does not keep, a
file's CRS and the checksum of its bytes, is not said; ``urban_inventory:pixel_hash`` is of the decoded pixels.
"""

import re
from datetime import UTC, datetime
from typing import Any

import orjson
import pystac
import shapely
from fastapi import Request

from api.links import base_url, city_url
from api.negotiation import OPENAPI_TYPE
from api.ogc.documents import GEOJSON, HTML, JSON
from api.ogc.tiles import GRID
from inventory.store.catalogue import AllScenes, CatalogueScene
from inventory.store.features import CityOnPage

_STAC = "https://api.stacspec.org/v1.0.0"
_FEATURES = "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf"
CONFORMS = [
    f"{_STAC}/core",
    f"{_STAC}/collections",
    f"{_STAC}/ogcapi-features",
    f"{_STAC}/item-search",
    # QGIS takes a catalogue for an API by the last.
    *(f"{_FEATURES}/{name}" for name in ("core", "geojson", "oas30")),
]
COLLECTION = "scenes"
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_SPOKEN = {"CC BY 4.0": "CC-BY-4.0", "CC BY-SA 4.0": "CC-BY-SA-4.0", "CC0": "CC0-1.0", "CC0 1.0": "CC0-1.0"}


def root_of(request: Request, city: CityOnPage) -> str:
    """The catalogue's address."""
    return f"{city_url(request, city.code)}/stac"


def link(href: str, rel: str, media_type: str, title: str | None = None) -> dict[str, Any]:
    """A link, as STAC and the OGC have it."""
    return {"rel": rel, "href": href, "type": media_type, **({} if title is None else {"title": title})}


def catalogue(request: Request, city: CityOnPage) -> dict[str, Any]:
    """The landing page."""
    root = root_of(request, city)
    made = pystac.Catalog(
        id=f"{city.code}-imagery", description=f"Imagery of {city.name}.", title=city.name
    ).to_dict(include_self_link=False)
    return {
        **made,
        "conformsTo": CONFORMS,
        "links": [
            link(root, "self", JSON),
            link(root, "root", JSON),
            link(f"{root}/conformance", "conformance", JSON),
            link(f"{root}/collections", "data", JSON),
            link(f"{root}/collections/{COLLECTION}", "child", JSON, f"Scenes of {city.name}"),
            {**link(f"{root}/search", "search", GEOJSON), "method": "GET"},
            {**link(f"{root}/search", "search", GEOJSON), "method": "POST"},
            link(f"{root}/api", "service-desc", OPENAPI_TYPE),
            link(f"{city_url(request, city.code)}/api?f=html", "service-doc", HTML),
            link(city_url(request, city.code), "related", JSON, "What was counted in this imagery"),
        ],
    }


def collection(request: Request, city: CityOnPage, scenes: AllScenes) -> dict[str, Any]:
    """The one collection: all scenes that are in force."""
    root = root_of(request, city)
    address = f"{root}/collections/{COLLECTION}"
    tiles = f"{city_url(request, city.code)}/imagery/tiles/{GRID}"
    licences = {_licence(said) for said in scenes.licences}
    made = pystac.Collection(
        id=COLLECTION,
        title=f"Scenes of {city.name}",
        description=f"Imagery in which {city.name} was counted; superseded scenes are left out.",
        extent=pystac.Extent(
            pystac.SpatialExtent([list(scenes.box or city.box)]),
            pystac.TemporalExtent([[scenes.oldest, scenes.newest]]),
        ),
        # Where scenes differ, each item says its own.
        license=licences.pop() if len(licences) == 1 else "other",
    )
    document = made.to_dict(include_self_link=False)
    document["links"] = [
        link(address, "self", JSON),
        link(root, "root", JSON),
        link(root, "parent", JSON),
        link(f"{address}/items", "items", GEOJSON),
        _licence_link(request),
        *_map_links(tiles, "The newest adequate imagery, as tiles"),
    ]
    return document


def item(request: Request, city: CityOnPage, scene: CatalogueScene) -> dict[str, Any]:
    """A scene; one whose pixels were purged has no assets."""
    root = root_of(request, city)
    of_collection = f"{root}/collections/{COLLECTION}"
    inventory = city_url(request, city.code)
    here = f"{inventory}/scenes/{scene.public_id}"
    tiles = f"{here}/tiles/{GRID}"
    made = pystac.Item(
        id=scene.public_id,
        geometry=orjson.loads(shapely.to_geojson(scene.footprint)),
        bbox=[round(edge, 7) for edge in _box_of(scene.footprint)],
        datetime=scene.taken_at.astimezone(UTC),
        properties={
            "gsd": round(scene.ground_resolution_m, 4),
            "created": _stamp(scene.recorded_at),
            "license": _licence(scene.licence),
            "providers": [{"name": scene.attribution or scene.source, "roles": ["producer", "licensor"]}],
            "urban_inventory:kind": scene.kind,
            "urban_inventory:source": scene.source,
            "urban_inventory:campaign": scene.campaign,
            "urban_inventory:size_px": list(scene.size_px),
            "urban_inventory:pixel_hash": scene.pixel_hash,
        },
        collection=COLLECTION,
    )
    if scene.path is not None:
        picture = pystac.Asset(f"{here}/preview", "Preview", None, "image/png", ["overview", "thumbnail"])
        made.add_asset("preview", picture)
        made.add_asset(
            "tiles", pystac.Asset(f"{tiles}/tilejson", "Tiles for web maps", None, JSON, ["visual"])
        )
    document = made.to_dict(include_self_link=False)
    document["links"] = [
        link(f"{of_collection}/items/{scene.public_id}", "self", GEOJSON),
        link(root, "root", JSON),
        link(of_collection, "parent", JSON),
        link(of_collection, "collection", JSON),
        _licence_link(request),
        link(
            f"{inventory}/collections/surveys/items?scene={scene.public_id}",
            "related",
            GEOJSON,
            "Surveys: what models saw on it",
        ),
        *(_map_links(tiles, "Tiles for web maps") if scene.path is not None else ()),
    ]
    return document


def _map_links(tiles: str, title: str) -> list[dict[str, Any]]:
    """Of STAC's extension for web maps."""
    return [
        link(f"{tiles}/{{z}}/{{y}}/{{x}}", "xyz", "image/png", title),
        link(f"{tiles}/tilejson", "tilejson", JSON, title),
    ]


def _licence_link(request: Request) -> dict[str, Any]:
    return link(
        f"{base_url(request)}/attribution", "license", HTML, "Whose imagery this is, under which licence"
    )


def _licence(said: str | None) -> str:
    """As STAC has licences: an SPDX identifier, else “other”."""
    named = _SPOKEN.get(said or "", said or "")
    return named if _SPDX.fullmatch(named) else "other"


def _box_of(ground: shapely.Geometry) -> list[float]:
    """West, south, east, north; west > east where it lies on both sides of the antimeridian (RFC 7946, § 5.2)."""
    west, south, east, north = shapely.bounds(ground).tolist()
    parts = shapely.bounds(shapely.get_parts(ground))
    eastern, western = parts[parts[:, 0] >= 0], parts[parts[:, 2] <= 0]
    is_cut = west == -180 and east == 180 and len(eastern) + len(western) == len(parts)
    if is_cut:
        west, east = float(eastern[:, 0].min()), float(western[:, 2].max())
    return [west, south, east, north]


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
