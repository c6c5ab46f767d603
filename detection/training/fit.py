"""The training itself: ultralytics' trainer, off-line, resumable, at home on a processor.

The only module that runs ultralytics' trainer; importing it needs nothing, calling it needs the
extra ``train``.
"""

import hashlib
import logging
import os
import sys
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

from detection.errors import LabelsUnusable, MissingExtra, ModelError, ModelUntrusted
from detection.training.recipe import Recipe
from detection.training.windows import source_of


def fit(recipe: Recipe, data_file: Path, weights: Path, out: Path, *, resume: bool = False) -> Path:
    """Trains the recipe's network and returns its last weights (``.pt``).

    Every epoch leaves a checkpoint in ``out/weights``; with ``resume`` an interrupted training goes
    on after its last whole epoch.

    Args:
        data_file: the ``data.yaml`` of the windows.
        weights: initial weights; a pickle, so only the file with the recipe's hash is opened.
        out: folder of this training.

    Raises:
        MissingExtra: ultralytics is not installed.
        ModelUntrusted: the weights are not those the recipe names.
        ModelError: nothing to resume.
    """
    last = out / "weights" / "last.pt"
    if resume and not last.is_file():
        raise ModelError("there is no training to resume", where=str(last), do="Start without --resume.")
    if not resume:
        _check_weights(weights, recipe.weights_sha256)
    quiet_ultralytics()
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer

    torch.set_num_threads(recipe.schedule.threads)
    overrides = (
        {"model": str(last), "resume": str(last)} if resume else _overrides(recipe, data_file, weights, out)
    )
    trainer = _without_one_to_one(DetectionTrainer)(overrides=overrides)
    trainer.add_callback("on_train_start", partial(_own_loss, recipe=recipe))
    # Results are the caller's to print: what ultralytics says is progress.
    with redirect_stdout(sys.stderr):
        trainer.train()
    return last


def quiet_ultralytics() -> None:
    """Imports ultralytics so that it asks nothing of the network and installs nothing.

    Raises:
        MissingExtra: ultralytics is not installed.
    """
    os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "0")
    try:
        from ultralytics import settings
        from ultralytics.utils import LOGGER
    except ImportError as error:
        raise MissingExtra(
            "training needs the extra “train” (ultralytics, torch)",
            do="Install it: pip install 'urban-inventory[train]'.",
        ) from error
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(sys.stderr)
    if settings["sync"]:
        settings.update({"sync": False})


def _check_weights(weights: Path, sha256: str) -> None:
    if not weights.is_file():
        raise LabelsUnusable("the initial weights are missing", where=str(weights))
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ModelUntrusted(
            f"these weights are not the recipe's: SHA-256 {found[:12]}…, expected {sha256[:12]}…",
            where=str(weights),
            do="A .pt file runs code when it is opened; check where it is from, then name its hash.",
        )


def _overrides(recipe: Recipe, data_file: Path, weights: Path, out: Path) -> dict[str, Any]:
    schedule = recipe.schedule
    device = _device(recipe)
    loaders = 0 if device == "cpu" else max((os.cpu_count() or 1) // 2, 1)
    return {
        "model": str(weights),
        "data": str(data_file),
        "project": str(out.parent.resolve()),
        "name": out.name,
        "exist_ok": True,
        "device": device,
        "epochs": schedule.epochs,
        "batch": schedule.batch,
        "nbs": schedule.nominal_batch,
        "imgsz": recipe.window_px,
        "optimizer": "AdamW",
        "lr0": schedule.learning_rate,
        "lrf": 0.02,
        "cos_lr": schedule.cosine,
        "warmup_epochs": schedule.warmup_epochs,
        "warmup_bias_lr": 0.0,  # 0.1 is meant for SGD
        "seed": schedule.seed,
        "cache": schedule.cache,
        "amp": False,  # see _use_bf16
        "plots": False,
        "val": False,  # the threshold is chosen on the last weights, by the production sweep
        "patience": schedule.epochs,
        "workers": schedule.workers or loaders,
        # Scale, turns and light are in the windows already; here only what makes epochs differ.
        "mosaic": schedule.mosaic,
        "close_mosaic": schedule.close_mosaic,
        "scale": 0.15,
        "translate": 0.05,
        "fliplr": 0.5,
        "flipud": 0.5,
        "hsv_h": 0.015,
        "hsv_s": 0.3,
        "hsv_v": 0.2,
        "max_det": 1000,
    }


def _without_one_to_one(trainer: type[Any]) -> type[Any]:
    """The trainer, its network with the one-to-many head alone.

    We ship that head (no window loses objects to a head's maximum), and YOLO26's own loss turns its
    weight down to a tenth over a training.
    """

    class OneToManyTrainer(trainer):  # type: ignore[misc]
        def get_model(self, *args: Any, **kwargs: Any) -> Any:
            model = super().get_model(*args, **kwargs)
            model.end2end = False
            return model

    return OneToManyTrainer


def _device(recipe: Recipe) -> str:
    import torch

    if recipe.schedule.device != "auto":
        return recipe.schedule.device
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _has_bf16(recipe: Recipe) -> bool:
    import torch

    return (
        recipe.schedule.bf16
        and _device(recipe) == "cpu"
        and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    )


def _own_loss(trainer: Any, *, recipe: Recipe) -> None:
    """Lets the network compute in bfloat16 where that is fast, and the loss leave out what nobody labelled.

    In bfloat16, channels last, the network takes half the time on processors that have it. The loss stays in
    32 bits: ultralytics' own ``amp`` would compute anchors in the network's type, where a coordinate beyond 128
    cells is rounded to a whole one.
    """
    import torch

    half = _has_bf16(recipe)
    labelled = labelled_classes(recipe)

    def loss(model: Any, batch: dict[str, Any], preds: Any = None) -> Any:
        if preds is None:
            images = batch["img"]
            with torch.autocast("cpu", dtype=torch.bfloat16) if half and model.training else nullcontext():
                preds = model.forward(
                    images.contiguous(memory_format=torch.channels_last) if half else images
                )
        if labelled is not None:
            if getattr(model, "criterion", None) is None:
                model.criterion = model.init_criterion()
            weights = torch.tensor([labelled[source_of(Path(file))] for file in batch["im_file"]])
            # (pictures, 1, classes): multiplies the loss of each class at each anchor.
            model.criterion.class_weights = weights[:, None, :].to(batch["img"].device)
        return type(model).loss(model, batch, _as_float(preds) if half else preds)

    if half:
        trainer.model.to(memory_format=torch.channels_last)
    # On the instance that trains only: checkpoints are made of the averaged copy and stay plain.
    trainer.model.loss = MethodType(loss, trainer.model)


def labelled_classes(recipe: Recipe) -> list[list[float]] | None:
    """Per source 1 for each class that it labels, 0 for the others; None where all sources label all."""
    if not any(source.labels_only for source in recipe.sources):
        return None
    return [
        [float(name in (source.labels_only or recipe.classes)) for name in recipe.classes]
        for source in recipe.sources
    ]


def _as_float(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_float(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_as_float(item) for item in value)
    return value.float() if hasattr(value, "float") else value
