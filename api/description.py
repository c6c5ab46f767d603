"""What our OpenAPI 3.1 document says of every operation, so that each route says only what is its own.

The framework would describe refusals as its own validation errors, which nobody here ever gets: refusals are problem
documents (RFC 9457) or, for people, pages.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from api.problem_answers import MEDIA_TYPE

_Json = dict[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")
_PROBLEM: _Json = {
    "type": "object",
    "required": ["type", "title", "status", "code", "what", "trace"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The status, in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, and what to do."},
        "code": {"type": "string", "description": "What happened, for programs."},
        "what": {"type": "string"},
        "where": {"type": ["string", "null"]},
        "do": {"type": ["string", "null"]},
        "trace": {"type": "string", "description": "The request’s number: the answer’s X-Request-Id."},
    },
}
_ALWAYS = {
    "400": "A parameter is unknown or unusable; it is named.",
    "429": "Too many requests of this client are under way; Retry-After says when to come again.",
    "503": "The service or its database is busy; Retry-After says when to come again.",
}
_OF_A_PLACE = {"404": "There is no such thing here; what there is, is named."}
_OF_A_BODY = {
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "422": "The body can be read, but not used.",
}
_KEPT: _Json = {"description": "The caller has this answer: If-None-Match names its entity tag."}
_FORM: _Json = {
    "name": "f",
    "in": "query",
    "required": False,
    "description": "The form of the answer, instead of Accept: json, html, or one that the resource has.",
    "schema": {"type": "string", "examples": ["json"]},
}


def describe(app: FastAPI) -> None:
    """Makes the application describe itself whole."""
    framework: Callable[[], _Json] = app.openapi

    def described() -> _Json:
        if app.openapi_schema is None:
            _complete(framework())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _complete(document: _Json) -> None:
    schemas: _Json = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    for path, methods in document["paths"].items():
        for method in set(methods) & set(_METHODS):
            _complete_operation(methods[method], method, path)


def _complete_operation(operation: _Json, method: str, path: str) -> None:
    answers: _Json = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422", {})):
        del answers["422"]
    expected = {
        **_ALWAYS,
        **(_OF_A_PLACE if "{" in path else {}),
        **(_OF_A_BODY if "requestBody" in operation else {}),
    }
    for status, said in expected.items():
        answers.setdefault(status, {"description": said})
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if method == "get":
        content["text/html"] = {"schema": {"type": "string"}}
        answers.setdefault("304", _KEPT)
    for status, answer in answers.items():
        if int(status) >= 400:
            answer.setdefault("description", "")
            answer["content"] = {**content, **answer.get("content", {})}
            # The one that says what is in it.
            answer["content"][MEDIA_TYPE] = content[MEDIA_TYPE]
    if method == "get" and len(answers.get("200", {}).get("content", {})) > 1:
        parameters = operation.setdefault("parameters", [])
        if not any(each.get("name") == "f" for each in parameters):
            parameters.append(_FORM)
