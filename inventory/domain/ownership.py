"""One campaign is one look (R4): its ground is owned by one scene each, and seams are crossed once."""

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from inventory.domain.cells import LookCells, cell_of, cells_touching, squares
from inventory.domain.evidence import Floats, Integers, Look, Observations, SceneLook
from inventory.domain.matching import GATE_MAXIMUM_M, gate_m

_RESOLUTION_STEP = 1.1
"""Resolutions within a tenth of one another count as equal: then the more central scene owns."""
_JOIN_M = 0.1
"""Scenes of one mosaic abut but for rounding; gaps up to twice this are closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """What one look saw: one row a thing, with every observation that saw it.

    ``members`` and ``member_of`` are flat: observation row ↔ row of ``things``. ``others`` are hits that no
    owner confirms; they cancel a miss and are nothing else.
    """

    things: Observations
    survey_id: Integers
    member_ids: Integers
    member_of: Integers
    others: Observations


def ground_of(look: Look) -> shapely.Geometry:
    """The ground that the campaign surveyed, its scenes' seams closed, in the city's metric CRS."""
    if len(look.scenes) == 1:
        return look.scenes[0].surveyed
    grown = [scene.surveyed.buffer(_JOIN_M, join_style="mitre") for scene in look.scenes]
    return shapely.union_all(grown).buffer(-_JOIN_M, join_style="mitre")


def hits_of(look: Look) -> Hits:
    """The look's things: its owners' hits, and hits of several scenes on one thing made one."""
    scenes, rows, scene_of = rows_of(look)
    survey_ids = np.array([scene.survey_id for scene in scenes], np.int64)
    if len(scenes) == 1:
        everything = np.arange(len(rows))
        return Hits(
            things=rows,
            survey_id=survey_ids[scene_of],
            member_ids=rows.id,
            member_of=everything,
            others=rows.take(everything[:0]),
        )
    owned = _owned(rows, scene_of, scenes)
    cluster = _clusters(rows, scene_of)
    return _one_of_each(rows, survey_ids[scene_of], cluster, owned)


def rows_of(look: Look) -> tuple[list[SceneLook], Observations, Integers]:
    """The look's scenes in order of content, all their observations, and the scene of each."""
    scenes = sorted(look.scenes, key=lambda scene: (scene.content, scene.survey_id))
    rows = Observations.concatenate([scene.seen for scene in scenes])
    return scenes, rows, np.repeat(np.arange(len(scenes)), [len(scene.observations) for scene in scenes])


def seams_of(rows: Observations, scene_of: Integers) -> NDArray[np.int64]:
    """(pairs, 2) observations of different scenes within each other's gate: they may be one thing."""
    if len(rows) < 2 or scene_of[0] == scene_of[-1]:
        return np.empty((0, 2), np.int64)
    xy = np.column_stack([rows.x, rows.y])
    near = cKDTree(xy).query_pairs(GATE_MAXIMUM_M, output_type="ndarray")
    near = near[scene_of[near[:, 0]] != scene_of[near[:, 1]]]
    first, second = near[:, 0], near[:, 1]
    gate = gate_m(
        rows.error_m[first] ** 2 + rows.error_m[second] ** 2,
        np.minimum(rows.crown_m[first], rows.crown_m[second]),
    )
    return np.asarray(near[np.hypot(*(xy[first] - xy[second]).T) <= gate], dtype=np.int64)


def look_cells(look: Look, cells: Integers | None = None) -> LookCells:
    """What the look saw in each cell of its ground, or in those of ``cells`` that it touches (R8)."""
    scenes, rows, scene_of = rows_of(look)
    of_row = cell_of(rows.x, rows.y)
    owned = np.ones(len(rows), bool) if len(scenes) == 1 else _owned(rows, scene_of, scenes)
    touched = [cells_touching(scene.surveyed) for scene in scenes]
    known = np.unique(np.concatenate([*touched, of_row[owned]])) if scenes else of_row
    if cells is not None:
        known = np.intersect1d(known, cells)
    at = np.searchsorted(known, of_row[owned])
    inside = (
        (at < len(known)) & (known[np.minimum(at, len(known) - 1)] == of_row[owned]) if len(known) else at < 0
    )
    of_cell = [[scene for scene, near in zip(scenes, touched, strict=True) if one in near] for one in known]
    return LookCells(
        cell=known,
        hits=np.bincount(at[inside], minlength=len(known)).astype(np.int64),
        area_m2=np.array(
            [_area_within(square, there) for square, there in zip(squares(known), of_cell, strict=True)],
            float,
        ),
    )


def _area_within(square: shapely.Geometry, scenes: list[SceneLook]) -> float:
    """Surveyed square metres of a cell; whole ones, so that the order of the scenes leaves no trace."""
    parts = [shapely.intersection(scene.surveyed, square) for scene in scenes]
    return (
        round(float(shapely.area(shapely.union_all(parts) if len(parts) > 1 else parts[0]))) if parts else 0.0
    )


def _owned(rows: Observations, scene_of: Integers, scenes: list[SceneLook]) -> NDArray[np.bool_]:
    owner = owners(
        rows.x,
        rows.y,
        surveyed=[scene.surveyed for scene in scenes],
        ground_resolution_m=np.array([scene.ground_resolution_m for scene in scenes]),
    )
    return np.asarray(owner == scene_of)


def owners(
    x: Floats, y: Floats, *, surveyed: list[shapely.MultiPolygon], ground_resolution_m: Floats
) -> Integers:
    """The scene that owns each point: best resolution, then most central, then first; −1 where none looked."""
    points = shapely.points(x, y)
    point, scene = shapely.STRtree(surveyed).query(points, predicate="intersects")
    centres = shapely.get_coordinates(shapely.centroid(surveyed))
    distance = np.hypot(x[point] - centres[scene, 0], y[point] - centres[scene, 1])
    step = np.round(np.log(ground_resolution_m) / np.log(_RESOLUTION_STEP)).astype(np.int64)
    order = np.lexsort((scene, distance, step[scene], point))
    owner = np.full(len(x), -1, np.int64)
    # Written from worst to best: what stands in the end is the best.
    owner[point[order][::-1]] = scene[order][::-1]
    return owner


def _clusters(rows: Observations, scene_of: Integers) -> Integers:
    """Groups hits of different scenes on one thing: nearest pairs first, one hit a scene and group."""
    cluster = np.arange(len(rows))
    near = seams_of(rows, scene_of)
    distance = np.hypot(rows.x[near[:, 0]] - rows.x[near[:, 1]], rows.y[near[:, 0]] - rows.y[near[:, 1]])
    # The pair's own order must not depend on which rows are at hand.
    swapped = rows.content[near[:, 0]] > rows.content[near[:, 1]]
    near = np.where(swapped[:, None], near[:, ::-1], near)
    order = np.lexsort((rows.content[near[:, 1]], rows.content[near[:, 0]], distance))
    members: dict[int, list[int]] = {}
    for one, other in near[order]:
        kept, joined = cluster[one], cluster[other]
        if kept == joined:
            continue
        group, added = members.get(kept, [kept]), members.get(joined, [joined])
        if {scene_of[row] for row in group} & {scene_of[row] for row in added}:
            continue
        members[kept] = group + added
        cluster[added] = kept
    return cluster


def _one_of_each(
    rows: Observations, survey_id: Integers, cluster: Integers, owned: NDArray[np.bool_]
) -> Hits:
    """One thing a cluster: its owner's best hit. Seen by two scenes and owned by neither, it still stands."""
    order = np.lexsort((rows.content, -rows.score, ~owned, cluster))
    _, first, size = np.unique(cluster[order], return_index=True, return_counts=True)
    best = order[first]
    stands = owned[best] | (size > 1)
    thing_of = np.full(len(rows), -1, np.int64)
    number = np.full(len(best), -1, np.int64)
    number[stands] = np.arange(stands.sum())
    thing_of[order] = np.repeat(number, size)
    member = thing_of >= 0
    return Hits(
        things=rows.take(best[stands]),
        survey_id=survey_id[best[stands]],
        member_ids=rows.id[member],
        member_of=thing_of[member],
        others=rows.take(np.flatnonzero(~member)),
    )
