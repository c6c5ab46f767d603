"""For those who run the service: whether it lives, whether it can work, and its figures.

None of them waits for a thread or for a place in the line: they answer when nothing else does.
"""

import asyncio

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from api.problem_answers import MEDIA_TYPE
from api.requests import Installation
from api.settings import LOOPBACK_NAMES, MetricsFor
from api.version import program_version
from api.watching import Figures
from detection.errors import UnknownName, UrbanInventoryError
from inventory.store import migrate
from inventory.store.database import Database

router = APIRouter(tags=["operations"])

READY_WITHIN_S = 1.0
_LIVES = {"status": "ok", "version": "0.1.0"}
_READY = {"status": "ready", "checks": {"pool": "ok", "database": "ok", "schema": "ok"}}
_FIGURES = "# HELP urban_inventory_requests_under_way Requests being answered.\n"


class Readiness:
    """Looks whether the database can be asked: one look at a time, whoever wants to know."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._look: asyncio.Task[dict[str, str]] | None = None
        self._step = "pool"
        self._thread: anyio.CapacityLimiter | None = None

    async def checks(self) -> dict[str, str]:
        """What was looked at, and “ok” or what is wrong with it; no more waits than a second."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._looked())
        done, _ = await asyncio.wait({self._look}, timeout=READY_WITHIN_S)
        if done:
            return self._look.result()
        if self._step == "pool" and self._database.connections_in_use() >= self._database.pool_size:
            return {"pool": "every connection is in use"}
        return {"database": f"no answer within {READY_WITHIN_S:g} s"}

    async def _looked(self) -> dict[str, str]:
        # A thread of its own: those of the requests may all be taken.
        self._thread = self._thread or anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(self._ask, limiter=self._thread)

    def _ask(self) -> dict[str, str]:
        try:
            found = self._database.look(self._goes_on_with)
        except UrbanInventoryError as error:
            return {self._step: error.what}
        needed = migrate.head_revision()
        right = found == needed
        return {
            **_READY["checks"],  # type: ignore[dict-item]
            "schema": "ok" if right else f"at {found or 'nothing'}, {needed} is needed",
        }

    def _goes_on_with(self, step: str) -> None:
        self._step = step


@router.get("/healthz", responses={200: {"content": {"application/json": {"example": _LIVES}}}})
async def lives() -> JSONResponse:
    """The process lives; asks nothing of anything else."""
    return JSONResponse({"status": "ok", "version": program_version()})


@router.get(
    "/readyz",
    responses={
        200: {"content": {"application/json": {"example": _READY}}},
        503: {"content": {"application/json": {"example": {**_READY, "status": "not ready"}}}},
    },
)
async def ready(request: Request) -> JSONResponse:
    """A connection can be had and the database answers within a second, its schema the program’s; else 503."""
    readiness: Readiness = request.app.state.readiness
    checks = await readiness.checks()
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
async def metrics(request: Request, settings: Installation) -> Response:
    """Figures of the service for Prometheus."""
    peer = request.client.host if request.client else ""
    if settings.metrics is MetricsFor.NOBODY or (
        settings.metrics is MetricsFor.LOOPBACK and (peer not in LOOPBACK_NAMES or _is_forwarded(request))
    ):
        raise UnknownName("nothing is at this address", do="Start at “/”.")
    figures: Figures = request.app.state.figures
    return Response(figures.written(), media_type=CONTENT_TYPE_LATEST)


def _is_forwarded(request: Request) -> bool:
    # A proxy on this machine asks from loopback for anybody.
    return any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
