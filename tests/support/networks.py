"""A network made by code that finds squares of one colour exactly, in place of a trained one.

Green squares are trees, red ones cars. The score of a place is the share of the square that has the
colour, so a square seen whole scores 1, and one cut by a window's edge is not found.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detection.models import CardInput, CardOutput, Model, ModelCard

CLASSES = ("tree", "car")
SQUARE_PX = 8


def make_network(
    path: Path, *, window_px: int = 128, square_px: int = SQUARE_PX, head: str = "one-to-many"
) -> None:
    """Writes the ONNX file, its output laid out as ultralytics' ``one-to-many`` or ``end-to-end``."""
    places = window_px - square_px + 1
    x, y = np.meshgrid(np.arange(places), np.arange(places))
    centre = np.stack([x.ravel() + square_px / 2, y.ravel() + square_px / 2])
    side = np.full_like(centre, square_px)
    sides = [centre - side / 2, centre + side / 2] if head == "end-to-end" else [centre, side]
    boxes = np.concatenate(sides).astype(np.float32)[None]
    colours = np.array([[-0.5, 1, -0.5], [1, -0.5, -0.5]], np.float32)[:, :, None, None]
    constants: dict[str, np.ndarray[Any, Any]] = {
        "colours": colours,
        "boxes": boxes,
        "flat": np.array([1, len(CLASSES), places * places], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["images", "colours"], ["likeness"]),
        helper.make_node("Relu", ["likeness"], ["positive"]),
        helper.make_node("AveragePool", ["positive"], ["scores"], kernel_shape=[square_px, square_px]),
        helper.make_node("Reshape", ["scores", "flat"], ["listed"]),
    ]
    shape = [1, 4 + len(CLASSES), places * places]
    if head == "end-to-end":
        # The five highest trees only: a head with a maximum.
        constants |= {"five": np.array([5], np.int64), "none": np.zeros((1, 5, 1), np.float32)}
        constants |= {"tree": np.array([0], np.int64)}
        nodes += [
            helper.make_node("Gather", ["listed", "tree"], ["trees"], axis=1),
            helper.make_node("TopK", ["trees", "five"], ["best", "where"], axis=2),
            helper.make_node("Squeeze", ["where"], ["indices"]),
            helper.make_node("Gather", ["boxes", "indices"], ["chosen"], axis=2),
            helper.make_node("Concat", ["chosen", "best"], ["columns"], axis=1),
            helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
            helper.make_node("Concat", ["rows", "none"], ["output0"], axis=2),
        ]
        shape = [1, 5, 6]
    else:
        nodes.append(helper.make_node("Concat", ["boxes", "listed"], ["output0"], axis=1))
    graph = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, window_px, window_px])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    names = model.metadata_props.add()
    names.key, names.value = "names", str(dict(enumerate(CLASSES)))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def make_model(
    folder: Path,
    *,
    name: str = "squares",
    window_px: int = 128,
    margin_px: int = 32,
    ground_resolution_m: float = 0.1,
    range_m: tuple[float, float] = (0.02, 0.3),
    threshold: float = 0.9,
    merge_iou: float = 0.3,
    head: str = "one-to-many",
) -> Model:
    """The network with its card, as ``models.load_model`` gives them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "squares.onnx"
    make_network(path, window_px=window_px, head=head)
    card = ModelCard(
        name=name,
        version="1",
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence="AGPL-3.0-or-later",
        description="Finds squares of one colour.",
        input=CardInput(
            ground_resolution_m=ground_resolution_m,
            range_m=range_m,
            window_px=window_px,
            margin_px=margin_px,
        ),
        output=CardOutput(head=head, classes=CLASSES, merge_iou=merge_iou),
        threshold=dict.fromkeys(CLASSES, threshold),
    )
    return Model(card=card, path=path)


def write_card(model: Model) -> Path:
    """Writes ``card.toml`` beside the network, so that the folder is a model that the registry can read."""
    card = model.card
    path = model.path.parent / "card.toml"
    thresholds = "\n".join(f"{name} = {value}" for name, value in card.threshold.items())
    path.write_text(
        f'name = "{card.name}"\nversion = "1"\nfile = "{card.file}"\nsha256 = "{card.sha256}"\n'
        f'licence = "{card.licence}"\ndescription = "{card.description}"\n'
        f"[input]\nground_resolution_m = {card.input.ground_resolution_m}\n"
        f"range_m = {list(card.input.range_m)}\nwindow_px = {card.input.window_px}\n"
        f"margin_px = {card.input.margin_px}\n"
        f'[output]\nhead = "{card.output.head}"\nclasses = {list(card.output.classes)}\n'
        f"merge_iou = {card.output.merge_iou}\n[threshold]\n{thresholds}\n",
        encoding="utf-8",
    )
    return path
