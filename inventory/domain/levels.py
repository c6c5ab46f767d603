"""How the areas of a city hang together.

Which level lies above which, whose child an area is, where the areas of a level overlap or leave ground to
nobody. Pure; geometry in EPSG:4326.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from inventory.domain.datum import ground_area_m2
from inventory.domain.places import Area
from inventory.errors import BoundariesUnusable

# Smaller overlaps and gaps are noise of digitising: half a step along a road's length.
NOTABLE_M2 = 1.0

# A code's prefix names the parent only if a tenth of the area lies in it: else the likeness is chance.
_OVERLAP_OF_CHILD = 0.1

# Segments of Chinese administrative codes by total length (GB/T 2260, GB/T 10114): unused ones are zeros.
_SEGMENTS = {6: (2, 2, 2), 9: (2, 2, 2, 3), 12: (2, 2, 2, 3, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnArea:
    """An area as somebody drew it: no dates yet. ``parent_code`` is what the file says, if it says."""

    level: str
    code: str
    name: str
    parent_code: str | None
    geometry: MultiPolygon
    area_m2: float

    @property
    def area(self) -> Area:
        """Which area this draws."""
        return Area(self.level, self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Ground that two areas of a level both claim; the lower code has it (R12)."""

    level: str
    codes: tuple[str, str]
    area_m2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Ground between areas of a level that none of them has; ``codes`` are its neighbours."""

    level: str
    codes: tuple[str, ...]
    area_m2: float


def rank_levels(areas: Sequence[DrawnArea]) -> dict[str, int]:
    """Place of each level in the hierarchy, 0 the top one.

    What areas say of their parents decides; beside that, levels of larger areas lie above those of smaller,
    and of levels of equal areas the one with shorter codes.

    Raises:
        BoundariesUnusable: by their parents, levels lie above one another in a circle.
    """
    of_level: dict[str, list[DrawnArea]] = defaultdict(list)
    for area in areas:
        of_level[area.level].append(area)
    height = {level: _height(members) for level, members in of_level.items()}
    level_of = {area.code: area.level for area in areas}
    above: dict[str, set[str]] = {level: set() for level in of_level}
    for area in areas:
        parent_level = level_of.get(area.parent_code or "")
        if parent_level is not None and parent_level != area.level:
            above[area.level].add(parent_level)
    sorter = TopologicalSorter(above)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise BoundariesUnusable(
            f"the levels are each other's parents: {circle}",
            do="Correct the file's parent field.",
        ) from error
    ranked: list[str] = []
    ready: set[str] = set()
    while sorter.is_active():
        ready.update(sorter.get_ready())
        largest = max(ready, key=lambda level: height[level])
        ready.remove(largest)
        ranked.append(largest)
        sorter.done(largest)
    return {level: rank for rank, level in enumerate(ranked)}


def _height(areas: Sequence[DrawnArea]) -> tuple[float, float, str]:
    """What levels are ordered by; to four digits, because unions differ in the last ones."""
    mean_m2 = float(f"{np.mean([area.area_m2 for area in areas]):.4g}")
    return mean_m2, -float(np.mean([len(area.code) for area in areas])), areas[0].level


def find_parents(areas: Sequence[DrawnArea], ranks: Mapping[str, int]) -> dict[Area, Area | None]:
    """The area of a higher level that each area belongs to.

    What the area says, if that is known; else the longest code of a higher level that its own begins with;
    else the area of the nearest higher level with which it shares most ground. None for the top level, and
    where no higher area shares any.
    """
    by_code = {area.code: area for area in areas}
    named = _by_significant(areas)
    trees = _trees(areas)
    parents: dict[Area, Area | None] = {}
    for child in areas:
        said = by_code.get(child.parent_code or "")
        if said is not None and ranks[said.level] < ranks[child.level]:
            parents[child.area] = said.area
            continue
        higher = [
            level for level in sorted(ranks, key=ranks.__getitem__) if ranks[level] < ranks[child.level]
        ]
        found = _by_prefix(child, named, higher) or _by_overlap(child, higher, trees)
        parents[child.area] = None if found is None else found.area
    return parents


def significant(code: str) -> str:
    """The part of a code that its children's codes begin with: 530800 (a prefecture) → 5308.

    Other codes are returned whole.
    """
    segments = _SEGMENTS.get(len(code))
    if segments is None or not (code.isascii() and code.isdigit()):
        return code
    kept = len(code)
    for length in reversed(segments[1:]):
        if code[kept - length : kept].strip("0"):
            break
        kept -= length
    return code[:kept]


def overlaps(areas: Sequence[DrawnArea]) -> list[Overlap]:
    """Overlaps of at least ``NOTABLE_M2`` between areas of one level, largest first."""
    geometries = np.array([area.geometry for area in areas], dtype=object)
    one, other = shapely.STRtree(geometries).query(geometries, predicate="intersects")
    one, other = one[one < other], other[one < other]
    shared = shapely.intersection(geometries[one], geometries[other])
    found: list[Overlap] = []
    for pair in np.flatnonzero(shapely.area(shared) > 0):
        shared_m2 = ground_area_m2(_polygons(shared[pair]))
        if shared_m2 >= NOTABLE_M2:
            low, high = sorted((areas[one[pair]].code, areas[other[pair]].code))
            found.append(Overlap(level=areas[0].level, codes=(low, high), area_m2=shared_m2))
    return sorted(found, key=lambda overlap: (-overlap.area_m2, overlap.codes))


def gaps(areas: Sequence[DrawnArea], ground: MultiPolygon, whole: BaseGeometry | None = None) -> list[Gap]:
    """Gaps of at least ``NOTABLE_M2`` that the areas of one level leave, largest first.

    Args:
        areas: of one level.
        ground: the union of the areas.
        whole: the ground that they should cover; None: only what they enclose.
    """
    if whole is None:
        whole = MultiPolygon([Polygon(part.exterior) for part in ground.geoms])
    left = _polygons(whole.difference(ground))
    tree = shapely.STRtree([area.geometry for area in areas])
    found: list[Gap] = []
    for part in left.geoms:
        gap_m2 = ground_area_m2(part)
        if gap_m2 >= NOTABLE_M2:
            # A millimetre of grace: the difference's corners need not lie on the neighbours to the last bit.
            beside = tree.query(part, predicate="dwithin", distance=1e-8)
            codes = tuple(sorted(areas[index].code for index in beside))
            found.append(Gap(level=areas[0].level, codes=codes, area_m2=gap_m2))
    return sorted(found, key=lambda gap: (-gap.area_m2, gap.codes))


def union_of(geometries: Iterable[BaseGeometry]) -> MultiPolygon:
    """The ground of all of them together, as polygons in a canonical order."""
    return canonical(shapely.union_all(list(geometries)))


def canonical(geometry: BaseGeometry) -> MultiPolygon:
    """The polygons of a geometry, in one order of parts and corners whatever order they came in.

    Shells run counter-clockwise, as GeoJSON (RFC 7946) wants them.
    """
    return shapely.orient_polygons(shapely.normalize(_polygons(geometry)))


def _polygons(geometry: BaseGeometry) -> MultiPolygon:
    """The polygonal parts of a geometry; lines and points fall away."""
    parts = shapely.get_parts(shapely.get_parts(geometry))  # a collection may hold multipolygons
    return MultiPolygon([part for part in parts if isinstance(part, Polygon) and not part.is_empty])


class _Level:
    """The areas of one level, ready to be asked who shares ground with another."""

    def __init__(self, areas: Sequence[DrawnArea]) -> None:
        self.areas = sorted(areas, key=lambda area: area.code)
        self.tree = shapely.STRtree([area.geometry for area in self.areas])


def _trees(areas: Sequence[DrawnArea]) -> dict[str, _Level]:
    of_level: dict[str, list[DrawnArea]] = defaultdict(list)
    for area in areas:
        of_level[area.level].append(area)
    return {level: _Level(members) for level, members in of_level.items()}


def _by_significant(areas: Sequence[DrawnArea]) -> dict[str, list[DrawnArea]]:
    named: dict[str, list[DrawnArea]] = defaultdict(list)
    for area in areas:
        named[significant(area.code)].append(area)
    return named


def _by_prefix(
    child: DrawnArea, named: Mapping[str, Sequence[DrawnArea]], higher: Sequence[str]
) -> DrawnArea | None:
    for length in range(len(child.code), 0, -1):
        for area in named.get(child.code[:length], ()):
            if area.level in higher and _share(area, child) >= _OVERLAP_OF_CHILD:
                return area
    return None


def _share(area: DrawnArea, child: DrawnArea) -> float:
    """How much of the child's ground lies in the area, 0 to 1."""
    return float(area.geometry.intersection(child.geometry).area / child.geometry.area)


def _by_overlap(child: DrawnArea, higher: Sequence[str], trees: Mapping[str, _Level]) -> DrawnArea | None:
    for level in reversed(higher):
        of_level = trees[level]
        # In the order of codes, so that equal shares go to the lowest.
        near = np.sort(of_level.tree.query(child.geometry, predicate="intersects"))
        shares = [_share(of_level.areas[index], child) for index in near]
        if shares and max(shares) > 0:
            return of_level.areas[int(near[int(np.argmax(shares))])]
    return None
