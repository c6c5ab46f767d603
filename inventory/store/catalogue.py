"""Scenes as a catalogue shows them: where they lie, when they were taken, whose they are. No superseded ones (R2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import shapely
from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from detection.errors import UnknownName
from inventory.store.features import Box, CityOnPage
from inventory.store.schema import campaign, scene, source


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueScene:
    """A scene; ``footprint`` is EPSG:4326, ``path`` None once its pixels were purged."""

    id: int
    public_id: str
    taken_at: datetime
    recorded_at: datetime
    kind: str
    ground_resolution_m: float
    size_px: tuple[int, int]
    footprint: shapely.Geometry
    source: str
    campaign: str
    licence: str | None
    attribution: str | None
    path: str | None
    pixel_hash: str
    is_gcj02: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeing:
    """The looks at which something can be seen: their kinds, and metres a pixel, both included (R5)."""

    kinds: Sequence[str]
    finest_m: float
    coarsest_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AllScenes:
    """What all scenes of a city have in common: box (west, south, east, north), dates, finest metres a pixel of those
    seen from above, and the licences they are under, None among them where nothing is said. Nothing without scenes."""

    box: tuple[float, float, float, float] | None = None
    oldest: datetime | None = None
    newest: datetime | None = None
    finest_m: float | None = None
    licences: Sequence[str | None] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesWanted:
    """Which scenes; all conditions hold together, empty ones are none.

    Attributes:
        boxes: any of them.
        span: taken between these instants, both included; None is open.
        intersects: EPSG:4326.
    """

    boxes: Sequence[Box] = ()
    span: tuple[datetime | None, datetime | None] = (None, None)
    ids: Sequence[str] | None = None
    intersects: shapely.Geometry | None = None


def find_scenes(
    connection: Connection, city: CityOnPage, wanted: ScenesWanted, *, limit: int, after: int | None = None
) -> list[CatalogueScene]:
    """Scenes, newest first, from after a key on (their ``id``)."""
    query = _scenes(city, wanted)
    if after is not None:
        earlier = (
            select(scene.c.taken_at).where(scene.c.city_id == city.id, scene.c.id == after).scalar_subquery()
        )
        query = query.where(
            or_(scene.c.taken_at < earlier, and_(scene.c.taken_at == earlier, scene.c.id < after))
        )
    rows = connection.execute(query.order_by(scene.c.taken_at.desc(), scene.c.id.desc()).limit(limit))
    return [_read(row) for row in rows]


def scenes_on_map(
    connection: Connection,
    city: CityOnPage,
    box: Box,
    *,
    until: datetime | None,
    seeing: Sequence[Seeing],
    limit: int,
) -> list[CatalogueScene]:
    """Scenes with pixels that touch a box as of an instant, in the order in which they lie over one another.

    Those on top at which something can be seen, the newest first; below them others that look straight down. Street
    views and the like are no map.

    Args:
        seeing: what is adequate for any of the classes that the city counts.
    """
    adequate = or_(
        *(
            and_(
                scene.c.kind.in_(list(one.kinds)),
                scene.c.ground_resolution_m.between(one.finest_m, one.coarsest_m),
            )
            for one in seeing
        ),
        # Without any, none is.
        scene.c.id < 0,
    )
    rows = connection.execute(
        _scenes(city, ScenesWanted(boxes=(box,), span=(None, until)))
        .where(scene.c.path.is_not(None), or_(adequate, _LOOKS_DOWN))
        .order_by(case((adequate, 0), else_=1), scene.c.taken_at.desc(), scene.c.id.desc())
        .limit(limit)
    )
    return [_read(row) for row in rows]


def all_scenes(connection: Connection, city: CityOnPage) -> AllScenes:
    """What all scenes of a city have in common."""
    found = _scenes(city, ScenesWanted()).subquery()
    ground = func.ST_Extent(found.c.ground)
    row = connection.execute(
        select(
            func.ST_XMin(ground), func.ST_YMin(ground), func.ST_XMax(ground), func.ST_YMax(ground),
            func.min(found.c.taken_at), func.max(found.c.taken_at),
            func.min(found.c.ground_resolution_m).filter(found.c.kind == "nadir", found.c.path.is_not(None)),
            func.array_agg(found.c.licence.distinct()),
        )
    ).one()  # fmt: skip
    west, south, east, north, oldest, newest, finest_m, licences = row
    return AllScenes(
        box=None if west is None else (west, south, east, north),
        oldest=oldest,
        newest=newest,
        finest_m=finest_m,
        licences=tuple(licences or ()),
    )


def count_scenes(connection: Connection, city: CityOnPage, wanted: ScenesWanted) -> int:
    """How many scenes match."""
    return int(
        connection.execute(select(func.count()).select_from(_scenes(city, wanted).subquery())).scalar_one()
    )


def get_scene(connection: Connection, city: CityOnPage, public_id: str) -> CatalogueScene:
    """One scene by its id.

    Raises:
        UnknownName: there is none.
    """
    found = find_scenes(connection, city, ScenesWanted(ids=[public_id]), limit=1)
    if not found:
        raise UnknownName(f"no scene is called “{public_id[:64]}”", do="See the catalogue’s items.")
    return found[0]


_LOOKS_DOWN: ColumnElement[bool] = scene.c.kind == "nadir"


def _read(row: Any) -> CatalogueScene:
    return CatalogueScene(
        id=row.id,
        public_id=row.public_id,
        taken_at=row.taken_at,
        recorded_at=row.recorded_at,
        kind=row.kind,
        ground_resolution_m=row.ground_resolution_m,
        size_px=(row.width_px, row.height_px),
        footprint=shapely.from_wkb(bytes(row.footprint)),
        source=row.source,
        campaign=row.campaign,
        licence=row.licence,
        attribution=row.attribution,
        path=row.path,
        pixel_hash=row.pixel_hash,
        # How ingest marks a file whose coordinates are of that datum.
        is_gcj02=row.georeference_hash.startswith("gcj02:"),
    )


def _scenes(city: CityOnPage, wanted: ScenesWanted) -> "Select[*tuple[object, ...]]":
    conditions = [scene.c.city_id == city.id, scene.c.superseded_by.is_(None)]
    if wanted.boxes:
        conditions.append(
            or_(
                *(
                    func.ST_Intersects(
                        scene.c.footprint,
                        func.ST_MakeEnvelope(box.west, box.south, box.east, box.north, 4326),
                    )
                    for box in wanted.boxes
                )
            )
        )
    start, end = wanted.span
    conditions += [] if start is None else [scene.c.taken_at >= start]
    conditions += [] if end is None else [scene.c.taken_at <= end]
    if wanted.ids is not None:
        conditions.append(scene.c.public_id.in_(list(wanted.ids)))
    if wanted.intersects is not None:
        ewkb = shapely.to_wkb(shapely.set_srid(wanted.intersects, 4326), include_srid=True)
        conditions.append(func.ST_Intersects(scene.c.footprint, func.ST_GeomFromEWKB(ewkb)))
    return (
        select(
            scene.c.id, scene.c.public_id, scene.c.taken_at, scene.c.recorded_at, scene.c.kind,
            scene.c.ground_resolution_m, scene.c.width_px, scene.c.height_px,
            func.ST_AsBinary(scene.c.footprint).label("footprint"), scene.c.footprint.label("ground"),
            scene.c.pixel_hash, scene.c.georeference_hash, source.c.name.label("source"),
            campaign.c.name.label("campaign"), scene.c.path,
            func.coalesce(scene.c.licence, source.c.licence).label("licence"),
            func.coalesce(scene.c.attribution, source.c.attribution).label("attribution"),
        )
        .join(source, source.c.id == scene.c.source_id)
        .join(campaign, campaign.c.id == scene.c.campaign_id)
        .where(*conditions)
    )  # fmt: skip
