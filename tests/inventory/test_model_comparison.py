"""Another model in shadow: what the counts would be, and that looking changes nothing (R3)."""

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from detection.errors import CallerError, UnknownName
from inventory import evidence_changes
from inventory.ingest import Status
from inventory.model_comparison import ModelComparison, compare_models, draw_comparison
from inventory.store.database import Database
from tests.support.scenes import draw_ground, draw_squares, write_scene
from tests.support.town import CODE, GRID, PIXEL_M, SIDE_PX, Town, make_town

CLEAR, FAINT = GRID[:40], GRID[40:46]
FAINT_GREEN = (0, 215, 0)  # scores 0.84: above the threshold of “cubes”, below that of “squares”
BLUE, ORANGE = (64, 160, 255), (255, 176, 0)


@pytest.fixture
def town(database: Database, tmp_path: Path) -> Town:
    """Two yearly looks by “squares”, which does not see faint trees."""
    town = make_town(database, tmp_path)
    for year in (2023, 2024):
        town.ingest(faintly(town, f"y{year}"), f"{year}-05-01", attribution="Town Fliers")
    return town


def faintly(town: Town, name: str) -> Path:
    pixels = draw_squares(draw_ground(SIDE_PX, SIDE_PX, seed=crc32(name.encode())), CLEAR)
    pixels = draw_squares(pixels, FAINT, colour=FAINT_GREEN)
    return write_scene(town.folder / f"{name}.tif", pixels, pixel_m=PIXEL_M)


def compare(town: Town, old: str = "squares", new: str = "cubes", **asked: Any) -> ModelComparison:
    return compare_models(
        town.database,
        CODE,
        town.registry.get(old),
        town.registry.get(new),
        registry=town.registry,
        taxonomy=town.taxonomy,
        **asked,
    )


def everything(town: Town) -> list[tuple[object, ...]]:
    """All rows that a choice of model touches, exactly as they are stored."""
    tables = (
        "asset_state",
        "asset",
        "asset_hit",
        "membership",
        "area_count_delta",
        "coverage",
        "model_choice",
    )
    rows: list[tuple[object, ...]] = []
    with town.database.transaction() as connection:
        for table in tables:
            found = connection.execute(text(f"SELECT to_jsonb(t)::text FROM urban_inventory.{table} t"))
            rows += sorted((table, *row) for row in found)
        forced = connection.execute(
            text("SELECT survey_id, class, in_force FROM urban_inventory.survey_class WHERE in_force")
        )
        return rows + sorted(map(tuple, forced))


def test_r3_the_new_model_runs_in_shadow_and_nothing_is_changed(town: Town) -> None:
    before = everything(town)
    comparison = compare(town)
    assert everything(town) == before
    assert [outcome.status for outcome in comparison.shadow] == [Status.NOT_IN_FORCE] * 2
    assert (comparison.scenes, comparison.left) == (2, ())
    rows = {row.area: (row.old, row.new, row.change) for row in comparison.counts}
    assert rows[CODE] == (40, 46, 6)
    assert rows["outside"] == (None, None, None)
    assert sum(row[2] or 0 for area, row in rows.items() if area in ("W", "E")) == 6
    assert compare(town).shadow == ()


def test_r3_what_is_compared_is_what_is_counted_once_chosen_and_back_again(town: Town) -> None:
    before = everything(town)
    comparison = compare(town)
    for chosen, at in (("cubes", "new"), ("squares", "old")):
        evidence_changes.choose_model(town.database, CODE, town.registry.get(chosen), taxonomy=town.taxonomy)
        counted = {row.area: row.count for row in [*town.counts(), *town.counts(level="district")]}
        assert counted == {row.area: getattr(row, at) for row in comparison.counts}
    after = everything(town)

    def assets(rows: list[tuple[object, ...]]) -> int:
        return sum(row[0] == "asset_state" for row in rows)

    assert assets(after) == assets(before)


def test_without_running_only_what_is_stored_is_compared(town: Town) -> None:
    comparison = compare(town, run=False)
    assert (comparison.scenes, len(comparison.left), comparison.shadow) == (0, 2, ())
    assert all(row.change in (0, None) for row in comparison.counts)
    assert comparison.differences == ()
    with pytest.raises(CallerError, match="nothing to draw"):
        draw_comparison(comparison, town.folder / "none.png")


def test_the_largest_differences_are_shown_with_the_boxes_of_both(town: Town) -> None:
    comparison = compare(town)
    assert comparison.differences
    weights = [one.weight for one in comparison.differences]
    assert weights == sorted(weights, reverse=True)
    largest = comparison.differences[0]
    assert len(largest.only_old_px) == 0
    assert len(largest.only_new_px) >= 2
    assert len(largest.both_px) >= 1
    out = town.folder / "differences.png"
    assert draw_comparison(comparison, out) == len(comparison.differences)
    with Image.open(out) as image:
        colours = set(map(tuple, np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).tolist()))
    assert {ORANGE, (0, 255, 0)} <= colours


def test_a_scene_whose_file_is_gone_is_named_in_the_picture(town: Town) -> None:
    compare(town)
    for year in (2023, 2024):
        (town.folder / f"y{year}.tif").unlink()
    comparison = compare(town)
    assert draw_comparison(comparison, town.folder / "differences.png") == len(comparison.differences)


def test_a_scene_that_cannot_be_run_is_refused_and_left(town: Town) -> None:
    (town.folder / "y2023.tif").unlink()
    comparison = compare(town)
    refused = [outcome for outcome in comparison.shadow if outcome.status is Status.REFUSED]
    assert len(refused) == 1
    assert len(comparison.left) == 1


def test_models_that_cannot_be_compared_are_refused(town: Town) -> None:
    with pytest.raises(CallerError, match="with itself"):
        compare(town, "squares", "squares")
    with pytest.raises(UnknownName, match="no level"):
        compare(town, level="street")
