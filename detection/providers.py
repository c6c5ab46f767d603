"""What computes an ONNX network: onnxruntime on the CPU by default, others by the operator's choice.

A provider changes scores in the last digits or, in bfloat16, in the second: so it belongs to a survey's settings, is
never chosen by the program, and is used only after the model passed an accuracy test with it on this machine.
"""

import json
import platform
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from detection.errors import Conflict, MissingExtra, ModelError
from detection.models import Model

Array = NDArray[np.float32]
Seen = tuple[Array, NDArray[np.int16]]
"""(n, 4) boxes in pixels of a scene, and (n,) classes."""


class Provider(StrEnum):
    """Names of providers, as ``--provider`` takes them."""

    CPU = "cpu"
    OPENVINO = "openvino"
    OPENVINO_BF16 = "openvino-bf16"
    CUDA = "cuda"


class Network(Protocol):
    """A loaded network: one window in, its raw answer out."""

    input_shape: tuple[Any, ...]

    def run(self, window: Array) -> Array:
        """(1, 3, side, side) float32, 0 to 1 → the first output."""
        ...


def load_network(path: Path, provider: Provider = Provider.CPU, *, threads: int = 1) -> Network:
    """Loads an ONNX file for one caller at a time.

    Raises:
        ModelError: it cannot be loaded.
        MissingExtra: the provider is not installed here.
    """
    if provider in (Provider.OPENVINO, Provider.OPENVINO_BF16):
        return _OpenVino(path, provider, threads)
    return _OnnxRuntime(path, provider, threads)


class _OnnxRuntime:
    def __init__(self, path: Path, provider: Provider, threads: int) -> None:
        self.session = onnx_session(path, provider, threads=threads)
        self._input = self.session.get_inputs()[0].name
        self.input_shape = tuple(self.session.get_inputs()[0].shape)

    def run(self, window: Array) -> Array:
        """See ``Network``."""
        output: Array = self.session.run(None, {self._input: window})[0]
        return output


def onnx_session(path: Path, provider: Provider = Provider.CPU, *, threads: int = 1) -> Any:
    """An onnxruntime session whose threads do not spin.

    Raises:
        ModelError: the file cannot be loaded.
        MissingExtra: CUDA was asked for and this onnxruntime has none.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads take the other worker's core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = "CUDAExecutionProvider" if provider is Provider.CUDA else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise MissingExtra(
            "this onnxruntime has no CUDA",
            do="Install onnxruntime-gpu in place of onnxruntime, or use --provider cpu.",
        )
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        raise ModelError(
            f"the network cannot be loaded: {str(error).splitlines()[0]}", where=str(path)
        ) from error


class _OpenVino:
    # Two threads at their first inference at once have been seen to block each other for good.
    _first = threading.Lock()

    def __init__(self, path: Path, provider: Provider, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra(
                f"provider “{provider}” needs the extra “openvino”",
                do="Install it: pip install 'urban-inventory[openvino]'.",
            ) from error
        settings = {
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            # It takes bfloat16 by itself where the processor has it: said here, so that the operator decides.
            "INFERENCE_PRECISION_HINT": "bf16" if provider is Provider.OPENVINO_BF16 else "f32",
        }
        with self._first:
            try:
                compiled = openvino.Core().compile_model(str(path), "CPU", settings)
            except Exception as error:  # its errors are RuntimeErrors of many kinds
                raise ModelError(
                    f"OpenVINO cannot load the network: {str(error).splitlines()[0]}", where=str(path)
                ) from error
            self.input_shape = tuple(compiled.input(0).shape)
            self._request = compiled.create_infer_request()
            self._request.infer([np.zeros(self.input_shape, np.float32)])

    def run(self, window: Array) -> Array:
        """See ``Network``."""
        self._request.infer([window])
        output: Array = np.array(self._request.get_output_tensor(0).data, np.float32)
        return output


# --- the accuracy test -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A provider's detections beside the CPU's on the same imagery.

    Attributes:
        objects: what the CPU counts.
        agreed: share of both sides' detections that are one object (IoU ≥ 0.7, one-to-one): 2·pairs ÷ (n + m).
        count_change: relative.
    """

    objects: int
    agreed: float
    count_change: float

    @property
    def is_enough(self) -> bool:
        """Whether there was anything to compare by."""
        return self.objects >= _LEAST_OBJECTS

    @property
    def passes(self) -> bool:
        """As good as a second look by the same network: what one adds the other loses, and seldom."""
        return (
            self.is_enough and self.agreed >= _LEAST_AGREED and abs(self.count_change) <= _MOST_COUNT_CHANGE
        )


_LEAST_OBJECTS = 50
_LEAST_AGREED = 0.98
_MOST_COUNT_CHANGE = 0.015
"""Less than a third of the 5 % that counts are held to."""


def accuracy_of(cpu: Sequence[Seen], other: Sequence[Seen]) -> Accuracy:
    """Compares two providers' boxes, scene by scene.

    Args:
        cpu, other: one a scene, in the same order.
    """
    from detection.evaluation.matching import match_one_to_one, overlapping

    pairs = ours = theirs = 0
    for (boxes, classes), (other_boxes, other_classes) in zip(cpu, other, strict=True):
        ours, theirs = ours + len(boxes), theirs + len(other_boxes)
        for one in np.unique(classes):
            mine = boxes[classes == one].astype(np.float64)
            found = overlapping(other_boxes[other_classes == one].astype(np.float64), mine).at_least(0.7)
            pairs += len(match_one_to_one(found)[0])
    return Accuracy(
        objects=ours,
        agreed=2 * pairs / (ours + theirs) if ours + theirs else 0.0,
        count_change=(theirs - ours) / ours if ours else 0.0,
    )


class AcceptedProviders:
    """Which providers passed with which models on this machine: a file that the operator's checks write."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def require(self, model: Model, provider: Provider) -> None:
        """Nothing, for the CPU and for what passed.

        Raises:
            Conflict: this model has not passed with this provider here.
        """
        if provider is not Provider.CPU and self._key(model, provider) not in self._read():
            raise Conflict(
                f"{model.card.name} has not passed its accuracy test with “{provider}” on this machine",
                do=f"Run it on imagery of yours: urban-inventory models check {model.card.name} "
                f"--provider {provider} FILE…",
            )

    def accept(self, model: Model, provider: Provider, accuracy: Accuracy) -> None:
        """Notes that it passed."""
        told = {**self._read(), self._key(model, provider): asdict(accuracy)}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(json.dumps(told, indent=1), encoding="utf-8")
        unfinished.replace(self._file)

    def _read(self) -> dict[str, Any]:
        try:
            told = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    @staticmethod
    def _key(model: Model, provider: Provider) -> str:
        return f"{model.card.model_sha256} {provider} {machine()}"


def machine() -> str:
    """The processor: another one computes bfloat16 otherwise, or not at all."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
