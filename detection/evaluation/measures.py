"""What a model is worth on labelled ground: average precision, precision, recall, count errors.

Pure: takes grounds (what is there, what was found) and gives figures. Running the model is
``evaluate``'s; deciding who is whom is ``matching``'s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from detection.evaluation.labels import Boxes
from detection.evaluation.matching import (
    Pairs,
    match_by_score,
    match_one_to_one,
    overlapping,
    within_reach,
)

#: Crowns drawn by two people rarely agree better than this; the project's figures use it throughout.
MATCH_IOU = 0.4
AP_IOU = 0.5
#: Points have no size: one within this distance is meant (as for the NAIP trees).
POINT_REACH_M = 6.0
#: In place of a class's index, where all classes are taken for one.
ANY_CLASS = -1
#: Where validation shows no object of a class: ultralytics' own default.
NO_EVIDENCE_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A piece of labelled ground and what a model found on it; one image, scene or block.

    Attributes:
        truth_px, detected_px: (n, 4) and (m, 4) float64, x_min, y_min, x_max, y_max, pixels, y down.
        truth_class, detected_class: (n,) and (m,) indices into the model's classes.
        scores: (m,) 0..1; all detections down to a low score, for average precision.
        class_agnostic: all classes are one; each detection still has its own class's threshold.
        points: whether the truth is points; a detection within ``point_reach_m`` of one may be it.
    """

    name: str
    truth_px: Boxes
    truth_class: NDArray[np.int16]
    detected_px: Boxes
    detected_class: NDArray[np.int16]
    scores: NDArray[np.float32]
    ground_resolution_m: float
    area_km2: float
    points: bool = False
    point_reach_m: float = POINT_REACH_M
    class_agnostic: bool = False

    def members(self, class_index: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which detections and which objects are of a class; ``ANY_CLASS``: all."""
        if class_index == ANY_CLASS:
            return np.ones(len(self.detected_class), bool), np.ones(len(self.truth_class), bool)
        return self.detected_class == class_index, self.truth_class == class_index

    def candidates(self, class_index: int) -> tuple[Pairs, NDArray[np.float32], int]:
        """Pairs of one class, renumbered within it, with its scores and its number of objects."""
        detected, true = self.members(class_index)
        truth = self.truth_px[true]
        boxes = self.detected_px[detected]
        pairs = (
            within_reach(boxes, truth, self.point_reach_m / self.ground_resolution_m)
            if self.points
            else overlapping(boxes, truth)
        )
        return pairs, self.scores[detected], len(truth)

    def at(self, thresholds: NDArray[np.float64]) -> "Ground":
        """The same with only the detections at or above their class's threshold."""
        kept = self.scores >= thresholds[self.detected_class]
        return replace(
            self,
            detected_px=self.detected_px[kept],
            detected_class=self.detected_class[kept],
            scores=self.scores[kept],
        )

    def classes(self) -> list[int]:
        """The classes to match within: those of the truth, or one for all."""
        if self.class_agnostic:
            return [ANY_CLASS] if len(self.truth_class) else []
        return [int(index) for index in np.unique(self.truth_class)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A ground at the threshold, matched one-to-one at ``MATCH_IOU`` within classes."""

    ground: Ground
    detection: NDArray[np.int64]
    truth: NDArray[np.int64]

    @property
    def hits(self) -> int:
        """Objects that were found."""
        return len(self.detection)

    @property
    def false_alarms(self) -> int:
        """Detections that are no object."""
        return len(self.ground.scores) - self.hits

    @property
    def misses(self) -> int:
        """Objects that were not found."""
        return len(self.ground.truth_px) - self.hits


def match_ground(ground: Ground, thresholds: NDArray[np.float64]) -> Matched:
    """One-to-one matches of a ground at the classes' thresholds."""
    kept = ground.at(thresholds)
    minimum = 0.0 if ground.points else MATCH_IOU
    found, objects = [], []
    for class_index in kept.classes():
        pairs, _, _ = kept.candidates(class_index)
        detection, truth = match_one_to_one(pairs.at_least(minimum))
        detected, true = kept.members(class_index)
        found.append(np.flatnonzero(detected)[detection])
        objects.append(np.flatnonzero(true)[truth])
    empty = np.empty(0, dtype=np.int64)
    return Matched(
        ground=kept,
        detection=np.concatenate(found or [empty]),
        truth=np.concatenate(objects or [empty]),
    )


def average_precision(grounds: Sequence[Ground]) -> float:
    """AP at IoU 0.5, averaged over the classes that occur in the truth; nan without any object.

    The area under the precision–recall curve with precision made monotone, every point used (not
    COCO's 101 samples; the two differ by less than 0.01 beyond a hundred objects). Detections are
    ranked over all grounds together.
    """
    classes = sorted({index for ground in grounds for index in ground.classes()})
    return float(np.mean([_class_ap(grounds, index) for index in classes])) if classes else float("nan")


def _class_ap(grounds: Sequence[Ground], class_index: int) -> float:
    scores, hits, objects = [], [], 0
    for ground in grounds:
        pairs, ground_scores, count = ground.candidates(class_index)
        taken = match_by_score(pairs.at_least(0.0 if ground.points else AP_IOU), ground_scores)
        scores.append(ground_scores)
        hits.append(taken >= 0)
        objects += count
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hit = np.concatenate(hits)[order]
    recall = np.cumsum(hit) / objects
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float(np.sum(steps * envelope))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What ``evaluate`` reports; the first eight fields are its contract.

    Attributes:
        count_error: (predicted − true) / true; None where nothing is there.
        per_image_mae: mean of |predicted − true| over the images.
        count_error_interval: 90 % bootstrap over images (over blocks, for one scene).
        position_error_m: standard error of a matched centre along one axis, metres.
        recall_by_size: (upper bound of size in m, objects, recall); None: no upper bound.
        score_calibration: (mean score, detections, share that are objects) in bands of score.
    """

    ap50: float
    precision: float
    recall: float
    threshold: float
    count_true: int
    count_predicted: int
    count_error: float | None
    per_image_mae: float
    images: int
    area_km2: float
    false_alarms_per_km2: float | None
    position_error_m: float | None
    count_error_interval: tuple[float, float] | None
    ap50_interval: tuple[float, float] | None
    recall_by_size: tuple[tuple[float | None, int, float], ...] = ()
    error_by_density: tuple[tuple[float, int, float], ...] = ()
    score_calibration: tuple[tuple[float, int, float], ...] = ()
    blocks: tuple["BlockFigures", ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFigures:
    """One image's or block's count."""

    name: str
    count_true: int
    count_predicted: int


def measure(
    images: Sequence[Ground],
    thresholds: NDArray[np.float64],
    *,
    blocks: Sequence[Ground] | None = None,
    seed: int = 0,
) -> Figures:
    """All figures of a set of images at the classes' thresholds.

    Args:
        images: the grounds as they are counted.
        blocks: the same ground cut into pieces, where one scene is the only image: for intervals.
    """
    matched = [match_ground(image, thresholds) for image in images]
    hits = sum(match.hits for match in matched)
    true = sum(len(match.ground.truth_px) for match in matched)
    predicted = sum(len(match.ground.scores) for match in matched)
    area = sum(image.area_km2 for image in images)
    parts = list(images if blocks is None else blocks)
    counted = _counts(parts, thresholds)
    density = np.array([part.area_km2 for part in parts])
    return Figures(
        ap50=average_precision(images),
        precision=hits / predicted if predicted else 0.0,
        recall=hits / true if true else 0.0,
        threshold=float(thresholds[0]),
        count_true=true,
        count_predicted=predicted,
        count_error=(predicted - true) / true if true else None,
        per_image_mae=float(np.mean([abs(len(m.ground.scores) - len(m.ground.truth_px)) for m in matched])),
        images=len(images),
        area_km2=area,
        false_alarms_per_km2=(predicted - hits) / area if area > 0 else None,
        position_error_m=position_error_m(matched),
        count_error_interval=_bootstrap_count_error(counted, seed),
        ap50_interval=_bootstrap_ap(parts, seed),
        recall_by_size=_recall_by_size(matched),
        error_by_density=_error_by_density(counted, density),
        score_calibration=_score_calibration(images),
        blocks=tuple(
            BlockFigures(name=part.name, count_true=int(t), count_predicted=int(p))
            for part, (t, p) in zip(parts, counted, strict=True)
        ),
    )


def _counts(parts: Sequence[Ground], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, 2): true and predicted of each part."""
    rows = [(len(part.truth_px), len(part.at(thresholds).scores)) for part in parts]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def position_error_m(matched: Sequence[Matched]) -> float | None:
    """Standard error of matched centres along one axis, metres; None without a match."""
    squares = []
    for match in matched:
        ground = match.ground
        found = ground.detected_px[match.detection]
        there = ground.truth_px[match.truth]
        offset = (found[:, :2] + found[:, 2:] - there[:, :2] - there[:, 2:]) / 2
        squares.append((offset * ground.ground_resolution_m).ravel() ** 2)
    values = np.concatenate(squares) if squares else np.empty(0)
    return float(np.sqrt(values.mean())) if len(values) else None


def _bootstrap_count_error(counted: NDArray[np.int64], seed: int) -> tuple[float, float] | None:
    """5 % and 95 % of the count error when the parts are drawn anew, 2,000 times."""
    if len(counted) < 5 or not counted[:, 0].sum():
        return None
    draw = np.random.default_rng(seed).integers(len(counted), size=(2000, len(counted)))
    sums = counted[draw].sum(axis=1)
    errors = sums[:, 1] / np.maximum(sums[:, 0], 1) - 1
    low, high = np.percentile(errors, [5, 95])
    return float(low), float(high)


def _bootstrap_ap(parts: Sequence[Ground], seed: int) -> tuple[float, float] | None:
    if len(parts) < 5:
        return None
    random = np.random.default_rng(seed)
    values = [
        average_precision([parts[i] for i in random.integers(len(parts), size=len(parts))])
        for _ in range(100)
    ]
    low, high = np.nanpercentile(values, [5, 95])
    return float(low), float(high)


def _recall_by_size(
    matched: Sequence[Matched], bounds_m: Sequence[float] = (2.0, 3.0, 4.5, 7.0, 10.0)
) -> tuple[tuple[float | None, int, float], ...]:
    sizes, found = [], []
    for match in matched:
        boxes = match.ground.truth_px
        if match.ground.points:
            continue
        sizes.append(
            np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
            * match.ground.ground_resolution_m
        )
        found.append(np.isin(np.arange(len(boxes)), match.truth))
    if not sizes:
        return ()
    size, hit = np.concatenate(sizes), np.concatenate(found)
    band = np.digitize(size, bounds_m)
    uppers: list[float | None] = [*bounds_m, None]
    return tuple(
        (upper, int((band == index).sum()), float(hit[band == index].mean()))
        for index, upper in enumerate(uppers)
        if (band == index).any()
    )


def _error_by_density(
    counted: NDArray[np.int64], area_km2: NDArray[np.float64]
) -> tuple[tuple[float, int, float], ...]:
    """Count error in thirds of density: (objects per km², parts, count error)."""
    if len(counted) < 6 or not (area_km2 > 0).all():
        return ()
    order = np.argsort(counted[:, 0] / area_km2, kind="stable")
    rows = []
    for third in np.array_split(order, 3):
        true, predicted = counted[third].sum(axis=0)
        if true:
            rows.append((float(true / area_km2[third].sum()), len(third), float(predicted / true - 1)))
    return tuple(rows)


def _score_calibration(
    images: Sequence[Ground], bounds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
) -> tuple[tuple[float, int, float], ...]:
    """How often a detection of a score is an object, at the matching of average precision."""
    scores, hits = [], []
    for image in images:
        detected = [ANY_CLASS] if image.class_agnostic else np.unique(image.detected_class).tolist()
        for class_index in detected:
            pairs, found, _ = image.candidates(class_index)
            scores.append(found)
            hits.append(match_by_score(pairs.at_least(0.0 if image.points else MATCH_IOU), found) >= 0)
    if not scores:
        return ()
    score, hit = np.concatenate(scores), np.concatenate(hits)
    band = np.digitize(score, bounds)
    return tuple(
        (float(score[band == k].mean()), int((band == k).sum()), float(hit[band == k].mean()))
        for k in range(1, len(bounds) + 1)
        if (band == k).any()
    )


def count_calibrated_threshold(
    domains: Sequence[Sequence[Ground]], class_index: int, *, aim: float = 1.0
) -> float:
    """The score at which as many objects of a class are found as are there.

    The look's number of hits is then an unbiased count (R8): misses and false alarms balance. With
    several domains their relative errors average to zero: how many crowns of a kind of ground happen
    to be labelled says nothing about how much of it will be counted. Lies halfway between two scores,
    so that rounding cannot move the count.

    Args:
        domains: validation grounds, grouped by kind of ground; those without an object are left out.
        aim: how many detections for an object; above 1 where production loses some of them.
    """
    scores, weights = [], []
    for grounds in domains:
        true = sum(int((ground.truth_class == class_index).sum()) for ground in grounds)
        for ground in grounds if true else ():
            found = ground.scores[ground.detected_class == class_index].astype(np.float64)
            scores.append(found)
            weights.append(np.full(len(found), 1 / true))
    wanted = aim * sum(_has_objects(grounds, class_index) for grounds in domains)
    score = np.concatenate(scores or [np.empty(0)])
    if not len(score):
        return NO_EVIDENCE_THRESHOLD
    order = np.argsort(-score, kind="stable")
    reached = np.cumsum(np.concatenate(weights)[order])
    score = score[order]
    kept = int(np.searchsorted(reached, wanted - 1e-9)) + 1
    return float(score[-1] if kept >= len(score) else (score[kept - 1] + score[kept]) / 2)


def _has_objects(grounds: Sequence[Ground], class_index: int) -> bool:
    return any((ground.truth_class == class_index).any() for ground in grounds)


def error_model(counted: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """e and φ of R13 from counts of blocks: squared error ≈ (e·n)² + φ·n.

    Non-negative least squares on squared error / n against 1 and n: weights that make small and large
    blocks speak alike. Blocks of several sizes must be given for the two to be told apart.

    Args:
        counted: (true, predicted) of each block; empty blocks count as one object.

    Returns:
        Relative error e and dispersion φ.
    """
    table = np.array(counted, dtype=np.float64).reshape(-1, 2)
    size = np.maximum(table[:, 0], 1.0)
    squared = (table[:, 1] - table[:, 0]) ** 2 / size
    (dispersion, relative_squared), _ = nnls(np.stack([np.ones_like(size), size], axis=1), squared)
    return float(np.sqrt(relative_squared)), float(dispersion)


def error_between_domains(counted: Sequence[tuple[int, int]], dispersion: float) -> float:
    """How much relative count errors of kinds of ground differ beyond scatter.

    Mean square of the relative errors less what φ explains (φ / n each), as a root. One threshold for
    all ground is too low for some and too high for other: blocks within a domain do not show it.

    Args:
        counted: (true, predicted) of each domain; domains without an object are left out.
    """
    table = np.array([row for row in counted if row[0] > 0], dtype=np.float64).reshape(-1, 2)
    if not len(table):
        return 0.0
    relative = table[:, 1] / table[:, 0] - 1
    beyond_scatter = float(np.mean(relative**2 - dispersion / table[:, 0]))
    return math.sqrt(max(0.0, beyond_scatter))
