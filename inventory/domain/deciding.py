"""What people decide, bound to the nearest track as of its instant (R11)."""

from collections.abc import Callable

import numpy as np

from inventory.domain import existence
from inventory.domain.evidence import NEVER, Decision, DecisionKind
from inventory.domain.tracks import GONE, PRESENT, REJECTED
from inventory.domain.walk import Walk

_DECIDED_ERROR_M = 0.5
_DECIDED_CROWN_M = 3.0
"""Crown of an asset that a person added without saying how large it is."""


def decide(walk: Walk, decision: Decision) -> None:
    """What a person says, bound to the nearest track within the gate as of its instant.

    Who verifies says that the thing is there: where the imagery that showed it is withdrawn, that word alone
    stands for it, as an addition's does.
    """
    track = _nearest(walk, decision.x, decision.y, decision.gate_m)
    if track is None and decision.kind not in (DecisionKind.ADD, DecisionKind.VERIFY):
        return  # its imagery is withdrawn, or not there yet: the decision waits for it
    if track is None:
        track = _add(walk, decision)
    effects: dict[DecisionKind, Callable[[Walk, int, Decision], None]] = {
        DecisionKind.VERIFY: _verify,
        DecisionKind.ADD: _verify,
        DecisionKind.REJECT: _reject,
        DecisionKind.MOVE: _move,
        DecisionKind.RECLASSIFY: _reclassify,
        DecisionKind.DESCRIBE: _describe,
        DecisionKind.MERGE: _merge,
        DecisionKind.SPLIT: _split,
    }
    effects[decision.kind](walk, track, decision)
    walk.t["decision"][track] = decision.sequence


def _nearest(walk: Walk, x: float, y: float, gate: float) -> int | None:
    candidates = np.flatnonzero(walk.known())
    distance = np.hypot(walk.t["x"][candidates] - x, walk.t["y"][candidates] - y)
    near = candidates[distance <= gate]
    if not len(near):
        return None
    order = np.lexsort((walk.t["content"][near], distance[distance <= gate]))
    return int(near[order[0]])


def _add(walk: Walk, decision: Decision) -> int:
    crown = float(decision.details.get("crown_m", _DECIDED_CROWN_M))
    rows = walk.append(
        np.array([-decision.sequence]),
        x=decision.x,
        y=decision.y,
        error_m=_DECIDED_ERROR_M,
        placed=True,
        width_m=crown,
        height_m=crown,
        # Of two that people put on one spot the one recorded first comes first, in every fold.
        content=decision.sequence,
        first_seen=decision.at,
        last_seen=decision.at,
    )
    return int(rows[0])


def _verify(walk: Walk, track: int, decision: Decision) -> None:
    t = walk.t
    t["verified"][track], t["review"][track], t["felled"][track] = True, False, False
    t["status"][track], t["misses"][track], t["first_missed"][track] = PRESENT, 0, NEVER
    t["last_seen"][track] = decision.at
    t["probability"][track] = existence.PROBABILITY_RANGE[1]


def _reject(walk: Walk, track: int, decision: Decision) -> None:
    """Of something just seen: it never was there. Of something missed since: it was, and no longer is (R9)."""
    t = walk.t
    t["verified"][track], t["review"][track] = False, False
    t["felled"][track] = t["misses"][track] > 0
    if t["status"][track] != GONE:
        t["status"][track] = REJECTED
    t["probability"][track] = existence.PROBABILITY_RANGE[0]


def _move(walk: Walk, track: int, decision: Decision) -> None:
    t = walk.t
    t["x"][track], t["y"][track] = decision.details["x"], decision.details["y"]
    t["error_m"][track], t["placed"][track] = _DECIDED_ERROR_M, True


def _reclassify(walk: Walk, track: int, decision: Decision) -> None:
    name = str(decision.details["class"])
    if name not in walk.classes:
        walk.classes.append(name)
    walk.t["class_code"][track] = walk.classes.index(name)


def _describe(walk: Walk, track: int, decision: Decision) -> None:
    known = walk.t["details"][track]
    told = {**(walk.texts[known] if known >= 0 else {}), **decision.details}
    if told not in walk.texts:
        walk.texts.append(told)
    walk.t["details"][track] = walk.texts.index(told)


def _merge(walk: Walk, track: int, decision: Decision) -> None:
    other = _nearest(walk, decision.details["x"], decision.details["y"], decision.gate_m)
    if other is None or other == track:
        return
    # The longer known one stays; later hits on either are its own.
    kept, merged = sorted(
        (track, other),
        key=lambda row: (walk.t["first_seen"][row], walk.t["content"][row], walk.t["x"][row]),
    )
    walk.t["merged_into"][merged] = walk.keys.key[kept]
    walk.t["status"][merged] = REJECTED
    walk.t["verified"][merged] = False
    _verify(walk, kept, decision)


def _split(walk: Walk, track: int, decision: Decision) -> None:
    half = Decision(
        sequence=decision.sequence,
        kind=DecisionKind.ADD,
        class_name=decision.class_name,
        at=decision.at,
        x=decision.details["x"],
        y=decision.details["y"],
        gate_m=decision.gate_m,
        details=decision.details,
    )
    _verify(walk, _add(walk, half), half)
    _verify(walk, track, decision)
