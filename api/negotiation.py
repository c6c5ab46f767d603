"""Which form of a resource a caller gets: ``f=`` wins, then ``Accept``, then JSON."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from fastapi import Request

from detection.errors import CallerError

OPENAPI_TYPE = "application/vnd.oai.openapi+json;version=3.0"


_Kind = TypeVar("_Kind")


class Form(StrEnum):
    """The forms that resources have; the value is what ``f=`` says."""

    JSON = "json"
    GEOJSON = "geojson"
    HTML = "html"


_OF_MEDIA_TYPE = {
    "text/html": Form.HTML,
    "application/xhtml+xml": Form.HTML,
    "application/geo+json": Form.GEOJSON,
    "application/json": Form.JSON,
    "application/schema+json": Form.JSON,
    "application/vnd.oai.openapi+json": Form.JSON,
    "application/*": Form.JSON,
    "*/*": Form.JSON,
}


def form_of(request: Request) -> Form:
    """HTML where the caller prefers it, else JSON (GeoJSON is JSON here: the resource knows its own type).

    Raises:
        CallerError: ``f=`` names a form that nothing here has.
    """
    named = request.query_params.get("f")
    if named is not None:
        try:
            form = Form(named.lower())
        except ValueError:
            raise CallerError(f"f={named[:32]} is no form of this resource", do="Use json or html.") from None
    else:
        form = _preferred(request.headers.get("accept", "*/*"))
    return Form.HTML if form is Form.HTML else Form.JSON


def wants_html(request: Request) -> bool:
    """Whether the answer is a page for people."""
    return form_of(request) is Form.HTML


def prefers_html(request: Request) -> bool:
    """Like ``wants_html``, for answers that must not fail themselves: errors."""
    named = request.query_params.get("f")
    if named is not None:
        return named.lower() == Form.HTML
    return _preferred(request.headers.get("accept", "*/*")) is Form.HTML


def preferred(accept: str, of_media_type: Mapping[str, _Kind], otherwise: _Kind) -> _Kind:
    """What an ``Accept`` header likes best of what there is; of equals the first that it names."""
    best, best_weight = otherwise, 0.0
    for entry in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = _weight(parameters)
        if weight > best_weight and media_type in of_media_type:
            best, best_weight = of_media_type[media_type], weight
    return best


def _preferred(accept: str) -> Form:
    return preferred(accept, _OF_MEDIA_TYPE, Form.JSON)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
