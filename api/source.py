"""The running program's own source (AGPL, section 13), and whose imagery stands behind the counts (R15)."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

import api
import detection
import inventory
from api import pages
from api.links import base_url, city_url, link
from api.negotiation import prefers_html, wants_html
from api.requests import Store
from api.version import program_version
from detection.data_folder import data_path
from inventory.store import features

router = APIRouter(tags=["about"])

_FLOORS = (detection, inventory, api)
# Beside the floors in a checkout.
_BESIDE = (
    "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "scripts", "locks", "deploy",
    "docs", "tests", "benchmarks", ".ci",
)  # fmt: skip
# Made by machines, or fetched: nobody's source.
_LEFT_OUT = frozenset({"__pycache__", "vendor", "node_modules", ".pytest_cache"})
_LARGEST_BYTES = 4 * 1024**2
_CHUNK_BYTES = 256 * 1024

_ARCHIVE: dict[int | str, dict[str, Any]] = {200: {"content": {"application/gzip": {}, "text/html": {}}}}
_ATTRIBUTION_EXAMPLE = {
    "cities": [
        {
            "id": "puer",
            "name": "普洱",
            "imagery": [{"source": "drone", "attribution": "Example", "licence": "CC BY 4.0", "scenes": 12}],
        }
    ]
}


@router.get("/source", responses=_ARCHIVE, response_class=StreamingResponse)
def source(request: Request) -> Response:
    """The source of the program that answers, as a .tar.gz; for browsers a page that offers it."""
    if prefers_html(request):
        return pages.page(request, "source.html", version=program_version())
    name = f"urban-inventory-{program_version()}"
    return StreamingResponse(
        _archive(name),
        media_type="application/gzip",
        headers={"Content-Disposition": f'attachment; filename="{name}.tar.gz"'},
    )


@router.get(
    "/attribution",
    responses={200: {"content": {"application/json": {"example": _ATTRIBUTION_EXAMPLE}, "text/html": {}}}},
    response_class=JSONResponse,
)
def attribution(request: Request, store: Store) -> Response:
    """Whose imagery stands behind each city's counts, and under which licence."""
    with store.transaction(read_only=True) as connection:
        found = [
            (code, name, features.attributions(connection, code))
            for code, name in features.city_names(connection)
        ]
    if wants_html(request):
        return pages.page(request, "attribution.html", cities=found)
    cities = [
        {
            "id": code,
            "name": name,
            "imagery": [
                {"source": row[0], "attribution": row[1], "licence": row[2], "scenes": row[3]} for row in rows
            ],
            "links": [link(f"{city_url(request, code)}/", "item", "application/json", name)],
        }
        for code, name, rows in found
    ]
    return JSONResponse(
        {"cities": cities, "links": [link(f"{base_url(request)}/source", "related", "text/html")]}
    )


def _archive(name: str) -> Iterator[bytes]:
    """The archive piece by piece: one file of it is in memory at a time."""
    pipe = _Pipe()
    with tarfile.open(mode="w|gz", fileobj=pipe, bufsize=_CHUNK_BYTES) as archive:
        for path, inside in _source_files():
            entry = tarfile.TarInfo(str(PurePosixPath(name) / inside))
            content = path.read_bytes()
            entry.size = len(content)
            # Neither owner nor time of this machine; scripts stay executable.
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(content))
            yield from pipe.taken()
    yield from pipe.taken()


def _source_files() -> Iterator[tuple[Path, PurePosixPath]]:
    for floor in _FLOORS:
        folder = Path(floor.__file__ or "").parent
        yield from _within(folder, PurePosixPath(folder.name))
    yield from _within(data_path(""), PurePosixPath("data"))
    packages = Path(api.__file__ or "").parent
    # A wheel carries what lies beside the floors within the top one (pyproject.toml).
    for folder in (packages / "_source", packages.parent):
        if (folder / "pyproject.toml").is_file():
            for beside in _BESIDE:
                yield from _within(folder / beside, PurePosixPath(beside))
            return


def _within(place: Path, inside: PurePosixPath) -> Iterator[tuple[Path, PurePosixPath]]:
    if place.name in _LEFT_OUT or place.is_symlink():
        return
    if place.is_dir():
        for below in sorted(place.iterdir()):
            # In a wheel these lie inside of a floor; they travel once, under their own name.
            if below.name not in ("_data", "_source"):
                yield from _within(below, inside / below.name)
    elif place.is_file() and (place.stat().st_size <= _LARGEST_BYTES or place.suffix == ".onnx"):
        yield place, inside


class _Pipe(io.RawIOBase):
    """Takes what the archive writes, until it is sent."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def taken(self) -> list[bytes]:
        """What has come since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces
