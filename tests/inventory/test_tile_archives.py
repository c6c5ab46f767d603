"""PMTiles of a city: the tiles that are served, all of them, in a file that others read."""

import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
from pmtiles.reader import MmapSource, Reader, all_tiles
from sqlalchemy import text

from detection.errors import CallerError, UnknownName
from inventory.domain.tiles import Tile
from inventory.store import features, tiles
from inventory.store.database import Database, Patience
from inventory.tile_archives import FINE_ZOOM, export_tiles
from inventory.tiling import LAST_ZOOM, TiledLayer, TilesAsked, Tiling
from tests.support.city import make_city
from tests.support.map_tiles import counted, decoded, layers

MANY = 300
GONE = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def town(database: Database) -> Database:
    """300 trees over two areas, 40 of them close together; five that were felled; two cars."""
    random = np.random.default_rng(5)
    with database.transaction(Patience.JOB) as connection:
        city = make_city(connection, "town", name="普洱", classes=("tree", "car"))
        city.area("A", (100.0, 22.0, 100.05, 22.1))
        city.area("B", (100.05, 22.0, 100.1, 22.1))
        city.assets(
            random.uniform([100.0, 22.0], [100.05, 22.1], (MANY - 40, 2)).round(7).tolist(), areas=["A"]
        )
        city.assets(
            random.uniform([100.07, 22.02], [100.075, 22.025], (40, 2)).round(7).tolist(), areas=["B"]
        )
        city.assets([(100.06, 22.01 + i / 1e3) for i in range(5)], areas=["B"], valid_to=GONE)
        city.assets([(100.03, 22.03), (100.04, 22.03)], class_="car", areas=["A"])
        city.cover("A")
    return database


def contents(file: Path) -> dict[Tile, bytes]:
    with file.open("rb") as opened:
        return {
            Tile(zoom, column, row): gzip.decompress(content)
            for (zoom, column, row), content in all_tiles(MmapSource(opened))
        }


def described(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with file.open("rb") as opened:
        reader = Reader(MmapSource(opened))
        return reader.header(), reader.metadata()


def test_a_file_has_the_tiles_that_are_served_and_each_zoom_adds_up(town: Database, tmp_path: Path) -> None:
    done = export_tiles(town, "town", tmp_path / "town.pmtiles")
    found = contents(done.file)
    assert (done.assets, done.tiles, done.deepest_zoom) == (MANY, len(found), FINE_ZOOM)
    assert (done.classes, done.left_out) == (("tree",), ("car",))
    day = done.as_of
    with town.transaction(read_only=True) as connection:
        asked = TilesAsked(
            layers=tuple(TiledLayer), as_of=datetime(2200, 1, 1, tzinfo=UTC), day=day, now=True
        )
        tiling = Tiling(connection, features.city_on_page(connection, "town"), asked)
        for zoom in range(FINE_ZOOM + 1):
            of_zoom = {tile: content for tile, content in found.items() if tile.zoom == zoom}
            limits = tiling.limits(zoom)
            served = {
                tile: content
                for column in range(limits.first_column, limits.last_column + 1)
                for row in range(limits.first_row, limits.last_row + 1)
                if (content := tiling.tile(tile := Tile(zoom, column, row)))
            }
            assert served == of_zoom
            if zoom in (0, 7, 12, FINE_ZOOM):
                frames = [
                    decoded(content, tmp_path)
                    for content in of_zoom.values()
                    if "assets" in layers(content, tmp_path)
                ]
                assert sum(map(counted, frames)) == MANY
    assert [path.name for path in tmp_path.glob("*pmtiles*")] == ["town.pmtiles"]


def test_gdal_reads_the_assets_of_a_file_with_what_is_known_of_each(town: Database, tmp_path: Path) -> None:
    export_tiles(town, "town", tmp_path / "town.pmtiles")
    frame = pyogrio.read_dataframe(tmp_path / "town.pmtiles", layer="assets", use_arrow=False).to_crs(4326)
    assert len(frame) == frame["id"].nunique() == MANY
    assert set(frame["class"]) == {"tree"}
    with town.transaction(read_only=True) as connection:
        rows = connection.execute(
            text(
                "SELECT a.public_id, ST_X(s.geom) AS lon, ST_Y(s.geom) AS lat FROM urban_inventory.asset a"
                " JOIN urban_inventory.asset_state s ON s.asset_id = a.id"
            )
        )
        places = {row.public_id: (row.lon, row.lat) for row in rows}
    half_a_step = 360 / 2**FINE_ZOOM / 4096 / 2
    for name, point in zip(frame["id"], frame.geometry, strict=True):
        assert (point.x, point.y) == pytest.approx(places[name], abs=half_a_step * 1.01)
    areas = pyogrio.read_dataframe(tmp_path / "town.pmtiles", layer="areas", use_arrow=False)
    of_area = areas[areas["code"] == "A"]
    assert set(of_area["tree_count"]) == {MANY - 40}
    assert set(of_area["car_count"]) == {2}


def test_a_file_says_what_it_is(town: Database, tmp_path: Path) -> None:
    done = export_tiles(town, "town", tmp_path / "town.pmtiles")
    header, metadata = described(done.file)
    assert header["clustered"]
    assert (header["min_zoom"], header["max_zoom"]) == (0, FINE_ZOOM)
    edges = [header[f"{one}_e7"] / 1e7 for one in ("min_lon", "min_lat", "max_lon", "max_lat")]
    assert edges == pytest.approx([100.0, 22.0, 100.1, 22.1])
    assert metadata["name"] == "普洱"
    assert metadata["attribution"] == "Test &lt;b&gt;Fliers&lt;/b&gt;, CC BY 4.0"
    assert [layer["id"] for layer in metadata["vector_layers"]] == ["assets", "areas", "area_labels"]
    assert metadata["as_of"] == done.as_of.isoformat()


def test_a_file_goes_as_deep_as_its_densest_ground_needs(
    town: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "POINTS_MOST", 25)
    done = export_tiles(town, "town", tmp_path / "town.pmtiles")
    assert FINE_ZOOM < done.deepest_zoom < LAST_ZOOM
    for tile, content in contents(done.file).items():
        if tile.zoom == done.deepest_zoom and "assets" in layers(content, tmp_path):
            assert "count" not in decoded(content, tmp_path).columns


def test_a_file_of_a_date_holds_what_was_listed_then(town: Database, tmp_path: Path) -> None:
    done = export_tiles(town, "town", tmp_path / "then.pmtiles", as_of=date(2026, 2, 1), classes=["tree"])
    assert done.assets == MANY + 5
    frame = pyogrio.read_dataframe(done.file, layer="assets", use_arrow=False)
    assert len(frame) == MANY + 5


def test_a_file_of_nothing_is_one_that_opens(town: Database, tmp_path: Path) -> None:
    with town.transaction(Patience.JOB) as connection:
        make_city(connection, "empty")
    done = export_tiles(town, "empty", tmp_path / "empty.pmtiles")
    assert (done.assets, done.tiles) == (0, 0)
    assert contents(done.file) == {Tile(0, 0, 0): b""}
    pyogrio.list_layers(done.file)


def test_what_cannot_be_written_is_refused_and_leaves_an_earlier_file(town: Database, tmp_path: Path) -> None:
    file = tmp_path / "town.pmtiles"
    file.write_bytes(b"earlier")
    with pytest.raises(UnknownName, match="dragon"):
        export_tiles(town, "town", file, classes=["dragon"])
    with pytest.raises(CallerError, match="cannot be written"):
        export_tiles(town, "town", file / "below.pmtiles")
    assert file.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["town.pmtiles"]
