"""The formats of features: which one a caller gets, by ``f=`` or ``Accept``, and what it is called."""

from collections.abc import Collection as Named
from dataclasses import dataclass

from fastapi import Request

from api.negotiation import preferred
from detection.errors import CallerError
from inventory.feature_files import FileForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format: ``name`` is what ``f=`` says, ``title`` what people read.

    Attributes:
        file_form: of formats that are written as a whole.
    """

    name: str
    media_type: str
    title: str
    suffix: str
    file_form: FileForm | None = None

    @property
    def content_type(self) -> str:
        """The media type with what a reader of text must know."""
        return f"{self.media_type}; charset=utf-8; header=present" if self is CSV else self.media_type


GEOJSON = Format(name="geojson", media_type="application/geo+json", title="GeoJSON", suffix="geojson")
HTML = Format(name="html", media_type="text/html", title="a page for people", suffix="html")
GEOJSON_SEQ = Format(
    name="geojsonseq",
    media_type="application/geo+json-seq",
    title="GeoJSON, a feature a record",
    suffix="geojsonl",
)
CSV = Format(name="csv", media_type="text/csv", title="CSV", suffix="csv")
FLATGEOBUF = Format(
    name="flatgeobuf",
    media_type="application/flatgeobuf",
    title="FlatGeobuf",
    suffix="fgb",
    file_form=FileForm.FLATGEOBUF,
)
GEOPACKAGE = Format(
    name="gpkg",
    media_type="application/geopackage+sqlite3",
    title="GeoPackage",
    suffix="gpkg",
    file_form=FileForm.GPKG,
)
PARQUET = Format(
    name="parquet",
    media_type="application/vnd.apache.parquet",
    title="GeoParquet",
    suffix="parquet",
    file_form=FileForm.PARQUET,
)

DOWNLOADS = (GEOPACKAGE, PARQUET, FLATGEOBUF, CSV, GEOJSON, GEOJSON_SEQ)
ITEMS = (GEOJSON, HTML, GEOJSON_SEQ, CSV, FLATGEOBUF, GEOPACKAGE, PARQUET)
LINKED = (GEOJSON, HTML, GEOJSON_SEQ, CSV, FLATGEOBUF)
"""What a page of items names as its alternates: the formats that clients read page by page."""

_OTHER_NAMES = {"json": GEOJSON, "fgb": FLATGEOBUF, "geoparquet": PARQUET, "geopackage": GEOPACKAGE}
_OTHER_TYPES = {
    "application/json": GEOJSON,
    "application/*": GEOJSON,
    "*/*": GEOJSON,
    "application/xhtml+xml": HTML,
    "application/vnd.flatgeobuf": FLATGEOBUF,
    "application/x-parquet": PARQUET,
    "text/*": HTML,
}


def format_asked(request: Request, among: Named[Format], *, otherwise: Format) -> Format:
    """The format that ``f=`` names, else the one that ``Accept`` likes best, else ``otherwise``.

    Raises:
        CallerError: ``f=`` names none of these; the message says which there are.
    """
    named = request.query_params.get("f")
    if named is None:
        by_type = {each.media_type: each for each in among}
        others = {name: each for name, each in _OTHER_TYPES.items() if each in among}
        return preferred(request.headers.get("accept", "*/*"), {**others, **by_type}, otherwise)
    by_name = {**_OTHER_NAMES, **{each.name: each for each in among}}
    found = by_name.get(named.lower())
    if found is None or found not in among:
        names = ", ".join(each.name for each in among)
        raise CallerError(f"f={named[:32]} is no form of this resource", do=f"Use one of: {names}.")
    return found
