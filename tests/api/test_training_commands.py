"""``evaluate`` and ``train`` as scripts see them."""

import json
import shutil
from pathlib import Path

import pytest

from api import problems
from api.cli.app import run
from detection.data_folder import data_path
from detection.models import read_card
from tests.support.labelled import write_labelled_folder

CONTRACT = [
    "ap50",
    "precision",
    "recall",
    "threshold",
    "count_true",
    "count_predicted",
    "count_error",
    "per_image_mae",
]


def _evaluate(folder: Path, *more: str, model: str = "trees-aerial") -> int:
    where = ["--images", str(folder / "images"), "--labels", str(folder / "labels")]
    return run(["evaluate", model, *where, "--format", "xyxy", *more])


def test_evaluate_prints_the_contract_then_what_else_is_known_of_the_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labelled_folder(tmp_path, 2)
    assert _evaluate(tmp_path, "--resolution-m", "0.1", "--json") == problems.DONE
    result = json.loads(capsys.readouterr().out)
    assert list(result)[: len(CONTRACT)] == CONTRACT
    assert [block["count_true"] for block in result["blocks"]] == [6, 6]
    more = {
        "count_error_interval",
        "position_error_m",
        "recall_by_size",
        "error_by_density",
        "score_calibration",
    }
    assert set(result) >= more
    assert result["count_true"] == 12
    error = (result["count_predicted"] - 12) / 12
    assert result["count_error"] == pytest.approx(error)


def test_evaluate_fills_the_card_of_a_users_own_model(tmp_path: Path) -> None:
    write_labelled_folder(tmp_path / "data", 2)
    own = tmp_path / "own"
    shutil.copytree(data_path("models", "trees-aerial"), own)
    before = read_card(own / "card.toml")
    assert _evaluate(tmp_path / "data", "--write-card", model=str(own)) == problems.DONE
    after = read_card(own / "card.toml")
    assert len(after.evaluation) == len(before.evaluation) + 1
    assert after.evaluation[-1].data == "data"
    assert after.threshold == before.threshold


def test_evaluate_needs_something_to_measure_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "trees-aerial", "--json"]) == problems.REFUSED
    assert "--scene" in json.loads(capsys.readouterr().out)["error"]["do"]


def test_train_names_the_recipes_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "no-such-recipe", "--json"]) == problems.REFUSED
    assert "trees-aerial" in json.loads(capsys.readouterr().out)["error"]["do"]
