"""After evidence changed: which surveys are in force, what that changes, and storing it (R1, R3).

Every use case that touches evidence ends here, inside its own transaction and under the city's writer lock.
What changed is found by comparing the evidence with what the stored states were folded from: no use case
needs to say it, and one that forgot could not leave the states behind. Only the ground that a change bears on
is folded anew, from the instant on that it speaks of; ``from_nothing`` folds all of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely

from detection.taxonomy import AssetClass, ClassKind, Taxonomy
from inventory.domain.cells import (
    CELL_M,
    NO_CELLS,
    LookCells,
    cell_of,
    cells_around,
    cells_touching,
    column_row,
    squares,
)
from inventory.domain.evidence import (
    NEVER,
    NO_OBSERVATIONS,
    Decision,
    Evidence,
    Integers,
    Look,
    Observations,
)
from inventory.domain.fold import Folded, SurveyTally
from inventory.domain.fold import refold as fold_on
from inventory.domain.in_use import standings
from inventory.domain.ownership import look_cells
from inventory.domain.places import City
from inventory.domain.registration import in_order, register
from inventory.domain.touching import REACH_M, GroundTooSmall, Touched
from inventory.domain.tracks import StoredStates
from inventory.store import coverage, evidence, identities, states, surveys
from inventory.store.database import Connection
from inventory.store.evidence import FoldedSurvey, LooksOnFile
from inventory.store.states import Cause

_EVERYTHING_FROM_SHARE = 0.5
"""From this share of the city's cells on, all of it is folded anew: telling the rest apart would cost more."""


def refold(
    connection: Connection,
    city: City,
    taxonomy: Taxonomy,
    class_names: Iterable[str],
    cause: Cause,
    *,
    surveys_changed: bool = True,
    from_nothing: bool = False,
) -> dict[int, SurveyTally]:
    """Brings the stored states of each class to what the evidence says now.

    Args:
        surveys_changed: False where decisions alone may have: then surveys are not compared.
        from_nothing: fold all evidence, as if nothing were stored.

    Returns:
        What each survey on the ground folded anew brought, by its row number; of several classes, the sum.
    """
    tallies: dict[int, SurveyTally] = {}
    for name in sorted(set(class_names)):
        of_class = _Refolding(connection, city, taxonomy.get(name), taxonomy, cause)
        for survey_id, tally in of_class.run(surveys_changed, from_nothing=from_nothing).items():
            before = tallies.get(survey_id)
            tallies[survey_id] = tally if before is None else _sum(before, tally)
    return tallies


class _Refolding:
    """One class of one city."""

    def __init__(
        self, connection: Connection, city: City, asset_class: AssetClass, taxonomy: Taxonomy, cause: Cause
    ) -> None:
        self._connection, self._city, self._class = connection, city, asset_class
        self._name = asset_class.name
        self._cause = cause
        self._seen_whole: dict[int, Observations] = {}

    def run(self, surveys_changed: bool, *, from_nothing: bool) -> dict[int, SurveyTally]:
        """Compares, folds and stores; nothing at all happens where nothing changed."""
        if surveys_changed or from_nothing:
            self._derive_in_force()
        decisions = evidence.unfolded_decisions(self._connection, self._city, self._name)
        looks, changes = self._looks_and_changes(decisions, surveys_changed, from_nothing=from_nothing)
        changes = _with_decisions(changes, decisions)
        if changes.nothing:
            return {}
        cells = evidence.load_look_cells(self._connection, self._city, self._name)
        if changes.of_looks:
            cells, changes = self._seen_in_cells(looks, cells, changes)
        outcome = self._fold(looks, cells, decisions, changes)
        self._store(outcome, looks, changes)
        return outcome.folded.tallies

    def _looks_and_changes(
        self, decisions: Sequence[Decision], surveys_changed: bool, *, from_nothing: bool
    ) -> tuple[tuple[Look, ...], "_Changes"]:
        """The looks that the fold needs, with their scenes' shifts, and how they differ from what was folded."""
        known = (self._connection, self._city, self._name)
        compared = surveys_changed or from_nothing or evidence.any_unfolded(*known)
        if not compared and not (
            decisions and evidence.any_look_since(*known, min(one.at for one in decisions))
        ):
            # The common decision, about today: no look comes after it, and none need be read.
            return (), _Changes()
        on_file = evidence.load_looks(self._connection, self._city, self._class)
        self._reanchor(on_file)
        return self._registered(on_file, from_nothing=from_nothing)

    def _derive_in_force(self) -> None:
        choices = surveys.model_choices(self._connection, self._city, self._name)
        standing = standings(self._class.models, choices)
        surveys.derive_in_force(self._connection, self._city, self._name, standing)

    def _reanchor(self, on_file: LooksOnFile) -> None:
        now = {scene.survey_id for look in on_file.looks for scene in look.scenes}
        came_or_left = sorted(now ^ set(on_file.folded))
        if came_or_left and self._class.kind is ClassKind.STATIC:
            identities.reanchor(self._connection, self._city, self._name, came_or_left)

    # --- what changed ----------------------------------------------------------------------------------

    def _registered(self, on_file: LooksOnFile, *, from_nothing: bool) -> tuple[tuple[Look, ...], "_Changes"]:
        """The looks with their scenes' shifts, and what differs from what was folded."""
        folded = on_file.folded
        now = {scene.survey_id: look for look in on_file.looks for scene in look.scenes}
        led_anew = _led_anew(on_file)
        same = {
            number
            for number, look in now.items()
            if number in folded
            and (folded[number].at, folded[number].campaign) == (look.at, look.campaign)
            and look.number not in led_anew
        }
        gone = [one for number, one in folded.items() if number not in same]
        anew = frozenset(now) if from_nothing else frozenset(now) - same
        looks: tuple[Look, ...] = tuple(in_order(on_file.looks))
        moved: frozenset[int] = frozenset()
        if anew or gone:
            outcome = register(
                looks,
                anew=anew,
                load=self._observations_of,
                cells_of=lambda number: evidence.cells_of_survey(
                    self._connection, self._city, self._name, number
                ),
                gone=[(one.at, one.surveyed) for one in gone],
            )
            looks, moved = outcome.looks, outcome.moved
        if from_nothing:
            return looks, _Changes(since=-NEVER, everything=True)
        came = [(look, scene) for look in looks for scene in look.scenes if scene.survey_id in moved]
        return looks, _Changes.of_ground(
            [*((look.at, scene.surveyed) for look, scene in came), *((one.at, one.surveyed) for one in gone)],
            campaigns=frozenset({*(look.number for look, _ in came), *(one.campaign for one in gone)}),
        )

    def _observations_of(self, survey_id: int, cells: Integers) -> Observations:
        found = evidence.load_observations(self._connection, self._city, self._name, [survey_id], cells)
        return found.get(survey_id, NO_OBSERVATIONS)

    def _seen_in_cells(
        self, looks: Sequence[Look], known: dict[int, LookCells], changes: "_Changes"
    ) -> tuple[dict[int, LookCells], "_Changes"]:
        """What looks saw in the cells that changed; cells whose company in listing changed are touched as well."""
        there = {look.number: look for look in looks}
        for number in set(known) - set(there):
            evidence.save_look_cells(self._connection, self._city, self._name, number, None)
            known = {other: cells for other, cells in known.items() if other != number}
        if changes.nothing:
            return known, changes
        touched = None if changes.everything else cells_touching(changes.ground, REACH_M)
        if touched is not None and _is_nearly_all(touched, known):
            # Read with what the fold will want in any case.
            touched = None
        for look in looks:
            if not changes.everything and look.number not in changes.campaigns:
                continue
            before = known.get(look.number, NO_CELLS)
            now = self._look_cells(look, before, touched)
            changed = now.groups().changed_from(before.groups())
            if len(changed):
                evidence.save_look_cells(self._connection, self._city, self._name, look.number, now)
                known = {**known, look.number: now}
                changes = changes.and_ground(look.at, shapely.union_all(squares(changed)))
        return known, changes

    def _look_cells(self, look: Look, before: LookCells, touched: Integers | None) -> LookCells:
        near = touched
        if touched is not None and any(scene.shift is not None for scene in look.scenes):
            # Observations are kept by where they were surveyed: a shift carries them across borders of cells.
            near = cells_touching(shapely.union_all(squares(touched)), REACH_M)
        (seen,) = self._filled([look], near)
        return look_cells(seen) if touched is None else before.replaced(touched, look_cells(seen, touched))

    def _filled(self, looks: Sequence[Look], cells: Integers | None) -> list[Look]:
        """The looks with their observations in the cells; scenes that do not touch these are left out."""
        if cells is not None:
            near = shapely.buffer(shapely.union_all(squares(cells)), REACH_M)
            shapely.prepare(near)
            looks = [
                replace(
                    look,
                    scenes=tuple(scene for scene in look.scenes if shapely.intersects(near, scene.surveyed)),
                    leading=look.first,
                )
                for look in looks
            ]
        seen = self._observations({scene.survey_id for look in looks for scene in look.scenes}, cells)
        return [
            replace(
                look,
                scenes=tuple(
                    replace(scene, observations=seen.get(scene.survey_id, NO_OBSERVATIONS))
                    for scene in look.scenes
                ),
            )
            for look in looks
        ]

    def _observations(self, wanted: set[int], cells: Integers | None) -> dict[int, Observations]:
        """What surveys saw; one that was read whole before is not read again."""
        missing = wanted - set(self._seen_whole)
        seen = evidence.load_observations(self._connection, self._city, self._name, missing, cells)
        if cells is None:
            self._seen_whole.update(seen)
        for number in wanted - missing:
            whole = self._seen_whole[number]
            inside = np.ones(len(whole), bool) if cells is None else np.isin(cell_of(whole.x, whole.y), cells)
            seen[number] = whole.take(inside)
        return seen

    # --- folding ---------------------------------------------------------------------------------------

    def _fold(
        self,
        looks: Sequence[Look],
        cells: Mapping[int, LookCells],
        decisions: Sequence[Decision],
        changes: "_Changes",
    ) -> "_Outcome":
        """Folds on the ground that the change bears on, and on more of it until that is enough."""
        region = self._region(looks, cells, decisions, changes)
        while True:
            everything = region is None
            before = states.load_states(
                self._connection, self._city, self._name, since=changes.since, cells=region
            )
            facts = self._facts(looks, region, changes.since)
            touched = Touched(
                since=changes.since,
                grounds=() if everything else changes.grounds,
                decisions=frozenset(decision.sequence for decision in decisions),
                everything=everything,
            )
            try:
                folded = fold_on(
                    facts,
                    static=self._class.kind is ClassKind.STATIC,
                    before=before,
                    touched=touched,
                    cells=cells,
                    region=region,
                )
                return _Outcome(before=before, folded=folded)
            except GroundTooSmall as small:
                assert region is not None, "all the ground there is was too small"
                more = [region, small.cells]
                if len(small.tracks):
                    more.append(
                        states.cells_of_tracks(self._connection, self._city, self._name, small.tracks)
                    )
                region = _with_mates(np.unique(np.concatenate(more)), cells)

    def _region(
        self,
        looks: Sequence[Look],
        cells: Mapping[int, LookCells],
        decisions: Sequence[Decision],
        changes: "_Changes",
    ) -> Integers | None:
        if changes.everything:
            return None
        spots = [spot for decision in decisions for spot in _spots(decision)]
        x, y = np.array(spots, np.float64).reshape(-1, 2).T
        near = [cells_around(x, y, 0.0)] if len(spots) else []
        if changes.grounds:
            near.append(cells_touching(changes.ground, REACH_M))
        region = _with_mates(np.unique(np.concatenate(near)), cells)
        if not changes.grounds:
            return region
        return None if _is_nearly_all(region, cells) else region

    def _facts(self, looks: Sequence[Look], region: Integers | None, since: int) -> Evidence:
        """The evidence that bears on the region: looks from ``since`` on with what they saw."""
        box = None
        near: Sequence[Look] = looks
        if region is not None:
            column, row = column_row(region)
            box = (
                float(column.min() * CELL_M),
                float(row.min() * CELL_M),
                float((column.max() + 1) * CELL_M),
                float((row.max() + 1) * CELL_M),
            )
            outline = shapely.buffer(shapely.box(*box), REACH_M)
            near = [look for look in looks if shapely.intersects(outline, _extent(look))]
        later = [look for look in near if look.at >= since]
        earlier = [look for look in near if look.at < since]
        filled = [look for look in self._filled(later, region) if look.scenes]
        return Evidence(
            class_name=self._name,
            looks=(*earlier, *filled),
            decisions=evidence.load_decisions(self._connection, self._city, self._name, box),
        )

    # --- storing ---------------------------------------------------------------------------------------

    def _store(self, outcome: "_Outcome", looks: Sequence[Look], changes: "_Changes") -> None:
        folded = outcome.folded
        if folded.static:
            asset_of_track = identities.save_ids(
                self._connection,
                self._city,
                self._name,
                before=outcome.before,
                folded=folded,
                since=changes.since,
            )
        else:
            asset_of_track = np.full(len(folded.told), -1, np.int64)
        states.replace_states(
            self._connection,
            self._city,
            self._name,
            before=outcome.before,
            folded=folded,
            asset_of_track=asset_of_track,
            cause=self._cause,
        )
        if changes.of_looks:
            coverage.replace_coverage(self._connection, self._city, self._name, looks)
            evidence.note_folded(self._connection, self._city, self._name, looks)
        evidence.note_decisions_folded(self._connection, self._city, self._name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    before: StoredStates
    folded: Folded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """Since when what is stored no longer holds, and on which ground (metric CRS)."""

    since: int = NEVER
    grounds: tuple[tuple[int, shapely.Geometry], ...] = ()
    campaigns: frozenset[int] = frozenset()
    """Looks of which scenes came, left or moved."""
    everything: bool = False

    @staticmethod
    def of_ground(
        touched: Sequence[tuple[int, shapely.Geometry]], *, campaigns: frozenset[int]
    ) -> "_Changes":
        """Looks that came, left or moved: from each instant on, the ground of all that did so then."""
        by_instant: dict[int, list[shapely.Geometry]] = {}
        for at, ground in touched:
            by_instant.setdefault(at, []).append(ground)
        grounds = tuple(
            # What lies just beyond may have been missed, or belong to something across the border.
            (at, shapely.buffer(shapely.union_all(parts), REACH_M))
            for at, parts in sorted(by_instant.items())
        )
        return _Changes(since=min(by_instant, default=NEVER), grounds=grounds, campaigns=campaigns)

    @property
    def nothing(self) -> bool:
        """Whether what is stored still holds."""
        return not self.everything and self.since == NEVER and not self.grounds

    @property
    def of_looks(self) -> bool:
        """Whether looks changed, and not decisions alone."""
        return self.everything or bool(self.grounds)

    @property
    def ground(self) -> shapely.Geometry:
        """All ground that changed at any time."""
        return shapely.union_all([ground for _, ground in self.grounds])

    def and_ground(self, at: int, ground: shapely.Geometry) -> "_Changes":
        """These, and some ground from an instant on."""
        return replace(self, since=min(self.since, at), grounds=(*self.grounds, (at, ground)))


def _led_anew(on_file: LooksOnFile) -> frozenset[int]:
    """Looks that another scene leads than when they were folded, where that bears on all of their ground.

    The leading scene's model speaks for the look, and its content orders looks of one instant.
    """
    before: dict[int, FoldedSurvey] = {}
    for one in on_file.folded.values():
        if one.campaign not in before or one.content < before[one.campaign].content:
            before[one.campaign] = one
    looks_at: dict[int, set[int]] = defaultdict(set)
    for at, number in [
        *((one.at, one.campaign) for one in on_file.folded.values()),
        *((look.at, look.number) for look in on_file.looks),
    ]:
        looks_at[at].add(number)
    return frozenset(
        look.number
        for look in on_file.looks
        if look.number in before
        and (
            look.first.model != before[look.number].model
            or (look.content != before[look.number].content and len(looks_at[look.at]) > 1)
        )
    )


def _with_decisions(changes: _Changes, decisions: Sequence[Decision]) -> _Changes:
    if not decisions:
        return changes
    return replace(changes, since=min(changes.since, *(decision.at for decision in decisions)))


def _spots(decision: Decision) -> list[tuple[float, float]]:
    second = [(float(decision.details["x"]), float(decision.details["y"]))] if "x" in decision.details else []
    return [(decision.x, decision.y), *second]


def _is_nearly_all(some: Integers, cells: Mapping[int, LookCells]) -> bool:
    whole = np.unique(np.concatenate([np.empty(0, np.int64), *(known.cell for known in cells.values())]))
    return len(np.intersect1d(some, whole)) >= _EVERYTHING_FROM_SHARE * len(whole)


def _with_mates(region: Integers, cells: Mapping[int, LookCells]) -> Integers:
    """The region, and the cells that any look lists together with one of it (R8).

    Not their company in turn: the fold says where it needs that.
    """
    # A city has hundreds of looks, a decision the ground of few.
    near = [known for known in cells.values() if np.isin(known.cell, region).any()]
    return np.unique(np.concatenate([region, *(known.groups().mates(region) for known in near)]))


def _extent(look: Look) -> shapely.Geometry:
    return shapely.box(*shapely.total_bounds([scene.surveyed for scene in look.scenes]))


def _sum(one: SurveyTally, other: SurveyTally) -> SurveyTally:
    return SurveyTally(
        new=one.new + other.new,
        matched=one.matched + other.matched,
        missed=one.missed + other.missed,
        shift=one.shift or other.shift,
    )
