"""A city in the database, put there row by row, for tests that read it: no imagery, no fold."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, text, update

from detection.taxonomy import shipped_taxonomy
from inventory.store import schema
from inventory.store.cities import set_classes, sync_asset_classes
from inventory.store.database import Database, Patience
from inventory.store.features import city_on_page

FIRST_LOOK = datetime(2025, 6, 1, 3, 0, tzinfo=UTC)
WEST, SOUTH, EAST, NORTH = 100.0, 22.0, 100.1, 22.1


def square(west: float, south: float, east: float, north: float) -> str:
    """A rectangle as EWKT of a MultiPolygon."""
    ring = f"{west} {south},{east} {south},{east} {north},{west} {north},{west} {south}"
    return f"SRID=4326;MULTIPOLYGON((({ring})))"


@dataclass(slots=True, kw_only=True)
class CityMaker:
    """Adds rows of one city; keeps the sums behind the counts in step, as the fold does."""

    connection: Connection
    id: int
    code: str
    survey_id: int
    areas: dict[str, int] = field(default_factory=dict)
    made: int = 0

    def area(
        self,
        code: str,
        box: tuple[float, float, float, float],
        *,
        name: str | None = None,
        level: str = "district",
    ) -> int:
        """An area without end or beginning."""
        version = schema.area_version
        values = {
            "city_id": self.id,
            "level": level,
            "level_rank": 0,
            "code": code,
            "name": name or code,
            "valid": text("'(,)'::daterange"),
            "geom": square(*box),
            "area_m2": 1e6,
        }
        self.areas[code] = self.connection.execute(
            insert(version).values(**values).returning(version.c.id)
        ).scalar_one()
        return self.areas[code]

    def asset(self, lon: float, lat: float, **state: Any) -> str:
        """One asset with one state, and its root observation; returns its public id."""
        self.assets([(lon, lat)], **state)
        return f"a{self.made:05d}"

    def assets(
        self,
        lon_lat: Sequence[tuple[float, float]],
        *,
        areas: Sequence[str] = (),
        class_: str = "tree",
        listed: bool = True,
        status: str = "present",
        valid_from: datetime = FIRST_LOOK,
        valid_to: datetime | None = None,
        **state: Any,
    ) -> None:
        """Assets of one kind; mobile classes get states without an asset (R10)."""
        known = shipped_taxonomy().classes.get(class_)
        mobile = known is not None and known.kind == "mobile"
        sizes = {"error_m": 1.0, "width_m": 5.0, "height_m": 4.5, "score": 0.8}
        places = [
            {"class": class_, "geom": f"SRID=4326;POINT({lon} {lat})", "x": lon, "y": lat, **sizes}
            for lon, lat in lon_lat
        ]
        first = self.made + 1
        self.made += len(places)
        seen = self._insert_many(
            schema.observation,
            [
                {"survey_id": self.survey_id, "plausible": True, "box_px": [0, 0, 9, 9], "cell": 0, **place}
                for place in places
            ],
        )
        named: list[int | None] = [None] * len(seen)
        if not mobile:
            named = [*self._insert_many(
                schema.asset,
                [
                    {"public_id": f"a{first + i:05d}", "root_observation": one, "class": class_}
                    for i, one in enumerate(seen)
                ],
            )]  # fmt: skip
            hits = [{"observation_id": o, "asset_id": a} for o, a in zip(seen, named, strict=True)]
            self._insert_many(schema.asset_hit, hits)
        common: dict[str, Any] = {
            "survey_id": self.survey_id, "valid_from": valid_from, "valid_to": valid_to, "listed": listed,
            "status": status, "verified": False, "review": False, "probability": 0.9, "hits": 1,
            "first_seen": valid_from, "last_seen": valid_from, "digest": first,
            "minted_as": class_, "cell": 0, "hit": True, "placed": False, "felled": False,
            "misses": 0, "lasting": 0, "content": 0,
        }  # fmt: skip
        rows = self._insert_many(
            schema.asset_state,
            [
                {**common, "observation_id": o, "track": o, "asset_id": a, **place, **state}
                for o, a, place in zip(seen, named, places, strict=True)
            ],
        )
        for code in areas:
            member = {"area_version_id": self.areas[code], "valid_from": valid_from, "valid_to": valid_to}
            self._insert_many(schema.membership, [{"state_id": row, **member} for row in rows])
        if listed:
            for version in [0, *(self.areas[code] for code in areas)]:
                self._sum(version, class_, valid_from, len(lon_lat))
                if valid_to is not None:
                    self._sum(version, class_, valid_to, -len(lon_lat))

    def _sum(self, version: int, class_: str, at: datetime, change: int) -> None:
        self._insert(
            schema.area_count_delta,
            area_version_id=version,
            at=at,
            listed=change,
            verified=0,
            **{"class": class_},
        )

    def alias(self, other: str, *, of: str) -> None:
        """Says that one public id is another name of an older one (R7)."""
        asset = schema.asset
        older = select(asset.c.id).where(asset.c.city_id == self.id, asset.c.public_id == of)
        self.connection.execute(
            update(asset)
            .where(asset.c.city_id == self.id, asset.c.public_id == other)
            .values(alias_of=older.scalar_subquery())
        )

    def decision(self, kind: str, asset: str, lon: float, lat: float, **said: Any) -> str:
        """What somebody decided, without any of its consequences; returns its public id."""
        self.made += 1
        public_id = f"d{self.made:05d}"
        self._insert(
            schema.decision, public_id=public_id, kind=kind, at=FIRST_LOOK, geom=f"SRID=4326;POINT({lon} {lat})",
            x=0.0, y=0.0, gate_m=3.0, asset=asset, author="local", folded=True, **{"class": "tree", **said},
        )  # fmt: skip
        return public_id

    def cover(self, area: str | None, class_: str = "tree", share: float = 1.0) -> None:
        """Says that an area (None: the whole city) was looked at."""
        self._insert(
            schema.coverage,
            area_version_id=self.areas[area] if area else 0,
            at=FIRST_LOOK,
            share=share,
            oldest_look=FIRST_LOOK,
            newest_look=FIRST_LOOK,
            models=["abc"],
            **{"class": class_},
        )

    def _insert_many(self, table: Any, rows: Sequence[dict[str, Any]]) -> list[int]:
        # Ids are drawn first: statements that return rows run one by one.
        numbers: list[int] = []
        if "id" in table.c and rows:
            draw = text("SELECT nextval(:sequence) FROM generate_series(1, :count)")
            name = f"{schema.SCHEMA}.{table.name}_id_seq"
            numbers = list(self.connection.execute(draw, {"sequence": name, "count": len(rows)}).scalars())
        ids = [{"id": number} for number in numbers] or [{}] * len(rows)
        full = [{"city_id": self.id, **row, **own} for row, own in zip(rows, ids, strict=True)]
        if full:
            self.connection.execute(insert(table), full)
        return numbers

    def _insert(self, table: Any, **values: Any) -> int:
        statement = insert(table).values(city_id=self.id, **values)
        if "id" not in table.c:
            self.connection.execute(statement)
            return 0
        return int(self.connection.execute(statement.returning(table.c.id)).scalar_one())


def make_city(
    connection: Connection,
    code: str = "testville",
    *,
    name: str = "Testville",
    time_zone: str = "Asia/Shanghai",
    box: tuple[float, float, float, float] = (WEST, SOUTH, EAST, NORTH),
    classes: Sequence[str] = ("tree",),
    metric_crs: str = "EPSG:32647",
) -> CityMaker:
    """A city with a boundary, one scene taken at FIRST_LOOK, and one survey of all its ground."""
    sync_asset_classes(connection, shipped_taxonomy().classes.values())
    city = connection.execute(
        insert(schema.city)
        .values(code=code, name=name, time_zone=time_zone, metric_crs=metric_crs, boundary=square(*box))
        .returning(schema.city.c.id)
    ).scalar_one()
    connection.execute(text("SELECT urban_inventory.city_create(:id)"), {"id": city})
    set_classes(connection, city, list(classes))
    maker = CityMaker(connection=connection, id=city, code=code, survey_id=0)
    source = maker._insert(
        schema.source, name="test drone", licence="CC BY 4.0", attribution="Test <b>Fliers</b>"
    )
    campaign = maker._insert(schema.campaign, source_id=source, name="2025-06-01")
    scene = maker._insert(
        schema.scene,
        public_id="s1",
        source_id=source,
        campaign_id=campaign,
        path="scene.tif",
        pixel_hash="p",
        georeference_hash="g",
        taken_at=FIRST_LOOK,
        kind="nadir",
        ground_resolution_m=0.1,
        width_px=10,
        height_px=10,
        footprint=square(*box),
    )
    maker.survey_id = maker._insert(
        schema.survey,
        public_id="v1",
        scene_id=scene,
        model="trees-test",
        model_version="1",
        model_sha256="abc",
        settings_key="k",
        card={"evidence": {"tree": {"relative_error": 0.1, "dispersion": 1.2}}},
        classes=list(classes),
        surveyed=square(*box),
        windows=1,
        seconds=1.0,
    )
    for each in classes:
        connection.execute(
            insert(schema.survey_class).values(
                survey_id=maker.survey_id,
                in_force=True,
                adequate=True,
                folded_at=FIRST_LOOK,
                **{"class": each},
            )
        )
    return maker


def add_scene(database: Database, city: str, name: str, **values: Any) -> None:
    """One more scene of a city of ``make_city``, without a file or a survey."""
    with database.transaction(Patience.JOB) as connection:
        shown = city_on_page(connection, city)
        source = connection.execute(
            select(schema.source.c.id).where(schema.source.c.city_id == shown.id)
        ).scalar_one()
        campaign = connection.execute(
            select(schema.campaign.c.id).where(schema.campaign.c.city_id == shown.id)
        ).scalar_one()
        row = {
            "city_id": shown.id, "public_id": name, "source_id": source, "campaign_id": campaign,
            "path": f"{name}.tif", "pixel_hash": name, "georeference_hash": "g", "kind": "nadir",
            "taken_at": FIRST_LOOK,
            "ground_resolution_m": 0.1, "width_px": 10, "height_px": 10,
            "footprint": square(WEST, SOUTH, EAST, NORTH),
        }  # fmt: skip
        connection.execute(insert(schema.scene).values(**{**row, **values}))
