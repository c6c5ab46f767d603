"""The service's own pages: its cities."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api import pages
from api.links import base_url, city_url, link
from api.negotiation import wants_html
from api.requests import Store
from inventory.store import features

router = APIRouter(tags=["cities"])

_EXAMPLE = {
    "cities": [
        {
            "id": "puer",
            "name": "普洱",
            "links": [
                {"rel": "item", "type": "application/json", "href": "https://trees.example/cities/puer/"}
            ],
        }
    ],
    "links": [],
}


@router.get(
    "/cities",
    responses={200: {"content": {"application/json": {"example": _EXAMPLE}, "text/html": {}}}},
    response_class=JSONResponse,
)
@router.get("/", include_in_schema=False)
def cities(request: Request, store: Store) -> Response:
    """The cities of this installation, each an OGC API of its own."""
    with store.transaction(read_only=True) as connection:
        found = features.city_names(connection)
    if wants_html(request):
        return pages.page(request, "cities.html", cities=found)
    return JSONResponse(_document(request, found))


def _document(request: Request, found: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "cities": [
            {
                "id": code,
                "name": name,
                "links": [link(f"{city_url(request, code)}/", "item", "application/json", name)],
            }
            for code, name in found
        ],
        "links": [
            link(f"{base_url(request)}/cities", "self", "application/json"),
            link(f"{base_url(request)}/cities?f=html", "alternate", "text/html"),
            link(f"{base_url(request)}/openapi.json", "service-desc", "application/openapi+json;version=3.1"),
            link(f"{base_url(request)}/source", "related", "text/html", "The program’s source"),
            link(f"{base_url(request)}/attribution", "license", "text/html", "Whose imagery this is"),
        ],
    }
