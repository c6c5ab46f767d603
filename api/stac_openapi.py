"""The catalogue's description in OpenAPI 3.0: what our own, in 3.1, says of its routes, seen from its root.

GIS clients read 3.0, where “or null” and lists of examples are not known.
"""

from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi

from api.version import program_version

_PREFIX = "/cities/{city}/stac"
_PROBLEM = {
    "description": "What is wrong, where, and what to do.",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("title", "detail", "code", "do")},
            }
        }
    },
}


def document(router: APIRouter, root: str, title: str) -> dict[str, Any]:
    """The description of the routes below a catalogue's address, which is ``root``."""
    ours = get_openapi(title=title, version=program_version(), openapi_version="3.0.3", routes=router.routes)
    paths = {
        path.removeprefix(_PREFIX) or "/": {method: _operation(one) for method, one in methods.items()}
        for path, methods in ours["paths"].items()
    }
    return {**ours, "servers": [{"url": root}], "paths": paths, "components": {}}


def _operation(described: dict[str, Any]) -> dict[str, Any]:
    # FastAPI says 422 for what it finds wrong; here it is always 4xx with a problem document.
    answers = {code: one for code, one in described["responses"].items() if code != "422"}
    made = {**described, "responses": {**answers, "4XX": _PROBLEM}}
    parameters = [one for one in described.get("parameters", ()) if one["name"] != "city"]
    made.pop("parameters", None)
    known: dict[str, Any] = _in_3_0(made)
    return {**known, **({"parameters": [_in_3_0(one) for one in parameters]} if parameters else {})}


def _in_3_0(part: Any) -> Any:
    if isinstance(part, list):
        return [_in_3_0(one) for one in part]
    if not isinstance(part, dict):
        return part
    made = {name: _in_3_0(one) for name, one in part.items() if name not in ("anyOf", "examples")}
    if "anyOf" in part:
        kinds = [_in_3_0(one) for one in part["anyOf"] if one != {"type": "null"}]
        made |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if isinstance(part.get("examples"), list):
        made["example"] = part["examples"][0]
    return made
