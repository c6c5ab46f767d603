"""The HTTP service, put together: routes, refusals, and the perimeter around them. No rules live here."""

from fastapi import Depends, FastAPI

from api import cities, counts, problem_answers, source, web_files
from api.ogc import downloads, items, landing, schemas
from api.perimeter import Perimeter
from api.requests import refuse_unknown_parameters
from api.settings import Settings
from api.version import program_version
from inventory.store.database import Database


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
    )
    app.state.settings = settings
    app.state.database = database
    app.state.public_url = str(settings.public_url).rstrip("/") if settings.public_url else None
    app.state.downloads = downloads.Downloads(
        settings.home / "cache" / "downloads", at_once=settings.downloads_at_once
    )
    problem_answers.add_handlers(app)
    for room in (cities, landing, downloads, items, counts, source, web_files, schemas):
        app.include_router(room.router)
    app.add_middleware(
        Perimeter,
        routes=lambda: app.router.routes,
        public_url=app.state.public_url,
        open_to_all=_has_public_read,
    )
    return app


def _has_public_read(path: str) -> bool:
    # Until accounts arrive every city has public read.
    return path == "/" or path == "/cities" or path.startswith("/cities/")
