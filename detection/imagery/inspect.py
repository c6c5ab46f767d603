"""The pre-flight: what an image file is, what will be mended by itself, and what a person must mend.

``inspect_imagery`` never raises for a bad file: a finding that blocks carries the error that ``detect`` and
``ingest`` raise, so that all three say the same.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from math import hypot
from pathlib import Path

import shapely
import shapely.ops
from pyproj import Geod
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry.base import BaseGeometry

from detection.errors import (
    CallerError,
    SceneOutsideCity,
    SceneTooCoarse,
    SceneWithoutCrs,
    SceneWithoutDate,
    SceneWithoutGround,
    UrbanInventoryError,
)
from detection.imagery.scene import Scene, open_scene, to_lon_lat
from detection.imagery.windows import NATIVE_WITHIN
from detection.models import ModelCard
from detection.taxonomy import SceneKind

_GEOD = Geod(ellps="WGS84")


class Severity(StrEnum):
    """What a finding asks of the reader."""

    OK = "ok"
    MENDED = "mended"
    BLOCKING = "blocking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing the pre-flight looked at.

    Attributes:
        subject: position, resolution, bands, nodata, size, date or file.
        what: what was found, one sentence.
        do: what the reader should do; None where nothing.
        error: what ``detect`` and ``ingest`` raise for it.
    """

    subject: str
    severity: Severity
    what: str
    do: str | None = None
    error: UrbanInventoryError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The whole report; ``scene`` is None where the file could not be read as one."""

    path: Path
    scene: Scene | None
    findings: tuple[Finding, ...]

    @property
    def is_usable(self) -> bool:
        """Whether nothing blocks."""
        return all(finding.severity is not Severity.BLOCKING for finding in self.findings)

    def usable_scene(self, *, without_date: bool = False) -> Scene:
        """The scene, or the first thing that blocks, raised.

        Args:
            without_date: the caller needs no date (``detect``).

        Raises:
            CallerError: whatever blocks; mostly a ``SceneUnusable``.
        """
        for finding in self.findings:
            if finding.error is not None and not (without_date and finding.subject == "date"):
                raise finding.error
        if self.scene is None:
            raise SceneWithoutGround("the file holds no scene", where=str(self.path))
        return self.scene


def inspect_imagery(
    path: Path,
    *,
    card: ModelCard | None = None,
    boundary: BaseGeometry | None = None,
    boundary_name: str = "the city",
    crs: str | None = None,
    taken_at: datetime | None = None,
    kind: SceneKind = SceneKind.NADIR,
) -> Inspection:
    """Reads a file once from end to end and reports on it.

    Args:
        card: the model that shall look at it.
        boundary: the city, EPSG:4326.
        crs: for files with a world file and no CRS.
        taken_at: a date given beside the file.
    """
    path = Path(path)
    try:
        scene, unlocated = _open(path, crs, kind)
    except CallerError as error:
        return Inspection(path=path, scene=None, findings=(_blocking("file", error),))
    findings = [
        _about_file(scene),
        _about_position(scene, unlocated),
        _about_city(scene, boundary, boundary_name),
        _about_bands(scene),
        _about_depth(scene),
        _about_nodata(scene),
        _about_resolution(scene, card),
        _about_date(scene, taken_at),
    ]
    found = tuple(finding for finding in findings if finding is not None)
    return Inspection(path=path, scene=None if unlocated else scene, findings=found)


def check_resolution(scene: Scene, card: ModelCard) -> None:
    """Refuses a scene that the model cannot see.

    Raises:
        SceneTooCoarse: with both numbers.
    """
    finest, coarsest = card.input.range_m
    if not finest <= scene.ground_resolution_m <= coarsest:
        side = "coarse" if scene.ground_resolution_m > coarsest else "fine"
        raise SceneTooCoarse(
            f"{scene.ground_resolution_m:.3g} m a pixel is too {side} for model {card.name}, "
            f"which sees {finest:g} to {coarsest:g} m",
            where=scene.name,
            do="Use imagery or a model of another ground resolution.",
        )


def _open(path: Path, crs: str | None, kind: SceneKind) -> tuple[Scene, SceneWithoutCrs | None]:
    try:
        return open_scene(path, crs=crs, kind=kind), None
    except SceneWithoutCrs as error:
        return open_scene(path, kind=kind, allow_unlocated=True), error


def _blocking(subject: str, error: UrbanInventoryError) -> Finding:
    return Finding(subject=subject, severity=Severity.BLOCKING, what=error.what, do=error.do, error=error)


def _about_file(scene: Scene) -> Finding:
    columns, rows = scene.size_px
    size = f"{scene.path.stat().st_size / 1e6:,.1f} MB, " if scene.path else ""
    return Finding(
        subject="size",
        severity=Severity.OK,
        what=f"{size}{columns:,} × {rows:,} pixels, {scene.dtype}",
    )


def _about_position(scene: Scene, unlocated: SceneWithoutCrs | None) -> Finding:
    if unlocated is not None or scene.crs is None:
        return _blocking("position", unlocated or SceneWithoutCrs("no position", where=scene.name))
    lon, lat = scene.centre_lon_lat()
    columns, rows = (size * metres for size, metres in zip(scene.size_px, scene.pixel_ground_m, strict=True))
    code = scene.crs.to_authority(min_confidence=90)
    return Finding(
        subject="position",
        severity=Severity.OK,
        what=f"centre {lon:.5f}, {lat:.5f} (longitude, latitude), {columns:,.0f} × {rows:,.0f} m of "
        f"ground, {':'.join(code) if code else scene.crs.name}",
    )


def _about_city(scene: Scene, boundary: BaseGeometry | None, name: str) -> Finding | None:
    if boundary is None or scene.crs is None:
        return None
    surveyed = scene.surveyed()
    if surveyed.is_empty:
        surveyed = shapely.Point(scene.centre_lon_lat())
    if not surveyed.intersects(boundary):
        return _blocking("city", _outside(scene, boundary, name))
    share = surveyed.intersection(boundary).area / surveyed.area if surveyed.area else 1.0
    return Finding(
        subject="city", severity=Severity.OK, what=f"{share:.0%} of the surveyed ground lies in {name}"
    )


def _outside(scene: Scene, boundary: BaseGeometry, name: str) -> SceneOutsideCity:
    lon, lat = scene.centre_lon_lat()
    if _is_swapped(scene, boundary):
        return SceneOutsideCity(
            f"its position ({lon:.5f}, {lat:.5f}) is outside {name}, and inside with the axes exchanged: "
            "latitude and longitude, or northing and easting, are swapped",
            where=scene.name,
            do="Exchange them in the file's transform: gdal_edit.py -a_ullr, or write the world file anew.",
        )
    nearest = shapely.ops.nearest_points(boundary, shapely.Point(lon, lat))[0]
    distance_km = _GEOD.inv(lon, lat, nearest.x, nearest.y)[2] / 1000
    return SceneOutsideCity(
        f"its centre ({lon:.5f}, {lat:.5f}) lies {distance_km:,.1f} km outside {name}",
        where=scene.name,
        do="Check the city, the file's CRS and its transform.",
    )


def _is_swapped(scene: Scene, boundary: BaseGeometry) -> bool:
    width, height = scene.size_px
    x, y = scene.transform @ (width / 2, height / 2)
    try:
        lon, lat = to_lon_lat(scene.located_crs, y, x)
    except (ProjError, CRSError):
        return False
    near = shapely.box(*boundary.bounds).buffer(0.05)
    return bool(shapely.Point(lon, lat).intersects(near)) if hypot(lon, lat) < 1e6 else False


def _about_bands(scene: Scene) -> Finding:
    red, green, blue = scene.bands.rgb
    shown = f"bands {red}, {green}, {blue} are red, green, blue"
    if scene.bands.palette is not None:
        return Finding(subject="bands", severity=Severity.MENDED, what="palette turned into RGB")
    if scene.bands.assumed:
        what = "; ".join((*scene.bands.assumed, shown))
        return Finding(subject="bands", severity=Severity.MENDED, what=what)
    return Finding(subject="bands", severity=Severity.OK, what=shown)


def _about_depth(scene: Scene) -> Finding | None:
    if scene.bands.stretch is None:
        return None
    low, high = scene.bands.stretch
    return Finding(
        subject="depth",
        severity=Severity.MENDED,
        what=f"{scene.dtype} values {low:g} to {high:g} are shown as 0 to 255",
    )


def _about_nodata(scene: Scene) -> Finding:
    share = scene.validity.share
    if share == 0:
        return _blocking(
            "nodata",
            SceneWithoutGround(
                "no pixel is valid: all of it is nodata or border",
                where=scene.name,
                do="Export it again; where black is real, drop the nodata value: gdal_edit.py -unsetnodata.",
            ),
        )
    if share == 1:
        return Finding(subject="nodata", severity=Severity.OK, what="every pixel is valid")
    return Finding(
        subject="nodata",
        severity=Severity.MENDED,
        what=f"{1 - share:.1%} of the pixels ({_source_of_validity(scene)}) are left out: not surveyed",
    )


def _source_of_validity(scene: Scene) -> str:
    if scene.bands.alpha is not None:
        return "transparent"
    if scene.has_mask:
        return "masked"
    border = "white border" if scene.validity.border_is_white else "black border"
    if scene.nodata is not None:
        border = f"nodata value {scene.nodata:g}"
    return border


def _about_resolution(scene: Scene, card: ModelCard | None) -> Finding | None:
    if scene.crs is None:
        return None
    ours = f"{scene.ground_resolution_m:.3g} m a pixel on the ground"
    if card is None:
        return Finding(subject="resolution", severity=Severity.OK, what=ours)
    try:
        check_resolution(scene, card)
    except SceneTooCoarse as error:
        return _blocking("resolution", error)
    asked = card.input.ground_resolution_m
    if all(abs(asked / metres - 1) <= NATIVE_WITHIN for metres in scene.pixel_ground_m):
        return Finding(
            subject="resolution", severity=Severity.OK, what=f"{ours}, as model {card.name} wants it"
        )
    return Finding(
        subject="resolution",
        severity=Severity.MENDED,
        what=f"{ours}, resampled to the {asked:g} m that model {card.name} wants",
    )


def _about_date(scene: Scene, given: datetime | None) -> Finding:
    taken_at = given or scene.taken_at
    if taken_at is None:
        return _blocking(
            "date",
            SceneWithoutDate(
                "nothing says when the image was taken; the file's time is not trusted",
                where=scene.name,
                do="Say it: --taken-at 2026-05-17, or 2026-05-17T10:30.",
            ),
        )
    source = "as given" if given else "by the file's own tag"
    return Finding(
        subject="date", severity=Severity.OK, what=f"taken {taken_at.isoformat(sep=' ')}, {source}"
    )
