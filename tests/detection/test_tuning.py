"""Workers and threads: measured once a model, provider and machine; the answer never depends on them."""

import json
from pathlib import Path

import numpy as np
import pytest

from detection import sweep as sweeping
from detection import tuning
from detection.providers import Provider
from detection.sweep import SweepOptions, sweep
from detection.tuning import Speed, SpeedMemory, cores, measure_fastest
from tests.support.networks import make_model
from tests.support.scenes import make_scene_file


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_SECONDS", 0.05)


def test_all_cores_are_shared_among_workers(tmp_path: Path) -> None:
    fastest = measure_fastest(make_model(tmp_path), Provider.CPU)
    assert fastest.workers * fastest.threads == cores()
    assert fastest.windows_per_s > 0


def test_what_was_measured_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = make_model(tmp_path), tmp_path / "cache" / "speed.json"
    first = SpeedMemory(file).fastest(model, Provider.CPU)
    assert list(json.loads(file.read_text()).values()) == [
        {"workers": first.workers, "threads": first.threads, "windows_per_s": first.windows_per_s}
    ]
    monkeypatch.setattr(tuning, "measure_fastest", lambda *_: pytest.fail("measured again"))
    assert SpeedMemory(file).fastest(model, Provider.CPU) == first


def test_a_damaged_memory_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text("{")
    assert SpeedMemory(file).fastest(make_model(tmp_path), Provider.CPU).workers >= 1


def test_a_sweep_uses_what_is_fastest_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_LEAST_WINDOWS_TO_MEASURE", 1)
    model = make_model(tmp_path)
    scene = make_scene_file(tmp_path / "a.tif", trees=[(20, 30), (150, 110), (300, 220)])
    (plain,) = sweep([scene], model)
    memory = SpeedMemory(tmp_path / "speed.json")
    monkeypatch.setattr(memory, "fastest", lambda *_: Speed(workers=1, threads=2, windows_per_s=1.0))
    (tuned,) = sweep([scene], model, SweepOptions(speed=memory))
    np.testing.assert_array_equal(plain.observations.box_px, tuned.observations.box_px)
    np.testing.assert_array_equal(plain.observations.score, tuned.observations.score)
