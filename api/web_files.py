"""Styles, scripts and the map library of the pages, from the package itself."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response

from api.fresh import keep
from detection.errors import UnknownName

router = APIRouter(include_in_schema=False)

# A file of another kind is not served: the types come from this table, never from a guess.
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}

# A worker obeys the policy of its own script, not the page's: the map's fetches tiles.
_SCRIPT_POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"


@router.get("/static/{path:path}")
def web_file(request: Request, path: str, v: str | None = None) -> Response:
    """One file of the pages; ``v`` names a version for caches and changes nothing."""
    file = _file_at(path)
    media_type = _MEDIA_TYPES.get(f".{path.rpartition('.')[2]}")
    if file is None or media_type is None:
        raise UnknownName("no such file of the pages", do="Run scripts/setup if the map is missing.")
    content = file.read_bytes()
    keep(request, content)
    headers = {"Cache-Control": "public, max-age=300"}
    if media_type.startswith("text/javascript"):
        headers["Content-Security-Policy"] = _SCRIPT_POLICY
    return Response(content, media_type=media_type, headers=headers)


def _file_at(path: str) -> Traversable | None:
    place: Traversable = files("api.web") / "static"
    for part in path.split("/"):
        if part in ("", ".", "..") or "\\" in part or "\0" in part:
            return None
        place = place / part
    return place if place.is_file() else None
