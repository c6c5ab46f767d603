"""Exact counts in polygons from packed points: the same as testing every point, to the last one."""

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inventory.domain import leaves as domain
from inventory.domain.border import PolygonOverLeaves
from inventory.domain.leaves import (
    NO_EVENTS,
    NO_LEAVES,
    Events,
    Leaves,
    by_latitude,
    divided,
    kinds_of,
    summed,
)
from inventory.domain.quadtree import DEEPEST, SOUTH, WEST, morton, units

FOREVER = 10**18


def make_events(lon: Any, lat: Any, at: int = 0) -> Events:
    n = len(lon)
    ones = np.ones(n, np.int64)
    return summed(
        lon=np.asarray(lon, np.int64),
        lat=np.asarray(lat, np.int64),
        at=np.full(n, at),
        listed=ones,
        verified=ones * 0,
    )


def counted(polygon: shapely.Geometry, leaves: Leaves, begin: NDArray[np.int64], events: Events) -> int:
    over = PolygonOverLeaves(polygon)
    border = over.over(leaves)
    found, met = int(leaves.listed[border.inside].sum()), []
    for part in border.parts(leaves.events[border.crossed], 30):
        met += part.crossed.tolist()
        rows = [np.arange(begin[one], begin[one + 1]) for one in part.crossed.tolist()]
        near = by_latitude(events, begin).take(np.concatenate(rows))
        inside = over.contains_points(part, leaves, near.lon + float(WEST), near.lat + float(SOUTH))
        found += near.take(inside).sums(FOREVER).listed
    assert met == border.crossed.tolist()
    return found


def brute_force(polygon: shapely.Geometry, events: Events) -> int:
    inside = shapely.intersects_xy(polygon, events.lon / 1e7, events.lat / 1e7)
    return int(events.listed[inside].sum())


@pytest.fixture(autouse=True)
def _small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "LEAF_POINTS", 4)


def test_the_globes_corners_have_the_first_place_and_one_that_a_signed_number_holds() -> None:
    corners = units(np.array([[-180.0, -90.0], [180.0, 90.0]]))
    first, last = morton(corners[:, 0], corners[:, 1]).tolist()
    assert first == 0
    assert 2**62 < last < 2**63


def test_events_at_one_place_and_instant_are_one_and_those_that_cancel_none() -> None:
    one = np.array([5, 5, 7])
    events = summed(lon=one, lat=one, at=one * 0, listed=np.array([1, -1, 2]), verified=np.array([0, 0, 1]))
    assert (events.lon.tolist(), events.listed.tolist(), events.verified.tolist()) == ([7], [2], [1])


def test_leaves_follow_one_another_hold_few_events_and_all_of_them() -> None:
    random = np.random.default_rng(1)
    place = random.normal(0, 1e6, (2000, 2)).astype(np.int64)
    events = make_events(place[:, 0], place[:, 1])
    leaves, begin = divided(events)
    assert (np.diff(begin) <= 4).all()
    assert leaves.listed.sum() == 2000
    assert (leaves.key[1:] > leaves.key[:-1]).all()
    assert (
        leaves.of(morton(events.lon, events.lat)) == np.repeat(np.arange(len(leaves)), np.diff(begin))
    ).all()


def test_many_events_at_one_place_are_one_leaf_however_small() -> None:
    events = Events(**{name: np.arange(9) if name == "at" else np.full(9, 1) for name in Events.__slots__})
    leaves, begin = divided(events)
    assert (leaves.depth.tolist(), begin.tolist()) == ([DEEPEST], [0, 9])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 4), max_size=60))
def test_kinds_say_of_every_event_what_it_does_and_when(rows: list[tuple[int, int, int, int]]) -> None:
    lon, at, listed, verified = np.array(rows, np.int64).reshape(-1, 4).T
    events = summed(lon=lon, lat=lon, at=at, listed=listed, verified=verified)
    leaves, begin = divided(events)
    kinds = kinds_of(events, begin)
    assert kinds.each.tolist() == leaves.kinds.tolist()
    first = np.cumsum(kinds.each) - kinds.each
    row = kinds.of + np.repeat(first, np.diff(begin))
    for name in ("at", "listed", "verified"):
        assert getattr(kinds, name)[row].tolist() == getattr(events, name).tolist()
    assert kinds.events.tolist() == np.bincount(row, minlength=len(kinds.at)).tolist()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), max_size=30), max_size=5))
def test_packing_bit_by_bit_keeps_every_event_in_the_leaf_of_its_place(
    parts: list[list[tuple[int, int]]],
) -> None:
    leaves, held = NO_LEAVES, NO_EVENTS
    for part in parts:
        table = np.array(part, np.int64).reshape(-1, 2)
        added = make_events(table[:, 0], table[:, 1])
        keys = morton(added.lon, added.lat)
        holding = leaves.of(keys)
        old = np.unique(holding[holding >= 0])
        corner, depth = leaves.free_cells(keys[holding < 0])
        inside = np.isin(leaves.of(morton(held.lon, held.lat)), old)
        together = held.take(inside).joined(added)
        cells, depths = np.append(leaves.key[old], corner), np.append(leaves.depth[old], depth)
        order = np.argsort(cells)
        made, _ = divided(together, cells[order], depths[order])
        leaves, held = leaves.replaced(old, made), held.joined(added)
        assert leaves.listed.sum() == held.listed.sum()
        places = leaves.of(morton(held.lon, held.lat))
        assert (places >= 0).all()
        assert np.array_equal(np.bincount(places, weights=held.listed, minlength=len(leaves)), leaves.listed)


def on_grid(step: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(-8, 8), st.integers(-8, 8)).map(lambda xy: (xy[0] * step, xy[1] * step))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(on_grid(1), min_size=1, max_size=80),
    st.lists(st.lists(on_grid(1), min_size=3, max_size=9), min_size=1, max_size=4),
    st.sampled_from([1, 3, 1000]),
)
def test_points_on_corners_and_edges_count_as_st_intersects_has_them(
    points: list[tuple[int, int]], rings: list[list[tuple[int, int]]], step: int
) -> None:
    """Points and corners on one grid: half of all points lie on an edge, a corner or at its height."""
    hulls = [shapely.Polygon(np.array(ring) * step / 1e7) for ring in rings]
    polygon = shapely.union_all([shapely.make_valid(one) for one in hulls])
    shapes = [one for one in shapely.get_parts(polygon) if one.geom_type == "Polygon"]
    if not shapes:
        return
    polygon = shapely.MultiPolygon(shapes)
    if not polygon.is_valid:
        return
    table = np.array(points) * step
    events = make_events(table[:, 0], table[:, 1])
    leaves, begin = divided(events)
    assert counted(polygon, leaves, begin, events) == brute_force(polygon, events)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([3, 12, 200, 3000]), st.sampled_from([0, 3]))
def test_any_polygon_over_clustered_points(seed: int, corners: int, holes: int) -> None:
    random = np.random.default_rng(seed)
    centres = random.uniform([100.0, 22.0], [100.4, 22.4], (20, 2))
    lon_lat = centres[random.integers(0, 20, 3000)] + random.normal(0, 0.02, (3000, 2))
    place = units(lon_lat)
    events = make_events(place[:, 0], place[:, 1])
    leaves, begin = divided(events)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = random.uniform(0.02, 0.2, corners)
    shell = np.column_stack([100.2 + radius * np.cos(angle), 22.2 + radius * np.sin(angle)])
    polygon = shapely.Polygon(shell)
    for _ in range(holes):
        spot = shapely.Point(random.uniform([100.1, 22.1], [100.3, 22.3])).buffer(random.uniform(0.005, 0.05))
        polygon = shapely.difference(polygon, spot)
    if shapely.is_empty(polygon) or not polygon.is_valid:
        return
    assert counted(polygon, leaves, begin, events) == brute_force(polygon, events)


def test_a_polygon_around_the_globe_holds_everything_and_one_elsewhere_nothing() -> None:
    events = make_events([0, 1_800_000_000, -1_800_000_000], [0, 900_000_000, -900_000_000])
    leaves, begin = divided(events)
    assert counted(shapely.box(-180, -90, 180, 90), leaves, begin, events) == 3
    assert counted(shapely.box(10, 10, 20, 20), leaves, begin, events) == 0
