"""The threshold: chosen on validation data so that a look's number of hits is an unbiased count (R8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detection.errors import LabelsUnusable
from detection.evaluation.evaluate import Found, Look, cut_into_blocks
from detection.evaluation.labels import LabelledPicture
from detection.evaluation.matching import overlapping
from detection.evaluation.measures import Ground, count_calibrated_threshold, match_ground
from detection.imagery.scene import scene_from_pixels
from detection.training.appearance import AppearanceRange, vary_appearance
from detection.training.recipe import Recipe, Source
from detection.training.windows import load_picture, read_source

#: Another day's light, not another camera: how a second look at the same ground differs.
SECOND_LOOK = AppearanceRange(
    gamma=1.25,
    brightness=1.15,
    contrast=1.15,
    saturation=1.2,
    channel_gain=1.05,
    hue_degrees=5,
    grey=0,
    equalised=0,
    softened=0.3,
    blur_px=0.7,
    sharpened=0.3,
    sharpen=0.6,
    noise=3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationGround:
    """A validation picture (or the part of a scene that validates) and what was found on it.

    Attributes:
        ground: down to a low score.
        second: the same ground in another light, where it was looked at twice.
    """

    source: str
    calibrates: bool
    is_home: bool
    ground: Ground
    second: Ground | None
    pixels: NDArray[np.uint8]


def look_at_validation(
    recipe: Recipe, data_folder: Path, look: Look, *, twice: bool = False
) -> list[ValidationGround]:
    """Runs the model over all pictures whose role is to validate.

    Args:
        twice: once more in another light, for ``persistent_share``.

    Raises:
        LabelsUnusable: the recipe has none, or they cannot be read.
    """
    random = np.random.default_rng(recipe.schedule.seed)
    result = [
        _look_at(recipe, source, picture, look, random if twice else None)
        for source in recipe.of_role("validate")
        for picture in read_source(source, data_folder, recipe.classes)
    ]
    if not any(item.calibrates for item in result):
        raise LabelsUnusable(
            "the recipe has nothing to choose the threshold on",
            do="Give a source the role “validate”.",
        )
    return result


def calibrated_thresholds(
    recipe: Recipe, validation: Sequence[ValidationGround], aim: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """(classes,) thresholds at which the calibrating sources' counts come out right on average.

    Args:
        aim: (classes,) detections wanted for an object, 1 by default.
    """
    grounds = list(_domains(validation).values())
    aims = np.ones(len(recipe.classes)) if aim is None else aim
    return np.array(
        [
            count_calibrated_threshold(grounds, index, aim=float(aims[index]))
            for index in range(len(recipe.classes))
        ]
    )


def counted_share(recipe: Recipe, validation: Sequence[ValidationGround]) -> NDArray[np.float64]:
    """(classes,) detections for an object, averaged over the calibrating sources; 1 where none is."""
    shares = []
    for index in range(len(recipe.classes)):
        ratios = []
        for grounds in _domains(validation).values():
            true = sum(int((ground.truth_class == index).sum()) for ground in grounds)
            found = sum(int((ground.detected_class == index).sum()) for ground in grounds)
            ratios += [found / true] if true else []
        shares.append(float(np.mean(ratios)) if ratios else 1.0)
    return np.array(shares)


def _domains(validation: Sequence[ValidationGround]) -> dict[str, list[Ground]]:
    """Grounds of the calibrating sources, by source."""
    domains: dict[str, list[Ground]] = {}
    for item in validation:
        if item.calibrates:
            domains.setdefault(item.source, []).append(item.ground)
    return domains


def blocks_of_several_sizes(validation: Sequence[ValidationGround]) -> list[Ground]:
    """Pieces small and large, for the errors of counts (R13): city blocks, and twice their side.

    A bias shows in the large ones, scatter in the small.
    """
    grounds = [item.ground for item in validation]
    small = [block for ground in grounds for block in cut_into_blocks(ground)]
    large = [block for ground in grounds for block in cut_into_blocks(ground, 102.4)]
    return small + large


def persistent_share(validation: Sequence[ValidationGround], thresholds: NDArray[np.float64]) -> float | None:
    """Share of misses and false alarms that come back when the same ground is seen in another light.

    Stands in for a second flight, which no data at hand has; a true second flight differs more, so
    this is an upper bound.
    """
    errors = repeated = 0
    for item in validation:
        if item.second is None:
            continue
        first = match_ground(item.ground, thresholds)
        second = match_ground(item.second, thresholds)
        missed = np.setdiff1d(np.arange(len(first.ground.truth_px)), first.truth)
        missed_again = np.setdiff1d(np.arange(len(second.ground.truth_px)), second.truth)
        false_first = np.delete(first.ground.detected_px, first.detection, axis=0)
        false_second = np.delete(second.ground.detected_px, second.detection, axis=0)
        again = overlapping(false_first, false_second).at_least(0.4)
        errors += len(missed) + len(false_first)
        repeated += len(np.intersect1d(missed, missed_again)) + len(np.unique(again.detection))
    return repeated / errors if errors else None


def _look_at(
    recipe: Recipe,
    source: Source,
    picture: LabelledPicture,
    look: Look,
    random: np.random.Generator | None,
) -> ValidationGround:
    image = load_picture(picture.path, recipe.colours)
    frame = _frame(source, image.size)
    crop = image.crop(frame)
    pixels = np.asarray(crop)
    corner = np.array([*frame[:2], *frame[:2]], dtype=np.float64)
    boxes = picture.boxes_px - corner
    regions = np.array(source.regions or [frame], dtype=np.float64)
    regions -= corner
    here = _in_regions(boxes, regions)
    limits = np.array([*crop.size, *crop.size], dtype=np.float64)
    area_m2 = float(((regions[:, 2] - regions[:, 0]) * (regions[:, 3] - regions[:, 1])).sum())

    def ground(array: NDArray[np.uint8]) -> Ground:
        scene = scene_from_pixels(array, source.ground_resolution_m, name=picture.path.name)
        found = _kept(look(scene), regions)
        return Ground(
            name=f"{source.name}/{picture.path.name}",
            truth_px=np.clip(boxes[here], 0, limits),
            truth_class=picture.class_index[here],
            detected_px=found.boxes_px,
            detected_class=found.class_index,
            scores=found.scores,
            ground_resolution_m=source.ground_resolution_m,
            area_km2=area_m2 * source.ground_resolution_m**2 / 1e6,
        )

    second = None
    if random is not None:
        second = ground(np.asarray(vary_appearance(crop, random, SECOND_LOOK)))
    return ValidationGround(
        source=source.name,
        calibrates=source.calibrates,
        is_home=source.is_home,
        ground=ground(pixels),
        second=second,
        pixels=pixels,
    )


def _frame(source: Source, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest rectangle around the source's regions: the rest need not be looked at."""
    if not source.regions:
        return (0, 0, *size)
    table = np.array(source.regions)
    left, top = table[:, :2].min(axis=0).tolist()
    right, bottom = table[:, 2:].max(axis=0).tolist()
    return (left, top, right, bottom)


def _in_regions(boxes: NDArray[np.float64], regions: NDArray[np.float64]) -> NDArray[np.bool_]:
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    inside = (centre >= regions[None, :, :2]) & (centre < regions[None, :, 2:])
    found: NDArray[np.bool_] = np.all(inside, axis=2).any(axis=1)
    return found


def _kept(found: Found, regions: NDArray[np.float64]) -> Found:
    here = _in_regions(found.boxes_px, regions)
    return Found(
        boxes_px=found.boxes_px[here],
        class_index=found.class_index[here],
        scores=found.scores[here],
    )
