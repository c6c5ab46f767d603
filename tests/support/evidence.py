"""Small evidence for the fold, in metres around a nominal origin."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from inventory.domain.evidence import (
    Decision,
    DecisionKind,
    Evidence,
    Look,
    Micros,
    Observations,
    Reliability,
    SceneLook,
    content_hashes,
)

YEAR = 365 * 24 * 3600 * 1_000_000
RELIABLE = Reliability(precision=0.8, recall=0.8, false_alarms_per_m2=2e-4, persistent_share=0.0)
GROUND = (0.0, 0.0, 300.0, 300.0)


def make_scene_look(
    places: Sequence[tuple[float, float]],
    *,
    name: str,
    ground: tuple[float, float, float, float] = GROUND,
    crown_m: float = 4.0,
    crowns_m: Sequence[float] | None = None,
    resolution_m: float = 0.1,
    first_id: int = 1,
    model: str = "model",
    reliability: Reliability = RELIABLE,
) -> SceneLook:
    """One scene's survey; observations get ids from ``first_id`` on, in the order of ``places``."""
    xy = np.array(places, float).reshape(-1, 2)
    crowns = np.array(crowns_m if crowns_m is not None else [crown_m] * len(xy), float)
    content = hashlib.sha256(name.encode()).hexdigest()
    boxes = np.column_stack([xy, xy + 1])
    hashes = content_hashes(content, boxes)
    order = np.argsort(hashes)
    observations = Observations(
        id=np.arange(first_id, first_id + len(xy)),
        x=xy[:, 0],
        y=xy[:, 1],
        error_m=np.full(len(xy), 0.7),
        width_m=crowns,
        height_m=crowns,
        score=np.linspace(0.9, 0.5, len(xy)) if len(xy) else np.empty(0),
        content=hashes,
    )
    return SceneLook(
        survey_id=first_id,
        model=model,
        reliability=reliability,
        ground_resolution_m=resolution_m,
        surveyed=shapely.MultiPolygon([shapely.box(*ground)]),
        content=content,
        observations=observations.take(order),
    )


def make_look(places: Sequence[tuple[float, float]], *, year: int, **scene: Any) -> Look:
    """A campaign of one scene in a year; ids start at 1000 times the year."""
    named = {"name": f"scene of {year}", "first_id": 1000 * year, **scene}
    return Look(at=Micros(year * YEAR), scenes=(make_scene_look(places, **named),))


def make_decision(kind: DecisionKind, place: tuple[float, float], *, year: float, **more: Any) -> Decision:
    """A decision about trees at a place."""
    return Decision(
        **{
            "sequence": 1,
            "kind": kind,
            "class_name": "tree",
            "at": Micros(int(year * YEAR)),
            "x": place[0],
            "y": place[1],
            "gate_m": 3.0,
            **more,
        }
    )


def make_evidence(*facts: Look | Decision) -> Evidence:
    """Looks and decisions about trees."""
    return Evidence(
        class_name="tree",
        looks=tuple(fact for fact in facts if isinstance(fact, Look)),
        decisions=tuple(fact for fact in facts if isinstance(fact, Decision)),
    )
