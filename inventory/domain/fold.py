"""State is a fold (R1): evidence in order of date → what every asset was, as of every instant.

The fold walks through the instants; at each, looks come before decisions. It keeps one row a *track* (what
will be an asset) in columns, and writes a state whenever what is said of a track changes. Static classes
keep tracks through the years (R7–R9, R11); mobile ones are a stock that the next look replaces (R10).

``fold`` starts from nothing. ``refold`` goes on from stored states at the instant from which evidence changed,
and decides anew only what the change can bear on (``touching.py``); both are the same code and say the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from inventory.domain import existence
from inventory.domain.cells import NO_CELLS, Groups, LookCells, cell_of
from inventory.domain.deciding import decide
from inventory.domain.evidence import (
    NEVER,
    Decision,
    DecisionKind,
    Evidence,
    Floats,
    Integers,
    Look,
    Shift,
    mix,
    model_number,
)
from inventory.domain.matching import (
    Pairs,
    Positions,
    assign,
    exact_weights,
    gate_m,
    log_likelihood_ratio,
    pairs_within_gate,
)
from inventory.domain.ownership import Hits, ground_of, hits_of, look_cells, rows_of
from inventory.domain.registration import in_order, registered
from inventory.domain.touching import Active, GroundTooSmall, Sights, Touched, active_at
from inventory.domain.tracks import (
    DOUBTFUL,
    GONE,
    NO_TRACK,
    PRESENT,
    REJECTED,
    STATUSES,
    StoredStates,
    Tracks,
)
from inventory.domain.walk import Walk

__all__ = ["STATUSES", "Folded", "SurveyTally", "fold", "refold"]

_LEAST_ERROR_M = 0.3
"""No position is known better, however many looks: their errors are not wholly independent."""
_NEW_SHARE = 0.1
"""Share of a look's hits taken to belong to no known asset, in weighing a match against new and missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyTally:
    """What a survey brought: things first seen, seen again, and assets it looked at and did not see."""

    new: int
    matched: int
    missed: int
    shift: Shift | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The outcome for one class on one piece of ground.

    ``states`` are columns: ``track``, ``valid_from``, ``valid_to`` (microseconds, ``NEVER`` = until now) and what
    is said; ``class_code`` indexes ``classes`` and ``details`` indexes ``texts``. ``tracks`` holds the columns
    ``key``, ``root_observation``, ``root_decision``, and rows ``merged_into`` and ``replaces`` (−1: none).

    ``told`` says which tracks' states are given here, the others' are as they were stored; ``decided`` which of
    these were more than listed anew; ``stands`` which tracks there are now. ``hit_observation`` and ``hit_track``
    say which observations tracks are made of, in order of date, as far as they were decided anew:
    ``decided_observations`` are those, whether a track has them or not.
    """

    static: bool
    classes: tuple[str, ...]
    texts: tuple[dict[str, Any], ...]
    states: dict[str, NDArray[Any]]
    tracks: dict[str, NDArray[Any]]
    told: NDArray[np.bool_]
    decided: NDArray[np.bool_]
    stands: NDArray[np.bool_]
    hit_observation: Integers
    hit_track: Integers
    decided_observations: Integers
    tallies: dict[int, SurveyTally]


def fold(evidence: Evidence, *, static: bool) -> Folded:
    """What the evidence says, as of every instant, from nothing; a pure function of it (R1).

    Args:
        evidence: all of one class.
        static: whether the class has an identity (R7) or is a stock (R10).
    """
    looks = registered(evidence.looks)
    return refold(
        replace(evidence, looks=looks),
        static=static,
        before=StoredStates.none(evidence.class_name),
        touched=Touched(since=-NEVER, everything=True),
        cells={look.number: look_cells(look) for look in looks},
    )


def refold(
    evidence: Evidence,
    *,
    static: bool,
    before: StoredStates,
    touched: Touched,
    cells: Mapping[int, LookCells],
    region: Integers | None = None,
) -> Folded:
    """What the evidence says now, given what was said of it before some of it changed (R1).

    Args:
        evidence: of one class: the looks at the region's ground, those before ``touched.since`` without
            observations; the scenes' shifts known; all decisions there from then on.
        before: the stored states in force at or after ``touched.since`` of all tracks in the region.
        cells: what each look saw in the cells of its ground, by its number.
        region: the cells at hand; None: all there are.

    Raises:
        GroundTooSmall: the change bears on ground or tracks that are not at hand.
    """
    folding = _Folding(evidence, before, touched, cells, region, static=static)
    for at in folding.instants():
        folding.step(at)
    return folding.finished()


def _standing(decisions: Sequence[Decision], evidence: Evidence) -> list[Decision]:
    """Decisions in recorded order, without those taken back (R11)."""
    retracted = {decision.retracts for decision in evidence.decisions if decision.retracts is not None}
    return sorted(
        (
            decision
            for decision in decisions
            if decision.kind is not DecisionKind.RETRACT and decision.sequence not in retracted
        ),
        key=lambda decision: decision.sequence,
    )


class _Folding:
    """The tracks so far, and the states said of them."""

    def __init__(
        self,
        evidence: Evidence,
        before: StoredStates,
        touched: Touched,
        cells: Mapping[int, LookCells],
        region: Integers | None,
        *,
        static: bool,
    ) -> None:
        self.evidence, self.touched, self.region, self.static = evidence, touched, region, static
        self.looks = in_order(evidence.looks)
        self.cells = cells
        self.groups: dict[int, Groups] = {}
        self.grounds: dict[int, shapely.Geometry] = {}
        self.tallies: dict[int, SurveyTally] = {}
        self.hit_observation: list[Integers] = []
        self.hit_track: list[Integers] = []
        self.decided_observations: list[Integers] = []
        self.walk = Walk(before, touched)
        self.t = self.walk.t
        self._was_listed = np.empty(0, bool)
        self._left = np.empty(0, np.int64)

    def instants(self) -> list[int]:
        """When anything happened, or was said to happen, from the first change on."""
        at = {look.at for look in self.looks} | {decision.at for decision in self.evidence.decisions}
        return sorted(one for one in at | self.walk.instants() if one >= self.touched.since)

    def step(self, at: int) -> None:
        """All that happened at one instant: looks, then decisions, then who is listed."""
        looks = [look for look in self.looks if look.at == at]
        decisions = [decision for decision in self.evidence.decisions if decision.at == at]
        rows = [rows_of(look) for look in looks]
        walk = self.walk
        stored = walk.stored_at(at)
        active = active_at(
            self.touched,
            at,
            keys=walk.keys,
            now=walk.t,
            here=walk.here,
            before=walk.before,
            was_here=walk.was_here,
            after=walk.after,
            dirty=walk.dirty,
            sights=[Sights(seen=seen, scene_of=scene_of) for _, seen, scene_of in rows],
            decisions=[one for one in decisions if one.kind is not DecisionKind.RETRACT],
            region=self.region,
        )
        # What is listed stays listed unless something else is clearly more probable: an input of the next listing.
        was_listed = walk.t["listed"] & walk.here
        self._left = self._groups_left(active)
        walk.follow(stored, active)
        for look, seen in zip(looks, active.seen, strict=True):
            part = _restricted(look, seen)
            self.decided_observations += [scene.observations.id for scene in part.scenes]
            if self.static:
                self.look_at(part)
            else:
                self.restock(part)
        for decision in _standing(decisions, self.evidence):
            if decision.sequence in active.decisions:
                decide(walk, decision)
        opened = np.flatnonzero(walk.open)
        walk.t["cell"][opened] = cell_of(walk.t["x"][opened], walk.t["y"][opened])
        walk.decided |= walk.open
        if self.static:
            self._was_listed = np.zeros(len(walk.here), bool)
            self._was_listed[: len(was_listed)] = was_listed
            self._list()
        walk.told |= walk.open
        walk.say(at)
        walk.compare()

    # --- looks at things that stay (R7–R9) ---------------------------------------------------------

    def look_at(self, look: Look) -> None:
        """One campaign: its hits find their tracks, make new ones, and what it missed is less probable."""
        ground, hits = self._ground(look), hits_of(look)
        partner = self._match(hits, look)
        seen_before = partner >= 0
        missed = self._missed(hits, partner, ground)
        self._raise(hits, partner, look)
        partner[~seen_before] = self._mint(hits, ~seen_before, look)
        self._lower(missed, look)
        self._touch(ground, look.number)
        self.hit_observation.append(hits.member_ids)
        self.hit_track.append(partner[hits.member_of])
        self._tally(look, hits, seen_before, missed)

    def _ground(self, look: Look) -> shapely.Geometry:
        if look.number not in self.grounds:
            self.grounds[look.number] = _prepared(ground_of(look))
        return self.grounds[look.number]

    def _groups_of(self, number: int) -> Groups:
        if number not in self.groups:
            self.groups[number] = self.cells.get(number, NO_CELLS).groups()
        return self.groups[number]

    def _match(self, hits: Hits, look: Look) -> Integers:
        """(things,) the track of each hit, −1 for none. Merged tracks still catch hits, for their heir."""
        tracks = np.flatnonzero(self.walk.here & self.walk.open)
        pairs = pairs_within_gate(_positions(hits.things), self.t.positions(tracks))
        pairs = pairs.take(~self._another_tree(pairs, tracks, hits))
        of_track = tracks[pairs.second]
        _, density = self._groups_of(look.number).of(cell_of(hits.things.x, hits.things.y))
        ratio = log_likelihood_ratio(
            pairs,
            recall=look.reliability.recall,
            present=self.t["probability"][of_track].astype(np.float64),
            new_per_m2=np.maximum(density * _NEW_SHARE, look.reliability.false_alarms_per_m2)[pairs.first],
        )
        # What a track last was is the same in every fold, its row is not.
        tie = mix(mix(hits.things.content[pairs.first]) ^ self.t["content"][of_track])
        partner = assign(pairs, exact_weights(ratio, tie), len(hits.things), len(tracks))
        found = np.flatnonzero(partner >= 0)
        # An heir seen in its own right keeps that hit; its merged half's hit belongs to it as well.
        partner[found] = self._heirs(tracks[partner[found]])
        return partner

    def _heirs(self, tracks: Integers) -> Integers:
        heirs = tracks.copy()
        while (merged := self.t["merged_into"][heirs] != NO_TRACK).any():
            heirs[merged] = self.walk.keys.rows(self.t["merged_into"][heirs[merged]])
        return heirs

    def _another_tree(self, pairs: Pairs, tracks: Integers, hits: Hits) -> NDArray[np.bool_]:
        """Where something gone stood, a crown less than half as wide is new; where it was felled, any is (R9)."""
        of_track = tracks[pairs.second]
        gone = self.t["status"][of_track] == GONE
        smaller = hits.things.crown_m[pairs.first] < self.t.crown_m(of_track) / 2
        return np.asarray((gone & smaller) | self.t["felled"][of_track])

    def _missed(self, hits: Hits, partner: Integers, ground: shapely.Geometry) -> Integers:
        """Tracks whose whole gate was looked at and that nothing, not even a scene without say, saw."""
        candidates = self.walk.known()
        candidates[partner[partner >= 0]] = False
        rows = np.flatnonzero(candidates)
        rows = rows[_inside(ground, self.t.positions(rows))]
        spared = pairs_within_gate(self.t.positions(rows), _positions(hits.others)).first
        return np.delete(rows, np.unique(spared))

    def _raise(self, hits: Hits, partner: Integers, look: Look) -> None:
        """Hits on known tracks: position and size by weight of their errors, probability by Bayes."""
        row = np.flatnonzero(partner >= 0)
        track, things, t = partner[row], hits.things, self.t
        self._update(track, look, hit=True)
        error = t["error_m"][track].astype(np.float64)
        weight = error**2 / (error**2 + things.error_m[row] ** 2)
        # Where a person put it, it stays; its size may be seen better.
        placed = np.where(t["placed"][track], 0.0, weight)
        for name, share in (("x", placed), ("y", placed), ("width_m", weight), ("height_m", weight)):
            known = t[name][track].astype(np.float64)
            t[name][track] = known + share * (getattr(things, name)[row] - known)
        t["error_m"][track] = np.maximum(error * np.sqrt(1 - placed), _LEAST_ERROR_M)
        t["hits"][track] += 1
        t["misses"][track] = 0
        t["first_missed"][track] = NEVER
        t["review"][track] = False
        t["status"][track] = np.where(t["status"][track] == REJECTED, REJECTED, PRESENT)
        self._newest_evidence(track, row, hits, look)

    def _update(self, tracks: Integers, look: Look, *, hit: bool) -> None:
        """Probabilities after a hit or a miss of each (R8)."""
        t = self.t
        same_model = t["model"][tracks] == model_number(look.first.model)
        lasting = t["lasting"][tracks].astype(np.float64)
        hits, area = np.full(len(tracks), hit), self._gate_area_m2(tracks)
        t["probability"][tracks] = existence.updated_probability(
            t["probability"][tracks].astype(np.float64),
            look.reliability,
            hit=hits,
            same_model=same_model,
            lasting=lasting,
            gate_area_m2=area,
        )
        # A hit by another model is the first of that one; a miss by another says nothing of what this one repeats.
        by_another = look.reliability.persistent_share if hit else lasting
        t["lasting"][tracks] = np.where(
            same_model,
            existence.updated_lasting(lasting, look.reliability, hit=hits, gate_area_m2=area),
            by_another,
        )

    def _newest_evidence(self, track: Integers, row: Integers, hits: Hits, look: Look) -> None:
        t = self.t
        t["last_seen"][track] = look.at
        t["look"][track], t["hit"][track] = look.number, True
        t["model"][track] = model_number(look.first.model)
        t["score"][track], t["content"][track] = hits.things.score[row], hits.things.content[row]
        t["observation_id"][track], t["survey_id"][track] = hits.things.id[row], hits.survey_id[row]
        t["decision"][track] = -1

    def _mint(self, hits: Hits, fresh: NDArray[np.bool_], look: Look) -> Integers:
        """New tracks for hits that belong to none; their rows in order."""
        row = np.flatnonzero(fresh)
        things = hits.things.take(row)
        before, others = np.zeros((2, len(row)), np.int64)
        for earlier in self.looks:
            if (earlier.at, earlier.content) < (look.at, look.content):
                looks = before if earlier.first.model == look.first.model else others
                looks += shapely.contains_xy(self._ground(earlier), things.x, things.y)
        _, density = self._groups_of(look.number).of(cell_of(things.x, things.y))
        probability = existence.first_hit_probability(
            look.reliability, hits_per_m2=density, looks_before=before, others_before=others
        )
        replaced = self._replaced(things.x, things.y)
        track = self.walk.append(
            things.id,
            x=things.x,
            y=things.y,
            error_m=things.error_m,
            width_m=things.width_m,
            height_m=things.height_m,
            probability=probability,
            lasting=existence.lasting_at_first(look.reliability, looks_before=before),
            hits=1,
            first_seen=look.at,
            replaces=replaced,
        )
        self._newest_evidence(track, row, hits, look)
        return track

    def _replaced(self, x: Floats, y: Floats) -> Integers:
        """Key of the gone track at whose place each new one stands (R9)."""
        gone = np.flatnonzero(((self.t["status"] == GONE) | self.t["felled"]) & self.walk.known())
        replaced = np.full(len(x), NO_TRACK, np.int64)
        one_metre = np.ones(len(x))
        spots = Positions(x=x, y=y, error_m=one_metre, crown_m=one_metre)
        pairs = pairs_within_gate(spots, self.t.positions(gone))
        order = np.lexsort((self.t["content"][gone[pairs.second]], -pairs.distance_m))
        replaced[pairs.first[order]] = self.walk.keys.key[gone[pairs.second[order]]]
        return replaced

    def _lower(self, missed: Integers, look: Look) -> None:
        """Adequate misses: doubtful after one, gone after two; verified things only open a review (R9, R11)."""
        t = self.t
        self._update(missed, look, hit=False)
        t["misses"][missed] += 1
        t["first_missed"][missed] = np.minimum(t["first_missed"][missed], look.at)
        t["look"][missed], t["hit"][missed] = look.number, False
        status = np.where(t["misses"][missed] >= 2, GONE, DOUBTFUL)
        status = np.where(t["verified"][missed], DOUBTFUL, status)
        t["status"][missed] = np.where(t["status"][missed] == REJECTED, REJECTED, status)
        t["review"][missed] |= t["verified"][missed]

    def _touch(self, ground: shapely.Geometry, number: int) -> None:
        """Tracks on looked-at ground that were neither hit nor surely missed: the look is their newest too."""
        t = self.t
        rest = np.flatnonzero((t["look"] != number) & self.walk.known())
        rest = rest[shapely.contains_xy(ground, t["x"][rest], t["y"][rest])]
        t["look"][rest], t["hit"][rest] = number, False

    def _gate_area_m2(self, tracks: Integers) -> Floats:
        known = self.t.positions(tracks)
        return np.asarray(np.pi * gate_m(2 * known.error_m**2, known.crown_m) ** 2, dtype=np.float64)

    def _list(self) -> None:
        """Who is counted (R8), in every group of cells that something decided anew stands in, or stood in."""
        t = self.t
        present = np.flatnonzero(self.walk.here & (t["merged_into"] == NO_TRACK))
        group = self._listing_group(t, present)
        concerned = self.walk.open[present]
        if not self.touched.everything:
            concerned = np.isin(group, np.concatenate([group[concerned], self._left]))
            self._see_whole_groups(present[concerned], t)
        rows, group = present[concerned], group[concerned]
        self.walk.open[rows] = True
        merged = np.flatnonzero(self.walk.open & (t["merged_into"] != NO_TRACK))
        t["listed"][merged] = False
        rejected = (t["status"][rows] == REJECTED) | t["felled"][rows]
        undecided = ~t["verified"][rows] & ~rejected & (t["look"][rows] >= 0)
        t["listed"][rows] = t["verified"][rows] & ~rejected
        rows, group = rows[undecided], group[undecided]
        t["listed"][rows] = existence.choose_listed(
            group,
            hit=t["hit"][rows],
            before=self._was_listed[rows],
            probability=t["probability"][rows].astype(np.float64),
            gone=t["status"][rows] == GONE,
            score=np.nan_to_num(t["score"][rows]).astype(np.float64),
            content=t["content"][rows],
        )

    def _groups_left(self, active: Active) -> Integers:
        """Groups in which what is decided anew stood until now, here or in what was stored."""
        if self.touched.everything:
            return np.empty(0, np.int64)
        tables = (
            (self.t, self.walk.here),
            (self.walk.before, self.walk.was_here),
            (self.walk.after, self.walk.after["first_seen"] != 0),
        )
        for table, there in tables:
            self._see_whole_groups(np.flatnonzero(active.tracks & there), table)
        return np.concatenate(
            [self._listing_group(table, np.flatnonzero(active.tracks & there)) for table, there in tables]
        )

    def _listing_group(self, table: Tracks, rows: Integers) -> Integers:
        """A number for the newest look and the group of cells that each track is listed with."""
        look, cell = table["look"][rows], cell_of(table["x"][rows], table["y"][rows])
        code = np.empty(len(rows), np.int64)
        for number in np.unique(look).tolist():
            mine = look == number
            group, _ = self._groups_of(number).of(cell[mine])
            code[mine] = mix(mix(group.astype(np.uint64)) ^ np.uint64(number + 1)).view(np.int64)
        return code

    def _see_whole_groups(self, rows: Integers, table: Tracks) -> None:
        if self.region is None or not len(rows):
            return
        look, cell = table["look"][rows], cell_of(table["x"][rows], table["y"][rows])
        needed = [
            self._groups_of(number).mates(np.unique(cell[look == number]))
            for number in np.unique(look).tolist()
        ]
        beyond = np.setdiff1d(np.concatenate([cell, *needed]), self.region)
        if len(beyond):
            raise GroundTooSmall(cells=beyond)

    def _tally(self, look: Look, hits: Hits, seen_before: NDArray[np.bool_], missed: Integers) -> None:
        points = [self.t["x"][missed], self.t["y"][missed]]
        for scene in look.scenes:
            mine = hits.survey_id == scene.survey_id
            overlooked = shapely.contains_xy(_prepared(scene.surveyed), *points)
            self.tallies[scene.survey_id] = SurveyTally(
                new=int((mine & ~seen_before).sum()),
                matched=int((mine & seen_before).sum()),
                missed=int(overlooked.sum()),
                shift=scene.shift,
            )

    # --- a stock (R10) ---------------------------------------------------------------------------

    def restock(self, look: Look) -> None:
        """Mobile things: on the ground of this look, its hits replace all that stood there before."""
        ground, hits = self._ground(look), hits_of(look)
        t = self.t
        replaced = self.walk.open & t["listed"] & shapely.contains_xy(ground, t["x"], t["y"])
        t["listed"][replaced] = False
        t["status"][replaced] = GONE
        self.walk.append(
            hits.things.id,
            **{
                name: getattr(hits.things, name)
                for name in ("x", "y", "error_m", "width_m", "height_m", "score", "content")
            },
            probability=look.reliability.precision,
            lasting=look.reliability.persistent_share,
            hits=1,
            first_seen=look.at,
            last_seen=look.at,
            listed=True,
            look=look.number,
            observation_id=hits.things.id,
            survey_id=hits.survey_id,
        )
        for scene in look.scenes:
            new = int((hits.survey_id == scene.survey_id).sum())
            self.tallies[scene.survey_id] = SurveyTally(new=new, matched=0, missed=0, shift=scene.shift)

    def finished(self) -> Folded:
        """Everything said of the tracks that were decided anew, open states included."""
        walk, key = self.walk, self.walk.keys.key
        return Folded(
            static=self.static,
            classes=tuple(walk.classes),
            texts=tuple(walk.texts),
            states=walk.states(),
            tracks={
                "key": key,
                "root_observation": np.where(key > 0, key, -1),
                "root_decision": np.where(key < 0, -key, -1),
                "merged_into": walk.keys.rows(walk.t["merged_into"]),
                "replaces": walk.keys.rows(walk.t["replaces"]),
            },
            told=walk.told,
            decided=walk.decided,
            stands=walk.here,
            hit_observation=_flat(self.hit_observation),
            hit_track=_flat(self.hit_track),
            decided_observations=_flat(self.decided_observations),
            tallies=self.tallies,
        )


def _restricted(look: Look, seen: NDArray[np.bool_]) -> Look:
    """The look with those observations alone that are decided anew; its ground stays."""
    if seen.all():
        return look
    scenes, begin = [], 0
    for scene in sorted(look.scenes, key=lambda scene: (scene.content, scene.survey_id)):
        end = begin + len(scene.observations)
        scenes.append(replace(scene, observations=scene.observations.take(np.flatnonzero(seen[begin:end]))))
        begin = end
    return replace(look, scenes=tuple(scenes), leading=look.first, campaign=look.number)


def _positions(things: Any) -> Positions:
    return Positions(x=things.x, y=things.y, error_m=things.error_m, crown_m=things.crown_m)


def _inside(ground: shapely.Geometry, known: Positions) -> NDArray[np.bool_]:
    """Whether the whole gate of each lies on the ground (R5)."""
    inside = np.asarray(shapely.contains_xy(ground, known.x, known.y))
    border = shapely.boundary(ground)
    shapely.prepare(border)
    gates = gate_m(2 * known.error_m**2, known.crown_m)
    points = np.asarray(shapely.points(known.xy), dtype=object)
    near = shapely.dwithin(border, points, gates)  # type: ignore[call-overload]  # stubs: one against many
    return np.asarray(inside & ~near)


def _prepared(geometry: shapely.Geometry) -> shapely.Geometry:
    shapely.prepare(geometry)
    return geometry


def _flat(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
