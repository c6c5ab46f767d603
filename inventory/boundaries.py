"""Files of boundaries, read, put into EPSG:4326 and repaired: what comes out are valid polygons with codes.

GeoJSON, GeoPackage and Shapefile. Everything happens here and nothing in the database, and every repair is
reported: which area, what was wrong, how its ground changed.
"""

import json
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
import pyogrio.errors
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely import MultiPolygon
from shapely.geometry.base import BaseGeometry

from inventory.domain.datum import Datum, gcj02_to_wgs84, ground_area_m2
from inventory.domain.levels import DrawnArea, canonical, union_of
from inventory.errors import BoundariesUnusable

if TYPE_CHECKING:
    import geopandas

# What fields are called in the files that cities have, the likeliest first; compared without case.
_CODE_FIELDS = (
    "code",
    "adcode",
    "area_code",
    "areacode",
    "行政区代码",
    "代码",
    "xzqdm",
    "pac",
    "geoid",
    "id",
)
_NAME_FIELDS = ("name", "area_name", "areaname", "行政区名称", "名称", "xzqmc", "name_zh", "name_en", "label")
_LEVEL_FIELDS = ("level", "area_level", "admin_level", "级别", "层级")
_PARENT_FIELDS = ("parent", "parent_code", "parentcode", "上级代码")

_DRIVERS = ("GeoJSON", "GPKG", "ESRI Shapefile")
_POLYGON_LAYERS = ("Polygon", "MultiPolygon", "GeometryCollection", "Unknown", "CurvePolygon", "MultiSurface")

# A kilometre; over that length a moved edge strays less than a decimetre from its chord.
_LONGEST_EDGE_DEG = 0.01

# The code of the row that counts what lies outside all areas of a level.
_RESERVED_CODES = ("outside",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Which field of a file says what; None: found by its usual names."""

    level: str | None = None
    code: str | None = None
    name: str | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaFile:
    """A file of areas and how to read it; ``level`` names the level where no field does."""

    path: Path
    fields: Fields = Fields()
    level: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What was mended in one area, and how its ground changed by it."""

    level: str | None
    code: str | None
    what: str
    before_m2: float
    after_m2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnAreas:
    """A file of areas, ready for use.

    ``level_named`` is False where the level is but the file's name. ``plain_degrees``: coordinates said to be
    EPSG:4326 and taken at their word, as web maps give them, whatever they mean.
    """

    areas: tuple[DrawnArea, ...]
    level_named: bool
    plain_degrees: bool
    repairs: tuple[Repair, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnBoundary:
    """A city's boundary, ready for use."""

    geometry: MultiPolygon
    repairs: tuple[Repair, ...]
    notes: tuple[str, ...]


def read_areas(file: AreaFile, datum: Datum | None = None) -> DrawnAreas:
    """The areas of a file: rows with one code are one area.

    Args:
        file: where it is and which fields say what.
        datum: what its degrees mean; None: WGS 84, as the file says.

    Raises:
        BoundariesUnusable: it cannot be read as areas; the message says what to do.
    """
    frame, notes = _read(file.path, file.layer)
    columns = _columns(frame, file)
    notes += _field_notes(columns)
    level_field = columns["level"]
    file_level = file.level or file.path.stem
    levels = [file_level] * len(frame) if level_field is None else _texts(frame[level_field])
    codes = _texts(frame[columns["code"]])
    names = codes if columns["name"] is None else _texts(frame[columns["name"]])
    said = (
        [None] * len(frame) if columns["parent"] is None else [_parent(v) for v in frame[columns["parent"]]]
    )
    _require_labels(codes, levels, columns, file.path)
    geometries, datum_notes = _on_earth(frame.geometry, datum, file.path)
    rows = _Rows(levels=levels, codes=codes, names=names, parents=said, geometries=geometries)
    areas, repairs, row_notes = _areas(rows, file.path)
    return DrawnAreas(
        areas=tuple(areas),
        level_named=level_field is not None or file.level is not None,
        plain_degrees=datum is None and _is_plain_degrees(frame.crs),
        repairs=tuple(repairs),
        notes=(*notes, *datum_notes, *row_notes),
    )


def read_boundary(path: Path, datum: Datum | None = None) -> DrawnBoundary:
    """The boundary of a city: all polygons of a file together.

    Raises:
        BoundariesUnusable: it cannot be read as polygons; the message says what to do.
    """
    frame, notes = _read(path, None)
    geometries, datum_notes = _on_earth(frame.geometry, datum, path)
    repairs: list[Repair] = []
    polygons = []
    for geometry in geometries:
        mended, repair = _mended(geometry, None, None)
        polygons.append(mended)
        repairs += repair
    boundary = union_of(polygons)
    if boundary.is_empty:
        raise _no_polygons(geometries, path)
    return DrawnBoundary(geometry=boundary, repairs=tuple(repairs), notes=(*notes, *datum_notes))


# --- opening -----------------------------------------------------------------------------------------------


def _read(path: Path, layer: str | None) -> "tuple[geopandas.GeoDataFrame, list[str]]":
    # Here, not above: pandas takes half a second to load, which most commands need not wait for.
    import geopandas

    _require_format(path)
    notes: list[str] = []
    encoding = _encoding(path)
    if encoding is not None:
        notes.append(f"{path.name}: the .dbf does not name its encoding; read as {encoding}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            chosen = _layer(path, layer)
            frame = pyogrio.read_dataframe(
                path, layer=chosen, encoding=encoding, force_2d=True, on_invalid="fix"
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, CRSError) as error:
            unknown = "not recognized" in str(error)
            raise BoundariesUnusable(
                f"cannot be read: {'it is damaged, or cut off' if unknown else _first_line(error)}",
                where=str(path),
                do="Is the file complete? Export it again as GeoPackage or GeoJSON.",
            ) from error
    notes += [f"{path.name}: {_first_line(warning.message)}" for warning in caught]
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise BoundariesUnusable(
            "holds a table without geometry", where=str(path), do="Give a layer of polygons."
        )
    if frame.empty:
        raise BoundariesUnusable("holds no areas", where=str(path), do="Is it the right file, or layer?")
    return frame, notes


def _require_format(path: Path) -> None:
    """By content, not by name: GDAL would open many formats, some of which fetch what they point at."""
    if not path.exists():
        raise BoundariesUnusable("no such file", where=str(path), do="Check the path.")
    if not path.is_file():
        raise BoundariesUnusable("is no file", where=str(path), do="Give a GeoJSON, GeoPackage or Shapefile.")
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise BoundariesUnusable(f"cannot be opened: {error.strerror}", where=str(path)) from error
    if not start:
        raise BoundariesUnusable("the file is empty", where=str(path), do="Export it again.")
    if path.suffix.lower() in (".dbf", ".shx", ".prj", ".cpg"):
        raise BoundariesUnusable(
            f"is the {path.suffix} part of a Shapefile",
            where=str(path),
            do=f"Give {path.with_suffix('.shp').name}, with the other parts beside it.",
        )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    is_shapefile = start[:4] == b"\x00\x00\x27\x0a"
    if not (text[:1] == b"{" or start.startswith(b"SQLite format 3\x00") or is_shapefile):
        raise BoundariesUnusable(
            "is neither GeoJSON nor GeoPackage nor Shapefile",
            where=str(path),
            do="Convert it: ogr2ogr areas.gpkg FILE",
        )


def _layer(path: Path, asked: str | None) -> str:
    layers = pyogrio.list_layers(path)
    names = [str(name) for name, _ in layers]
    if asked is not None:
        if asked not in names:
            raise BoundariesUnusable(
                f"has no layer “{asked}”", where=str(path), do=f"Its layers: {', '.join(names)}."
            )
        chosen = asked
    else:
        kinds = {str(name): str(kind).split(" ")[0].removeprefix("2.5D") for name, kind in layers if kind}
        polygons = [name for name, kind in kinds.items() if kind in _POLYGON_LAYERS] or list(kinds)
        if len(polygons) > 1:
            raise BoundariesUnusable(
                f"has {len(polygons)} layers", where=str(path), do=f"Say --layer: {', '.join(polygons)}."
            )
        if not polygons:
            raise BoundariesUnusable("has no layer with geometry", where=str(path), do="Give polygons.")
        chosen = polygons[0]
    driver = pyogrio.read_info(path, layer=chosen)["driver"]
    if driver not in _DRIVERS:
        raise BoundariesUnusable(
            f"is {driver}, which is not read", where=str(path), do="Convert it: ogr2ogr areas.gpkg FILE"
        )
    return chosen


def _encoding(path: Path) -> str | None:
    """The encoding of a Shapefile that does not say it: UTF-8 if its bytes are that, else GB 18030."""
    table = path.with_suffix(".dbf")
    said = any(path.with_suffix(suffix).exists() for suffix in (".cpg", ".CPG"))
    if path.suffix.lower() != ".shp" or said or not table.is_file():
        return None
    content = table.read_bytes()
    # Byte 29 names a code page; 0 and 0x57 (“ANSI, whatever that is here”) say nothing.
    if len(content) < 32 or content[29] not in (0, 0x57) or content.isascii():
        return None
    records = content[int.from_bytes(content[8:10], "little") :]
    if records.isascii():
        return None
    for encoding in ("UTF-8", "GB18030"):
        try:
            records.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return None


# --- fields ------------------------------------------------------------------------------------------------


def _columns(frame: "geopandas.GeoDataFrame", file: AreaFile) -> dict[str, str | None]:
    fields = [str(column) for column in frame.columns if column != frame.geometry.name]
    asked = file.fields
    found = {
        "level": None if file.level else _field(fields, asked.level, _LEVEL_FIELDS, file.path),
        "code": _field(fields, asked.code, _CODE_FIELDS, file.path),
        "name": _field(fields, asked.name, _NAME_FIELDS, file.path),
        "parent": _field(fields, asked.parent, _PARENT_FIELDS, file.path),
    }
    if found["code"] is None:
        raise BoundariesUnusable(
            "has no field that is known to hold codes",
            where=str(file.path),
            do=f"Name it with --code-field. Its fields: {', '.join(fields) or 'none'}.",
        )
    return found


def _field(fields: Sequence[str], asked: str | None, usual: Sequence[str], path: Path) -> str | None:
    if asked is not None:
        if asked not in fields:
            raise BoundariesUnusable(
                f"has no field “{asked}”", where=str(path), do=f"Its fields: {', '.join(fields) or 'none'}."
            )
        return asked
    by_lower = {field.lower(): field for field in reversed(fields)}
    return next((by_lower[name] for name in usual if name in by_lower), None)


def _field_notes(columns: Mapping[str, str | None]) -> list[str]:
    said = [f"{what} from “{field}”" for what, field in columns.items() if field is not None]
    notes = [f"fields: {', '.join(said)}"]
    if columns["name"] is None:
        notes.append("no field of names is known: codes serve as names (--name-field)")
    return notes


def _text(value: Any) -> str | None:
    """A label as people write it: 530802.0 is 530802, blanks around it fall away, nothing is None."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return unicodedata.normalize("NFC", str(value)).strip() or None


def _texts(values: Iterable[Any]) -> list[str | None]:
    return [_text(value) for value in values]


def _parent(value: Any) -> str | None:
    """A parent's code, also where it is an object with one, as web maps publish: {"adcode": 530800}."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return _text(value)
    if isinstance(value, Mapping):
        return _text(next((value[key] for key in ("adcode", "code", "id") if key in value), None))
    return _text(value)


def _require_labels(
    codes: Sequence[str | None], levels: Sequence[str | None], columns: Mapping[str, str | None], path: Path
) -> None:
    level_of: dict[str, str] = {}
    for row, (code, level) in enumerate(zip(codes, levels, strict=True), start=1):
        for what, value in (("code", code), ("level", level)):
            if value is None:
                raise BoundariesUnusable(
                    f"row {row} has no {what} in field “{columns[what]}”",
                    where=str(path),
                    do=f"Give every area a {what}.",
                )
        if code in _RESERVED_CODES:
            raise BoundariesUnusable(
                f"row {row} has the code “{code}”, which means the ground outside all areas",
                where=str(path),
                do="Give the area another code.",
            )
        if level_of.setdefault(str(code), str(level)) != level:
            raise BoundariesUnusable(
                f"the code “{code}” stands in level “{level_of[str(code)]}” and in level “{level}”",
                where=str(path),
                do="Give every area a code of its own.",
            )


# --- geometry ----------------------------------------------------------------------------------------------

_Geometries = NDArray[np.object_]


def _on_earth(
    geometry: "geopandas.GeoSeries", datum: Datum | None, path: Path
) -> tuple[_Geometries, list[str]]:
    """The geometries in EPSG:4326 as WGS 84 means it."""
    if geometry.crs is None:
        missing = (
            f"the .prj beside {path.name} is missing" if path.suffix.lower() == ".shp" else "none is stored"
        )
        raise BoundariesUnusable(
            f"has no coordinate reference system: {missing}",
            where=str(path),
            do="Ask for it where the file comes from; then ogr2ogr -a_srs EPSG:CODE areas.gpkg FILE",
        )
    own = np.asarray(geometry.array, dtype=object)
    _require_degrees(own, geometry.crs, path)
    try:
        moved = np.asarray(geometry.to_crs("EPSG:4326").array, dtype=object)
    except (CRSError, ValueError) as error:
        raise BoundariesUnusable(
            f"its coordinate reference system cannot be converted: {_first_line(error)}", where=str(path)
        ) from error
    _require_degrees(moved, CRS.from_epsg(4326), path)
    notes: list[str] = []
    if not CRS(geometry.crs).is_geographic:
        notes.append(f"{path.name}: converted from {CRS(geometry.crs).name}")
    if datum is Datum.GCJ02:
        # Straight on the web map is not straight on the ground: the shift swings by metres within an edge.
        moved = shapely.segmentize(moved, _LONGEST_EDGE_DEG)
        before = shapely.get_coordinates(moved)
        moved = shapely.transform(moved, gcj02_to_wgs84)
        shift_m = float(np.median(np.hypot(*((shapely.get_coordinates(moved) - before) * _metres(before)).T)))
        notes.append(f"{path.name}: moved from GCJ-02 to WGS 84, by {shift_m:,.0f} m")
    return moved, notes


def _metres(lon_lat: NDArray[np.float64]) -> NDArray[np.float64]:
    metres_per_degree = 111_320.0
    return np.stack(
        [metres_per_degree * np.cos(np.radians(lon_lat[:, 1])), np.full(len(lon_lat), metres_per_degree)], 1
    )


def _is_plain_degrees(crs: Any) -> bool:
    # CGCS2000 and projected coordinates come from surveyors, who do not shift them.
    return bool(CRS(crs).equals(CRS.from_epsg(4326), ignore_axis_order=True))


def _require_degrees(geometries: _Geometries, crs: Any, path: Path) -> None:
    if not CRS(crs).is_geographic:
        return
    corners = shapely.get_coordinates(geometries)
    if not len(corners):
        return
    if not np.isfinite(corners).all():
        raise BoundariesUnusable("some coordinates are not finite", where=str(path), do="Export it again.")
    widest, highest = np.abs(corners).max(axis=0)
    if widest <= 180.0 and highest <= 90.0:
        return
    x, y = corners[np.abs(corners).max(axis=1).argmax()]
    if widest <= 90.0 and highest <= 180.0:
        raise BoundariesUnusable(
            f"latitude and longitude seem to be swapped: ({x:g}, {y:g}) has no latitude",
            where=str(path),
            do="Longitude comes first; QGIS mends it with “Swap X and Y coordinates”.",
        )
    raise BoundariesUnusable(
        f"coordinates out of range: ({x:g}, {y:g}) are no degrees",
        where=str(path),
        do="They look like metres: name their CRS with: ogr2ogr -a_srs EPSG:CODE areas.gpkg FILE",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    levels: Sequence[str | None]
    codes: Sequence[str | None]
    names: Sequence[str | None]
    parents: Sequence[str | None]
    geometries: _Geometries


def _areas(rows: _Rows, path: Path) -> tuple[list[DrawnArea], list[Repair], list[str]]:
    of_code: dict[str, list[int]] = {}
    for row, code in enumerate(rows.codes):
        of_code.setdefault(str(code), []).append(row)
    areas: list[DrawnArea] = []
    repairs: list[Repair] = []
    notes: list[str] = []
    for code, members in of_code.items():
        level = str(rows.levels[members[0]])
        parts = []
        for row in members:
            mended, repair = _mended(rows.geometries[row], level, code)
            parts.append(mended)
            repairs += repair
        geometry = union_of(parts) if len(parts) > 1 else canonical(parts[0])
        if geometry.is_empty:
            notes += _without_polygon(rows.geometries[members], code, path)
            continue
        labels = [
            rows.names[row] for row in members if rows.names[row] and not parts[members.index(row)].is_empty
        ]
        if sum(not part.is_empty for part in parts) > 1:
            notes.append(f"{level} {code}: {len(members)} rows joined to one area")
        areas.append(
            DrawnArea(
                level=level,
                code=code,
                name=labels[0] if labels else code,  # type: ignore[arg-type]  # filtered above
                parent_code=rows.parents[members[0]],
                geometry=geometry,
                area_m2=ground_area_m2(geometry),
            )
        )
    if not areas:
        raise _no_polygons(rows.geometries, path)
    return areas, repairs, notes


def _mended(
    geometry: BaseGeometry | None, level: str | None, code: str | None
) -> tuple[MultiPolygon, list[Repair]]:
    """The valid polygons of a geometry, and what had to be done for it."""
    if geometry is None or geometry.is_empty:
        return MultiPolygon(), []
    what: list[str] = []
    before_m2 = _drawn_area_m2(geometry)
    if not geometry.is_valid:
        what.append(_reason(shapely.is_valid_reason(geometry)))
        # “structure”: overlapping shells are joined; “linework” would punch a hole where they overlap.
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    polygons = canonical(geometry)
    if geometry.geom_type == "GeometryCollection" and not polygons.is_empty:
        others = sorted(
            {part.geom_type for part in shapely.get_parts(geometry) if "Polygon" not in part.geom_type}
        )
        what += [f"{kind} parts dropped" for kind in others]
    if not what:
        return polygons, []
    after_m2 = ground_area_m2(polygons)
    return polygons, [
        Repair(level=level, code=code, what="; ".join(what), before_m2=before_m2, after_m2=after_m2)
    ]


def _drawn_area_m2(geometry: BaseGeometry) -> float:
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return sum(ground_area_m2(part) for part in parts if part.geom_type == "Polygon")


def _reason(text: str) -> str:
    """GEOS says “Self-intersection[100.5 22.5]”; people read “self-intersection at 100.5 22.5”."""
    what, _, where = text.partition("[")
    return f"{what.lower()} at {where.rstrip(']')}" if where else what.lower()


def _without_polygon(geometries: _Geometries, code: str, path: Path) -> list[str]:
    kinds = sorted(
        {geometry.geom_type for geometry in geometries if geometry is not None and not geometry.is_empty}
    )
    if not kinds or any("Polygon" in kind for kind in kinds):
        raise BoundariesUnusable(
            f"the area “{code}” has no ground: its polygon is {'missing' if not kinds else 'flat'}",
            where=str(path),
            do="Draw it, or delete its row.",
        )
    return [f"{code}: {', '.join(kinds)} left out: not a polygon"]


def _no_polygons(geometries: _Geometries, path: Path) -> BoundariesUnusable:
    kinds = sorted({geometry.geom_type for geometry in geometries if geometry is not None})
    return BoundariesUnusable(
        f"holds no polygons, but {', '.join(kinds) or 'no geometry at all'}",
        where=str(path),
        do="Areas are polygons: close lines to polygons first (QGIS: “Polygonize”).",
    )


def _first_line(error: object) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
