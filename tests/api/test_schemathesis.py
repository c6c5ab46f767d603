"""Requests made from our own descriptions, good and bad: nothing fails, and answers are those that are described.

schemathesis makes them from ``/openapi.json``, and from the OpenAPI 3.0 document of a city; new routes are covered by
themselves. Seeded: the same requests each time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from api.app import create_app
from api.settings import Settings
from inventory.store.database import Database
from tests.api.conftest import Service, fill
from tests.support.database import DatabaseServer, cloned_database
from tests.support.server import served

EXAMPLES = 20
NAMES = {"city": "town", "collection": "assets", "grid": "WebMercatorQuad"}
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance)
_MADE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


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


def assert_conforms(url: str, operation: Any, path: str) -> None:
    """Asks as the description lets one ask, and otherwise too; looks at each answer."""
    asking = operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @_MADE
    @given(case=asking)
    def asked(case: Any) -> None:
        case.path_parameters = {**(case.path_parameters or {}), **named(path)}
        answer = case.call(base_url=url, allow_redirects=False)
        case.validate_response(answer, checks=list(CHECKS))
        if answer.status_code >= 400:
            assert answer.headers["content-type"][0].startswith(("application/problem+json", "text/html"))

    asked()


def named(path: str) -> dict[str, str]:
    """Names that exist, so that requests come further than to an unknown city."""
    return {name: value for name, value in NAMES.items() if f"{{{name}}}" in path}


@pytest.mark.parametrize(("method", "path"), all_operations(), ids=lambda part: str(part))
def test_every_operation_answers_as_it_is_described(
    service: Service, described: Any, method: str, path: str
) -> None:
    assert_conforms(service.url, described[path][method], path)


@pytest.fixture(scope="module")
def writable(
    database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A service of its own, where anybody may write."""
    with cloned_database(database_server) as clone:
        database = Database(clone.service_url)
        fill(database)
        home = Path(tmp_path_factory.mktemp("home"))
        app = create_app(Settings(home=home, allow_unauthenticated_writes=True), database)
        with served(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client
        database.close()


def test_a_citys_own_description_is_true_of_all_its_operations(writable: httpx.Client) -> None:
    document = writable.get("/cities/town/api").json()
    schema = schemathesis.openapi.from_dict(document)
    asked = operations(document)
    assert len(asked) > 10
    for method, path in asked:
        assert_conforms(
            f"{writable.base_url}/cities/town".replace("//cities", "/cities"), schema[path][method], path
        )


@pytest.mark.parametrize(
    ("method", "path"), [one for one in all_operations() if one[0] != "GET"], ids=lambda part: str(part)
)
def test_what_writes_answers_as_it_is_described_where_anybody_may(
    writable: httpx.Client, method: str, path: str
) -> None:
    schema = schemathesis.openapi.from_dict(writable.get("/openapi.json").json())
    assert_conforms(str(writable.base_url), schema[path][method], path)
