"""Another model for a city: run in shadow, what the counts would be, and where the two differ most (R3).

Nothing of the inventory changes. The new model's surveys are stored, and are no evidence until somebody chooses it;
the counts under either choice are those of a transaction that makes the choice, folds, counts, and is undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from detection.errors import CallerError, UrbanInventoryError
from detection.evaluation.matching import match_one_to_one, overlapping
from detection.evaluation.sheet import BLUE, GREY, ORANGE, Mark, Panel, Shape, draw_sheet
from detection.imagery.crops import cut_out
from detection.models import Model, ModelRegistry
from detection.sweep import SweepOptions
from detection.taxonomy import Taxonomy
from inventory.counting import count_within
from inventory.domain.places import City
from inventory.domain.tally import CountRow
from inventory.ingest import Ingested, IngestOptions, rerun
from inventory.refolding import refold
from inventory.store import cities, surveys, twin_surveys
from inventory.store.database import Connection, Database, Patience
from inventory.store.states import Cause
from inventory.store.surveys import SceneRow
from inventory.store.twin_surveys import Seen, TwinSurveys

_SAME_IOU = 0.4
"""Boxes that overlap so much are one thing, as in ``evaluate``."""
_CROP_M = 30.0
"""Side of a crop: differences are gathered, and shown, in squares of so much ground."""
_MOST_CROPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CountUnder:
    """The count of a place and class under each model; None where nothing is surveyed."""

    area: str | None
    name: str | None
    class_name: str
    old: int | None
    new: int | None

    @property
    def change(self) -> int | None:
        """By how much the count changes with the model."""
        return None if self.old is None or self.new is None else self.new - self.old


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A square of ground on which the models differ; boxes (n, 4) in pixels of the scene, those of either or both."""

    twins: TwinSurveys
    lon_lat: tuple[float, float]
    centre_px: tuple[float, float]
    only_old_px: NDArray[np.float64]
    only_new_px: NDArray[np.float64]
    both_px: NDArray[np.float64]

    @property
    def weight(self) -> int:
        """How many things only one of them saw."""
        return len(self.only_old_px) + len(self.only_new_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """The outcome.

    Attributes:
        classes: that both models see and the city counts.
        counts: under either choice.
        shadow: what the runs of the new model on scenes it had not seen brought.
        left: scenes in force that it still has not seen: their earlier survey counts under either choice.
        scenes: how many scenes both have seen.
        differences: the largest first.
    """

    city: City
    old: str
    new: str
    classes: tuple[str, ...]
    as_of: date
    counts: tuple[CountUnder, ...]
    shadow: tuple[Ingested, ...]
    left: tuple[SceneRow, ...]
    scenes: int
    differences: tuple[Difference, ...]

    def as_json(self) -> dict[str, Any]:
        """The object of ``models compare --json``."""
        return {
            "city": self.city.code,
            "old": self.old,
            "new": self.new,
            "classes": list(self.classes),
            "as_of": self.as_of.isoformat(),
            "counts": [
                {
                    "area": row.area,
                    "name": row.name,
                    "class": row.class_name,
                    "old": row.old,
                    "new": row.new,
                    "change": row.change,
                }
                for row in self.counts
            ],
            "scenes": self.scenes,
            "scenes_without": [scene.public_id for scene in self.left],
            "shadow": [outcome.as_json() for outcome in self.shadow],
            "differences": [
                {
                    "scene": one.twins.scene,
                    "position": {
                        "type": "Point",
                        "coordinates": [round(degree, 7) for degree in one.lon_lat],
                    },
                    "only_old": len(one.only_old_px),
                    "only_new": len(one.only_new_px),
                    "both": len(one.both_px),
                }
                for one in self.differences
            ],
        }


def compare_models(
    database: Database,
    city_code: str,
    old: Model,
    new: Model,
    *,
    registry: ModelRegistry,
    taxonomy: Taxonomy,
    level: str | None = None,
    as_of: date | None = None,
    run: bool = True,
    options: SweepOptions | None = None,
    author: str = "local",
    checkpoints: Path | None = None,
) -> ModelComparison:
    """Runs the new model in shadow on scenes it has not seen, then compares the counts under either choice.

    Args:
        level: also count its areas and what is outside of them; None: those of the top level, where there are any.
        as_of: a local date of the city, meaning its end; None: today there.
        run: False: compare what is stored already.

    Raises:
        UnknownName: no such city or level.
        CallerError: one model twice, or two that see no class in common that the city counts.
    """
    if old.card.name == new.card.name:
        raise CallerError(f"{old.card.name} cannot be compared with itself", do="Name two models.")
    with database.transaction(read_only=True) as connection:
        city = cities.get_city(connection, city_code)
        classes = _classes(connection, city, old, new)
        unseen = _unseen(connection, city, new)
    shadow: list[Ingested] = []
    if run and unseen:
        sweeping = options or SweepOptions()
        ingest_options = IngestOptions(model=new.card.name, author=author, sweep=sweeping)
        shadow = rerun(
            database,
            city_code,
            unseen,
            registry=registry,
            taxonomy=taxonomy,
            options=ingest_options,
            checkpoints=checkpoints,
        )
    day = as_of or datetime.now(ZoneInfo(city.time_zone)).date()
    under = [_counts_under(database, city, model, classes, taxonomy, level, day) for model in (old, new)]
    with database.transaction(Patience.EXPORT, read_only=True) as connection:
        left = _unseen(connection, city, new)
        twins = twin_surveys.twin_surveys(connection, city, old.card.name, new.card.name)
        differences = _largest(_differences(connection, city, twins, classes))
    return ModelComparison(
        city=city,
        old=old.card.name,
        new=new.card.name,
        classes=tuple(classes),
        as_of=day,
        counts=_side_by_side(*under),
        shadow=tuple(shadow),
        left=tuple(left),
        scenes=len(twins),
        differences=tuple(differences),
    )


def _classes(connection: Connection, city: City, old: Model, new: Model) -> list[str]:
    counted = cities.classes_of(connection, city.id)
    common = [name for name in counted if name in old.card.output.classes and name in new.card.output.classes]
    if not common:
        seen = "; ".join(
            f"{model.card.name} sees {', '.join(model.card.output.classes)}" for model in (old, new)
        )
        raise CallerError(
            f"the two models see no class in common that {city.code} counts ({', '.join(counted)})",
            do=seen + ".",
        )
    return common


def _unseen(connection: Connection, city: City, model: Model) -> list[SceneRow]:
    """Scenes in force that a model could see and has not seen."""
    return [
        scene
        for scene in surveys.scenes_without(connection, city, model.card.name)
        if model.card.sees(scene.scene_kind, scene.ground_resolution_m)
    ]


# --- counts ------------------------------------------------------------------------------------------------


def _counts_under(
    database: Database,
    city: City,
    model: Model,
    classes: Sequence[str],
    taxonomy: Taxonomy,
    level: str | None,
    day: date,
) -> list[CountRow]:
    """What would be counted, had the city chosen the model: chosen, folded, counted, undone."""
    with database.rehearsal() as connection:
        cities.lock_city(connection, city.id)
        for name in classes:
            surveys.choose_model(connection, city, name, model.card.name)
        refold(connection, city, taxonomy, classes, Cause(what="model compared", subject=model.card.name))
        levels = [version.level for version in cities.areas_as_of(connection, city, day)]
        shown = level or next(iter(levels), None)
        rows = count_within(connection, city, classes=classes, as_of=day)
        if shown is not None:
            rows += count_within(connection, city, classes=classes, level=shown, as_of=day)
    return rows


def _side_by_side(old: Sequence[CountRow], new: Sequence[CountRow]) -> tuple[CountUnder, ...]:
    return tuple(
        CountUnder(area=a.area, name=a.name, class_name=a.class_name, old=a.count, new=b.count)
        for a, b in zip(old, new, strict=True)
    )


# --- where they differ -------------------------------------------------------------------------------------


def _differences(
    connection: Connection, city: City, twins: Sequence[TwinSurveys], classes: Sequence[str]
) -> list[Difference]:
    found: list[Difference] = []
    for scene in twins:
        old = twin_surveys.seen_in(connection, city, scene.old_survey, classes)
        new = twin_surveys.seen_in(connection, city, scene.new_survey, classes)
        found += _of_scene(scene, [(old[name], new[name]) for name in classes])
    return found


def _of_scene(scene: TwinSurveys, by_class: Sequence[tuple[Seen, Seen]]) -> list[Difference]:
    """Squares of ground with anything that only one model saw."""
    alone: list[tuple[Seen, NDArray[np.bool_]]] = []
    both: list[NDArray[np.float64]] = []
    sides: list[bool] = []
    for old, new in by_class:
        pairs = overlapping(old.box_px, new.box_px).at_least(_SAME_IOU)
        of_old, of_new = match_one_to_one(pairs)
        for seen, matched, by_old in ((old, of_old, True), (new, of_new, False)):
            single = np.ones(len(seen.box_px), bool)
            single[matched] = False
            alone.append((seen, single))
            sides.append(by_old)
        both.append(new.box_px[of_new])
    boxes = np.concatenate([seen.box_px[single] for seen, single in alone])
    if not len(boxes):
        return []
    is_old = np.concatenate(
        [np.full(int(single.sum()), side) for (_, single), side in zip(alone, sides, strict=True)]
    )
    places = np.concatenate([seen.lon_lat[single] for seen, single in alone])
    xy = np.concatenate([seen.xy[single] for seen, single in alone])
    shared = np.concatenate(both)
    cells, cell_of = np.unique(np.floor(xy / _CROP_M).astype(np.int64), axis=0, return_inverse=True)
    return [
        _difference(scene, boxes, is_old, places, shared, np.flatnonzero(cell_of.ravel() == cell))
        for cell in range(len(cells))
    ]


def _difference(
    scene: TwinSurveys,
    boxes: NDArray[np.float64],
    is_old: NDArray[np.bool_],
    places: NDArray[np.float64],
    shared: NDArray[np.float64],
    rows: NDArray[np.int64],
) -> Difference:
    """The square around the middle of some boxes, with all boxes whose centres lie in it."""
    column, row = _centres(boxes[rows]).mean(axis=0).tolist()
    reach = _CROP_M / scene.ground_resolution_m / 2

    def inside(candidates: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray((np.abs(_centres(candidates) - (column, row)) <= reach).all(axis=1))

    shown = inside(boxes)
    lon, lat = places[rows].mean(axis=0).tolist()
    return Difference(
        twins=scene,
        lon_lat=(lon, lat),
        centre_px=(column, row),
        only_old_px=boxes[shown & is_old],
        only_new_px=boxes[shown & ~is_old],
        both_px=shared[inside(shared)],
    )


def _centres(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2)


def _largest(found: Sequence[Difference]) -> list[Difference]:
    """The largest differences, each piece of ground once: its newest scene speaks for it."""
    chosen: list[Difference] = []
    least_deg = _CROP_M / 111_000
    for one in sorted(found, key=lambda one: (-one.weight, -one.twins.taken_at.timestamp(), one.lon_lat)):
        if len(chosen) == _MOST_CROPS:
            break
        shrink = np.cos(np.radians(one.lon_lat[1]))
        if all(
            np.hypot((one.lon_lat[0] - other.lon_lat[0]) * shrink, one.lon_lat[1] - other.lon_lat[1])
            >= least_deg
            for other in chosen
        ):
            chosen.append(one)
    return chosen


# --- the picture -------------------------------------------------------------------------------------------


def draw_comparison(comparison: ModelComparison, out: Path) -> int:
    """Writes the crops on which the models differ most; returns how many.

    Raises:
        CallerError: they differ nowhere, or the file cannot be written.
    """
    old, new = comparison.old, comparison.new
    if not comparison.differences:
        raise CallerError(
            f"{old} and {new} saw the same on all {comparison.scenes:,} scenes that both have seen",
            do="There is nothing to draw.",
        )
    named = dict.fromkeys(
        f"{one.twins.attribution} ({one.twins.source})"
        for one in comparison.differences
        if one.twins.attribution
    )
    try:
        draw_sheet(
            [_panel(comparison, one) for one in comparison.differences],
            out,
            title=f"{comparison.city.code}: where {old} and {new} differ most",
            subtitle="; ".join(_counted(row) for row in comparison.counts[: len(comparison.classes)]),
            legend=[
                (BLUE, Shape.BOX, f"only {old}"),
                (ORANGE, Shape.BOX, f"only {new}"),
                (GREY, Shape.BOX, "both"),
            ],
            footer=[f"Imagery: {'; '.join(named)}"] if named else [],
        )
    except (OSError, ValueError) as error:
        raise CallerError(f"cannot be written: {error}", where=str(out), do="Name a .png file.") from error
    return len(comparison.differences)


def _counted(row: CountUnder) -> str:
    if row.old is None or row.new is None or row.change is None:
        return f"{row.class_name}: not surveyed"
    return f"{row.class_name}: {row.old:,} under the old model, {row.new:,} under the new ({row.change:+,})"


def _panel(comparison: ModelComparison, one: Difference) -> Panel:
    twins = one.twins
    rgb, marks, missing = None, [], ""
    try:
        if twins.path is None or not Path(twins.path).is_file():
            raise CallerError(f"the file of scene {twins.scene} is gone: urban-inventory scene locate")
        crop = cut_out(
            Path(twins.path),
            one.centre_px,
            side_m=_CROP_M,
            ground_resolution_m=twins.ground_resolution_m,
            size_px=twins.size_px,
        )
        rgb = crop.rgb
        marks = [
            Mark(box_px=crop.within(tuple(box)), colour=colour)
            for boxes, colour in ((one.both_px, GREY), (one.only_old_px, BLUE), (one.only_new_px, ORANGE))
            for box in boxes.tolist()
        ]
    except UrbanInventoryError as error:
        missing = error.what
    day = twins.taken_at.astimezone(ZoneInfo(comparison.city.time_zone)).date().isoformat()
    return Panel(
        rgb=rgb,
        marks=marks,
        heading=day,
        verdict=f"+{len(one.only_new_px)}  -{len(one.only_old_px)}",
        colour=BLUE if len(one.only_old_px) > len(one.only_new_px) else ORANGE,
        lines=(f"scene {twins.scene}, {twins.source}", f"{one.lon_lat[0]:.6f}, {one.lon_lat[1]:.6f}"),
        missing=missing,
        ground_resolution_m=None if rgb is None else twins.ground_resolution_m,
    )
