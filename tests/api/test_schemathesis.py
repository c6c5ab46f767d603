"""Requests made from our own description, good and bad: nothing fails, and every refusal is a problem document.

schemathesis makes them from ``/openapi.json``; new routes are covered by themselves.
"""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from api.app import create_app
from api.settings import Settings
from inventory.store.database import Database
from tests.api.conftest import Service

EXAMPLES = 20
NAMES = {"city": "town", "collection": "assets", "grid": "WebMercatorQuad"}


def operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    ]


@pytest.fixture(scope="module")
def described(service: Service) -> Any:
    document = service.get("/openapi.json").json()
    return schemathesis.openapi.from_dict(document)


def all_operations() -> list[tuple[str, str]]:
    # Collected without a service: the same application, over no database at all.
    app = create_app(Settings(), Database("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    return operations(app.openapi())


@pytest.mark.parametrize(("method", "path"), all_operations(), ids=lambda part: str(part))
def test_no_request_makes_an_operation_fail(service: Service, described: Any, method: str, path: str) -> None:
    operation = described[path][method]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def asked(case: Any) -> None:
        case.path_parameters = {**(case.path_parameters or {}), **named(path)}
        answer = case.call(base_url=service.url)
        assert answer.status_code < 500, (answer.status_code, case.as_curl_command())
        if answer.status_code >= 400:
            assert answer.headers["content-type"][0].startswith(("application/problem+json", "text/html"))

    asked()


def named(path: str) -> dict[str, str]:
    """Names that exist, so that requests come further than to an unknown city."""
    return {name: value for name, value in NAMES.items() if f"{{{name}}}" in path}
