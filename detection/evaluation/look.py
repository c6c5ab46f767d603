"""A model as the evaluation sees it: a scene in, detections down to a low score out."""

from collections.abc import Callable

import numpy as np

from detection.evaluation.evaluate import LOWEST_SCORE, Found, Look
from detection.imagery.scene import Scene
from detection.models import Model
from detection.sweep import Progress, SweepOptions, sweep


def look_with(
    model: Model,
    *,
    lowest_score: float = LOWEST_SCORE,
    is_trusted: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Look:
    """The production sweep of a model, and below its thresholds a second one for the weak detections.

    What is counted must be what production counts. A sweep with lowered thresholds alone found 2 % more
    at the same score: an object that its owning window sees weakly takes the neighbour's score.
    """
    card = model.card
    thresholds = np.array([card.threshold[name] for name in card.output.classes], np.float32)

    def look(scene: Scene) -> Found:
        counted = _found(scene, model, SweepOptions(is_trusted=is_trusted), progress)
        weak = _found(
            scene,
            model,
            SweepOptions(threshold_override=lowest_score, is_trusted=is_trusted),
            progress,
        )
        below = weak.scores < thresholds[weak.class_index]
        return Found(
            boxes_px=np.concatenate([counted.boxes_px, weak.boxes_px[below]]),
            class_index=np.concatenate([counted.class_index, weak.class_index[below]]),
            scores=np.concatenate([counted.scores, weak.scores[below]]),
        )

    return look


def weak_look_with(model: Model, *, lowest_score: float = LOWEST_SCORE) -> Look:
    """One sweep down to a low score, for choosing the threshold that is not there yet."""
    options = SweepOptions(threshold_override=lowest_score)
    return lambda scene: _found(scene, model, options, None)


def production_look_with(model: Model) -> Look:
    """The production sweep alone: what would be counted."""
    return lambda scene: _found(scene, model, SweepOptions(), None)


def _found(
    scene: Scene,
    model: Model,
    options: SweepOptions,
    progress: Callable[[Progress], None] | None,
) -> Found:
    (result,) = sweep([scene], model, options, progress=progress)
    seen = result.observations
    return Found(
        boxes_px=seen.box_px.astype(np.float64),
        class_index=seen.class_index,
        scores=seen.score,
    )
