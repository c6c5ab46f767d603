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
    """The production sweep of a model, with its thresholds lowered.

    Overlapping boxes are merged by falling score, so weak detections change none of the strong ones.
    """
    options = SweepOptions(threshold_override=lowest_score, is_trusted=is_trusted)

    def look(scene: Scene) -> Found:
        (result,) = sweep([scene], model, options, progress=progress)
        seen = result.observations
        return Found(
            boxes_px=seen.box_px.astype(np.float64),
            class_index=seen.class_index,
            scores=seen.score,
        )

    return look
