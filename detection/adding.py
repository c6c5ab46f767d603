"""A user's own model, put beside the shipped ones: checked, run once, and kept with its card."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from detection.bare_weights import card_name, model_from_weights
from detection.detector import build_detector
from detection.errors import Conflict, ModelError
from detection.evaluation.card import write_card
from detection.models import Model, ModelCard, ModelRegistry, card_of, load_model, read_tables


def add_model(
    file: Path,
    folder: Path,
    registry: ModelRegistry,
    *,
    card_file: Path | None = None,
    name: str | None = None,
    ground_resolution_m: float | None = None,
    mapping: Mapping[str, str] | None = None,
    is_trusted: bool = False,
) -> Model:
    """Keeps a network and its card below ``folder``, under a name that is not taken.

    Args:
        card_file: a ``card.toml``; ``file`` and ``sha256`` may be missing. None: as the file's own metadata say.
        name: instead of the card's, or the file's.
        ground_resolution_m: for weights whose metadata do not say it.
        mapping: classes of the network as classes of the taxonomy.
        is_trusted: the caller vouches for a ``.pt``, which runs code when it is loaded.

    Raises:
        ModelError: file or card cannot be used, or they do not belong together.
        ModelUntrusted: a ``.pt`` that nobody vouches for.
        Conflict: another model has this name.
    """
    if not file.is_file():
        raise ModelError("no such file", where=str(file), do="Check the path.")
    if mapping and file.suffix.lower() == ".pt":
        raise ModelError(
            "the classes of a .pt cannot be renamed",
            where=str(file),
            do="Export it to ONNX first: yolo export model=… format=onnx nms=False.",
        )
    if card_file is None:
        model = model_from_weights(file, ground_resolution_m, is_trusted=is_trusted)
    else:
        model = Model(card=_completed_card(card_file, file), path=file)
    card = _renamed(model.card, mapping or {})
    card = card.model_copy(update={"name": name or card.name, "file": f"model{file.suffix.lower()}"})
    if card.name != card_name(card.name):
        raise ModelError(f"“{card.name}” is no name for a model", do="Use small letters, digits and hyphens.")
    _try_out(replace(model, card=card), is_trusted=is_trusted)
    target = folder / card.name
    if card.name in registry.names():
        known = registry.get(card.name)
        if known.card == card and target.is_dir():
            return known
        raise Conflict(
            f"there is a model “{card.name}” already", do="Give this one another name: --name NAME."
        )
    return _kept(file, card, target)


def _completed_card(card_file: Path, file: Path) -> ModelCard:
    told = read_tables(card_file)
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    if told.get("sha256", sha256) != sha256:
        raise ModelError(
            "the card speaks of another network",
            where=str(card_file),
            do="Give the file that it was written for.",
        )
    return card_of({**told, "file": file.name, "sha256": sha256}, card_file)


def _renamed(card: ModelCard, mapping: Mapping[str, str]) -> ModelCard:
    """The card with its classes under other names."""
    if unknown := set(mapping) - set(card.output.classes):
        raise ModelError(
            f"the network knows no {', '.join(sorted(unknown))}",
            do=f"Its classes: {', '.join(card.output.classes)}.",
        )
    return card.model_copy(
        update={
            "output": card.output.model_copy(
                update={"classes": tuple(mapping.get(one, one) for one in card.output.classes)}
            ),
            "threshold": {mapping.get(one, one): value for one, value in card.threshold.items()},
            "evidence": {mapping.get(one, one): value for one, value in card.evidence.items()},
        }
    )


def _try_out(model: Model, *, is_trusted: bool) -> None:
    """One empty window: a network that does not fit its card says so now."""
    side = model.card.input.window_px
    build_detector(model, is_trusted=is_trusted).detect(np.zeros((1, side, side, 3), np.uint8))


def _kept(file: Path, card: ModelCard, target: Path) -> Model:
    unfinished = target.with_name(f".{target.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        shutil.copyfile(file, unfinished / card.file)
        write_card(card, unfinished / "card.toml")
        unfinished.replace(target)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ModelError(f"the model cannot be kept: {error.strerror}", where=str(target)) from error
    return load_model(target / "card.toml")
