"""The command line of GDAL (Debian's gdal-bin, newer or older than the one in our wheels) as a client."""

import json
import shutil
import subprocess
from pathlib import Path

import pyogrio
import pytest

from tests.api.conftest import MANY, Service

pytestmark = pytest.mark.skipif(shutil.which("ogr2ogr") is None, reason="gdal-bin is not installed")


def gdal(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "ERROR" not in done.stderr
    return done.stdout


def test_ogrinfo_tells_collections_and_their_size(service: Service) -> None:
    city = f"OAPIF:{service.url}/cities/town"
    listed = gdal("ogrinfo", "-ro", city)
    assert all(
        name in listed for name in ("assets", "areas", "surveys", "observations", "decisions", "counts")
    )
    assets = gdal("ogrinfo", "-ro", "-so", city, "assets")
    assert "Feature Count: 4" in assets
    assert "probability: Real" in assets
    assert "first_seen: DateTime" in assets


def test_ogr2ogr_copies_every_page_into_a_geopackage(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "many.gpkg"
    gdal("ogr2ogr", str(file), f"OAPIF:{service.url}/cities/many", "assets")
    frame = pyogrio.read_dataframe(file)
    assert len(frame) == frame["id"].nunique() == MANY


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["-spat", "100.0", "22.0", "100.05", "22.05"], ["a00001", "a00002"]),
        (["-where", "verified = 1"], ["a00004"]),
        (["-where", "class = 'tree' AND width_m > 1"], ["a00001", "a00002", "a00004", "a00006"]),
        (["-where", "class ILIKE 'TR%'"], ["a00001", "a00002", "a00004", "a00006"]),
        (["-where", "id = 'a00001'"], ["a00001"]),
    ],
)
def test_ogr2ogr_takes_what_a_box_or_a_condition_leaves(
    service: Service, tmp_path: Path, options: list[str], ids: list[str]
) -> None:
    file = tmp_path / "some.geojson"
    gdal("ogr2ogr", *options, str(file), f"OAPIF:{service.url}/cities/town", "assets")
    found = json.loads(file.read_text(encoding="utf-8"))["features"]
    assert sorted(one["properties"].get("id") or one["id"] for one in found) == ids
