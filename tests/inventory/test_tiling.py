"""A city's tiles over real rows: nothing between two tiles, nothing beyond them, areas whole, none too large."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from sqlalchemy import insert, text

from detection.errors import UnknownName
from inventory.domain.tiles import EXTENT, Tile, tile_of
from inventory.packing import pack_waiting
from inventory.store import features, schema, tiles
from inventory.store.database import Database, Patience
from inventory.tiling import TiledLayer, TilesAsked, Tiling
from tests.support.city import make_city
from tests.support.database import ClonedDatabase
from tests.support.map_tiles import counted, decoded, layers

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MIDDLE = tile_of(100.05, 22.05, 12)
WEST, SOUTH, EAST, NORTH = MIDDLE.box


@contextmanager
def tiling_of(database: Database, code: str = "town", **asked: Any) -> Iterator[Tiling]:
    with database.transaction(read_only=True) as connection:
        city = features.city_on_page(connection, code)
        wanted: dict[str, Any] = {"layers": tuple(TiledLayer), "as_of": NOW, "day": NOW.date(), "now": True}
        yield Tiling(connection, city, TilesAsked(**{**wanted, **asked}))


def all_tiles(tiling: Tiling, zoom: int) -> Iterator[tuple[Tile, bytes]]:
    """The tiles of a zoom that are not empty."""
    limits = tiling.limits(zoom)
    for column in range(limits.first_column, limits.last_column + 1):
        for row in range(limits.first_row, limits.last_row + 1):
            tile = Tile(zoom, column, row)
            if content := tiling.tile(tile):
                yield tile, content


def total(tiling: Tiling, zoom: int, folder: Path) -> int:
    contents = [content for _, content in all_tiles(tiling, zoom)]
    return sum(
        counted(decoded(content, folder)) for content in contents if "assets" in layers(content, folder)
    )


def test_the_day_when_an_asset_was_seen_last_is_its_citys(database: Database, tmp_path: Path) -> None:
    with database.transaction(Patience.JOB) as connection:
        isle = make_city(connection, "isle", time_zone="Pacific/Kiritimati")
        isle.asset(100.05, 22.05, last_seen=datetime(2025, 6, 1, 12, tzinfo=UTC))
    with tiling_of(database, "isle") as tiling:
        (feature,) = decoded(tiling.tile(tile_of(100.05, 22.05, 16)), tmp_path).to_dict("records")
    assert feature["last_seen"] == "2025-06-02"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("zoom", [4, 11, 12, 13, 16])
def test_points_with_more_digits_than_ours_fall_between_no_two_tiles(
    database: Database, tmp_path: Path, packed: bool, zoom: int
) -> None:
    """Whoever writes by SQL need not round as we do."""
    near = np.concatenate([[0.0], np.array([1, 4, 6, 9, 12]) * 1e-8])
    places = [
        (edge + sign * step, SOUTH + 0.01) for edge in (WEST, EAST) for sign in (-1, 1) for step in near
    ]
    places += [
        (WEST + 0.01, edge + sign * step) for edge in (SOUTH, NORTH) for sign in (-1, 1) for step in near
    ]
    with database.transaction(Patience.JOB) as connection:
        make_city(connection, "town").assets(places)
    if packed:
        pack_all(database)
    with tiling_of(database) as tiling:
        assert total(tiling, zoom, tmp_path) == len(places)


def pack_all(database: Database) -> None:
    """Also deltas too few to be packed by the service."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inventory.store.leaves._PACK_ABOVE", 0)
        assert pack_waiting(database)


@pytest.mark.parametrize("packed", [False, True])
def test_what_stands_beyond_the_city_is_within_its_tiles(
    database: Database, tmp_path: Path, packed: bool
) -> None:
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town")
        city.assets([(100.05, 22.05), (101.5, 22.05), (100.05, 20.9)])
    if packed:
        pack_all(database)
    with tiling_of(database) as tiling:
        assert tiling.box == pytest.approx((100.0, 20.9, 101.5, 22.1))
        assert total(tiling, 12, tmp_path) == 3
        with pytest.raises(UnknownName, match="no tile 12/"):
            tiling.tile(tile_of(102.0, 22.05, 12))


def test_classes_that_the_city_does_not_count_are_in_tiles_as_in_items(
    database: Database, tmp_path: Path
) -> None:
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town", classes=("tree", "car"))
        know_benches(connection)
        city.assets([(100.05, 22.05)])
        city.assets([(100.06, 22.05)], class_="bench")
        city.assets([(100.07, 22.05)], class_="car")
    with tiling_of(database) as tiling:
        frame = decoded(tiling.tile(tile_of(100.05, 22.05, 6)), tmp_path)
        assert sorted(frame["class"]) == ["bench", "tree"]
    with tiling_of(database, classes=("bench",)) as tiling:
        assert decoded(tiling.tile(tile_of(100.05, 22.05, 6)), tmp_path)["class"].tolist() == ["bench"]
    with pytest.raises(UnknownName, match="dragon"), tiling_of(database, classes=("dragon",)):
        pass


def know_benches(connection: Any) -> None:
    """A second class that stands, which the taxonomy does not have yet."""
    connection.execute(
        insert(schema.asset_class).values(name="bench", kind="static", label={"en": "bench", "zh": "长椅"})
    )


def test_clusters_tell_how_many_of_each_class(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "POINTS_MOST", 20)
    random = np.random.default_rng(3)
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town", classes=("tree",))
        know_benches(connection)
        city.assets(random.uniform([100.0, 22.0], [100.1, 22.1], (60, 2)).tolist())
        city.assets(random.uniform([100.0, 22.0], [100.02, 22.1], (15, 2)).tolist(), class_="bench")
    with tiling_of(database, layers=(TiledLayer.ASSETS,)) as tiling:
        frame = decoded(tiling.tile(tile_of(100.05, 22.05, 6)), tmp_path)
        assert frame["tree_count"].sum() == 60
        assert frame["bench_count"].sum() == 15
        assert (frame["count"] == frame["tree_count"].fillna(0) + frame["bench_count"].fillna(0)).all()
        fields = tiling.fields()["assets"]
        assert set(frame.columns) - {"geometry", "mvt_id"} <= set(fields)


def test_counts_of_areas_are_theirs_and_absent_where_nobody_looked(
    database: Database, tmp_path: Path
) -> None:
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town", classes=("tree", "car"))
        city.area("A", (100.0, 22.0, 100.05, 22.1), name="阿")
        city.area("B", (100.05, 22.0, 100.1, 22.1))
        city.assets([(100.01, 22.01), (100.02, 22.01)], areas=["A"])
        city.cover("A", share=0.25)
    with tiling_of(database, layers=(TiledLayer.AREAS,)) as tiling:
        content = tiling.tile(tile_of(100.05, 22.05, 9))
        fields = tiling.fields()
    for layer in ("areas", "area_labels"):
        frame = decoded(content, tmp_path, layer).set_index("code")
        assert frame.loc["A", ["name", "level", "tree_count", "tree_coverage"]].tolist() == [
            *("阿", "district", 2, 0.25)
        ]
        assert frame.loc["B"].isna()["tree_count"]
        assert "car_count" not in frame.columns
        assert set(frame.reset_index().columns) - {"geometry", "mvt_id"} <= set(fields[layer])
    with tiling_of(database, layers=(TiledLayer.AREAS,), classes=("tree",)) as tiling:
        frame = decoded(tiling.tile(tile_of(100.05, 22.05, 9)), tmp_path, "areas").set_index("code")
        assert frame.loc["A", ["count", "coverage"]].tolist() == [2, 0.25]
        assert frame.loc["B"].isna()["count"]


@pytest.mark.parametrize("zoom", [9, 12, 14])
def test_areas_are_whole_have_no_gaps_and_one_label_each(
    database: Database, tmp_path: Path, zoom: int
) -> None:
    wave = np.linspace(22.0, 22.1, 400)
    border = np.column_stack([100.05 + 0.004 * np.sin(wave * 600), wave])
    west = shapely.Polygon([(100.0, 22.0), *border, (100.0, 22.1)])
    east = shapely.Polygon([(100.1, 22.0), *border, (100.1, 22.1)])
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town")
        for code, polygon in (("W", west), ("E", east)):
            number = city.area(code, (100.0, 22.0, 100.1, 22.1))
            connection.execute(
                text(
                    "UPDATE urban_inventory.area_version SET geom = ST_Multi(ST_GeomFromText(:wkt, 4326))"
                    " WHERE id = :id"
                ),
                {"wkt": polygon.wkt, "id": number},
            )
    parts: dict[str, list[shapely.Geometry]] = {"W": [], "E": []}
    labels: list[str] = []
    with tiling_of(database, layers=(TiledLayer.AREAS,)) as tiling:
        for tile, content in all_tiles(tiling, zoom):
            frame = decoded(content, tmp_path, "areas", tile)
            ground = shapely.box(*tile.box)
            for code, shape in zip(frame["code"], frame.geometry, strict=True):
                parts[code].append(shapely.intersection(shapely.make_valid(shape), ground))
            if "area_labels" in layers(content, tmp_path):
                labels += decoded(content, tmp_path, "area_labels", tile)["code"].tolist()
    step = 360 / 2**zoom / EXTENT
    drawn = {code: shapely.union_all(found) for code, found in parts.items()}
    for code, polygon in (("W", west), ("E", east)):
        assert drawn[code].buffer(3 * step).covers(polygon)
        assert polygon.buffer(3 * step).covers(drawn[code])
    # Of one pixel there are eight steps.
    both = shapely.union_all([one.buffer(4 * step) for one in drawn.values()])
    assert both.covers(shapely.box(100.0, 22.0, 100.1, 22.1).buffer(-8 * step))
    assert sorted(labels) == ["E", "W"]


def test_a_tile_of_very_many_areas_is_drawn_coarser_and_not_cut(database: Database, tmp_path: Path) -> None:
    side, fine = 60, np.linspace(0, 2 * np.pi, 120, endpoint=False)
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town")
        rows = []
        for number in range(side * side):
            middle = np.array([100.0, 22.0]) + 0.7 * np.array([number % side, number // side]) / side
            wobble = 0.0054 * (1 + 0.2 * np.cos(17 * fine))[:, None]
            ring = middle + wobble * np.column_stack([np.cos(fine), np.sin(fine)])
            rows.append(
                {
                    "city_id": city.id, "level": "block", "level_rank": 0, "code": f"{number:05d}",
                    "name": f"Block {number}", "area_m2": 1e6, "valid": text("'(,)'::daterange"),
                    "geom": f"SRID=4326;{shapely.MultiPolygon([shapely.Polygon(ring)]).wkt}",
                }
            )  # fmt: skip
        valid = rows[0].pop("valid")
        for row in rows:
            row.pop("valid", None)
        connection.execute(insert(schema.area_version).values(valid=valid), rows)
        connection.execute(
            text(
                "UPDATE urban_inventory.city SET boundary = ST_Multi(ST_MakeEnvelope(100, 22, 100.7, 22.7, 4326))"
            )
        )
    whole = tile_of(100.35, 22.35, 8)
    with tiling_of(database, layers=(TiledLayer.AREAS,)) as tiling:
        content = tiling.tile(whole)
        assert len(content) < 1_000_000
        held = len(tiling.areas_at(whole))
    frame = decoded(content, tmp_path, "areas")
    assert len(frame) == held > 3_000


def test_a_tile_of_areas_needs_one_connection(cloned: ClonedDatabase) -> None:
    """A second one, wanted while the first is held, ends in nobody having any."""
    database = Database(cloned.service_url, pool_size=1)
    try:
        with database.transaction(Patience.JOB) as connection:
            city = make_city(connection, "town")
            city.area("A", (100.0, 22.0, 100.1, 22.1))
            city.assets([(100.05, 22.05)], areas=["A"])
        with tiling_of(database) as tiling:
            assert tiling.tile(tile_of(100.05, 22.05, 10))
    finally:
        database.close()


def test_counts_of_areas_change_with_the_city(database: Database, tmp_path: Path) -> None:
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town")
        city.area("A", (100.0, 22.0, 100.1, 22.1))
        city.assets([(100.05, 22.05)], areas=["A"])
    tile = tile_of(100.05, 22.05, 10)
    with tiling_of(database) as tiling:
        assert decoded(tiling.tile(tile), tmp_path, "areas")["count"].tolist() == [1]
    with database.transaction(Patience.JOB) as connection:
        city.connection = connection
        city.assets([(100.06, 22.05), (100.07, 22.05)], areas=["A"])
    with tiling_of(database) as tiling:
        assert decoded(tiling.tile(tile), tmp_path, "areas")["count"].tolist() == [3]
