"""Weights without a card: a model made up from what the file itself says, for trying a network out.

Its thresholds are guesses and it has no evidence, so nothing it counts has an interval. To keep a model, write it a
card (``card.toml``).
"""

import ast
import hashlib
from pathlib import Path

from detection.errors import CallerError, ModelError
from detection.models import CardInput, CardOutput, Model, ModelCard
from detection.onnx_detector import describe_network
from detection.ultralytics_detector import class_names

#: What YOLO programs use where nobody measured anything better.
GUESSED_THRESHOLD = 0.25
_PT_WINDOW_PX = 640


def model_from_weights(path: Path, ground_resolution_m: float | None, *, is_trusted: bool = False) -> Model:
    """A model for an ``.onnx`` or ``.pt`` file.

    Args:
        ground_resolution_m: metres of ground a pixel that the network wants; no file says it.
        is_trusted: the caller vouches for a ``.pt``, which runs code when it is loaded.

    Raises:
        CallerError: the ground resolution is missing.
        ModelError: the file does not say its classes, or is no detector.
        ModelUntrusted, MissingExtra: as ``build_detector``.
    """
    if ground_resolution_m is None:
        raise CallerError(
            "nothing says which ground resolution this network wants",
            where=str(path),
            do="Say it in metres a pixel: --model-resolution 0.1; or give a model with a card.",
        )
    if path.suffix.lower() == ".pt":
        names, window_px = class_names(path, is_trusted=is_trusted), _PT_WINDOW_PX
        output = CardOutput(head="one-to-many", classes=names)
    else:
        names, window_px, output = _said_by_onnx(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    card = ModelCard(
        name=_card_name(path.stem),
        version="0",
        file=path.name,
        sha256=sha256,
        licence="unknown",
        description="Weights without a card; thresholds are guessed.",
        input=CardInput(
            ground_resolution_m=ground_resolution_m,
            range_m=(ground_resolution_m / 4, ground_resolution_m * 4),
            window_px=window_px,
            margin_px=window_px // 10,
        ),
        output=output,
        threshold=dict.fromkeys(names, GUESSED_THRESHOLD),
    )
    return Model(card=card, path=path)


def _card_name(stem: str) -> str:
    kept = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in stem.lower())
    return kept.lstrip("-") or "weights"


def _said_by_onnx(path: Path) -> tuple[tuple[str, ...], int, CardOutput]:
    network = describe_network(path)
    try:
        said = ast.literal_eval(network.metadata["names"])
        names = tuple(str(name) for name in (said.values() if isinstance(said, dict) else said))
    except (KeyError, ValueError, SyntaxError) as error:
        raise ModelError(
            "the network does not say its classes", where=str(path), do="Write it a card.toml."
        ) from error
    is_end_to_end = network.output_shape[-1] == 6
    side = network.input_shape[-1]
    return names, side, CardOutput(head="end-to-end" if is_end_to_end else "one-to-many", classes=names)
