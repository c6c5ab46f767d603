"""A whole training, as small as can be: folder → windows → network → ONNX → card → detections."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.errors import MissingExtra, ModelError, ModelUntrusted
from detection.evaluation.labels import LabelFormat
from detection.imagery.scene import scene_from_pixels
from detection.models import Model, load_model
from detection.sweep import SweepOptions, sweep
from detection.training.fit import fit, quiet_ultralytics
from detection.training.recipe import Recipe, Schedule, Variant, simple_recipe
from detection.training.train import train
from detection.training.windows import make_window_set
from tests.support.labelled import write_labelled_folder

HAS_EXTRA = all(importlib.util.find_spec(name) for name in ("torch", "ultralytics", "onnx"))
needs_extra = pytest.mark.skipif(not HAS_EXTRA, reason="needs the extra “train” (ultralytics, torch)")


@pytest.mark.skipif(HAS_EXTRA, reason="the extra “train” is installed")
def test_without_the_extra_the_way_out_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"urban-inventory\[train\]"):
        quiet_ultralytics()


def _recipe(folder: Path, weights: Path) -> Recipe:
    data = tuple(folder / name for name in ("train", "validate"))
    recipe = simple_recipe(
        name="discs",
        classes=("tree",),
        images=(data[0] / "images", data[1] / "images"),
        labels=(data[0] / "labels", data[1] / "labels"),
        form=LabelFormat.XYXY,
        weights=weights,
        ground_resolution_m=0.1,
        windows=8,
    )
    return recipe.model_copy(
        update={
            "window_px": 128,
            "margin_px": 24,
            "variants": (Variant(name="discs-twice", description="Two looks.", views=2),),
            "schedule": Schedule(epochs=1, mosaic=0.0, close_mosaic=0, bf16=False),
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Recipe, Path]:
    folder = tmp_path_factory.mktemp("training")
    write_labelled_folder(folder / "train", 4, seed=1)
    write_labelled_folder(folder / "validate", 2, seed=2)
    quiet_ultralytics()
    from ultralytics import YOLO

    weights = folder / "start.pt"
    YOLO("yolo26n.yaml", task="detect", verbose=False).save(str(weights))
    recipe = _recipe(folder, weights)
    model = train(recipe, folder, folder / "work", folder / "model")
    return model, recipe, folder


@needs_extra
@pytest.mark.training
@pytest.mark.filterwarnings("ignore")
class TestTraining:
    def test_the_card_is_complete(self, trained: tuple[Model, Recipe, Path]) -> None:
        model, recipe, _ = trained
        card = load_model(model.path.parent / "card.toml").card
        assert card.input.ground_resolution_m == recipe.ground_resolution_m
        assert set(card.threshold) == {"tree"}
        assert [entry.split for entry in card.evaluation] == ["validation (threshold chosen on it)"]
        assert card.evaluation[0].count_true == 12
        assert [source.objects for source in card.training_data] == [24]

    def test_the_network_answers_with_the_one_to_many_head(self, trained: tuple[Model, Recipe, Path]) -> None:
        import onnx

        model, _, _ = trained
        graph = onnx.load(str(model.path)).graph
        (output,) = graph.output
        shape = [axis.dim_value for axis in output.type.tensor_type.shape.dim]
        assert shape == [1, 5, (16**2 + 8**2 + 4**2)]

    def test_the_trained_model_detects(self, trained: tuple[Model, Recipe, Path]) -> None:
        model, _, folder = trained
        with Image.open(next((folder / "train" / "images").iterdir())) as image:
            scene = scene_from_pixels(np.asarray(image.convert("RGB")), 0.1)
        (result,) = sweep([scene], model, SweepOptions(threshold_override=0.0001))
        assert result.windows > 1
        assert len(result.observations) > 0

    def test_a_variant_has_its_own_card_and_the_same_network(
        self, trained: tuple[Model, Recipe, Path]
    ) -> None:
        model, _, folder = trained
        variant = load_model(folder / "discs-twice" / "card.toml")
        assert variant.path.samefile(model.path)
        assert (variant.card.input.views, variant.card.sha256) == (2, model.card.sha256)
        assert variant.card.model_sha256 != model.card.model_sha256
        assert variant.card.evaluation[0].count_true == 12

    def test_a_finished_training_can_be_resumed_only_by_its_own_recipe(
        self, trained: tuple[Model, Recipe, Path]
    ) -> None:
        _, recipe, folder = trained
        other = recipe.model_copy(update={"window_px": 160})
        with pytest.raises(ModelError, match="recipe has changed"):
            train(other, folder, folder / "work", folder / "model", resume=True)

    def test_foreign_weights_are_not_opened(self, trained: tuple[Model, Recipe, Path]) -> None:
        _, recipe, folder = trained
        foreign = recipe.model_copy(update={"weights_sha256": "0" * 64})
        with pytest.raises(ModelUntrusted, match="not the recipe's"):
            fit(foreign, folder / "data.yaml", folder / "start.pt", folder / "elsewhere")


@needs_extra
@pytest.mark.training
@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_training_goes_on_after_its_last_whole_epoch(
    trained: tuple[Model, Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.models.yolo.detect import DetectionTrainer

    _, recipe, folder = trained
    longer = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"epochs": 2})})
    windows = make_window_set(longer, folder, folder / "work" / "windows")
    begun: list[int] = []
    ultralytics_save = DetectionTrainer.save_model

    def save_and_fall(trainer: DetectionTrainer) -> object:
        begun.append(trainer.epoch)
        saved = ultralytics_save(trainer)
        if len(begun) == 1:
            raise KeyboardInterrupt
        return saved

    monkeypatch.setattr(DetectionTrainer, "save_model", save_and_fall)
    arguments = (longer, windows.data_file, folder / "start.pt", folder / "interrupted")
    with pytest.raises(KeyboardInterrupt):
        fit(*arguments)
    fit(*arguments, resume=True)
    assert begun == [0, 1]


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    (tmp_path / "own.pt").write_bytes(b"weights")
    recipe = _recipe(tmp_path, tmp_path / "own.pt")
    with pytest.raises(ModelError, match="no training to resume"):
        train(recipe, tmp_path, tmp_path / "work", tmp_path / "model", resume=True)
