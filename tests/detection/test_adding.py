"""A user's own model: kept with its card, or refused before anything is kept."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from detection.adding import add_model
from detection.detector import build_detector
from detection.errors import Conflict, ModelError, ModelUntrusted
from detection.models import ModelRegistry
from detection.onnx_detector import decode_retinanet, without_objectness
from tests.support.networks import make_model, write_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def registry(folder: Path) -> ModelRegistry:
    return ModelRegistry([folder])


def for_plugins(tmp_path: Path, **changes: object) -> Path:
    """The squares' network with the metadata that GeoDeep and Deepness read; None: left out."""
    path = make_model(tmp_path / "made").path
    facts = {
        "model_type": "Detector",
        "det_type": "YOLO_v8",
        "class_names": {"0": "Tree", "1": "Car"},
        "resolution": 10.0,
        "det_conf": 0.7,
        "det_iou_thresh": 0.4,
        "tiles_overlap": 25.0,
        **changes,
    }
    network = onnx.load(str(path))
    told = {key: json.dumps(value) for key, value in facts.items() if value is not None}
    onnx.helper.set_model_props(network, told)
    onnx.save(network, str(path))
    return path


def test_a_model_with_its_card_is_kept_and_found(tmp_path: Path, folder: Path) -> None:
    made = make_model(tmp_path / "made")
    card = write_card(made)
    kept = add_model(made.path, folder, registry(folder), card_file=card)
    assert registry(folder).get("squares").card == kept.card
    assert kept.path == folder / "squares" / "model.onnx"
    again = add_model(made.path, folder, registry(folder), card_file=card)
    assert again.card == kept.card


def test_a_card_need_not_say_file_and_hash_but_must_not_say_another_s(tmp_path: Path, folder: Path) -> None:
    made = make_model(tmp_path / "made")
    card = write_card(made)
    text = card.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("file", "sha256"))]
    card.write_text("\n".join(lines))
    assert add_model(made.path, folder, registry(folder), card_file=card).card.sha256 == made.card.sha256
    card.write_text(text.replace(made.card.sha256, "0" * 64))
    with pytest.raises(ModelError, match="another network"):
        add_model(made.path, folder, registry(folder), card_file=card, name="other")


def test_what_plugins_read_is_the_card(tmp_path: Path, folder: Path) -> None:
    path = for_plugins(tmp_path)
    model = add_model(path, folder, registry(folder), mapping={"Tree": "tree", "Car": "car"})
    card = model.card
    assert (card.name, card.output.head, card.output.classes) == ("squares", "one-to-many", ("tree", "car"))
    assert (card.input.ground_resolution_m, card.input.window_px, card.input.margin_px) == (0.1, 128, 16)
    assert (card.threshold, card.output.merge_iou) == ({"tree": 0.7, "car": 0.7}, 0.4)
    assert not card.is_validated
    assert len(build_detector(model).detect(np.zeros((1, 128, 128, 3), np.uint8))[0]) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "Segmentor"}, "no detector that can be run here"),
        ({"det_type": "YOLO_Ultralytics_obb"}, "no detector that can be run here"),
        ({"resolution": "fine"}, "metadata cannot be read"),
        ({"class_names": ["tree"]}, "metadata cannot be read"),
        ({"det_type": "YOLO_v6"}, "a objectness head"),
        ({"class_names": {"0": "tree"}}, "the network answers"),
    ],
)
def test_metadata_that_do_not_fit_are_refused_and_nothing_is_kept(
    tmp_path: Path, folder: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        add_model(for_plugins(tmp_path, **changes), folder, registry(folder))
    assert not folder.exists()


def test_names_that_are_taken_and_pickles_are_refused(tmp_path: Path, folder: Path) -> None:
    path = for_plugins(tmp_path)
    with pytest.raises(Conflict, match="there is a model"):
        add_model(path, folder, registry(folder), name="trees-aerial")
    with pytest.raises(ModelError, match="no name for a model"):
        add_model(path, folder, registry(folder), name="../evil")
    with pytest.raises(ModelError, match="knows no Bush"):
        add_model(path, folder, registry(folder), mapping={"Bush": "tree"})
    pickled = tmp_path / "weights.pt"
    pickled.write_bytes(b"pickle")
    with pytest.raises(ModelUntrusted):
        add_model(pickled, folder, registry(folder), ground_resolution_m=0.1)
    assert not folder.exists()


def test_rows_of_a_retinanet_are_corners_score_and_classes() -> None:
    rows = np.array([[1, 2, 5, 6, 0.8, 0.1, 0.7], [1, 2, 5, 6, 0.4, 0.9, 0.0]], np.float32)
    boxes = decode_retinanet(rows, np.array([0.5, 0.5], np.float32))
    assert (boxes.corners.tolist(), boxes.class_index.tolist()) == ([[1, 2, 5, 6]], [1])
    np.testing.assert_allclose(boxes.scores, [0.8])


def test_scores_of_heads_with_objectness_are_its_product_with_the_class() -> None:
    rows = np.array([[5, 5, 4, 2, 0.5, 0.8, 0.2]], np.float32)
    np.testing.assert_allclose(without_objectness(rows)[:, 0], [5, 5, 4, 2, 0.4, 0.1], rtol=1e-6)
