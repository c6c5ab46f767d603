"""Figures into a model's card, and cards into files."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from detection.errors import ModelError
from detection.evaluation.measures import (
    Figures,
    Ground,
    error_between_domains,
    error_model,
    match_ground,
    position_error_m,
)
from detection.models import CardEvaluation, CardEvidence, ModelCard

#: What is stated where nobody looked twice: most of what one model misses or invents on unchanged
#: ground it misses or invents again.
STATED_PERSISTENT_SHARE = 0.8
#: Strips of one ortho ranged from −16 % to −2 % with one model and one threshold: no handful of blocks
#: may claim to know better.
LEAST_RELATIVE_ERROR = 0.05


def evaluation_entry(
    data: str, split: str, figures: Figures, *, point_reach_m: float | None = None
) -> CardEvaluation:
    """The card's line for one measurement; ``point_reach_m`` where labels were points."""
    extra: dict[str, Any] = {
        "images": figures.images,
        "blocks": len(figures.blocks),
        "per_image_mae": round(figures.per_image_mae, 2),
        "matching": "AP at IoU 0.5, precision and recall one-to-one at IoU 0.4, merged truth"
        if point_reach_m is None
        else f"one-to-one with points at most {point_reach_m:g} m from a detection's centre",
    }
    if figures.count_error_interval is not None:
        extra["count_error_90"] = [round(bound, 3) for bound in figures.count_error_interval]
    if figures.ap50_interval is not None:
        extra["ap50_90"] = [round(bound, 3) for bound in figures.ap50_interval]
    extra["block_counts"] = [[block.count_true, block.count_predicted] for block in figures.blocks]
    return CardEvaluation(
        data=data,
        split=split,
        ap50=round(figures.ap50, 4),
        precision=round(figures.precision, 4),
        recall=round(figures.recall, 4),
        count_true=figures.count_true,
        count_predicted=figures.count_predicted,
        count_error=round(figures.count_error or 0.0, 4),
        **extra,
    )


def evidence_of_class(
    class_index: int,
    images: Sequence[Ground],
    blocks: Sequence[Ground],
    thresholds: Any,
    *,
    domains: Sequence[Sequence[Ground]] = (),
    persistent_share: float = STATED_PERSISTENT_SHARE,
) -> CardEvidence | None:
    """What one look is worth for a class (R8, R13); None where too little was there to tell.

    Args:
        images: grounds as counted.
        blocks: pieces of several sizes for the errors of counts (R13).
        domains: kinds of ground that share the threshold, where there are several.
    """
    matched = [match_ground(_of_class(image, class_index), thresholds) for image in images]
    hits = sum(match.hits for match in matched)
    true = sum(len(match.ground.truth_px) for match in matched)
    found = sum(len(match.ground.scores) for match in matched)
    area = sum(image.area_km2 for image in images)
    if not hits or area <= 0 or len(blocks) < 2:
        return None
    relative_error, dispersion = error_model([_count(block, class_index, thresholds) for block in blocks])
    between = error_between_domains(
        [
            (sum(true for true, _ in counts), sum(found for _, found in counts))
            for counts in ([_count(g, class_index, thresholds) for g in domain] for domain in domains)
        ],
        dispersion,
    )
    return CardEvidence(
        precision=round(hits / found, 4),
        recall=round(hits / true, 4),
        false_alarms_per_km2=round((found - hits) / area, 1),
        persistent_share=round(persistent_share, 2),
        relative_error=round(max(relative_error, between, LEAST_RELATIVE_ERROR), 4),
        dispersion=round(dispersion, 3),
        position_error_m=round(max(position_error_m(matched) or 1.0, 0.01), 3),
    )


def with_evaluation(
    card: ModelCard, entry: CardEvaluation, evidence: Mapping[str, CardEvidence]
) -> ModelCard:
    """The card with a measurement added, in place of an earlier one on the same data and split."""
    kept = tuple(e for e in card.evaluation if (e.data, e.split) != (entry.data, entry.split))
    return card.model_copy(update={"evaluation": (*kept, entry), "evidence": {**card.evidence, **evidence}})


def write_card(card: ModelCard, path: Path) -> None:
    """Writes a card so that ``read_card`` gives it back.

    Raises:
        ModelError: the folder cannot be written to, as where a model came with an installed package.
    """
    try:
        path.write_text(card_as_toml(card), encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"the card cannot be written: {error.strerror}",
            where=str(path),
            do="Copy the model's folder to a place of your own and name that.",
        ) from error


def card_as_toml(card: ModelCard) -> str:
    """The card as TOML: plain values first, then its tables."""
    document = _plain(card)
    lines = [f"{key} = {_value(value)}" for key, value in document.items() if not _is_table(value)]
    for key, value in document.items():
        if isinstance(value, dict):
            lines += _table(key, value)
        elif _is_table(value):
            for row in value:
                lines += ["", f"[[{key}]]", *(f"{name} = {_value(item)}" for name, item in row.items())]
    return "\n".join(lines) + "\n"


def _table(key: str, value: dict[str, Any]) -> list[str]:
    inner = {name: item for name, item in value.items() if isinstance(item, dict)}
    lines = []
    if len(inner) < len(value):
        lines = ["", f"[{key}]"]
        lines += [f"{_key(name)} = {_value(item)}" for name, item in value.items() if name not in inner]
    for name, item in inner.items():
        lines += _table(f"{key}.{_key(name)}", item)
    return lines


def _plain(card: BaseModel) -> dict[str, Any]:
    document: dict[str, Any] = card.model_dump(mode="json", exclude_none=True)
    return document


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    # JSON's strings, numbers, booleans and lists of them are TOML's, but for one bare character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _count(ground: Ground, class_index: int, thresholds: Any) -> tuple[int, int]:
    part = _of_class(ground, class_index)
    return len(part.truth_px), len(part.at(thresholds).scores)


def _of_class(ground: Ground, class_index: int) -> Ground:
    true = ground.truth_class == class_index
    found = ground.detected_class == class_index
    return Ground(
        name=ground.name,
        truth_px=ground.truth_px[true],
        truth_class=ground.truth_class[true],
        detected_px=ground.detected_px[found],
        detected_class=ground.detected_class[found],
        scores=ground.scores[found],
        ground_resolution_m=ground.ground_resolution_m,
        area_km2=ground.area_km2,
        points=ground.points,
        point_reach_m=ground.point_reach_m,
    )
