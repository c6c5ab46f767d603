"""Providers of inference: by the operator's choice, after an accuracy test, and part of a survey's settings."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from detection.errors import Conflict, MissingExtra
from detection.providers import AcceptedProviders, Accuracy, Provider, Seen, accuracy_of, load_network
from detection.sweep import SweepOptions, settings_key, sweep
from tests.support.networks import make_model
from tests.support.scenes import make_scene_file


def seen(count: int, *, off_px: float = 0.0, class_index: int = 0) -> Seen:
    """Boxes of 10 px in a row, 20 px apart."""
    left = np.arange(count, dtype=np.float32) * 20 + off_px
    boxes = np.stack([left, np.zeros(count), left + 10, np.full(count, 10)], axis=1).astype(np.float32)
    return boxes, np.full(count, class_index, np.int16)


def test_the_same_detections_pass() -> None:
    accuracy = accuracy_of([seen(60)], [seen(60, off_px=1)])
    assert accuracy == Accuracy(objects=60, agreed=1.0, count_change=0.0)
    assert accuracy.passes


def test_other_places_classes_or_numbers_do_not() -> None:
    # 4 px off: IoU 6/14.
    assert not accuracy_of([seen(60)], [seen(60, off_px=4)]).passes
    assert not accuracy_of([seen(60)], [seen(60, class_index=1)]).passes
    more = accuracy_of([seen(100)], [seen(102)])
    assert (more.count_change, more.agreed) == (0.02, pytest.approx(200 / 202))
    assert not more.passes
    assert not accuracy_of([seen(49)], [seen(49)]).is_enough
    assert not accuracy_of([], []).passes


def test_a_provider_that_has_not_passed_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    accepted = AcceptedProviders(tmp_path / "home" / "accepted.json")
    accepted.require(model, Provider.CPU)
    options = SweepOptions(provider=Provider.OPENVINO, accepted=accepted)
    scene = make_scene_file(tmp_path / "a.tif")
    with pytest.raises(Conflict, match="models check squares --provider openvino"):
        sweep([scene], model, options)
    accepted.accept(model, Provider.OPENVINO, Accuracy(objects=60, agreed=1.0, count_change=0.0))
    accepted.require(model, Provider.OPENVINO)
    with pytest.raises(Conflict):
        accepted.require(model, Provider.OPENVINO_BF16)
    another = replace(model, card=model.card.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(Conflict):
        accepted.require(another, Provider.OPENVINO)
    (tmp_path / "home" / "accepted.json").write_text("damaged")
    with pytest.raises(Conflict):
        accepted.require(model, Provider.OPENVINO)


def test_the_provider_belongs_to_the_settings_and_threads_do_not(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    key = settings_key(model, SweepOptions())
    assert settings_key(model, SweepOptions(threads=2, workers=3)) == key
    assert settings_key(model, SweepOptions(provider=Provider.OPENVINO)) != key


def test_a_provider_that_is_not_installed_is_named(tmp_path: Path) -> None:
    path = make_model(tmp_path).path
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(MissingExtra, match="no CUDA"):
            load_network(path, Provider.CUDA)
    if importlib.util.find_spec("openvino") is None:
        with pytest.raises(MissingExtra, match="extra “openvino”"):
            load_network(path, Provider.OPENVINO)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra openvino")
@pytest.mark.parametrize("provider", [Provider.OPENVINO, Provider.OPENVINO_BF16])
def test_openvino_sees_what_onnxruntime_sees(tmp_path: Path, provider: Provider) -> None:
    model = make_model(tmp_path)
    scene = make_scene_file(tmp_path / "a.tif", trees=[(20, 30), (150, 110), (300, 220)])
    answers = [sweep([scene], model, SweepOptions(provider=one))[0] for one in (Provider.CPU, provider)]
    first, second = (answer.observations.box_px for answer in answers)
    np.testing.assert_allclose(first, second, atol=0.01)
