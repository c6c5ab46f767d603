"""The sweep: every object once, at its place, whatever the file, the grid, the seams and who computes."""

import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer

from detection import sweep as sweep_module
from detection.errors import SceneTooCoarse, SceneUnusable
from detection.geojson import features
from detection.imagery.kept import BUDGET_BYTES, forget, keep, kept
from detection.imagery.scene import open_scene, scene_from_pixels
from detection.models import Model
from detection.sweep import Progress, SweepOptions, SweepResult, settings_key, survey_block, sweep
from detection.taxonomy import shipped_taxonomy
from tests.support.networks import SQUARE_PX, make_model
from tests.support.scenes import (
    ORIGIN,
    draw_ground,
    draw_squares,
    make_scene_file,
    scattered,
    write_scene,
)

SIZE_PX = (520, 410)
TREES = scattered(*SIZE_PX, count=300)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def ortho(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene_file(tmp_path_factory.mktemp("ortho") / "ortho.tif", size_px=SIZE_PX, trees=TREES)


def corners(result: SweepResult) -> list[tuple[int, int]]:
    """Upper left corners found, in native pixels, sorted."""
    return sorted(map(tuple, result.observations.box_px[:, :2].round().astype(int).tolist()))


def same(one: SweepResult, other: SweepResult) -> bool:
    """Whether two results are equal to the bit, order included."""
    columns = ("lon_lat", "size_m", "error_m", "score", "class_index", "box_px")
    return all(
        getattr(one.observations, name).tobytes() == getattr(other.observations, name).tobytes()
        for name in columns
    )


# --- every object once ------------------------------------------------------------------------------


def test_every_square_is_found_once_at_its_place(ortho: Path, model: Model) -> None:
    (result,) = sweep([ortho], model)
    assert corners(result) == sorted(TREES)
    seen = result.observations
    to_utm = Transformer.from_crs(4326, 32612, always_xy=True)
    x, y = to_utm.transform(*seen.lon_lat.T)
    expected = seen.box_px[:, :2] + SQUARE_PX / 2
    assert np.allclose(x, ORIGIN[0] + 0.1 * expected[:, 0], atol=1e-5)
    assert np.allclose(y, ORIGIN[1] - 0.1 * expected[:, 1], atol=1e-5)
    assert seen.size_m == pytest.approx(0.8, rel=1e-3)
    assert seen.error_m == pytest.approx(np.hypot(1.0, 0.08), rel=1e-3)


@pytest.mark.parametrize("offset", [(1, 0), (17, 40), (63, 63)])
def test_shifting_the_grid_changes_nothing(ortho: Path, model: Model, offset: tuple[int, int]) -> None:
    (result,) = sweep([ortho], model, SweepOptions(grid_offset_px=offset))
    assert corners(result) == sorted(TREES)


def test_a_fitted_grid_finds_the_same_with_fewer_windows(ortho: Path, model: Model) -> None:
    anchored, fitted = (
        sweep([ortho], model, SweepOptions(is_fitted=is_fitted))[0] for is_fitted in (False, True)
    )
    assert corners(fitted) == corners(anchored)
    assert fitted.windows <= anchored.windows


def test_files_cut_from_one_ortho_count_the_same_as_the_ortho(tmp_path: Path, model: Model) -> None:
    pixels = draw_squares(draw_ground(*SIZE_PX), TREES)
    parts = []
    for row in range(0, SIZE_PX[1], 103):
        for column in range(0, SIZE_PX[0], 131):
            origin = (ORIGIN[0] + 0.1 * column, ORIGIN[1] - 0.1 * row)
            part = pixels[:, row : row + 103, column : column + 131]
            parts.append(write_scene(tmp_path / f"{row}-{column}.tif", part, origin=origin))
    found = []
    for path, result in zip(parts, sweep(parts, model), strict=True):
        row, column = map(int, path.stem.split("-"))
        found += [(x + column, y + row) for x, y in corners(result)]
    assert sorted(found) == sorted(TREES)


def test_overlapping_files_each_report_what_they_show(tmp_path: Path, model: Model) -> None:
    pixels = draw_squares(draw_ground(300, 150), trees := [(20, 30), (140, 60), (260, 90)])
    left = write_scene(tmp_path / "left.tif", pixels[:, :, :200])
    right = write_scene(tmp_path / "right.tif", pixels[:, :, 100:], origin=(ORIGIN[0] + 10, ORIGIN[1]))
    of_left, of_right = sweep([left, right], model)
    assert corners(of_left) == trees[:2]
    assert corners(of_right) == [(x - 100, y) for x, y in trees[1:]]


def test_a_raster_smaller_than_a_window_is_counted(tmp_path: Path, model: Model) -> None:
    path = make_scene_file(tmp_path / "a.tif", size_px=(50, 30), trees=[(0, 0), (42, 22)])
    (result,) = sweep([path], model)
    assert corners(result) == [(0, 0), (42, 22)]


def test_a_picture_kept_from_opening_gives_what_the_file_gives(ortho: Path, model: Model) -> None:
    scene = open_scene(ortho)
    assert kept(scene.content_hash) is not None
    (from_memory,) = sweep([scene], model)
    assert kept(scene.content_hash) is None
    (from_file,) = sweep([scene], model)
    assert same(from_memory, from_file)


def test_kept_pictures_never_exceed_their_budget() -> None:
    keep("large", np.empty((3, BUDGET_BYTES // 600, 150), np.uint8))
    keep("larger", np.empty((3, BUDGET_BYTES // 600, 180), np.uint8))
    assert kept("large") is None
    assert kept("larger") is not None
    forget("larger")
    assert kept("larger") is None


# --- all kinds of files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.1, 0, ORIGIN[0], 0, 0.1, ORIGIN[1]),
        Affine(-0.1, 0, ORIGIN[0], 0, -0.1, ORIGIN[1]),
        Affine.translation(*ORIGIN) @ Affine.rotation(27) @ Affine.scale(0.1, -0.1),
    ],
    ids=["south-up", "mirrored", "rotated"],
)
def test_objects_lie_where_the_transform_puts_them(tmp_path: Path, model: Model, transform: Affine) -> None:
    path = make_scene_file(
        tmp_path / "a.tif", size_px=(200, 150), trees=[(20, 30), (150, 110)], transform=transform
    )
    (result,) = sweep([path], model)
    assert corners(result) == [(20, 30), (150, 110)]
    to_utm = Transformer.from_crs(4326, 32612, always_xy=True)
    for box, lon_lat in zip(result.observations.box_px, result.observations.lon_lat, strict=True):
        expected = transform @ ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        assert to_utm.transform(*lon_lat) == pytest.approx(expected, abs=1e-5)
    outline = [
        feature["geometry"]["coordinates"][0]
        for feature in features(result.observations, open_scene(path), shipped_taxonomy())
    ]
    assert all(_turns_left(np.array(ring)) for ring in outline)


def _turns_left(ring: np.ndarray) -> bool:
    x, y = (ring - ring[0]).T
    return bool((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0)


def test_finer_imagery_is_resampled_to_the_models_resolution(tmp_path: Path, model: Model) -> None:
    trees = [(2 * x, 2 * y) for x, y in scattered(260, 205, count=60)]
    pixels = draw_squares(draw_ground(520, 410), trees, side_px=2 * SQUARE_PX)
    path = write_scene(tmp_path / "fine.tif", pixels, pixel_m=0.05)
    (result,) = sweep([path], model, SweepOptions(threshold_override=0.7))
    centres = result.observations.box_px[:, :2] + SQUARE_PX
    expected = np.array(sorted(trees)) + SQUARE_PX
    nearest = np.abs(centres[:, None] - expected[None]).max(axis=2)
    assert len(centres) == len(trees)
    assert (nearest.min(axis=1) <= 2).all()
    assert result.observations.size_m == pytest.approx(0.8, rel=0.01)


def test_a_scene_that_the_model_cannot_see_is_refused_with_both_numbers(tmp_path: Path, model: Model) -> None:
    path = make_scene_file(tmp_path / "a.tif", size_px=(60, 60), pixel_m=0.6)
    with pytest.raises(SceneTooCoarse, match=r"0\.6 m .* 0\.3 m"):
        sweep([path], model)


def test_r5_nodata_is_neither_detected_on_nor_surveyed(tmp_path: Path, model: Model) -> None:
    pixels = draw_squares(draw_ground(300, 200), [(40, 40), (200, 100), (250, 20)])
    mask = np.ones((200, 300), bool)
    mask[:, :100] = False
    (result,) = sweep([write_scene(tmp_path / "a.tif", pixels, mask=mask)], model)
    assert corners(result) == [(200, 100), (250, 20)]
    whole = open_scene(write_scene(tmp_path / "b.tif", pixels)).surveyed().area
    assert result.surveyed.area == pytest.approx(whole * 2 / 3, rel=0.03)


def test_a_scene_that_is_all_nodata_has_no_windows(tmp_path: Path, model: Model) -> None:
    (result,) = sweep([write_scene(tmp_path / "a.tif", np.zeros((3, 200, 200), np.uint8))], model)
    assert (len(result.observations), result.windows) == (0, 0)
    assert result.surveyed.is_empty


def test_pixels_without_a_place_are_counted_too(model: Model) -> None:
    pixels = np.moveaxis(draw_squares(draw_ground(200, 150), [(20, 30)]), 0, -1)
    (result,) = sweep([scene_from_pixels(pixels, 0.1)], model)
    assert corners(result) == [(20, 30)]
    assert np.isnan(result.observations.lon_lat).all()


# --- who computes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(ortho: Path, model: Model) -> SweepResult:
    return sweep([ortho], model, SweepOptions(workers=1))[0]


@pytest.mark.parametrize("workers", [2, 5])
def test_the_number_of_workers_changes_no_bit(
    ortho: Path, model: Model, expected: SweepResult, workers: int
) -> None:
    assert same(sweep([ortho], model, SweepOptions(workers=workers))[0], expected)


def test_processes_give_the_identical_result(ortho: Path, model: Model, expected: SweepResult) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        assert same(sweep([ortho], model, executor=executor)[0], expected)


def test_a_dask_cluster_of_two_processes_gives_the_identical_result(
    ortho: Path, model: Model, expected: SweepResult
) -> None:
    distributed = pytest.importorskip("distributed")
    from detection.cluster import cluster_executor

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        cluster_executor(cluster.scheduler_address) as executor,
    ):
        assert same(sweep([ortho], model, executor=executor)[0], expected)


class CountingExecutor(Executor):
    """Computes when asked for the result, and notes how many blocks were ever waiting."""

    _max_workers = 3

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.computed = 0

    def submit(self, function, task):  # type: ignore[no-untyped-def, override]
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        task = pickle.loads(pickle.dumps(task))
        counter = self

        class Lazy(Future):  # type: ignore[type-arg]
            def result(self, timeout: float | None = None) -> object:
                counter.waiting -= 1
                counter.computed += 1
                return function(task)

        return Lazy()


def test_at_most_two_blocks_a_worker_are_under_way(ortho: Path, model: Model, expected: SweepResult) -> None:
    executor = CountingExecutor()
    assert same(sweep([ortho], model, executor=executor)[0], expected)
    assert executor.most == 6


# --- checkpoints ------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.fixture
def dies_after_three_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def survey(task: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return survey_block(task)  # type: ignore[arg-type]

    monkeypatch.setattr(sweep_module, "survey_block", survey)
    return calls


class AtOnce(Executor):
    """Computes in the calling thread."""

    _max_workers = 1

    def submit(self, function, *arguments):  # type: ignore[no-untyped-def, override]
        future: Future[object] = Future()
        try:
            future.set_result(function(*arguments))
        except Killed as error:
            future.set_exception(error)
        return future


def test_a_killed_sweep_goes_on_from_its_finished_blocks(
    tmp_path: Path, ortho: Path, model: Model, expected: SweepResult, dies_after_three_blocks: list[int]
) -> None:
    with pytest.raises(Killed):
        sweep([ortho], model, executor=AtOnce(), checkpoints=tmp_path)
    done = len(list(tmp_path.glob("*/*.npz")))
    assert done == 3
    executor = CountingExecutor()
    assert same(sweep([ortho], model, executor=executor, checkpoints=tmp_path)[0], expected)
    again = CountingExecutor()
    assert same(sweep([ortho], model, executor=again, checkpoints=tmp_path)[0], expected)
    blocks = len(list(tmp_path.glob("*/*.npz")))
    assert (executor.computed, again.computed) == (blocks - done, 0)


def test_a_damaged_checkpoint_is_computed_again(
    tmp_path: Path, ortho: Path, model: Model, expected: SweepResult
) -> None:
    sweep([ortho], model, checkpoints=tmp_path)
    first, second, *_ = sorted(tmp_path.glob("*/*.npz"))
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    assert same(sweep([ortho], model, checkpoints=tmp_path)[0], expected)


def test_checkpoints_of_other_settings_are_not_used(tmp_path: Path, ortho: Path, model: Model) -> None:
    sweep([ortho], model, SweepOptions(threshold_override=1.1), checkpoints=tmp_path)
    (result,) = sweep([ortho], model, checkpoints=tmp_path)
    assert corners(result) == sorted(TREES)


def test_settings_are_told_apart_by_what_changes_results_only(model: Model) -> None:
    key = settings_key(model, SweepOptions())
    assert settings_key(model, SweepOptions(workers=7)) == key
    assert settings_key(model, SweepOptions(threshold_override=0.2)) != key
    assert settings_key(model, SweepOptions(grid_offset_px=(1, 0))) != key
    merged_otherwise = model.card.output.model_copy(update={"merge_iou": 0.31})
    other = replace(model, card=model.card.model_copy(update={"output": merged_otherwise}))
    assert settings_key(other, SweepOptions()) != key


def test_progress_ends_with_all_windows_and_all_ground(ortho: Path, model: Model) -> None:
    told: list[Progress] = []
    (result,) = sweep([ortho], model, progress=told.append)
    assert [step.windows_done for step in told] == sorted(step.windows_done for step in told)
    assert told[-1].windows_done == told[-1].windows_total == result.windows
    assert told[-1].area_m2 == pytest.approx(52 * 41, rel=1e-2)


# --- near infrared -----------------------------------------------------------------------------------------


def infrared_model(tmp_path: Path) -> Model:
    """The squares' network, which sees near infrared as red, red as green and green as blue."""
    model = make_model(tmp_path / "infrared")
    colours = model.card.input.model_copy(update={"colours": "infrared"})
    return replace(model, card=model.card.model_copy(update={"input": colours}))


def test_a_model_of_near_infrared_sees_that_in_place_of_red(tmp_path: Path) -> None:
    # Squares that are bright in near infrared alone: to the eye there is nothing, to this model they are red.
    shown = np.full((4, 300, 400), 18, np.uint8)
    shown[3] = 128
    for x, y in [(20, 30), (150, 110)]:
        shown[3, y : y + SQUARE_PX, x : x + SQUARE_PX] = 255
    scene = write_scene(tmp_path / "a.tif", shown, photometric="rgb")
    (result,) = sweep([scene], infrared_model(tmp_path))
    seen = result.observations
    assert [seen.classes[index] for index in seen.class_index] == ["car", "car"]
    (natural,) = sweep([scene], make_model(tmp_path / "natural"))
    assert len(natural.observations) == 0


def test_without_near_infrared_such_a_model_is_refused(tmp_path: Path) -> None:
    scene = make_scene_file(tmp_path / "a.tif")
    with pytest.raises(SceneUnusable, match="needs a band of near infrared"):
        sweep([scene], infrared_model(tmp_path))


def test_colours_belong_to_the_settings(tmp_path: Path, model: Model) -> None:
    assert settings_key(infrared_model(tmp_path), SweepOptions()) != settings_key(model, SweepOptions())
