"""Tiles over points: every point is in exactly one tile of a zoom, also on borders, and clusters keep the sum."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory.domain.tiles import EXTENT, Tile, clustered, tile_of

LON = st.one_of(st.floats(-180, 180), st.sampled_from([-180.0, -90.0, 0.0, 90.0, 180.0, 45.0, 11.25]))
LAT = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 0.0, 90.0, 66.51326044311186, -85.06]))


def holding(lon: float, lat: float, zoom: int) -> list[Tile]:
    """Those of the tile a place seems to be in and of its neighbours that hold it."""
    units = np.array([round(lon * 1e7)]), np.array([round(lat * 1e7)])
    near, last = tile_of(lon, lat, zoom), 2**zoom - 1
    around = {
        Tile(zoom, min(max(near.column + i, 0), last), min(max(near.row + j, 0), last))
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    }
    return [tile for tile in around if tile.units.holds(*units).all()]


@settings(deadline=None, max_examples=400)
@given(LON, LAT, st.integers(0, 22))
def test_a_place_belongs_to_exactly_one_tile(lon: float, lat: float, zoom: int) -> None:
    lon, lat = round(lon, 7), round(lat, 7)
    assert len(holding(lon, lat, zoom)) == 1


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 18), st.integers(0, 2**18), st.integers(0, 2**18))
def test_a_place_on_an_edge_belongs_to_the_tile_east_or_south_of_it(zoom: int, column: int, row: int) -> None:
    tile = Tile(zoom, column % 2**zoom, row % 2**zoom)
    west, _, _, north = tile.box
    if round(west, 7) == west and tile.column:
        assert [one.column for one in holding(west, round(north - 1e-6, 7), zoom)] == [tile.column]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 20), st.integers(0, 2**20), st.integers(0, 2**20))
def test_four_children_hold_what_their_tile_holds(zoom: int, column: int, row: int) -> None:
    tile = Tile(zoom, column % 2**zoom, row % 2**zoom)
    box = tile.units
    random = np.random.default_rng(column)
    if box.west > box.east or box.south > box.north:
        return
    lon = random.integers(box.west, box.east + 1, 50)
    lat = random.integers(box.south, box.north + 1, 50)
    held = sum(child.units.holds(lon, lat).astype(int) for child in tile.children())
    assert (np.asarray(held) == 1).all()


def test_places_are_steps_from_the_tiles_north_west_corner() -> None:
    tile = Tile(12, 3196, 1778)
    west, south, east, north = tile.box
    x, y = tile.steps(np.array([west, east, (west + east) / 2]), np.array([north, south, north]))
    assert np.allclose(x, [0, EXTENT, EXTENT / 2], atol=1e-4)
    assert np.allclose(y, [0, EXTENT, 0], atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_clusters_keep_the_counts_and_stand_among_what_they_hold(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    tile = Tile(10, 799, 444)
    west, south, east, north = tile.box
    lon, lat = random.uniform(west, east, 500), random.uniform(south, north, 500)
    counts = random.integers(0, 4, (500, classes))
    made = clustered(tile, lon, lat, counts)
    assert made.counts.sum(axis=0).tolist() == counts.sum(axis=0).tolist()
    assert ((made.x >= -1e-6) & (made.x <= EXTENT + 1e-6)).all()
    assert ((made.y >= -1e-6) & (made.y <= EXTENT + 1e-6)).all()
