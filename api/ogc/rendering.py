"""Features on their way to a caller: the head of a page, its links, and the body in each format."""

import io
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import quote

import anyio
import anyio.to_thread
import orjson
import pyarrow as pa
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.links import Link, changed_query, city_url, header_value, link, with_query
from api.ogc import formats, parameters
from api.ogc.crs import Crs
from api.ogc.documents import JSON, time_stamp
from api.ogc.formats import CSV, GEOJSON, GEOJSON_SEQ, Format
from inventory.feature_files import BYTE_ORDER_MARK, csv_text, write_features
from inventory.feature_tables import Layer, feature_batch, feature_rows, parsed
from inventory.store.feature_pages import Page
from inventory.store.features import CityOnPage, Collection

_RECORD = "\x1e"
"""What begins a record of a GeoJSON text sequence (RFC 8142); each ends with a line feed."""


_PART_BYTES = 256 * 1024
_IN_MEMORY_BYTES = 1024**2
"""More of an answer than this waits in a temporary file until it is taken."""


def separator_of(form: Format) -> str:
    """What stands between two Features in the texts that ``body`` takes for a format."""
    return f"\n{_RECORD}" if form is GEOJSON_SEQ else ",\n"


def head(
    request: Request,
    city: CityOnPage,
    collection: Collection,
    page: Page,
    matched: int | None,
    form: Format,
    asked: list[tuple[str, str]],
) -> dict[str, Any]:
    """The members of a FeatureCollection before its features.

    Args:
        asked: the request's parameters, as its links repeat them.
    """
    root = f"{city_url(request, city.code)}/collections/{collection}"
    address = f"{root}/items"
    links = [
        link(with_query(address, asked), "self", form.media_type, "This page"),
        *(
            link(with_query(address, changed_query(request, f=other.name)), "alternate", other.media_type,
                 f"This page as {other.title}")
            for other in formats.LINKED
            if other is not form
        ),
        link(root, "collection", JSON, "Its collection"),
    ]  # fmt: skip
    # A link repeats what its reader may not ask for again by Accept.
    asked = asked if form is GEOJSON else [*((n, v) for n, v in asked if n != "f"), ("f", form.name)]
    for rel, title, key, backwards in (
        ("next", "The next page", page.next_after, False),
        ("prev", "The previous page", page.previous_before, True),
    ):
        if key is not None:
            cursor = parameters.encode_cursor(key, backwards=backwards)
            kept = [(name, value) for name, value in asked if name not in ("cursor", "offset")]
            links.append(link(with_query(address, [*kept, ("cursor", cursor)]), rel, form.media_type, title))
    return {
        "type": "FeatureCollection",
        "timeStamp": time_stamp(),
        **({} if matched is None else {"numberMatched": matched}),
        "numberReturned": len(page.rows),
        "links": links,
    }


def headers(head: dict[str, Any], crs: Crs) -> dict[str, str]:
    """The HTTP headers that say the same as the head: formats without a place for it need them."""
    links: list[Link] = head["links"]
    said = {"Content-Crs": f"<{crs.uri}>", "Link": header_value(links)}
    if "numberMatched" in head:
        said["OGC-NumberMatched"] = str(head["numberMatched"])
    said["OGC-NumberReturned"] = str(head["numberReturned"])
    return said


def as_file(city: CityOnPage, what: str, form: Format) -> dict[str, str]:
    """The header that names a file: a plain name for everybody, and the city's own for who can read it."""
    plain = f"{city.code}-{what}.{form.suffix}"
    own = quote(f"{city.name}-{what}.{form.suffix}".replace("/", "-"), safe="")
    return {"Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{own}"}


def body(
    form: Format,
    layer: Layer,
    texts: Iterable[bytes],
    *,
    head: dict[str, Any],
    spreadsheet: bool = True,
) -> Iterator[bytes]:
    """The body of an answer, as it comes.

    Args:
        layer: what of the features a table has.
        texts: Features, with the format's own separator between.
        head: of a FeatureCollection; other formats leave it to the headers.
        spreadsheet: a CSV for spreadsheets: with a byte order mark, and no formulas.
    """
    if form is GEOJSON:
        return _geojson(texts, head)
    if form is GEOJSON_SEQ:
        return (_RECORD.encode() + text + b"\n" for text in texts)
    if form is CSV:
        return _csv(layer, texts, spreadsheet=spreadsheet)
    return _file(form, layer, texts)


def _geojson(texts: Iterable[bytes], head: dict[str, Any]) -> Iterator[bytes]:
    before = orjson.dumps(head)[:-1] + b',"features":['
    for text in texts:
        yield before + text
        before = b",\n"
    # Without a feature nothing of it has been sent yet.
    yield (b"]}" if before == b",\n" else before + b"]}")


def _csv(layer: Layer, texts: Iterable[bytes], *, spreadsheet: bool) -> Iterator[bytes]:
    mark = BYTE_ORDER_MARK if spreadsheet else ""
    yield (mark + csv_text([layer.csv_header])).encode()
    for text in texts:
        yield csv_text(feature_rows(layer, parsed(text)), spreadsheet=spreadsheet).encode()


def _file(form: Format, layer: Layer, texts: Iterable[bytes]) -> Iterator[bytes]:
    whole = io.BytesIO()
    batches = pa.RecordBatchReader.from_batches(
        layer.schema, [feature_batch(layer, parsed(text)) for text in texts]
    )
    assert form.file_form is not None
    write_features(batches, form.file_form, whole)
    yield whole.getvalue()


def begun(texts: Iterator[bytes]) -> Iterator[bytes]:
    """The same, the first of them read now: what fails at once can still be told by a status."""
    first = list(islice(texts, 1))
    return chain(first, texts)


def held(chunks: Iterable[bytes], form: Format, headers: dict[str, str]) -> Response:
    """An answer that is made whole before its first part is sent: in memory or, where it is long, in a file.

    So the database's connection is given back before the sending begins: a caller with a slow line holds only a file.
    """
    whole = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 -- closed when it is sent
    try:
        for chunk in chunks:
            whole.write(chunk)
    except BaseException:
        whole.close()
        raise
    return _Held(whole, form, headers)


class _Held(StreamingResponse):
    """A file on its way, closed in the end."""

    def __init__(self, whole: IO[bytes], form: Format, headers: dict[str, str]) -> None:
        self._whole = whole
        length = {"Content-Length": str(whole.tell())}
        whole.seek(0)
        super().__init__(self._parts(), media_type=form.content_type, headers={**headers, **length})

    async def _parts(self) -> AsyncIterator[bytes]:
        while part := await anyio.to_thread.run_sync(self._whole.read, _PART_BYTES):
            yield part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._whole.close()


class Streamed(StreamingResponse):
    """An answer that is sent while it is read; what was opened for it, as its transaction, ends with it.

    However it ends: a caller who hangs up, or takes nothing any more, ends it too (``api/hanging_up.py``).
    """

    def __init__(
        self, chunks: Iterator[bytes], opened: ExitStack, *, form: Format, headers: dict[str, str]
    ) -> None:
        super().__init__(chunks, media_type=form.content_type, headers=headers)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Shielded: a caller who hung up must not leave a connection behind.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._opened.close)
