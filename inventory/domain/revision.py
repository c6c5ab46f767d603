"""What a newly drawn level changes in the versions that are stored (R12). Pure.

A file of areas is the whole level as of a date. Areas that it draws otherwise get a new version from that
date on, areas that it no longer has end there. Correcting says instead that what is stored was wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import shapely
from shapely import MultiPolygon

from detection.errors import Conflict
from inventory.domain.levels import DrawnArea
from inventory.domain.places import Area, AreaVersion

# Degrees; a tenth of a millimetre on the ground. Another release of PROJ may differ in the last bits.
_SAME_DEG = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What to write for one level, and what that means, as codes."""

    inserted: tuple[AreaVersion, ...] = ()
    replaced: tuple[AreaVersion, ...] = ()
    deleted: tuple[AreaVersion, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    unchanged: int = 0

    @property
    def changes_anything(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.inserted or self.replaced or self.deleted)


def revise(
    drawn: Sequence[DrawnArea],
    stored: Sequence[AreaVersion],
    *,
    rank: int,
    parents: Mapping[Area, Area | None],
    on: date,
    correct: bool = False,
) -> Revision:
    """Compares a level as drawn with its stored versions.

    Args:
        drawn: all areas of the level; while correcting, those to be mended.
        stored: all versions of all areas of the level.
        rank: the level's place in the hierarchy.
        parents: the parent of every drawn area.
        on: first day of what is drawn; while correcting, a day of the versions to be mended. The first
            drawing of a level has no lower bound, whatever this says.
        correct: mend the versions in force on that day; areas that are not drawn stay as they are.

    Raises:
        Conflict: the level already changes after ``on``.
    """
    in_force = {version.code: version for version in stored if version.in_force(on)}
    begins = on if stored else None
    wanted = {area.code: _version(area, parents.get(area.area), rank, begins) for area in drawn}
    added = [version for code, version in wanted.items() if code not in in_force]
    changed = [
        (in_force[code], version)
        for code, version in wanted.items()
        if code in in_force and not same_ground_and_name(in_force[code], version)
    ]
    if correct:
        return _correction(added, changed, stored, on, unchanged=len(wanted) - len(added) - len(changed))
    ended = [version for code, version in in_force.items() if code not in wanted]
    if added or changed or ended:
        _refuse_later_changes(stored, on)
    mended = [(old, version) for old, version in changed if _in_place(old, version, on)]
    succeeded = [(old, version) for old, version in changed if not _in_place(old, version, on)]
    closing = [old for old, _ in succeeded] + [old for old in ended if old.valid_from != on]
    return Revision(
        inserted=(*added, *(version for _, version in succeeded)),
        replaced=(*(replace(old, valid_to=on) for old in closing), *(_mended(*pair) for pair in mended)),
        deleted=tuple(old for old in ended if old.valid_from == on),
        added=tuple(version.code for version in added),
        changed=tuple(old.code for old, _ in changed),
        ended=tuple(old.code for old in ended),
        unchanged=len(wanted) - len(added) - len(changed),
    )


def _correction(
    added: Sequence[AreaVersion],
    changed: Sequence[tuple[AreaVersion, AreaVersion]],
    stored: Sequence[AreaVersion],
    on: date,
    *,
    unchanged: int,
) -> Revision:
    begun = _common_beginning(stored, on)
    dated = {version.code for version in stored}
    for version in added:
        if version.code in dated:
            raise Conflict(
                f"area “{version.code}” is not in force on {on}, but it is on other days",
                do="Give --valid-from a day on which it is in force, or leave out --correct.",
            )
    return Revision(
        inserted=tuple(replace(version, valid_from=begun) for version in added),
        replaced=tuple(_mended(old, version) for old, version in changed),
        added=tuple(version.code for version in added),
        changed=tuple(old.code for old, _ in changed),
        unchanged=unchanged,
    )


def same_ground_and_name(one: AreaVersion, other: AreaVersion) -> bool:
    """Whether two versions say the same of an area, their dates and rank apart."""
    labels = (one.name, one.parent_level, one.parent_code) == (
        other.name,
        other.parent_level,
        other.parent_code,
    )
    return labels and same_ground(one.geometry, other.geometry)


def same_ground(one: MultiPolygon, other: MultiPolygon) -> bool:
    """Whether two geometries are the same polygons, in whatever order of parts and corners."""
    return bool(shapely.equals_exact(shapely.normalize(one), shapely.normalize(other), _SAME_DEG))


def _version(area: DrawnArea, parent: Area | None, rank: int, valid_from: date | None) -> AreaVersion:
    return AreaVersion(
        id=0,
        level=area.level,
        level_rank=rank,
        code=area.code,
        name=area.name,
        parent_level=None if parent is None else parent.level,
        parent_code=None if parent is None else parent.code,
        valid_from=valid_from,
        valid_to=None,
        geometry=area.geometry,
        area_m2=area.area_m2,
    )


def _mended(old: AreaVersion, new: AreaVersion) -> AreaVersion:
    return replace(new, id=old.id, valid_from=old.valid_from, valid_to=old.valid_to)


def _in_place(old: AreaVersion, new: AreaVersion, on: date) -> bool:
    """Whether a change needs no new version: it is of the same day, or adds nothing but a first parent."""
    if old.valid_from == on:
        return True
    only_parent = old.name == new.name and same_ground(old.geometry, new.geometry)
    return only_parent and old.parent_code is None


def _common_beginning(stored: Sequence[AreaVersion], on: date) -> date | None:
    """Since when an area that was forgotten has been there: since the level's last change before that day."""
    begun = [version.valid_from for version in stored if version.in_force(on)]
    return max((bound for bound in begun if bound is not None), default=None)


def _refuse_later_changes(stored: Sequence[AreaVersion], on: date) -> None:
    bounds = {bound for version in stored for bound in (version.valid_from, version.valid_to) if bound}
    if max(bounds, default=on) > on:
        raise Conflict(
            f"level “{stored[0].level}” already changes on {max(bounds)}, after {on}",
            do=f"Give --valid-from {max(bounds)} or a later date, or mend a version with --correct.",
        )
