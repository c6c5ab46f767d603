"""Networks: what they answer becomes boxes, none is lost, and neighbours are not swallowed."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.bare_weights import model_from_weights
from detection.detector import Boxes, build_detector, iou_matrix, merge_overlapping
from detection.errors import BoxShapeError, CallerError, MissingExtra, ModelError, ModelUntrusted
from detection.models import Model, ModelRegistry, load_model
from tests.support.networks import make_model, write_card
from tests.support.scenes import CAR, draw_ground, draw_squares


def windows_of(*pixels: np.ndarray) -> np.ndarray:
    return np.stack([np.moveaxis(one, 0, -1) for one in pixels])


def random_boxes(count: int, seed: int, side: float = 60) -> Boxes:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, side, (count, 2))
    size = random.uniform(4, 20, (count, 2))
    return Boxes(
        corners=np.concatenate([corner, corner + size], axis=1).astype(np.float32),
        scores=random.permutation(count).astype(np.float32) / count,
        class_index=random.integers(0, 2, count).astype(np.int16),
    )


def test_each_square_is_found_where_it_is_with_its_class(tmp_path: Path) -> None:
    ground = draw_squares(draw_ground(128, 128), [(10, 20), (119, 3)])
    ground = draw_squares(ground, [(60, 61)], colour=CAR)
    (boxes,) = build_detector(make_model(tmp_path)).detect(windows_of(ground))
    found = sorted(zip(boxes.corners.tolist(), boxes.class_index.tolist(), strict=True))
    assert found == [([10, 20, 18, 28], 0), ([60, 61, 68, 69], 1), ([119, 3, 127, 11], 0)]


def test_a_window_with_a_thousand_objects_loses_none(tmp_path: Path) -> None:
    corners = [(column, row) for column in range(2, 630, 19) for row in range(2, 630, 20)][:1000]
    ground = draw_squares(draw_ground(640, 640), corners)
    (boxes,) = build_detector(make_model(tmp_path, window_px=640)).detect(windows_of(ground))
    assert sorted(map(tuple, boxes.corners[:, :2].astype(int).tolist())) == sorted(corners)


def test_a_full_end_to_end_head_is_refused_instead_of_losing_objects(tmp_path: Path) -> None:
    detector = build_detector(make_model(tmp_path, head="end-to-end"))
    four = [(10, 10), (40, 10), (70, 10), (100, 10)]
    (boxes,) = detector.detect(windows_of(draw_squares(draw_ground(128, 128), four)))
    assert sorted(map(tuple, boxes.corners[:, :2].astype(int).tolist())) == four
    with pytest.raises(ModelError, match="one-to-many"):
        detector.detect(windows_of(draw_squares(draw_ground(128, 128), [*four, (10, 60)])))


def test_answers_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    detector = build_detector(make_model(tmp_path, threshold=0.6))
    grounds = [draw_squares(draw_ground(128, 128, seed=n), [(n * 5, 40)]) for n in range(5)]
    together = detector.detect(windows_of(*grounds))
    alone = [detector.detect(windows_of(ground))[0] for ground in grounds]
    for one, other in zip(together, alone, strict=True):
        assert one.corners.tobytes() == other.corners.tobytes()
        assert one.scores.tobytes() == other.scores.tobytes()


def test_an_override_replaces_every_threshold(tmp_path: Path) -> None:
    half_hidden = draw_squares(draw_ground(128, 128), [(-4 + 4, 40)])
    half_hidden[:, :, 4:] = draw_ground(128, 128)[:, :, 4:]
    model = make_model(tmp_path)
    assert len(build_detector(model).detect(windows_of(half_hidden))[0]) == 0
    assert len(build_detector(model, threshold_override=0.45).detect(windows_of(half_hidden))[0]) == 1


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 80), seed=st.integers(0, 10**6), iou=st.sampled_from([0.2, 0.5, 0.8]))
def test_merging_is_the_greedy_rule_class_by_class(count: int, seed: int, iou: float) -> None:
    boxes = random_boxes(count, seed)
    kept: list[int] = []
    overlaps = iou_matrix(boxes.corners, boxes.corners)
    for index in np.argsort(-boxes.scores):
        same = [k for k in kept if boxes.class_index[k] == boxes.class_index[index]]
        if all(overlaps[index, k] <= iou for k in same):
            kept.append(int(index))
    merged = merge_overlapping(boxes, iou)
    assert merged.corners.tolist() == boxes.corners[kept].tolist()


def test_merging_thousands_in_steps_gives_the_same(tmp_path: Path) -> None:
    boxes = random_boxes(3000, 5, side=2000)
    merged = merge_overlapping(boxes, 0.4)
    overlaps = iou_matrix(merged.corners, merged.corners) > 0.4
    same = merged.class_index[:, None] == merged.class_index[None]
    assert (overlaps & same).sum() == len(merged)
    assert 1024 < len(merged) < 3000


def test_boxes_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(BoxShapeError, match="boxes"):
        Boxes(
            corners=np.zeros((2, 5), np.float32),
            scores=np.zeros(2, np.float32),
            class_index=np.zeros(2, np.int16),
        )


def test_a_card_that_disagrees_with_its_network_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    more = model.card.output.model_copy(update={"classes": ("tree", "car", "bench")})
    card = model.card.model_copy(
        update={"output": more, "threshold": dict.fromkeys(("tree", "car", "bench"), 0.5)}
    )
    with pytest.raises(ModelError, match="classes"):
        build_detector(replace(model, card=card)).detect(windows_of(draw_ground(128, 128)))
    wide = model.card.model_copy(update={"input": model.card.input.model_copy(update={"window_px": 160})})
    with pytest.raises(ModelError, match="160"):
        build_detector(replace(model, card=wide))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    model.path.write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be loaded"):
        build_detector(model)
    with pytest.raises(ModelError, match="ONNX"):
        build_detector(replace(model, path=tmp_path / "model.tflite"))


def test_a_pickle_is_refused_unless_it_is_trusted(tmp_path: Path) -> None:
    model = replace(make_model(tmp_path), path=tmp_path / "model.pt")
    with pytest.raises(ModelUntrusted, match="--trust-model"):
        build_detector(model)


def test_a_missing_library_is_named_with_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    model = replace(make_model(tmp_path), path=tmp_path / "model.pt")
    with pytest.raises(MissingExtra, match=r"pip install 'urban-inventory\[train\]'"):
        build_detector(model, is_trusted=True)


def registered(folder: Path) -> Model:
    return load_model(write_card(make_model(folder)))


def test_a_model_is_found_by_name_folder_or_card(tmp_path: Path) -> None:
    made = registered(tmp_path / "squares")
    registry = ModelRegistry([tmp_path])
    assert "squares" in registry.names()
    for spoken in ("squares", str(tmp_path / "squares"), str(tmp_path / "squares" / "card.toml")):
        assert registry.find(spoken) == made


def test_a_network_that_is_not_its_cards_is_refused(tmp_path: Path) -> None:
    made = registered(tmp_path / "squares")
    made.path.write_bytes(made.path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="SHA-256"):
        ModelRegistry([tmp_path]).get("squares")


def test_weights_without_a_card_are_tried_by_what_the_file_says(tmp_path: Path) -> None:
    made = make_model(tmp_path)
    model = model_from_weights(made.path, 0.1)
    assert model.card.output == made.card.output.model_copy(update={"merge_iou": 0.5})
    assert model.card.input.window_px == 128
    assert not model.card.is_validated
    (boxes,) = build_detector(model).detect(windows_of(draw_squares(draw_ground(128, 128), [(10, 20)])))
    assert boxes.corners[0].tolist() == [10, 20, 18, 28]
    with pytest.raises(CallerError, match="--model-resolution"):
        model_from_weights(made.path, None)
    pickle = tmp_path / "model.pt"
    pickle.write_bytes(b"")
    with pytest.raises(ModelUntrusted):
        model_from_weights(pickle, 0.1)
