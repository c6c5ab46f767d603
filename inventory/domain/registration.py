"""The shift of each scene against what earlier looks saw there (R7), before anything is matched.

It is estimated from looks alone, never from assets or decisions: so a decision never moves a scene, and a
scene moves only when looks at its own ground come, go or change their date.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely

from inventory.domain.cells import cell_of
from inventory.domain.evidence import Integers, Look, Observations, SceneLook, Shift, mix
from inventory.domain.matching import Positions, estimate_shift

REFERENCES = 3
"""Earlier looks that a scene is compared with, the newest ones at its ground."""
_SAMPLE = 20_000
"""Observations of a scene that the estimate rests on; the mode needs thousands, not millions."""

Load = Callable[[int, Integers], Observations]
"""Observations of a survey in some cells, by their position as it was surveyed."""
CellsOf = Callable[[int], tuple[Integers, Integers]]
"""The cells of a survey's observations, and how many lie in each."""


def registered(looks: Sequence[Look]) -> tuple[Look, ...]:
    """The looks with every scene's shift, from the observations that they carry; in order of effect."""
    scenes = {scene.survey_id: scene for look in looks for scene in look.scenes}

    def load(survey_id: int, cells: Integers) -> Observations:
        seen = scenes[survey_id].observations
        return seen.take(np.isin(cell_of(seen.x, seen.y), cells))

    def cells_of(survey_id: int) -> tuple[Integers, Integers]:
        seen = scenes[survey_id].observations
        return np.unique(cell_of(seen.x, seen.y), return_counts=True)

    everything = frozenset(scenes)
    return register(in_order(looks), anew=everything, load=load, cells_of=cells_of).looks


def in_order(looks: Sequence[Look]) -> list[Look]:
    """Looks in the order of their effect: by instant, then content (R1)."""
    return sorted(looks, key=lambda look: (look.at, look.content))


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The looks with their shifts, and the surveys whose shift is another than before."""

    looks: tuple[Look, ...]
    moved: frozenset[int]


def register(
    looks: Sequence[Look],
    *,
    anew: frozenset[int],
    load: Load,
    cells_of: CellsOf,
    gone: Sequence[tuple[int, shapely.Geometry]] = (),
) -> Registration:
    """Estimates the shift of the surveys in ``anew`` and of those that were compared with them.

    Args:
        looks: in order of effect; scenes not in ``anew`` carry their shift of before.
        gone: instant and ground of looks that were taken out or redated; what came after is compared anew.
    """
    done: list[Look] = []
    moved: set[int] = set()
    touched = list(gone)
    for look in looks:
        scenes = []
        for scene in look.scenes:
            stands = scene.survey_id not in anew and not any(
                at <= look.at and shapely.intersects(ground, scene.surveyed) for at, ground in touched
            )
            shift = scene.shift if stands else _shift(scene, done, load, cells_of)
            if not stands and (shift != scene.shift or scene.survey_id in anew):
                moved.add(scene.survey_id)
            scenes.append(replace(scene, shift=shift))
        touched += [(look.at, scene.surveyed) for scene in scenes if scene.survey_id in moved]
        done.append(replace(look, scenes=tuple(scenes)))
    return Registration(looks=tuple(done), moved=frozenset(moved))


def _shift(scene: SceneLook, before: Sequence[Look], load: Load, cells_of: CellsOf) -> Shift | None:
    references = [
        other
        for look in _newest_at(scene.surveyed, before)
        for other in look.scenes
        if shapely.intersects(other.surveyed, scene.surveyed)
    ]
    if not references:
        return None
    cells = _sample(*cells_of(scene.survey_id))
    known = Observations.concatenate(
        [replace(other, observations=load(other.survey_id, cells)).seen for other in references]
    )
    return estimate_shift(_positions(load(scene.survey_id, cells)), _positions(known))


def _newest_at(ground: shapely.Geometry, before: Sequence[Look]) -> list[Look]:
    found = []
    for look in reversed(before):
        if any(shapely.intersects(scene.surveyed, ground) for scene in look.scenes):
            found.append(look)
            if len(found) == REFERENCES:
                break
    return found


def _sample(cells: Integers, count: Integers) -> Integers:
    """Cells in an order without pattern, as many as hold the sample."""
    order = np.argsort(mix(cells.astype(np.uint64)), kind="stable")
    before = np.cumsum(count[order]) - count[order]
    return np.sort(cells[order[before < _SAMPLE]])


def _positions(seen: Observations) -> Positions:
    return Positions(x=seen.x, y=seen.y, error_m=seen.error_m, crown_m=seen.crown_m)
