"""For those who run the service: whether it lives, whether it can work, and its figures."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.admission import Room
from api.problem_answers import MEDIA_TYPE
from api.requests import Installation, Store
from api.settings import LOOPBACK_NAMES, MetricsFor
from api.version import program_version
from api.watching import Figures
from detection.errors import UnknownName, UrbanInventoryError
from inventory.store import migrate

router = APIRouter(tags=["operations"])

_LIVES = {"status": "ok", "version": "0.1.0"}
_READY = {"status": "ready", "checks": {"database": "ok", "schema": "ok"}}
_FIGURES = "# HELP urban_inventory_requests_under_way Requests being answered.\n"


@router.get("/healthz", responses={200: {"content": {"application/json": {"example": _LIVES}}}})
def lives() -> JSONResponse:
    """The process lives; asks nothing of anything else."""
    return JSONResponse({"status": "ok", "version": program_version()})


@router.get(
    "/readyz",
    responses={
        200: {"content": {"application/json": {"example": _READY}}},
        503: {"content": {"application/json": {"example": {**_READY, "status": "not ready"}}}},
    },
)
def ready(store: Store) -> JSONResponse:
    """The database answers at once and its schema is the program's; else 503."""
    checks = {"database": "ok", "schema": "ok"}
    try:
        with store.transaction(read_only=True) as connection:
            found = migrate.current_revision(connection)
        if found != migrate.head_revision():
            checks["schema"] = f"at {found or 'nothing'}, {migrate.head_revision()} is needed"
    except UrbanInventoryError as error:
        checks["database"] = error.what
    is_ready = set(checks.values()) == {"ok"}
    return JSONResponse(
        {"status": "ready" if is_ready else "not ready", "checks": checks},
        status_code=200 if is_ready else 503,
        headers={} if is_ready else {"Retry-After": "5"},
    )


@router.get(
    "/metrics",
    responses={
        200: {"content": {CONTENT_TYPE_LATEST: {"example": _FIGURES}}},
        404: {"content": {MEDIA_TYPE: {}}},
    },
    response_class=Response,
)
def metrics(request: Request, store: Store, settings: Installation) -> Response:
    """Figures of the service for Prometheus."""
    peer = request.client.host if request.client else ""
    if settings.metrics is MetricsFor.NOBODY or (
        settings.metrics is MetricsFor.LOOPBACK and (peer not in LOOPBACK_NAMES or _is_forwarded(request))
    ):
        raise UnknownName("nothing is at this address", do="Start at “/”.")
    figures: Figures = request.app.state.figures
    room: Room = request.app.state.room
    figures.waiting.set(room.waiting)
    for status, number in room.refused.items():
        figures.refused.labels(str(status)).set(number)
    figures.connections.set(store.connections_in_use())
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)


def _is_forwarded(request: Request) -> bool:
    # A proxy on this machine asks from loopback for anybody.
    return any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
