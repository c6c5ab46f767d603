"""Cards written and read back."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.errors import ModelError
from detection.evaluation.card import card_as_toml, with_evaluation, write_card
from detection.models import (
    CardEvaluation,
    CardEvidence,
    CardInput,
    CardOutput,
    CardTrainingData,
    ModelCard,
    read_card,
)

EVIDENCE = CardEvidence(
    precision=0.7,
    recall=0.71,
    false_alarms_per_km2=2000.5,
    persistent_share=0.8,
    relative_error=0.1,
    dispersion=1.2,
    position_error_m=0.5,
)


def _entry(data: str, ap50: float) -> CardEvaluation:
    return CardEvaluation.model_validate(
        {
            "data": data,
            "split": "held-out",
            "ap50": ap50,
            "precision": 0.7,
            "recall": 0.7,
            "count_true": 10,
            "count_predicted": 11,
            "count_error": 0.1,
            "block_counts": [[5, 6], [5, 5]],
        }
    )


def _card(description: str = "trees") -> ModelCard:
    return ModelCard(
        name="trees",
        version="1",
        file="model.onnx",
        sha256="0" * 64,
        licence="AGPL-3.0",
        description=description,
        input=CardInput(ground_resolution_m=0.1, range_m=(0.05, 0.2), window_px=640, margin_px=64),
        output=CardOutput(head="one-to-many", classes=("tree", "old tree")),
        threshold={"tree": 0.3, "old tree": 0.4},
        evidence={"tree": EVIDENCE, "old tree": EVIDENCE},
        evaluation=(_entry("a", 0.7), _entry("b", 0.6)),
        training_data=(
            CardTrainingData(name="a", images=1, objects=2, licence="none stated", source="here"),
        ),
    )


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_a_card_written_is_the_card_read(description: str) -> None:

    card = _card(description)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.toml"
        write_card(card, path)
        assert read_card(path) == card


def test_tables_follow_plain_values() -> None:
    text = card_as_toml(_card())
    assert text.index("description") < text.index("[input]") < text.index("[[evaluation]]")
    assert '[evidence."old tree"]' in text


def test_a_new_measurement_replaces_the_one_on_the_same_data() -> None:
    card = with_evaluation(_card(), _entry("a", 0.75), {"tree": EVIDENCE})
    assert [(entry.data, entry.ap50) for entry in card.evaluation] == [("b", 0.6), ("a", 0.75)]


def test_a_card_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Copy the model's folder"):
        write_card(_card(), tmp_path / "no such folder" / "card.toml")
