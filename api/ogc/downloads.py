"""Whole collections as files: ``GET …/download?f=gpkg``, with the conditions of items and without a limit.

GeoJSON, GeoJSON text sequences and CSV are sent while they are read. Formats that are written as a whole become a
file first, which is gone from its folder before its first byte is sent.
"""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.fresh import city_asked
from api.links import city_url, link
from api.ogc import formats, rendering
from api.ogc.area_counts import layer_of, with_counts
from api.ogc.conditions import Conditions, queryables_asked
from api.ogc.crs import CRS84
from api.ogc.documents import GEOJSON, JSON, collection_named, time_stamp
from api.ogc.formats import Format
from api.ogc.items import PAGE_EXAMPLE
from api.requests import Store, takes_also
from inventory.downloading import FileMaking
from inventory.errors import StoreBusy
from inventory.store import feature_pages, features
from inventory.store.database import Connection, Patience
from inventory.store.features import CityOnPage, Collection, Wanted

router = APIRouter(tags=["features"])

_BYTES_AT_ONCE = 256 * 1024
_PLACE_WITHIN_S = 1.0
"""Who downloads one file after the other comes before the last one's place is free."""


class Downloads:
    """The downloads of one service: so many at once, and the folder where their files grow.

    Each file has a folder of its own, locked by the process that writes it; what a killed process left is
    unlocked, and goes when the next one comes.
    """

    def __init__(self, folder: Path, at_once: int) -> None:
        self._folder = folder
        self._at_once = at_once
        self._free = threading.BoundedSemaphore(at_once)

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places.

        Raises:
            StoreBusy: all are taken.
        """
        if not self._free.acquire(timeout=_PLACE_WITHIN_S):
            raise StoreBusy(
                f"as many downloads are under way as run at once here ({self._at_once})",
                do="Try again in a minute, or read the items page by page.",
            )
        try:
            yield
        finally:
            self._free.release()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for one file, gone at the end."""
        own, lock = self._own_folder()
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)
            os.close(lock)

    def _own_folder(self) -> tuple[Path, int]:
        """A new folder and its lock, which ends when it is closed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # One process after the other: nobody sweeps a folder that is not locked yet.
        everybody = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(everybody, fcntl.LOCK_EX)
            self._sweep()
            own = Path(tempfile.mkdtemp(dir=self._folder))
            lock = os.open(own, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            os.close(everybody)
        return own, lock

    def _sweep(self) -> None:
        for left in self._folder.iterdir():
            try:
                lock = os.open(left, os.O_RDONLY)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            except OSError:
                # Somebody is writing in it.
                pass
            finally:
                os.close(lock)


@router.get(
    "/cities/{city}/collections/{collection}/download",
    responses={
        200: {
            "content": {
                **{each.media_type: {} for each in formats.DOWNLOADS},
                GEOJSON: {"example": PAGE_EXAMPLE},
            }
        }
    },
    response_class=Response,
)
@takes_also(queryables_asked)
def download(
    request: Request,
    store: Store,
    city: str,
    collection: str,
    conditions: Annotated[Conditions, Depends()],
    bom: Annotated[bool, Query(description="CSV: false for programs, without byte order mark.")] = True,
) -> Response:
    """All features of a collection that match, as a file."""
    named = collection_named(collection)
    form = formats.format_asked(request, formats.DOWNLOADS, otherwise=formats.GEOJSON)
    downloads: Downloads = request.app.state.downloads
    with ExitStack() as opened:
        opened.enter_context(downloads.place())
        connection = opened.enter_context(store.transaction(Patience.EXPORT, read_only=True))
        shown = city_asked(request, connection, city, alone=named is not Collection.COUNTS)
        wanted = conditions.wanted(request, connection, shown, named)
        headers = {"Content-Crs": f"<{CRS84}>", **rendering.as_file(shown, named, form)}
        if getattr(request.state, "head_only", False):
            return rendering.Streamed(iter(()), opened.pop_all(), form=form, headers=headers)
        separator, layer = rendering.separator_of(form), layer_of(named, shown)
        texts = _texts(connection, shown, named, wanted, separator=separator)
        # Closed first of all: a cursor closed after its transaction breaks into whatever has the connection then.
        opened.callback(texts.close)
        told: Iterator[bytes] = texts
        if named is Collection.COUNTS:
            told = with_counts(connection, shown, wanted, texts, separator, classes=conditions.class_)
        if form.file_form is not None:
            folder = opened.enter_context(downloads.folder())
            file = folder / f"{named}.{form.suffix}"
            making = FileMaking(layer, form.file_form, file)
            return _FileAnswer(making, file, told, opened.pop_all(), form=form, headers=headers)
        texts_begun = rendering.begun(told)
        chunks = rendering.body(form, layer, texts_begun, head=_head(request, shown, named), spreadsheet=bom)
        return rendering.Streamed(chunks, opened.pop_all(), form=form, headers=headers)


def _texts(
    connection: Connection, city: CityOnPage, collection: Collection, wanted: Wanted, *, separator: str
) -> Generator[bytes, None, None]:
    for rows in feature_pages.rows_of(connection, city, collection, wanted):
        yield from features.texts(connection, city, collection, rows, separator=separator)


def _head(request: Request, city: CityOnPage, collection: Collection) -> dict[str, object]:
    address = f"{city_url(request, city.code)}/collections/{collection}"
    links = [link(address, "collection", JSON, "Its collection")]
    return {"type": "FeatureCollection", "timeStamp": time_stamp(), "links": links}


class _FileAnswer(StreamingResponse):
    """A file that is made first, while the caller waits, and sent then; given up when the caller hangs up."""

    def __init__(
        self,
        making: FileMaking,
        file: Path,
        texts: Iterator[bytes],
        opened: ExitStack,
        *,
        form: Format,
        headers: dict[str, str],
    ) -> None:
        super().__init__(iter(()), media_type=form.content_type, headers=headers)
        self._is_gone = False
        self._making = making
        self._file = file
        self._texts = texts
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole: IO[bytes] | None = None
        try:
            whole = await self._made(receive)
            if whole is None:
                return
            self.headers["Content-Length"] = str(os.fstat(whole.fileno()).st_size)
            self.body_iterator = _parts(whole)
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._opened.close)
            if whole is not None:
                whole.close()

    async def _made(self, receive: Receive) -> IO[bytes] | None:
        """The finished file, open and out of its folder; None where the caller hung up meanwhile."""
        outcome: list[IO[bytes] | BaseException] = []
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                self._is_gone = True
                self._making.give_up()

            group.start_soon(watch)
            try:
                outcome.append(await anyio.to_thread.run_sync(self._make))
            except Exception as error:
                # Raised outside of the group, which would wrap it: handlers look for it by its class.
                outcome.append(error)
            group.cancel_scope.cancel()
        (found,) = outcome
        if isinstance(found, BaseException):
            if self._is_gone:
                return None
            raise found
        return found

    def _make(self) -> IO[bytes]:
        # Transaction, place and folder are given back before the sending begins, also where the making fails.
        with self._opened:
            self._making.run(self._texts)
            return self._file.open("rb")


async def _parts(whole: IO[bytes]) -> AsyncIterator[bytes]:
    while part := await anyio.to_thread.run_sync(whole.read, _BYTES_AT_ONCE):
        yield part
