"""State is a fold (R1): evidence in order of date → what every asset was, as of every instant.

The fold walks through the instants; at each, looks come before decisions. It keeps one row a *track* (what
will be an asset) in columns, and writes a state whenever what is said of a track changes. Static classes
keep tracks through the years (R7–R9, R11); mobile ones are a stock that the next look replaces (R10).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from inventory.domain import existence
from inventory.domain.evidence import NEVER, Decision, DecisionKind, Evidence, Floats, Integers, Look
from inventory.domain.matching import (
    Pairs,
    Positions,
    Shift,
    assign,
    estimate_shift,
    gate_m,
    log_likelihood_ratio,
    pairs_within_gate,
)
from inventory.domain.ownership import Hits, ground_of, hits_of

PRESENT, DOUBTFUL, GONE, REJECTED = range(4)
STATUSES = ("present", "doubtful", "gone", "rejected")

_LEAST_ERROR_M = 0.3
"""No position is known better, however many looks: their errors are not wholly independent."""
_DECIDED_ERROR_M = 0.5
_DECIDED_CROWN_M = 3.0
"""Crown of an asset that a person added without saying how large it is."""

_TRACK_COLUMNS: dict[str, tuple[Any, Any]] = {
    # name: (dtype, value of a new track)
    "x": (np.float64, 0.0),
    "y": (np.float64, 0.0),
    "error_m": (np.float64, 1.0),
    "width_m": (np.float64, 0.0),
    "height_m": (np.float64, 0.0),
    "score": (np.float64, np.nan),
    "content": (np.uint64, 0),
    "probability": (np.float64, 0.5),
    "hits": (np.int64, 0),
    "misses": (np.int64, 0),
    "first_seen": (np.int64, 0),
    "last_seen": (np.int64, 0),
    "first_missed": (np.int64, NEVER),
    "look": (np.int64, -1),  # the newest adequate look at its ground
    "hit": (np.bool_, False),  # whether that look saw it
    "listed": (np.bool_, False),
    "status": (np.int8, PRESENT),
    "verified": (np.bool_, False),
    "review": (np.bool_, False),
    "merged_into": (np.int64, -1),
    "replaces": (np.int64, -1),
    "observation_id": (np.int64, -1),
    "survey_id": (np.int64, -1),
    "decision": (np.int64, -1),
    "model": (np.int64, -1),
    "class_code": (np.int16, 0),
    "details": (np.int64, -1),
    "root_observation": (np.int64, -1),
    "root_decision": (np.int64, -1),
}

_SAID = (
    "x", "y", "error_m", "width_m", "height_m", "score", "probability", "hits", "first_seen", "last_seen",
    "first_missed", "listed", "status", "verified", "review", "observation_id", "survey_id", "decision",
    "class_code", "details",
)  # fmt: skip
"""Columns of which a change makes a new state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyTally:
    """What a survey brought: things first seen, seen again, and assets it looked at and did not see."""

    new: int
    matched: int
    missed: int
    shift: Shift | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The whole outcome for one class on one piece of ground.

    ``states`` are columns: ``track``, ``valid_from``, ``valid_to`` (microseconds, ``NEVER`` = until now) and what
    is said; ``class_code`` indexes ``classes`` and ``details`` indexes ``texts``. ``tracks`` holds the columns
    ``root_observation``, ``root_decision``, ``merged_into``, ``replaces``; ``hit_observation`` and
    ``hit_track`` say which observations each track is made of, in order of date.
    """

    static: bool
    classes: tuple[str, ...]
    texts: tuple[dict[str, Any], ...]
    states: dict[str, NDArray[Any]]
    tracks: dict[str, NDArray[Any]]
    hit_observation: Integers
    hit_track: Integers
    tallies: dict[int, SurveyTally]


def fold(evidence: Evidence, *, static: bool) -> Folded:
    """What the evidence says, as of every instant; a pure function of it (R1).

    Args:
        evidence: of one class, on ground that no other evidence of that class touches.
        static: whether the class has an identity (R7) or is a stock (R10).
    """
    folding = _Folding(evidence.class_name)
    look = folding.look_at if static else folding.restock
    instants = sorted({look_.at for look_ in evidence.looks} | {d.at for d in evidence.decisions})
    for at in instants:
        for one in sorted((x for x in evidence.looks if x.at == at), key=_look_order):
            look(one)
        for decision in _standing(evidence.decisions, at):
            folding.decide(decision)
        folding.say(at)
    return folding.finished(static=static)


def _look_order(look: Look) -> list[str]:
    return sorted(scene.content for scene in look.scenes)


def _standing(decisions: tuple[Decision, ...], at: int) -> list[Decision]:
    """The decisions of an instant in recorded order, without those taken back (R11)."""
    retracted = {decision.retracts for decision in decisions if decision.retracts is not None}
    return sorted(
        (
            decision
            for decision in decisions
            if decision.at == at
            and decision.kind is not DecisionKind.RETRACT
            and decision.sequence not in retracted
        ),
        key=lambda decision: decision.sequence,
    )


class _Folding:
    """The tracks so far, and the states said of them."""

    def __init__(self, class_name: str) -> None:
        self.count = 0
        self.t: dict[str, NDArray[Any]] = {
            name: np.empty(0, dtype) for name, (dtype, _) in _TRACK_COLUMNS.items()
        }
        self.classes = [class_name]
        self.texts: list[dict[str, Any]] = []
        self.models: list[str] = []
        self.grounds: list[shapely.Geometry] = []
        self.look_models: list[int] = []
        self.tallies: dict[int, SurveyTally] = {}
        self.hit_observation: list[Integers] = []
        self.hit_track: list[Integers] = []
        self._said: dict[str, NDArray[Any]] = {}
        self._said_from = np.empty(0, np.int64)
        self._written: list[dict[str, NDArray[Any]]] = []

    # --- looks at things that stay (R7–R9) ---------------------------------------------------------

    def look_at(self, look: Look) -> None:
        """One campaign: its hits find their tracks, make new ones, and what it missed is less probable."""
        ground, hits = ground_of(look), hits_of(look)
        number = len(self.grounds)
        shift = estimate_shift(_positions(hits.things), self._positions(np.flatnonzero(self._known())))
        moved = _without_shift(hits, shift)
        partner = self._match(moved, look, ground)
        seen_before = partner >= 0
        model = self._model(look.scenes[0].model)
        missed = self._missed(moved, partner, ground)
        self._raise(moved, partner, look, number, model)
        new = self._mint(moved, ~seen_before, look, ground, number, model)
        partner[~seen_before] = new
        self._lower(missed, look, number, model)
        self._touch(ground, number)
        self.grounds.append(ground)
        self.look_models.append(model)
        self.hit_observation.append(hits.member_ids)
        self.hit_track.append(partner[hits.member_of])
        self._tally(look, hits, seen_before, missed, shift)
        self._list()

    def _known(self) -> NDArray[np.bool_]:
        return self.t["merged_into"] < 0

    def _positions(self, rows: Integers) -> Positions:
        t = self.t
        return Positions(
            x=t["x"][rows],
            y=t["y"][rows],
            error_m=t["error_m"][rows],
            crown_m=(t["width_m"][rows] + t["height_m"][rows]) / 2,
        )

    def _match(self, hits: Hits, look: Look, ground: shapely.Geometry) -> Integers:
        """(things,) the track of each hit, −1 for none. Merged tracks still catch hits, for their heir."""
        tracks = np.arange(self.count)
        pairs = pairs_within_gate(_positions(hits.things), self._positions(tracks))
        pairs = pairs.take(~self._another_tree(pairs, hits))
        area = max(float(shapely.area(ground)), 1.0)
        weight = log_likelihood_ratio(
            pairs,
            recall=look.reliability.recall,
            present=self.t["probability"][pairs.second],
            new_per_m2=max(len(hits.things) / area * 0.1, look.reliability.false_alarms_per_m2),
        )
        partner = assign(pairs, weight, len(hits.things), self.count)
        found = np.flatnonzero(partner >= 0)
        # An heir seen in its own right keeps that hit; its merged half's hit belongs to it as well.
        partner[found] = self._heirs(partner[found])
        return partner

    def _heirs(self, tracks: Integers) -> Integers:
        heirs = tracks.copy()
        while (merged := self.t["merged_into"][heirs] >= 0).any():
            heirs[merged] = self.t["merged_into"][heirs[merged]]
        return heirs

    def _another_tree(self, pairs: Pairs, hits: Hits) -> NDArray[np.bool_]:
        """Where something gone stood, a crown less than half as wide is a new tree (R9)."""
        gone = self.t["status"][pairs.second] == GONE
        known = (self.t["width_m"] + self.t["height_m"])[pairs.second] / 2
        return np.asarray(gone & (hits.things.crown_m[pairs.first] < known / 2))

    def _missed(self, hits: Hits, partner: Integers, ground: shapely.Geometry) -> Integers:
        """Tracks whose whole gate was looked at and that nothing, not even a scene without say, saw."""
        candidates = np.ones(self.count, bool)
        candidates[partner[partner >= 0]] = False
        candidates &= self._known()
        rows = np.flatnonzero(candidates)
        rows = rows[_inside(ground, self._positions(rows))]
        spared = pairs_within_gate(self._positions(rows), _positions(hits.others)).first
        return np.delete(rows, np.unique(spared))

    def _raise(self, hits: Hits, partner: Integers, look: Look, number: int, model: int) -> None:
        """Hits on known tracks: position and size by weight of their errors, probability by Bayes."""
        row = np.flatnonzero(partner >= 0)
        track, things, t = partner[row], hits.things, self.t
        t["probability"][track] = existence.updated_probability(
            t["probability"][track],
            look.reliability,
            hit=np.ones(len(track), bool),
            same_model=t["model"][track] == model,
            missed_before=t["misses"][track] > 0,
            gate_area_m2=self._gate_area_m2(track),
        )
        weight = t["error_m"][track] ** 2 / (t["error_m"][track] ** 2 + things.error_m[row] ** 2)
        fixed = t["verified"][track] & (t["error_m"][track] <= _DECIDED_ERROR_M)
        weight = np.where(fixed, 0.0, weight)
        for name in ("x", "y", "width_m", "height_m"):
            t[name][track] += weight * (getattr(things, name)[row] - t[name][track])
        t["error_m"][track] = np.maximum(t["error_m"][track] * np.sqrt(1 - weight), _LEAST_ERROR_M)
        t["hits"][track] += 1
        t["misses"][track] = 0
        t["first_missed"][track] = NEVER
        t["review"][track] = False
        t["status"][track] = np.where(t["status"][track] == REJECTED, REJECTED, PRESENT)
        self._newest_evidence(track, row, hits, look, number, model)

    def _newest_evidence(
        self, track: Integers, row: Integers, hits: Hits, look: Look, number: int, model: int
    ) -> None:
        t = self.t
        t["last_seen"][track] = look.at
        t["look"][track], t["hit"][track], t["model"][track] = number, True, model
        t["score"][track], t["content"][track] = hits.things.score[row], hits.things.content[row]
        t["observation_id"][track], t["survey_id"][track] = hits.things.id[row], hits.survey_id[row]
        t["decision"][track] = -1

    def _mint(
        self,
        hits: Hits,
        fresh: NDArray[np.bool_],
        look: Look,
        ground: shapely.Geometry,
        number: int,
        model: int,
    ) -> Integers:
        """New tracks for hits that belong to none; their numbers in order."""
        row = np.flatnonzero(fresh)
        things = hits.things.take(row)
        before, others = np.zeros((2, len(row)), np.int64)
        for earlier, its_model in zip(self.grounds, self.look_models, strict=True):
            inside = shapely.contains_xy(_prepared(earlier), things.x, things.y)
            if its_model == model:
                before += inside
            else:
                others += inside
        probability = existence.first_hit_probability(
            look.reliability,
            hits_per_m2=len(hits.things) / max(float(shapely.area(ground)), 1.0),
            looks_before=before,
            others_before=others,
        )
        replaced = self._replaced(things.x, things.y)
        track = self._append(
            len(row),
            x=things.x,
            y=things.y,
            error_m=things.error_m,
            width_m=things.width_m,
            height_m=things.height_m,
            probability=probability,
            hits=1,
            first_seen=look.at,
            replaces=replaced,
            root_observation=things.id,
        )
        self._newest_evidence(track, row, hits, look, number, model)
        return track

    def _replaced(self, x: Floats, y: Floats) -> Integers:
        """The gone track at whose place each new one stands, −1 for none (R9)."""
        gone = np.flatnonzero((self.t["status"] == GONE) & self._known())
        replaced = np.full(len(x), -1, np.int64)
        one_metre = np.ones(len(x))
        spots = Positions(x=x, y=y, error_m=one_metre, crown_m=one_metre)
        pairs = pairs_within_gate(spots, self._positions(gone))
        order = np.argsort(-pairs.distance_m, kind="stable")
        replaced[pairs.first[order]] = gone[pairs.second[order]]
        return replaced

    def _lower(self, missed: Integers, look: Look, number: int, model: int) -> None:
        """Adequate misses: doubtful after one, gone after two; verified things only open a review (R9, R11)."""
        t = self.t
        t["probability"][missed] = existence.updated_probability(
            t["probability"][missed],
            look.reliability,
            hit=np.zeros(len(missed), bool),
            same_model=t["model"][missed] == model,
            missed_before=t["misses"][missed] > 0,
            gate_area_m2=self._gate_area_m2(missed),
        )
        t["misses"][missed] += 1
        t["first_missed"][missed] = np.minimum(t["first_missed"][missed], look.at)
        t["look"][missed], t["hit"][missed] = number, False
        status = np.where(t["misses"][missed] >= 2, GONE, DOUBTFUL)
        status = np.where(t["verified"][missed], DOUBTFUL, status)
        t["status"][missed] = np.where(t["status"][missed] == REJECTED, REJECTED, status)
        t["review"][missed] |= t["verified"][missed]

    def _touch(self, ground: shapely.Geometry, number: int) -> None:
        """Tracks on looked-at ground that were neither hit nor surely missed: the look is their newest too."""
        t = self.t
        rest = np.flatnonzero((t["look"] != number) & self._known())
        rest = rest[shapely.contains_xy(_prepared(ground), t["x"][rest], t["y"][rest])]
        t["look"][rest], t["hit"][rest] = number, False

    def _gate_area_m2(self, tracks: Integers) -> Floats:
        known = self._positions(tracks)
        return np.asarray(np.pi * gate_m(2 * known.error_m**2, known.crown_m) ** 2, dtype=np.float64)

    def _list(self) -> None:
        """Who is counted, on the ground of each look that is still the newest somewhere (R8)."""
        t = self.t
        decided = t["verified"] | (t["status"] == REJECTED) | ~self._known()
        before = t["listed"]
        t["listed"] = t["verified"] & (t["status"] != REJECTED) & self._known()
        for number in np.unique(t["look"][~decided]):
            rows = np.flatnonzero(~decided & (t["look"] == number))
            if number < 0:
                continue
            hit = t["hit"][rows]
            t["listed"][rows] = existence.choose_listed(
                existence.listing_cells(t["x"][rows], t["y"][rows], hit),
                hit=hit,
                before=before[rows],
                probability=t["probability"][rows],
                gone=t["status"][rows] == GONE,
                score=np.nan_to_num(t["score"][rows]),
                content=t["content"][rows],
            )

    def _tally(
        self, look: Look, hits: Hits, seen_before: NDArray[np.bool_], missed: Integers, shift: Shift | None
    ) -> None:
        points = [self.t["x"][missed], self.t["y"][missed]]
        for scene in look.scenes:
            mine = hits.survey_id == scene.survey_id
            overlooked = shapely.contains_xy(_prepared(scene.surveyed), *points)
            self.tallies[scene.survey_id] = SurveyTally(
                new=int((mine & ~seen_before).sum()),
                matched=int((mine & seen_before).sum()),
                missed=int(overlooked.sum()),
                shift=shift,
            )

    # --- a stock (R10) ---------------------------------------------------------------------------

    def restock(self, look: Look) -> None:
        """Mobile things: on the ground of this look, its hits replace all that stood there before."""
        ground, hits = ground_of(look), hits_of(look)
        t = self.t
        replaced = t["listed"] & shapely.contains_xy(_prepared(ground), t["x"], t["y"])
        t["listed"] = t["listed"] & ~replaced
        t["status"][replaced] = GONE
        self._append(
            len(hits.things),
            **{
                name: getattr(hits.things, name)
                for name in ("x", "y", "error_m", "width_m", "height_m", "score", "content")
            },
            probability=look.reliability.precision,
            hits=1,
            first_seen=look.at,
            last_seen=look.at,
            listed=True,
            observation_id=hits.things.id,
            survey_id=hits.survey_id,
            root_observation=hits.things.id,
        )
        for scene in look.scenes:
            new = int((hits.survey_id == scene.survey_id).sum())
            self.tallies[scene.survey_id] = SurveyTally(new=new, matched=0, missed=0, shift=None)

    # --- decisions (R11) -------------------------------------------------------------------------

    def decide(self, decision: Decision) -> None:
        """What a person says, bound to the nearest track within the gate as of its instant."""
        track = self._nearest(decision.x, decision.y, decision.gate_m)
        if track is None and decision.kind is not DecisionKind.ADD:
            return  # its imagery is withdrawn, or not there yet: the decision waits for it
        if track is None:
            track = self._add(decision)
        effects: dict[DecisionKind, Callable[[int, Decision], None]] = {
            DecisionKind.VERIFY: self._verify,
            DecisionKind.ADD: self._verify,
            DecisionKind.REJECT: self._reject,
            DecisionKind.MOVE: self._move,
            DecisionKind.RECLASSIFY: self._reclassify,
            DecisionKind.DESCRIBE: self._describe,
            DecisionKind.MERGE: self._merge,
            DecisionKind.SPLIT: self._split,
        }
        effects[decision.kind](track, decision)
        self.t["decision"][track] = decision.sequence
        self._list()

    def _nearest(self, x: float, y: float, gate: float) -> int | None:
        candidates = np.flatnonzero(self._known())
        distance = np.hypot(self.t["x"][candidates] - x, self.t["y"][candidates] - y)
        near = candidates[distance <= gate]
        if not len(near):
            return None
        order = np.lexsort((self.t["content"][near], distance[distance <= gate]))
        return int(near[order[0]])

    def _add(self, decision: Decision) -> int:
        crown = float(decision.details.get("crown_m", _DECIDED_CROWN_M))
        return int(
            self._append(
                1,
                x=decision.x,
                y=decision.y,
                error_m=_DECIDED_ERROR_M,
                width_m=crown,
                height_m=crown,
                first_seen=decision.at,
                last_seen=decision.at,
                root_decision=decision.sequence,
            )[0]
        )

    def _verify(self, track: int, decision: Decision) -> None:
        t = self.t
        t["verified"][track], t["review"][track] = True, False
        t["status"][track], t["misses"][track], t["first_missed"][track] = PRESENT, 0, NEVER
        t["last_seen"][track] = decision.at
        t["probability"][track] = existence.PROBABILITY_RANGE[1]

    def _reject(self, track: int, decision: Decision) -> None:
        t = self.t
        t["verified"][track], t["review"][track], t["status"][track] = False, False, REJECTED
        t["probability"][track] = existence.PROBABILITY_RANGE[0]

    def _move(self, track: int, decision: Decision) -> None:
        t = self.t
        t["x"][track], t["y"][track] = decision.details["x"], decision.details["y"]
        t["error_m"][track] = _DECIDED_ERROR_M

    def _reclassify(self, track: int, decision: Decision) -> None:
        name = str(decision.details["class"])
        if name not in self.classes:
            self.classes.append(name)
        self.t["class_code"][track] = self.classes.index(name)

    def _describe(self, track: int, decision: Decision) -> None:
        known = self.t["details"][track]
        told = {**(self.texts[known] if known >= 0 else {}), **decision.details}
        self.t["details"][track] = len(self.texts)
        self.texts.append(told)

    def _merge(self, track: int, decision: Decision) -> None:
        other = self._nearest(decision.details["x"], decision.details["y"], decision.gate_m)
        if other is None or other == track:
            return
        # The longer known one stays; later hits on either are its own.
        kept, merged = sorted((track, other), key=lambda row: (self.t["first_seen"][row], row))
        self.t["merged_into"][merged] = kept
        self.t["status"][merged] = REJECTED
        self.t["verified"][merged] = False
        self._verify(kept, decision)

    def _split(self, track: int, decision: Decision) -> None:
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
        self._verify(self._add(half), half)
        self._verify(track, decision)

    # --- states ----------------------------------------------------------------------------------

    def say(self, at: int) -> None:
        """Writes what has changed since the last instant; what did not change goes on."""
        known = len(self._said_from)
        now = {name: self.t[name] for name in _SAID}
        changed = np.zeros(self.count, bool)
        changed[known:] = True
        for name in _SAID:
            before, after = self._said.get(name, now[name][:0]), now[name][:known]
            same = (before == after) | (np.not_equal(before, before) & np.not_equal(after, after))
            changed[:known] |= ~same
        self._close(np.flatnonzero(changed[:known]), at)
        self._said = {name: column.copy() for name, column in now.items()}
        said_from = np.full(self.count, at, np.int64)
        said_from[:known] = np.where(changed[:known], at, self._said_from)
        self._said_from = said_from

    def _close(self, tracks: Integers, until: int) -> None:
        if not len(tracks):
            return
        state = {name: self._said[name][tracks] for name in _SAID}
        state["track"] = tracks
        state["valid_from"] = self._said_from[tracks]
        state["valid_to"] = np.full(len(tracks), until, np.int64)
        self._written.append(state)

    def finished(self, *, static: bool) -> Folded:
        """Everything said, open states included."""
        if self._said:
            self._close(np.arange(self.count), NEVER)
        names = (*_SAID, "track", "valid_from", "valid_to")
        states = {
            name: np.concatenate([np.empty(0, _dtype(name)), *(part[name] for part in self._written)])
            for name in names
        }
        return Folded(
            static=static,
            classes=tuple(self.classes),
            texts=tuple(self.texts),
            states=states,
            tracks={
                name: self.t[name]
                for name in ("root_observation", "root_decision", "merged_into", "replaces")
            },
            hit_observation=_flat(self.hit_observation),
            hit_track=_flat(self.hit_track),
            tallies=self.tallies,
        )

    def _append(self, n: int, **columns: Any) -> Integers:
        for name, (dtype, initial) in _TRACK_COLUMNS.items():
            added = np.empty(n, dtype)
            added[:] = columns.get(name, initial)
            self.t[name] = np.concatenate([self.t[name], added])
        tracks = np.arange(self.count, self.count + n)
        self.count += n
        return tracks

    def _model(self, name: str) -> int:
        if name not in self.models:
            self.models.append(name)
        return self.models.index(name)


def _positions(things: Any) -> Positions:
    return Positions(x=things.x, y=things.y, error_m=things.error_m, crown_m=things.crown_m)


def _without_shift(hits: Hits, shift: Shift | None) -> Hits:
    if shift is None:
        return hits

    def moved(part: Any) -> Any:
        columns = {name: getattr(part, name) for name in part.__slots__}
        return type(part)(**{**columns, "x": part.x - shift.x_m, "y": part.y - shift.y_m})

    return Hits(
        things=moved(hits.things),
        survey_id=hits.survey_id,
        member_ids=hits.member_ids,
        member_of=hits.member_of,
        others=moved(hits.others),
    )


def _inside(ground: shapely.Geometry, known: Positions) -> NDArray[np.bool_]:
    """Whether the whole gate of each lies on the ground (R5)."""
    inside = np.asarray(shapely.contains_xy(_prepared(ground), known.x, known.y))
    border = shapely.boundary(ground)
    shapely.prepare(border)
    gates = gate_m(2 * known.error_m**2, known.crown_m)
    points = np.asarray(shapely.points(known.xy), dtype=object)
    near = shapely.dwithin(border, points, gates)  # type: ignore[call-overload]  # stubs: one against many
    return np.asarray(inside & ~near)


def _prepared(geometry: shapely.Geometry) -> shapely.Geometry:
    shapely.prepare(geometry)
    return geometry


def _dtype(name: str) -> Any:
    return _TRACK_COLUMNS[name][0] if name in _TRACK_COLUMNS else np.int64


def _flat(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
