"""The other programs of ``benchmarks.detectors``, each at its fastest thread setting."""

import sys
from pathlib import Path
from types import TracebackType

from benchmarks.ingest.__main__ import sahi_with
from benchmarks.peers import Peer, fastest, peers_python, site_packages, thread_settings
from detection.models import Model

_HERE = Path(__file__).parent


class Peers:
    """Their processes; OpenVINO, which ours runs in this process, is lent by their environment."""

    def __init__(self, model: Model, image: Path) -> None:
        python = peers_python("peers")
        # Last, so that nothing that this environment has is taken from there.
        sys.path.append(str(site_packages(python)))
        side, score = model.card.input.window_px, min(model.card.threshold.values())
        one_window = [python, _HERE / "torch_peer.py"]
        self.torch, self.retinanet = (
            fastest(
                [Peer(*one_window, kind, model.path, side, score, threads) for threads in thread_settings()]
            )
            for kind in ("ultralytics", "retinanet")
        )
        self.sahi = fastest(
            [sahi_with(python, model.path, image, model, str(threads)) for threads in thread_settings()]
        )
        self.geodeep = fastest(
            [
                Peer(python, _HERE / "geodeep_peer.py", model.path, image, threads)
                for threads in (0, *thread_settings())
            ]
        )

    def threads(self) -> dict[str, int]:
        """The setting that was fastest, of each."""
        return {
            name: getattr(self, name).ready["threads"] for name in ("torch", "retinanet", "sahi", "geodeep")
        }

    def __enter__(self) -> "Peers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for peer in (self.torch, self.retinanet, self.sahi, self.geodeep):
            peer.close()
