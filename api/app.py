"""The HTTP service, put together: routes, refusals, and the perimeter around them. No rules live here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import Depends, FastAPI
from starlette.routing import Match
from starlette.types import Scope
from starlette_compress import CompressMiddleware, add_compress_type

from api import cities, counts, imagery, operations, problem_answers, source, stac, web_files
from api.admission import Admission, Room
from api.description import describe
from api.fresh import NotModified, not_modified
from api.hanging_up import HangingUp
from api.ogc import downloads, items, landing, schemas, tiles, writes
from api.perimeter import Perimeter
from api.requests import refuse_unknown_parameters
from api.settings import Settings
from api.version import program_version
from api.watching import Figures, Watching
from inventory.store.database import Database

_COMPRESSED = (
    "application/geo+json",
    "application/geo+json-seq",
    "application/problem+json",
    "application/schema+json",
    "application/vnd.oai.openapi+json",
    "application/vnd.mapbox-vector-tile",
    "application/flatgeobuf",
    "text/csv",
)
"""Beside what the library knows; GeoPackage, GeoParquet and pictures are compressed in themselves."""
_SPARE_THREADS = 8
"""For what is done beside answers: ending statements, closing what was opened."""
for _media_type in _COMPRESSED:
    add_compress_type(_media_type)


def create_app(settings: Settings, database: Database) -> FastAPI:
    """The application over an open database, which stays the caller's to close."""
    app = FastAPI(
        title="urban-inventory",
        summary="What stands and moves in a city, counted from imagery.",
        version=program_version(),
        dependencies=[Depends(refuse_unknown_parameters)],
        # Their pages load scripts from elsewhere; a city's “api?f=html” is ours.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_living,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.public_url = str(settings.public_url).rstrip("/") if settings.public_url else None
    app.state.downloads = downloads.Downloads(
        settings.home / "cache" / "downloads", at_once=settings.downloads_at_once
    )
    app.state.room = Room(
        each=settings.client_requests,
        all_together=settings.requests_at_once,
        patience_s=settings.wait_s,
        trusted=settings.trusted_proxies,
    )
    app.state.figures = Figures(app.state.room, database)
    app.state.readiness = operations.Readiness(database)
    problem_answers.add_handlers(app)
    for room in (
        *(cities, landing, downloads, items, counts, source, web_files),
        *(schemas, operations, writes, tiles, imagery, stac),
    ):
        app.include_router(room.router)
    app.add_exception_handler(NotModified, not_modified)
    describe(app)
    # From within outwards: each layer is around those before it.
    app.add_middleware(CompressMiddleware, zstd_level=1, brotli_quality=1, gzip_level=1)
    app.add_middleware(Admission, room=app.state.room)
    app.add_middleware(HangingUp)
    app.add_middleware(
        Perimeter,
        routes=lambda: app.router.routes,
        public_url=app.state.public_url,
        open_to_all=_has_public_read,
        hidden=None if settings.allow_unauthenticated_writes else _is_write,
    )
    app.add_middleware(Watching, figures=app.state.figures)
    return app


@asynccontextmanager
async def _living(app: FastAPI) -> AsyncIterator[None]:
    """While it runs there is a thread for each request that has a place: no second line behind the one we count."""
    settings: Settings = app.state.settings
    threads = anyio.to_thread.current_default_thread_limiter()
    threads.total_tokens = max(
        threads.total_tokens, settings.requests_at_once + settings.downloads_at_once + _SPARE_THREADS
    )
    yield


def _is_write(scope: Scope) -> bool:
    """Whether it is a write: answered with a refusal where nobody may, and then not offered."""
    return any(route.matches(scope)[0] is Match.FULL for route in writes.router.routes)


def _has_public_read(path: str) -> bool:
    # Until accounts arrive every city has public read.
    return path == "/" or path == "/cities" or path.startswith("/cities/")
