"""Windows: cores tile the ground exactly once, and stay where they are when a file is cut."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from detection.imagery.bands import Bands
from detection.imagery.scene import Scene
from detection.imagery.validity import CellState, Validity
from detection.imagery.windows import NETWORK_STRIDE_PX, WindowPlan, WindowShape, plan_windows

SHAPE = WindowShape(window_px=128, margin_px=24, ground_resolution_m=0.1)


def make_scene(
    *,
    size_px: tuple[int, int] = (500, 400),
    pixel_m: tuple[float, float] = (0.1, 0.1),
    corner: tuple[float, float] = (541_000.0, 4_977_000.0),
    is_south_up: bool = False,
    rotation_deg: float = 0.0,
    block_px: tuple[int, int] = (64, 64),
    validity: Validity | None = None,
) -> Scene:
    down = pixel_m[1] if is_south_up else -pixel_m[1]
    transform = Affine.translation(*corner) @ Affine.rotation(rotation_deg) @ Affine.scale(pixel_m[0], down)
    return Scene(
        name="scene",
        path=Path("scene.tif"),
        size_px=size_px,
        transform=transform,
        crs=CRS.from_epsg(32612),
        pixel_ground_m=pixel_m,
        ground_resolution_m=(pixel_m[0] * pixel_m[1]) ** 0.5,
        bands=Bands(rgb=(1, 2, 3)),
        dtype="uint8",
        nodata=None,
        has_mask=False,
        block_px=block_px,
        validity=validity or Validity(size_px=size_px),
        taken_at=None,
        pixel_hash="0" * 64,
        georeference_hash="0" * 64,
    )


def owners(plan: WindowPlan, size_px: tuple[int, int]) -> np.ndarray:
    """(rows, columns) how many cores hold each pixel."""
    counts = np.zeros((size_px[1], size_px[0]), int)
    for window in plan.windows:
        core = window.core
        counts[max(core.y_min, 0) : max(core.y_max, 0), max(core.x_min, 0) : max(core.x_max, 0)] += 1
    return counts


scenes = st.builds(
    make_scene,
    size_px=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    pixel_m=st.tuples(st.floats(0.04, 0.3), st.floats(0.04, 0.3)),
    corner=st.tuples(st.floats(0, 1e6), st.floats(0, 1e7)),
    is_south_up=st.booleans(),
    rotation_deg=st.sampled_from([0.0, 0.0, 31.0, 90.0]),
    block_px=st.sampled_from([(64, 64), (700, 1), (256, 256)]),
)


@settings(max_examples=60, deadline=None)
@given(
    scene=scenes,
    offset=st.tuples(st.integers(-300, 300), st.integers(-300, 300)),
    has_neighbours=st.booleans(),
    is_fitted=st.booleans(),
)
def test_every_pixel_is_owned_by_exactly_one_window(
    scene: Scene, offset: tuple[int, int], has_neighbours: bool, is_fitted: bool
) -> None:
    plan = plan_windows(
        scene,
        SHAPE,
        grid_offset_px=offset,
        has_neighbours=has_neighbours,
        is_fitted=is_fitted and not has_neighbours,
    )
    assert (owners(plan, scene.size_px) == 1).all()


@settings(max_examples=60, deadline=None)
@given(
    scene=scenes,
    offset=st.tuples(st.integers(-300, 300), st.integers(-300, 300)),
    has_neighbours=st.booleans(),
    margin_px=st.sampled_from([24, 40]),
)
def test_a_window_sees_its_core_with_the_margin_around(
    scene: Scene, offset: tuple[int, int], has_neighbours: bool, margin_px: int
) -> None:
    shape = WindowShape(window_px=128, margin_px=margin_px, ground_resolution_m=0.1)
    plan = plan_windows(scene, shape, grid_offset_px=offset, has_neighbours=has_neighbours)
    columns, rows = scene.size_px
    # A window may give up half a step of the network's lattice, at the raster's edge a whole one.
    kept = margin_px if margin_px < NETWORK_STRIDE_PX else margin_px - NETWORK_STRIDE_PX / 2
    kept_at_edge = margin_px if margin_px < NETWORK_STRIDE_PX else margin_px - NETWORK_STRIDE_PX
    for window in plan.windows:
        seen, core = window.seen, window.core
        assert (seen.width, seen.height) == plan.native_px
        sides = (
            (core.x_min, seen.x_min, core.x_max, seen.x_max, columns, plan.native_px[0]),
            (core.y_min, seen.y_min, core.y_max, seen.y_max, rows, plan.native_px[1]),
        )
        for first, seen_first, last, seen_last, size, native in sides:
            at_edge = not has_neighbours and (first == 0 or last == size or seen_last + native > size)
            margin = int((kept_at_edge if at_edge else kept) * native / 128) - 2
            # Beyond the edge of a lone raster there is nothing to see.
            assert seen_first <= (first - margin if has_neighbours else max(first - margin, 0))
            assert seen_last >= (last + margin if has_neighbours else min(last + margin, size))


@settings(max_examples=60, deadline=None)
@given(
    column=st.integers(0, 500),
    offset=st.integers(-300, 300),
    has_neighbours=st.booleans(),
    size=st.integers(130, 900),
)
def test_the_network_sees_all_ground_at_the_same_steps(
    column: int, offset: int, has_neighbours: bool, size: int
) -> None:
    shape = WindowShape(window_px=128, margin_px=32, ground_resolution_m=0.1)
    scene = make_scene(size_px=(size, 200), corner=(541_000.0 + 0.1 * column, 4_977_000.0))
    plan = plan_windows(scene, shape, grid_offset_px=(offset, 0), has_neighbours=has_neighbours)
    ground = {(window.seen.x_min + column) % NETWORK_STRIDE_PX for window in plan.windows}
    assert len(ground) == 1
    assert ground == {(5_410_000 * -1 - 32) % NETWORK_STRIDE_PX}


@settings(max_examples=40, deadline=None)
@given(
    column=st.integers(0, 700),
    row=st.integers(0, 700),
    corner=st.tuples(st.integers(0, 10**7), st.integers(0, 10**8)),
    pixel_m=st.sampled_from([0.1, 0.05, 0.125, 0.3]),
    is_south_up=st.booleans(),
)
def test_cutting_a_file_moves_no_interior_window(
    column: int, row: int, corner: tuple[int, int], pixel_m: float, is_south_up: bool
) -> None:
    origin = (corner[0] * 0.1, corner[1] * 0.1)
    down = pixel_m if is_south_up else -pixel_m
    whole = make_scene(
        size_px=(1400, 1400), pixel_m=(pixel_m, pixel_m), corner=origin, is_south_up=is_south_up
    )
    part = make_scene(
        size_px=(650, 600),
        pixel_m=(pixel_m, pixel_m),
        corner=(origin[0] + column * pixel_m, origin[1] + row * down),
        is_south_up=is_south_up,
    )
    of_whole = {window.core for window in plan_windows(whole, SHAPE, has_neighbours=True).windows}
    for window in plan_windows(part, SHAPE, has_neighbours=True).windows:
        core = window.core
        moved = type(core)(core.x_min + column, core.y_min + row, core.x_max + column, core.y_max + row)
        inside = moved.x_min >= 0 and moved.y_min >= 0 and moved.x_max <= 1400 and moved.y_max <= 1400
        assert not inside or moved in of_whole


@settings(max_examples=30, deadline=None)
@given(scene=scenes)
def test_blocks_hold_every_window_once_and_lie_in_one_row(scene: Scene) -> None:
    plan = plan_windows(scene, SHAPE)
    assert [index for block in plan.blocks for index in block] == list(range(len(plan.windows)))
    assert [window.index for window in plan.windows] == list(range(len(plan.windows)))
    for block in plan.blocks:
        assert len({plan.windows[index].core.y_min for index in block}) == 1


def test_windows_without_valid_pixels_are_left_out() -> None:
    cells = np.full((50, 63), CellState.FULL, np.uint8)
    cells[:, :31] = CellState.VOID
    scene = make_scene(validity=Validity(size_px=(500, 400), cells=cells))
    plan = plan_windows(scene, SHAPE)
    counts = owners(plan, scene.size_px)
    assert (counts[:, 248:] == 1).all()
    assert len(plan.windows) < len(plan_windows(make_scene(), SHAPE).windows)
    assert (counts[:, :100] == 0).any()


def test_a_sliver_at_the_edge_gets_no_window_of_its_own() -> None:
    # The grid's borders lie at multiples of 8 m: the raster begins 2 m before one and ends 2 m behind one.
    scene = make_scene(size_px=(840, 840), corner=(8 * 70_000 - 2.0, 8 * 600_000 + 2.0))
    assert len(plan_windows(scene, SHAPE).windows) == 10 * 10
    assert len(plan_windows(scene, SHAPE, has_neighbours=True).windows) == 12 * 12


def test_a_fitted_plan_has_the_fewest_windows() -> None:
    scene = make_scene(size_px=(512, 512), corner=(7.3, 9.1))
    assert len(plan_windows(scene, SHAPE, is_fitted=True).windows) == 36
    assert len(plan_windows(scene, SHAPE).windows) >= 36


@pytest.mark.parametrize(("pixel_m", "expected"), [(0.1, 128), (0.097, 128), (0.05, 256), (0.2, 64)])
def test_windows_cover_the_ground_that_the_model_wants(pixel_m: float, expected: int) -> None:
    plan = plan_windows(make_scene(pixel_m=(pixel_m, pixel_m)), SHAPE)
    assert plan.native_px == (expected, expected)
    assert plan.is_native == (expected == 128)
