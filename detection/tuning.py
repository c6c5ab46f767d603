"""How many workers, and threads each: measured once for a model and provider on this machine, then remembered.

The answers are the same whatever is chosen; only the speed differs. Windows are given to a network one by one: batches
gain nothing on a CPU, and the exports have one window.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detection.models import Model
from detection.providers import Provider, load_network, machine

_SECONDS = 1.0
"""Of measuring, for each way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """A way to use the machine, and how many windows a second it gave."""

    workers: int
    threads: int
    windows_per_s: float


class SpeedMemory:
    """What was measured on this machine, in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def fastest(self, model: Model, provider: Provider) -> Speed:
        """The fastest way, measured now where it is not known yet: some seconds."""
        key = f"{model.card.sha256} {provider} {machine()} {cores()}"
        known = self._read()
        try:
            return Speed(**known[key])
        except (KeyError, TypeError):
            chosen = measure_fastest(model, provider)
            self._write({**known, key: asdict(chosen)})
            return chosen

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            told = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def _write(self, told: dict[str, object]) -> None:
        # A memory that cannot be written is measured again; nothing else is lost.
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(f".{os.getpid()}.part")
            unfinished.write_text(json.dumps(told, indent=1), encoding="utf-8")
            unfinished.replace(self._file)
        except OSError:
            return


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def measure_fastest(model: Model, provider: Provider) -> Speed:
    """Tries all ways to share the cores among workers evenly.

    Raises:
        ModelError, MissingExtra: as ``load_network``.
    """
    ways = [(cores() // threads, threads) for threads in range(1, cores() + 1) if cores() % threads == 0]
    measured = [
        Speed(
            workers=workers,
            threads=threads,
            windows_per_s=_windows_per_s(model, provider, workers=workers, threads=threads),
        )
        for workers, threads in ways
    ]
    return max(measured, key=lambda speed: speed.windows_per_s)


def _windows_per_s(model: Model, provider: Provider, *, workers: int, threads: int) -> float:
    side = model.card.input.window_px
    window = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    networks = [load_network(model.path, provider, threads=threads) for _ in range(workers)]
    for network in networks:
        network.run(window)
    until = time.perf_counter() + _SECONDS
    started = time.perf_counter()

    def work(number: int) -> int:
        done = 0
        while done == 0 or time.perf_counter() < until:
            networks[number].run(window)
            done += 1
        return done

    with ThreadPoolExecutor(workers) as pool:
        done = sum(pool.map(work, range(workers)))
    return round(done / (time.perf_counter() - started), 2)
