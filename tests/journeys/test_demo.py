"""The demo as a user runs it: the real scenes, the shipped model, the embedded database."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detection.data_folder import data_path

PROGRAM = Path(sys.executable).parent / "urban-inventory"


@pytest.mark.slow
@pytest.mark.skipif(
    not data_path("models", "trees-aerial", "card.toml").is_file(), reason="the tree model is not shipped yet"
)
def test_demo_counts_the_trees_of_the_real_scenes(home: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "URBAN_INVENTORY_DATABASE_URL"}
    done = subprocess.run(
        [PROGRAM, "demo", "--json"],
        env=environment | {"URBAN_INVENTORY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    told = json.loads(done.stdout)
    if told.get("error", {}).get("code") == "data_unavailable":
        pytest.skip(f"the scenes cannot be had here: {told['error']['what']}")
    assert done.returncode == 0, done.stderr
    counts = {row["area"]: row for row in told["counts"]}
    accuracy = told["accuracy"]
    # What is counted is what was seen, whichever way it is added up.
    assert counts["yellowstone"]["count"] == accuracy["count_predicted"]
    assert counts["yellowstone"]["count"] == counts["west"]["count"] + counts["east"]["count"]
    quarters = [row["count"] for area, row in counts.items() if area.startswith("west-")]
    assert sum(quarters) == counts["west"]["count"]
    assert accuracy["count_true"] == 853
    assert counts["west-sw"]["coverage"] == pytest.approx(1, abs=1e-3)
    assert counts["west-ne"]["coverage"] == pytest.approx(109.9 * 117.2 / (120 * 130), abs=1e-3)
    assert sorted(path.name for path in (home / "pictures").iterdir()) == [
        "demo-osbs-osbs-029.png",
        "demo-yellowstone-east.png",
        "demo-yellowstone-west.png",
    ]
