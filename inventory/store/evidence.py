"""Reading the evidence of a class from the store, as the fold wants it, and noting what has been folded."""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from sqlalchemy import Connection, func, select, text, update

from detection.models import ModelCard
from detection.taxonomy import AssetClass
from inventory.domain.cells import LookCells
from inventory.domain.evidence import (
    NO_OBSERVATIONS,
    Decision,
    DecisionKind,
    Integers,
    Look,
    Micros,
    Observations,
    Reliability,
    SceneLook,
    Shift,
    content_hashes,
    to_micros,
)
from inventory.domain.places import City
from inventory.store.copy import copy_rows, read_rows
from inventory.store.schema import decision, look_cell, scene, survey, survey_class


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedSurvey:
    """A survey that the stored states hold: of which look, free of which shift, over which ground (metric)."""

    survey_id: int
    model: str
    content: str
    at: int
    campaign: int
    shift: Shift | None
    surveyed: shapely.Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class LooksOnFile:
    """The looks in force and adequate, without observations; and every survey that the stored states hold.

    The scenes' shifts are those that the stored states are free of.
    """

    looks: tuple[Look, ...]
    folded: dict[int, FoldedSurvey]


def load_looks(connection: Connection, city: City, asset_class: AssetClass) -> LooksOnFile:
    """All looks of a class (R3, R5), as they are in force now and as they were folded last (R1)."""
    rows = connection.execute(
        select(
            survey.c.id,
            survey.c.model_sha256,
            survey.c.settings_key,
            survey.c.card,
            func.ST_AsBinary(survey.c.surveyed).label("surveyed"),
            scene.c.campaign_id,
            scene.c.taken_at,
            scene.c.ground_resolution_m,
            scene.c.pixel_hash,
            scene.c.georeference_hash,
            (survey_class.c.in_force & survey_class.c.adequate).label("counts"),
            survey_class.c.folded_at,
            survey_class.c.folded_campaign,
            survey_class.c.shift_x_m,
            survey_class.c.shift_y_m,
            survey_class.c.shift_pairs,
        )
        .join(scene, scene.c.id == survey.c.scene_id)
        .join(survey_class, survey_class.c.survey_id == survey.c.id)
        .where(
            survey.c.city_id == city.id,
            survey_class.c["class"] == asset_class.name,
            (survey_class.c.in_force & survey_class.c.adequate) | survey_class.c.folded_at.is_not(None),
        )
    ).all()
    # All at once: one call a survey costs more than all the rest of a decision in a city of hundreds of scenes.
    grounds = _to_metric(
        shapely.from_wkb(np.array([bytes(row.surveyed) for row in rows], object)),
        Transformer.from_crs(4326, city.metric_crs, always_xy=True),
    )
    campaigns: dict[int, list[tuple[int, SceneLook]]] = defaultdict(list)
    folded: dict[int, FoldedSurvey] = {}
    reliabilities: dict[tuple[str, str], Reliability] = {}
    for row, surveyed in zip(rows, grounds, strict=True):
        shift = _shift(row)
        content = row.pixel_hash + row.georeference_hash
        if row.folded_at is not None:
            folded[row.id] = FoldedSurvey(
                survey_id=row.id,
                model=row.model_sha256,
                content=content,
                at=to_micros(row.folded_at),
                campaign=row.folded_campaign,
                shift=shift,
                surveyed=surveyed,
            )
        if not row.counts:
            continue
        # Cards that share a network may differ in what was measured of it; the key tells them apart.
        by_card = (row.model_sha256, row.settings_key)
        if by_card not in reliabilities:
            reliabilities[by_card] = reliability_of(ModelCard.model_validate(row.card), asset_class)
        look = SceneLook(
            survey_id=row.id,
            model=row.model_sha256,
            reliability=reliabilities[by_card],
            ground_resolution_m=row.ground_resolution_m,
            surveyed=surveyed,
            content=content,
            observations=NO_OBSERVATIONS,
            shift=shift,
        )
        campaigns[row.campaign_id].append((to_micros(row.taken_at), look))
    looks = (
        Look(
            at=Micros(max(at for at, _ in scenes)),
            scenes=tuple(sorted((look for _, look in scenes), key=lambda look: look.content)),
            campaign=number,
        )
        for number, scenes in campaigns.items()
    )
    return LooksOnFile(looks=tuple(looks), folded=folded)


def any_unfolded(connection: Connection, city: City, class_name: str) -> bool:
    """Whether a survey came into force, or left it, since the stored states were folded."""
    return bool(connection.execute(_ANY_UNFOLDED, {"city": city.id, "class": class_name}).scalar())


def any_look_since(connection: Connection, city: City, class_name: str, since: int) -> bool:
    """Whether the stored states hold a look of this instant or a later one (microseconds)."""
    return bool(
        connection.execute(_ANY_SINCE, {"city": city.id, "class": class_name, "since": since}).scalar()
    )


_ANY_UNFOLDED = text(
    """
    SELECT EXISTS (
        SELECT FROM urban_inventory.survey_class k JOIN urban_inventory.survey v ON v.id = k.survey_id
        WHERE v.city_id = :city AND k.class = :class
            AND (k.in_force AND k.adequate) <> (k.folded_at IS NOT NULL))
    """
)
_ANY_SINCE = text(
    """
    SELECT EXISTS (
        SELECT FROM urban_inventory.survey_class k JOIN urban_inventory.survey v ON v.id = k.survey_id
        WHERE v.city_id = :city AND k.class = :class
            AND k.folded_at >= timestamptz 'epoch' + CAST(:since AS bigint) * interval '1 microsecond')
    """
)


def reliability_of(card: ModelCard, asset_class: AssetClass) -> Reliability:
    """What the card's evaluation says of a class; unvalidated, the taxonomy's cautious values (R13)."""
    measured = card.evidence.get(asset_class.name)
    values = measured or asset_class.cautious
    return Reliability(
        precision=values.precision,
        recall=values.recall,
        false_alarms_per_m2=values.false_alarms_per_km2 / 1e6,
        persistent_share=values.persistent_share,
    )


def note_folded(connection: Connection, city: City, class_name: str, looks: Sequence[Look]) -> None:
    """Notes that the stored states hold these looks, free of their scenes' shifts, and no others."""
    told = [(scene.survey_id, look.at, scene.shift, look.number) for look in looks for scene in look.scenes]
    connection.execute(
        _NOTE_FOLDED,
        {
            "city": city.id,
            "class": class_name,
            "surveys": [survey_id for survey_id, _, _, _ in told],
            "at": [at for _, at, _, _ in told],
            "x": [shift.x_m if shift else None for _, _, shift, _ in told],
            "y": [shift.y_m if shift else None for _, _, shift, _ in told],
            "campaigns": [campaign for _, _, _, campaign in told],
            "pairs": [shift.pairs if shift else None for _, _, shift, _ in told],
        },
    )


_NOTE_FOLDED = text(
    """
    WITH said AS (
        SELECT survey_id, timestamptz 'epoch' + at * interval '1 microsecond' AS at, x, y, pairs, campaign
        FROM unnest(CAST(:surveys AS bigint[]), CAST(:at AS bigint[]), CAST(:x AS float8[]),
                    CAST(:y AS float8[]), CAST(:pairs AS integer[]), CAST(:campaigns AS bigint[]))
            AS t(survey_id, at, x, y, pairs, campaign)
    )
    UPDATE urban_inventory.survey_class k
    SET folded_at = s.at, folded_campaign = s.campaign, shift_x_m = s.x, shift_y_m = s.y, shift_pairs = s.pairs
    FROM urban_inventory.survey v LEFT JOIN said s ON s.survey_id = v.id
    WHERE v.city_id = :city AND k.survey_id = v.id AND k.class = :class
        AND (k.folded_at, k.folded_campaign, k.shift_x_m, k.shift_y_m, k.shift_pairs)
            IS DISTINCT FROM (s.at, s.campaign, s.x, s.y, s.pairs)
    """
)


def _shift(row: Any) -> Shift | None:
    if row.shift_pairs is None:
        return None
    return Shift(x_m=row.shift_x_m, y_m=row.shift_y_m, pairs=row.shift_pairs)


# --- observations ------------------------------------------------------------------------------------------

_OBSERVATIONS = """
    SELECT o.survey_id, o.id, o.x, o.y, o.error_m, o.width_m, o.height_m, o.score,
        o.box_px[1], o.box_px[2], o.box_px[3], o.box_px[4]
    FROM urban_inventory.observation o
    WHERE o.city_id = %(city)s AND o.survey_id = ANY(%(surveys)s) AND o.class = %(class)s AND o.plausible
"""
_KINDS: dict[str, pa.DataType] = {
    **dict.fromkeys(("survey_id", "id"), pa.int64()),
    **dict.fromkeys(("x", "y"), pa.float64()),
    **dict.fromkeys(("error_m", "width_m", "height_m", "score"), pa.float32()),
    **dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), pa.float32()),
}


def load_observations(
    connection: Connection,
    city: City,
    class_name: str,
    surveys: Collection[int],
    cells: Integers | None = None,
) -> dict[int, Observations]:
    """Plausible observations of each survey (R6), in the order of their content; None: in all cells."""
    if not surveys:
        return {}
    parameters: dict[str, Any] = {"city": city.id, "class": class_name, "surveys": list(surveys)}
    query = _OBSERVATIONS
    if cells is not None:
        query += " AND o.cell = ANY(%(cells)s)"
        parameters["cells"] = cells.tolist()
    columns = read_rows(connection, query, parameters, _KINDS)
    pixels = connection.execute(
        select(survey.c.id, scene.c.pixel_hash)
        .join(scene, scene.c.id == survey.c.scene_id)
        .where(survey.c.id.in_(list(surveys)))
    )
    return {
        row.id: _of_survey(columns, np.flatnonzero(columns["survey_id"] == row.id), row.pixel_hash)
        for row in pixels
    }


def cells_of_survey(
    connection: Connection, city: City, class_name: str, survey_id: int
) -> tuple[Integers, Integers]:
    """The cells of a survey's plausible observations, and how many lie in each."""
    rows = connection.execute(_CELLS, {"city": city.id, "class": class_name, "survey": survey_id}).all()
    return np.array([row.cell for row in rows], np.int64), np.array([row.n for row in rows], np.int64)


_CELLS = text(
    """
    SELECT cell, count(*) AS n FROM urban_inventory.observation
    WHERE city_id = :city AND survey_id = :survey AND class = :class AND plausible GROUP BY cell ORDER BY cell
    """
)


def _of_survey(columns: dict[str, NDArray[Any]], rows: NDArray[np.int64], pixel_hash: str) -> Observations:
    boxes = np.column_stack([columns[name][rows] for name in ("x_min", "y_min", "x_max", "y_max")])
    content = content_hashes(pixel_hash, boxes)
    order = np.argsort(content, kind="stable")
    rows = rows[order]
    reals = ("error_m", "width_m", "height_m", "score")
    return Observations(
        id=columns["id"][rows],
        x=columns["x"][rows],
        y=columns["y"][rows],
        **{name: columns[name][rows].astype(np.float64) for name in reals},
        content=content[order],
    )


# --- what looks saw in each cell ---------------------------------------------------------------------------


def load_look_cells(connection: Connection, city: City, class_name: str) -> dict[int, LookCells]:
    """What each look saw in the cells of its ground, by its campaign's number."""
    rows = read_rows(
        connection,
        """
        SELECT campaign_id, cell, hits, area_m2 FROM urban_inventory.look_cell
        WHERE city_id = %(city)s AND class = %(class)s ORDER BY campaign_id, cell
        """,
        {"city": city.id, "class": class_name},
        {"campaign": pa.int64(), "cell": pa.int64(), "hits": pa.int64(), "area_m2": pa.float64()},
    )
    names, begin = np.unique(rows["campaign"], return_index=True)
    parts = {name: np.split(rows[name], begin[1:]) for name in ("cell", "hits", "area_m2")}
    return {
        number: LookCells(cell=parts["cell"][i], hits=parts["hits"][i], area_m2=parts["area_m2"][i])
        for i, number in enumerate(names.tolist())
    }


def save_look_cells(
    connection: Connection, city: City, class_name: str, campaign: int, cells: LookCells | None
) -> None:
    """Writes what a look saw in its cells; None: the look is no more."""
    connection.execute(
        look_cell.delete().where(
            look_cell.c.city_id == city.id,
            look_cell.c["class"] == class_name,
            look_cell.c.campaign_id == campaign,
        )
    )
    if cells is not None:
        copy_rows(
            connection,
            look_cell,
            {
                "city_id": city.id,
                "class": class_name,
                "campaign_id": campaign,
                "cell": cells.cell,
                "hits": cells.hits,
                "area_m2": cells.area_m2,
            },
        )


# --- decisions ---------------------------------------------------------------------------------------------


def unfolded_decisions(connection: Connection, city: City, class_name: str) -> list[Decision]:
    """Decisions that the stored states do not hold yet, and those that one of these takes back."""
    fresh = decision.alias("fresh")
    rows = connection.execute(
        select(decision).where(
            decision.c.city_id == city.id,
            decision.c["class"] == class_name,
            ~decision.c.folded
            | decision.c.id.in_(
                select(fresh.c.retracts).where(
                    fresh.c.city_id == city.id, fresh.c["class"] == class_name, ~fresh.c.folded
                )
            ),
        )
    )
    return [_decision(row._mapping) for row in rows]


def load_decisions(
    connection: Connection,
    city: City,
    class_name: str,
    box: tuple[float, float, float, float] | None,
) -> tuple[Decision, ...]:
    """All decisions about a class in a box (x_min, y_min, x_max, y_max; metric), and what takes them back.

    None: everywhere. A decision with two places counts by either.
    """
    query = select(decision).where(decision.c.city_id == city.id, decision.c["class"] == class_name)
    if box is not None:
        x_min, y_min, x_max, y_max = box
        x, y = decision.c.details["x"].as_float(), decision.c.details["y"].as_float()
        query = query.where(
            (decision.c.x.between(x_min, x_max) & decision.c.y.between(y_min, y_max))
            | (x.between(x_min, x_max) & y.between(y_min, y_max))
        )
    return tuple(_decision(row._mapping) for row in connection.execute(query.order_by(decision.c.id)))


def note_decisions_folded(connection: Connection, city: City, class_name: str) -> None:
    """Notes that the stored states hold every decision about a class."""
    connection.execute(
        update(decision)
        .where(decision.c.city_id == city.id, decision.c["class"] == class_name, ~decision.c.folded)
        .values(folded=True)
    )


def _decision(row: Any) -> Decision:
    details = row["details"]
    return Decision(
        sequence=row["id"],
        kind=DecisionKind(row["kind"]),
        class_name=row["class"],
        at=to_micros(row["at"]),
        x=row["x"],
        y=row["y"],
        gate_m=row["gate_m"],
        details=json.loads(details) if isinstance(details, str) else details,
        retracts=row["retracts"],
    )


def _to_metric(geometry: Any, transformer: Transformer) -> Any:
    def move(lon_lat: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(lon_lat[:, 0], lon_lat[:, 1]))

    return shapely.transform(geometry, move)
