"""What a city's description says of writing (OGC API Features, Part 4): only where somebody may write."""

from typing import Any

from api.ogc.crs import CRS84
from api.ogc.documents import GEOJSON

_Json = dict[str, Any]
_ITEMS = "/collections/assets/items"
_PROBLEM: _Json = {"$ref": "#/components/responses/Problem"}
_FEATURE: _Json = {"$ref": "#/components/schemas/feature"}


def add_writes(paths: _Json) -> None:
    """Adds the operations that write assets to the paths of a description."""
    crs = _header("Content-Crs", "CRS of the body’s coordinates.", default=CRS84)
    if_match = _header("If-Match", "Entity tag that the asset must still have.")
    one = {"$ref": "#/components/parameters/featureId"}
    location = {"schema": {"type": "string", "format": "uri"}, "description": "Of the asset made or met."}
    paths[_ITEMS]["post"] = _write(
        "addAsset",
        "Adds an asset; where one stands already, that one is meant",
        {"201": {"description": "Added.", "headers": {"Location": location}}},
        [crs],
        body={GEOJSON: {"schema": _FEATURE}},
    )
    done: _Json = {"204": {"description": "Done."}}
    on_one = paths[f"{_ITEMS}/{{featureId}}"]
    on_one["put"] = _write(
        "replaceAsset",
        "Makes an asset what the body says, as far as people may say it",
        done,
        [one, crs, if_match],
        body={GEOJSON: {"schema": _FEATURE}},
    )
    on_one["patch"] = _write(
        "updateAsset",
        "Changes of an asset what the body names: place, class, verified",
        done,
        [one, crs, if_match],
        body={"application/merge-patch+json": {"schema": {"type": "object"}}},
    )
    reason = {"name": "reason", "in": "query", "required": False, "schema": {"type": "string"}}
    on_one["delete"] = _write(
        "removeAsset", "Says that an asset is none, or is no more", done, [one, if_match, reason]
    )


def _write(
    operation: str, summary: str, done: _Json, parameters: list[_Json], *, body: _Json | None = None
) -> _Json:
    statuses = ("400", "403", "404", "412", "413", "415", "422", "503")
    described: _Json = {
        "operationId": operation,
        "summary": summary,
        "tags": ["features"],
        "parameters": parameters,
        "responses": {**done, **dict.fromkeys(statuses, _PROBLEM)},
    }
    return described if body is None else {**described, "requestBody": {"required": True, "content": body}}


def _header(name: str, description: str, **schema: str) -> _Json:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "required": False,
        "schema": {"type": "string", **schema},
    }
